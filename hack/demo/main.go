// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Command demo shows Tokenward at work, for real, without a cluster: a real etcd
// and kube-apiserver, what config/ renders, manager and issuer as processes with
// the permissions of their ServiceAccounts, and the sidecar container of an
// admitted pod, run with exactly its arguments, environment and volumes in front
// of a small application. It prints each request and answer, and ends with a
// non-zero status when an answer is not the expected one.
//
// What a node would add (pods, Services, probes) is not shown here.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	keep := flag.Bool("keep", false, "leave everything running at the end, until Ctrl-C")
	root := flag.String("root", ".", "top folder of the repository")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *root, *keep, os.Stdout)
	stop()
	if err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "\ndemo failed: %v\n", err)
		os.Exit(1)
	}
}

// run is the whole demo.
func run(ctx context.Context, root string, keep bool, out io.Writer) (err error) {
	started := time.Now()
	say := func(format string, args ...any) {
		_, _ = fmt.Fprintf(out, "[%4.1fs] %s\n", time.Since(started).Seconds(), fmt.Sprintf(format, args...))
	}
	root, err = filepath.Abs(root)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tokenward-demo-")
	if err != nil {
		return err
	}
	// The sidecar runs as another user inside it.
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // as said
		return err
	}
	where := paths{root: root, dir: dir}
	defer func() {
		if err != nil {
			_, _ = fmt.Fprintf(out, "logs are kept in %s\n", dir)
			return
		}
		err = os.RemoveAll(dir)
	}()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	platform, err := startPlatform(ctx, where, say)
	if platform != nil {
		defer func() {
			cancel()
			platform.wait()
			err = errors.Join(err, platform.control.Stop())
		}()
	}
	if err != nil {
		return err
	}
	workload, err := startWorkload(ctx, platform, where, say)
	if workload != nil {
		defer func() {
			cancel()
			err = errors.Join(err, <-workload.ended)
		}()
	}
	if err != nil {
		return err
	}
	story := &story{platform: platform, workload: workload, caller: newCaller(workload.url, out), out: out, say: say}
	if err := story.tell(ctx); err != nil {
		return err
	}
	say("every answer was the expected one")
	if keep {
		story.leaveUp(ctx)
	}
	return nil
}
