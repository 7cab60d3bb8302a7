// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

func TestAProgramEndsWhenWhoStartedItIsKilled(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "it's a program")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho \"$1\"\nexec sleep 600\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	script, err := mortal(dir, program)
	if err != nil {
		t.Fatal(err)
	}
	if script == program {
		t.Log("there is no setpriv here: programs may be left behind")
		return
	}
	owner := exec.CommandContext(t.Context(), "sh", "-c", `"$0" "an argument" & wait`, script)
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	said := bufio.NewReader(out)
	if line, err := said.ReadString('\n'); err != nil || line != "an argument\n" {
		t.Fatalf("the program said %q, %v", line, err)
	}
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{}) // when nobody holds the output any more
	go func() {
		defer close(closed)
		_, _ = io.Copy(io.Discard, said)
	}()
	select {
	case <-closed:
	case <-time.After(30 * time.Second):
		t.Error("the program goes on without its owner")
	}
	_ = owner.Wait() // killed, as said
}
