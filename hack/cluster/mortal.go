// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// mortal makes a program in dir that runs program so that the kernel ends it when this
// process is killed and Stop never runs. envtest leaves no other way to say so. Where
// setpriv (util-linux) is missing it is program itself.
func mortal(dir, program string) (string, error) {
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		return program, nil //nolint:nilerr // a nicety, not a need
	}
	program, err = filepath.Abs(program)
	if err != nil {
		return "", err
	}
	script := filepath.Join(dir, filepath.Base(program)+".sh")
	text := fmt.Sprintf("#!/bin/sh\nexec %s --pdeathsig TERM -- %s \"$@\"\n", quote(setpriv), quote(program))
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		return "", fmt.Errorf("write the script that starts %s: %w", filepath.Base(program), err)
	}
	return script, nil
}

// quote makes one word of a shell line.
func quote(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }
