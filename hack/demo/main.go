// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Command demo shows Tokenward at work, for real. It tells one story on one of two
// stages, prints each request and answer, and ends with a non-zero status when an
// answer is not the expected one.
//
// The stage "local" needs no cluster: a real etcd and kube-apiserver, what config/
// renders, manager and issuer as processes with the permissions of their
// ServiceAccounts, and the sidecar container of an admitted pod, run with exactly its
// arguments, environment and volumes in front of a small application.
//
// The stage "cluster" is the one that KUBECONFIG names: there are nodes, and so pods,
// Services and probes, and requests come from another pod.
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
	on := flag.String("stage", "local", "where it plays: local (processes on this machine) or cluster (that of KUBECONFIG)")
	with := flag.String("backend", "embedded", "where users and sessions live: embedded (a Secret, ConfigMaps) or postgres")
	flag.Parse()
	// Also when the terminal is closed, or what reads our output: nothing stays behind.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	err := run(ctx, *root, *on, *with, *keep, os.Stdout)
	stop()
	switch {
	case err == errInterrupted: //nolint:errorlint // joined with another one it is not that simple
		_, _ = fmt.Fprintln(os.Stderr, "demo interrupted before its end: everything is stopped and removed")
		os.Exit(130)
	case err != nil:
		_, _ = fmt.Fprintf(os.Stderr, "\ndemo failed: %v\n", err)
		os.Exit(1)
	}
}

var errInterrupted = errors.New("interrupted")

// run is the whole demo. It returns errInterrupted when ctx ends before the last answer.
func run(ctx context.Context, root, on, with string, keep bool, out io.Writer) (err error) {
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
	where := paths{root: root, dir: dir}
	told := false // all of the story
	interrupted := ctx.Err
	var left error // what went wrong when the stage was left
	defer func() {
		switch {
		case err != nil && interrupted() != nil && !told:
			err = errInterrupted
			if also := errors.Join(left, os.RemoveAll(dir)); also != nil {
				err = errors.Join(err, also)
			}
		case err != nil || left != nil:
			err = errors.Join(err, left)
			_, _ = fmt.Fprintf(out, "logs are kept in %s\n", dir)
		default:
			err = os.RemoveAll(dir)
		}
	}()

	backend, err := newBackend(with, where, say, out)
	if err != nil {
		return err
	}
	if on == "cluster" && with != "embedded" {
		return fmt.Errorf("-backend=%s: its server is on this machine, where pods of -stage=cluster cannot reach it", with)
	}
	stage, err := newStage(on, where, say, out)
	if err != nil {
		return err
	}
	// The stage ends before what is beside it.
	defer func() { left = errors.Join(left, backend.stop()) }()
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		failed := err != nil && interrupted() == nil
		cancel()
		left = stage.leave(context.WithoutCancel(ctx), failed)
	}()
	if err := backend.prepare(ctx); err != nil {
		return err
	}
	platform, err := stage.install(ctx, backend.issuerFlags())
	if err != nil {
		return err
	}
	if err := prepareTenant(ctx, platform, backend, say); err != nil {
		return err
	}
	workload, err := stage.workload(ctx, platform)
	if err != nil {
		return err
	}
	story := &story{platform: platform, workload: workload, stage: stage, backend: backend, caller: newCaller(workload.url, out), out: out, say: say}
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
