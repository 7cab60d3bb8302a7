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
	with := flag.String("backend", "embedded", "where users and sessions live: embedded (a Secret, ConfigMaps) or postgres")
	flag.Parse()
	// Also when the terminal is closed, or what reads our output: nothing stays behind.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	err := run(ctx, *root, *with, *keep, os.Stdout)
	stop()
	switch {
	case errors.Is(err, errInterrupted):
		_, _ = fmt.Fprintln(os.Stderr, "demo interrupted before its end: everything is stopped and removed")
		os.Exit(130)
	case err != nil:
		_, _ = fmt.Fprintf(os.Stderr, "\ndemo failed: %v\n", err)
		os.Exit(1)
	}
}

var errInterrupted = errors.New("interrupted")

// run is the whole demo. It returns errInterrupted when ctx ends before the last answer.
func run(ctx context.Context, root, with string, keep bool, out io.Writer) (err error) {
	started := time.Now()
	say := func(format string, args ...any) {
		_, _ = fmt.Fprintf(out, "[%4.1fs] %s\n", time.Since(started).Seconds(), fmt.Sprintf(format, args...))
	}
	root, err = filepath.Abs(root)
	if err != nil {
		return err
	}
	if err := checkPorts(ctx); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tokenward-demo-")
	if err != nil {
		return err
	}
	where := paths{root: root, dir: dir}
	told := false // all of the story
	interrupted := ctx.Err
	defer func() {
		switch {
		case err != nil && interrupted() != nil && !told:
			err = errors.Join(errInterrupted, os.RemoveAll(dir))
		case err != nil:
			_, _ = fmt.Fprintf(out, "logs are kept in %s\n", dir)
		default:
			err = os.RemoveAll(dir)
		}
	}()

	backend, err := newBackend(with, where, say, out)
	if err != nil {
		return err
	}
	// Deferred in this order, the sidecar ends before the platform does, and what is
	// beside it last.
	defer func() { err = errors.Join(err, backend.stop()) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := backend.prepare(ctx); err != nil {
		return err
	}
	platform, err := startPlatform(ctx, where, backend.issuerFlags(), say)
	if platform != nil {
		defer func() {
			cancel()
			err = errors.Join(err, platform.wait(), platform.control.Stop())
		}()
	}
	if err != nil {
		return err
	}
	workload, err := startWorkload(ctx, platform, backend, where, say)
	if workload != nil {
		defer func() {
			cancel()
			err = errors.Join(err, workload.sidecar.wait())
		}()
	}
	if err != nil {
		return err
	}
	story := &story{platform: platform, workload: workload, backend: backend, caller: newCaller(workload.url, out), out: out, say: say}
	if err := story.tell(ctx); err != nil {
		return err
	}
	told = true
	say("demo passed: %d requests, every answer as expected", story.caller.answers)
	if keep {
		return story.leaveUp(ctx)
	}
	return nil
}
