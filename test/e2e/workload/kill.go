// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"syscall"
	"time"
)

// kill sends SIGKILL to the one process that runs program, which it sees when the pod's
// containers share their process namespace.
func kill(proc string, args []string) error {
	if len(args) != 1 {
		return errors.New("usage: workload kill PROGRAM")
	}
	process, err := theProcess(proc, args[0], "")
	if err != nil {
		return err
	}
	if err := syscall.Kill(process, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill %s: %w", args[0], err)
	}
	return nil
}

// freeze stops the process of a pod that runs program for a while: it keeps its
// connections, and the system accepts others for it, but it says nothing. It sees the
// process in the node's process namespace.
func freeze(ctx context.Context, proc string, args []string) error {
	flags := flag.NewFlagSet("freeze", flag.ContinueOnError)
	pod := flags.String("pod", "", "`UID` of the pod")
	lasting := flags.Duration("for", 10*time.Second, "how long")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 || *pod == "" {
		return errors.New("usage: workload freeze -pod UID [-for DURATION] PROGRAM")
	}
	process, err := theProcess(proc, flags.Arg(0), *pod)
	if err != nil {
		return err
	}
	if err := syscall.Kill(process, syscall.SIGSTOP); err != nil {
		return fmt.Errorf("freeze %s: %w", flags.Arg(0), err)
	}
	frozen := time.NewTimer(*lasting)
	defer frozen.Stop()
	select {
	case <-frozen.C:
	case <-ctx.Done(): // whoever ends this early must not leave it frozen
	}
	if err := syscall.Kill(process, syscall.SIGCONT); err != nil {
		return fmt.Errorf("thaw %s: %w", flags.Arg(0), err)
	}
	return nil
}
