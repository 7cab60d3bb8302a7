// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Command pause holds the namespaces of a pod: it is process 1 of the sandbox and
// ends when it is told to.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	end, orphan := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	signal.Notify(orphan, syscall.SIGCHLD)
	for {
		select {
		case <-end:
			return
		case <-orphan: // of a pod with shareProcessNamespace
			for {
				if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
					break
				}
			}
		}
	}
}
