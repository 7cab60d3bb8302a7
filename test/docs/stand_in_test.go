// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tokenward/tokenward/internal/users/password"
)

// recordVariable names the file in which commands of an example are written down.
const recordVariable = "DOCS_RECORD"

// invocation is one command that an example ran, as the shell understood it.
type invocation struct {
	Name string
	Args []string
}

// standIns are the commands of examples that this program stands for: they are written
// down, and checked when the example has ended.
var standIns = map[string]func(args []string) error{
	"tokenward": standInTokenward,
	"curl":      standInCurl,
}

// activeKeyID is what the examples are told to be the id of a key.
const activeKeyID = "a-key-id"

// scripts stand for commands that need only be written down: a shell starts faster than
// this program does.
var scripts = map[string]string{
	"go":      recordScript,
	"make":    recordScript,
	"kubectl": recordScript + `[[ "$*" != *jsonpath={.status.activeKeyID}* ]] || printf ` + activeKeyID + "\n",
}

// recordScript writes what [record] does.
const recordScript = "#!/usr/bin/env bash\n" + `printf '%s\0' "$#" "${0##*/}" "$@" >>"$` + recordVariable + `"` + "\n"

// record appends the number of arguments, the name and the arguments, each ended by NUL.
func record(name string, args []string) error {
	file, err := os.OpenFile(os.Getenv(recordVariable), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	fields := append([]string{strconv.Itoa(len(args)), name}, args...)
	_, err = file.WriteString(strings.Join(fields, "\x00") + "\x00")
	return errors.Join(err, file.Close())
}

// recorded reads what was written down.
func recorded(content string) ([]invocation, error) {
	var calls []invocation
	fields := strings.Split(strings.TrimSuffix(content, "\x00"), "\x00")
	for content != "" && len(fields) > 0 {
		count, err := strconv.Atoi(fields[0])
		if err != nil || len(fields) < 2+count {
			return nil, fmt.Errorf("the record is broken at %q", fields)
		}
		calls = append(calls, invocation{fields[1], fields[2 : 2+count]})
		fields = fields[2+count:]
	}
	return calls, nil
}

// standInTokenward hashes for real, as the command does.
func standInTokenward(args []string) error {
	if !slices.Equal(args, []string{"hash-password"}) {
		return fmt.Errorf("tokenward %q is in no example yet", args)
	}
	line, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil {
		return err
	}
	fmt.Println(password.Hash(strings.TrimRight(line, "\n"))) //nolint:forbidigo // this is its output
	return record("tokenward", args)
}

// standInCurl knows what the examples use of curl, and no more.
func standInCurl(args []string) error {
	request, err := http.NewRequest(http.MethodGet, "", nil)
	if err != nil {
		return err
	}
	var address, headFile string
	showHead := false
	for i := 0; i < len(args); i++ {
		value := func() string { i++; return args[i] }
		switch args[i] {
		case "-s", "-S", "-sS":
		case "-i":
			showHead = true
		case "-X":
			request.Method = value()
		case "-D":
			headFile = value()
		case "-d":
			request.Method, request.Body = http.MethodPost, io.NopCloser(strings.NewReader(value()))
		case "-H":
			name, content, _ := strings.Cut(value(), ": ")
			request.Header.Set(name, content)
		default:
			if strings.HasPrefix(args[i], "-") {
				return fmt.Errorf("curl %s is in no example yet", args[i])
			}
			address = args[i]
		}
	}
	if request.URL, err = request.URL.Parse(address); err != nil {
		return err
	}
	response, err := (&http.Client{Timeout: 10 * time.Second}).Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	var head bytes.Buffer
	fmt.Fprintf(&head, "HTTP/1.1 %s\r\n", response.Status)
	err = errors.Join(response.Header.Write(&head), record("curl", args))
	if headFile != "" {
		err = errors.Join(err, os.WriteFile(headFile, head.Bytes(), 0o600))
	}
	if showHead {
		_, _ = os.Stdout.Write(head.Bytes())
	}
	_, copied := io.Copy(os.Stdout, response.Body)
	return errors.Join(err, copied)
}
