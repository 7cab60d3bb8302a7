// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os/exec"
	"syscall"
	"time"
)

// process is a program that the demo has started.
type process struct {
	name  string
	log   string        // path of the file with what it says
	ended chan struct{} // closed when err is set
	err   error
}

// attributes of every process here. Ctrl-C is for the demo alone, which ends the
// others in order; and when the demo is killed, the kernel ends them.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}

// start starts command, made with ctx, and ends it in order when ctx ends.
func start(ctx context.Context, name, log string, command *exec.Cmd) (*process, error) {
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = 30 * time.Second
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{name: name, log: log, ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		err := command.Wait()
		if ctx.Err() == nil || !command.ProcessState.Success() {
			p.err = fmt.Errorf("%s ended (%s), see %s", name, command.ProcessState, log)
			if err != nil {
				p.err = fmt.Errorf("%s ended: %w, see %s", name, err, log)
			}
		}
	}()
	return p, nil
}

// wait waits for the end and says how it was: nil when it was told to end, and did.
func (p *process) wait() error {
	<-p.ended
	return p.err
}

// ready waits until url, of the process, answers 200.
func (p *process) ready(ctx context.Context, url string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-p.ended:
			cancel(p.err)
		case <-ctx.Done():
		}
	}()
	if err := waitReady(ctx, url); err != nil {
		return fmt.Errorf("%s is not ready, see %s: %w", p.name, p.log, err)
	}
	return nil
}
