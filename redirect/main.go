// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Command tokenward-redirect is the init container of Redirect capture: it leads what
// reaches the application's port of a pod to the sidecar, and ends. It runs in the
// pod's network namespace with NET_ADMIN, and reads nothing but its flags.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/tokenward/tokenward/redirect/rules"
)

func main() {
	if err := run(os.Args[1:], os.Stderr, rules.Install); err != nil {
		// The last lines of a failed container are what its status shows.
		_, _ = fmt.Fprintf(os.Stderr, "tokenward-redirect: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string, usage io.Writer, install func(rules.Redirect) error) error {
	flags := flag.NewFlagSet("tokenward-redirect", flag.ContinueOnError)
	flags.SetOutput(usage)
	port := flags.Uint("port", 0, "application's `port`, which is closed to the outside")
	to := flags.Uint("to", 18080, "sidecar's `port`, where its requests go")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("argument %q is not expected: use flags only", flags.Arg(0))
	}
	for name, value := range map[string]uint{"port": *port, "to": *to} {
		if value < 1 || value > 65535 {
			return fmt.Errorf("--%s is %d: write a port number, 1 to 65535", name, value)
		}
	}
	if *port == *to {
		return fmt.Errorf("--port and --to are both %d: write two ports", *to)
	}
	return install(rules.Redirect{Port: uint16(*port), To: uint16(*to)}) //nolint:gosec // both were looked at
}
