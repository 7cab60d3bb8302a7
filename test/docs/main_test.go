// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// shared is the API server of all tests, with dist/install.yaml applied.
var shared *apiServer

func TestMain(m *testing.M) {
	// In examples that are run, this program stands for the commands they call.
	if stand, ok := standIns[filepath.Base(os.Args[0])]; ok {
		if err := stand(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	server, err := startServer()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := server.stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	shared = server
	return m.Run()
}
