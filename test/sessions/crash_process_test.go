// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sessions_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/token"
)

// issuerVariable in the environment makes this program an issuer.
const issuerVariable = "TOKENWARD_TEST_ISSUER"

// orders are what an issuer process gets on its standard input, as one line of JSON. It
// then says where it serves, and serves until it is killed or the input ends: it cannot
// outlive who has started it.
type orders struct {
	Access      access
	Policy      session.PolicyID
	Algorithm   token.Algorithm
	Key         []byte // PKCS #8
	Certificate certificate
	Step        step
}

func serveUntilKilled(in io.Reader, out, log io.Writer) (status int) {
	lines := bufio.NewReader(in)
	if err := serveOrders(lines, out); err != nil {
		_, _ = fmt.Fprintln(log, err)
		return 1
	}
	return 0
}

func serveOrders(in *bufio.Reader, out io.Writer) error {
	line, err := in.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("read the orders: %w", err)
	}
	var o orders
	if err := json.Unmarshal(line, &o); err != nil {
		return fmt.Errorf("understand the orders: %w", err)
	}
	key, err := token.ParsePKCS8(o.Algorithm, o.Key)
	if err != nil {
		return err
	}
	s := &saboteur{step: o.Step, swapped: out}
	between, err := s.between(o.Access)
	if err != nil {
		return err
	}
	i, closeIssuer, err := newIssuer(between, o.Policy, key, time.Now)
	if err != nil {
		return err
	}
	defer closeIssuer()
	s.Store, i.policy.Sessions = i.policy.Sessions, s
	address, stop, err := serve(i, o.Certificate, s.around)
	if err != nil {
		return err
	}
	defer stop()
	if _, err := fmt.Fprintln(out, address); err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, in)
	return nil
}

// process is an issuer process.
type process struct {
	command *exec.Cmd
	address string
	input   io.WriteCloser
	output  *bufio.Reader
	log     *bytes.Buffer
}

// startProcess returns when the issuer serves. It ends with ctx at the latest.
func startProcess(ctx context.Context, o orders) (*process, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{command: exec.CommandContext(ctx, program), log: &bytes.Buffer{}}
	p.command.Env = append(os.Environ(), issuerVariable+"=1")
	p.command.Stderr = p.log
	input, errIn := p.command.StdinPipe()
	output, errOut := p.command.StdoutPipe()
	if err := errors.Join(errIn, errOut); err != nil {
		return nil, err
	}
	p.input, p.output = input, bufio.NewReader(output)
	if err := p.command.Start(); err != nil {
		return nil, err
	}
	err = json.NewEncoder(input).Encode(o)
	if err == nil {
		p.address, err = p.line()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start an issuer: %w", err), p.end())
	}
	return p, nil
}

// line is the next one that the process says.
func (p *process) line() (string, error) {
	line, err := p.output.ReadString('\n')
	return strings.TrimSuffix(line, "\n"), err
}

// end ends the process in order.
func (p *process) end() error {
	_ = p.input.Close()
	if err := p.command.Wait(); err != nil {
		return fmt.Errorf("an issuer process: %w: %s", err, p.log)
	}
	return nil
}

// killed waits until the process is dead, and wants it to have been killed.
func (p *process) killed() error {
	err := p.command.Wait()
	_ = p.input.Close()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signal() == syscall.SIGKILL {
			return nil
		}
	}
	return fmt.Errorf("the issuer process was not killed but ended with: %w: %s", err, p.log)
}
