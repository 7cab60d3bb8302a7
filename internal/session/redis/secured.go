// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
)

// losses counts, for an address, how often a server has hung up.
type losses struct{ byAddress sync.Map }

func (l *losses) at(address string) *atomic.Int64 {
	count, _ := l.byAddress.LoadOrStore(address, new(atomic.Int64))
	return count.(*atomic.Int64) //nolint:forcetypeassert // nothing else is stored
}

// secured is a connection with TLS. The client looks at the socket of a connection that was
// idle before it uses it, and with TLS a socket shows nothing. So what was made before the
// server was last seen to hang up counts as closed: what has cut one, such as a restart,
// has probably cut those that wait beside it, and a call that met one after the other would run
// out of tries.
type secured struct {
	net.Conn
	losses *atomic.Int64
	// made at this count of losses.
	made int64
}

func newSecured(conn net.Conn, losses *atomic.Int64) *secured {
	return &secured{Conn: conn, losses: losses, made: losses.Load()}
}

func (s *secured) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	s.noted(err)
	return n, err
}

func (s *secured) Write(p []byte) (int, error) {
	n, err := s.Conn.Write(p)
	s.noted(err)
	return n, err
}

// noted counts a loss once, however many connections it shows at.
func (s *secured) noted(err error) {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		s.losses.CompareAndSwap(s.made, s.made+1)
	}
}

// SyscallConn is where the client looks.
func (s *secured) SyscallConn() (syscall.RawConn, error) { return outlived{s}, nil }

// outlived fails for a connection that was made before a loss, and else does nothing.
type outlived struct{ *secured }

// Control implements [syscall.RawConn].
func (o outlived) Control(func(uintptr)) error { return o.alive() }

// Read implements [syscall.RawConn].
func (o outlived) Read(func(uintptr) bool) error { return o.alive() }

// Write implements [syscall.RawConn].
func (o outlived) Write(func(uintptr) bool) error { return o.alive() }

func (o outlived) alive() error {
	if o.losses.Load() != o.made {
		return net.ErrClosed
	}
	return nil
}
