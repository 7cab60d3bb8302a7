// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/tokenward/tokenward/internal/users/password"
)

// recordVariable names the file in which commands of an example are written down.
const recordVariable = "DOCS_RECORD"

// invocation is one command that an example ran, as the shell understood it.
type invocation struct {
	Name string   `json:"name"`
	Args []string `json:"args"`
}

// standIns are the commands of examples that this program stands for: they are written
// down, and checked when the example has ended.
var standIns = map[string]func(args []string) error{
	"kubectl":   standInKubectl,
	"make":      func(args []string) error { return record("make", args) },
	"tokenward": standInTokenward,
	"curl":      standInCurl,
}

func record(name string, args []string) error {
	file, err := os.OpenFile(os.Getenv(recordVariable), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(json.NewEncoder(file).Encode(invocation{name, args}), file.Close())
}

// activeKeyID is what the examples are told to be the id of a key.
const activeKeyID = "a-key-id"

func standInKubectl(args []string) error {
	if slices.Contains(args, "jsonpath={.status.activeKeyID}") {
		fmt.Print(activeKeyID) //nolint:forbidigo // this is its output
	}
	return record("kubectl", args)
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
	request, err := http.NewRequest(http.MethodGet, "", nil) //nolint:noctx // the client has a timeout
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
