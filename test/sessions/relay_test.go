// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sessions_test

import (
	"io"
	"net"
	"sync"
)

// relay passes connections on to a server, byte for byte, until they are cut. What is
// behind it may go and come back at another address, as behind a Service.
type relay struct {
	listener net.Listener
	// sent is told of what a client has sent after the server got it; it may be nil.
	sent func(chunk []byte)

	mu     sync.Mutex
	target string // empty: nobody is there
	open   map[net.Conn]struct{}
	tasks  sync.WaitGroup
}

func newRelay(target string, sent func([]byte)) (*relay, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &relay{listener: listener, sent: sent, target: target, open: map[net.Conn]struct{}{}}
	r.tasks.Go(r.accept)
	return r, nil
}

func (r *relay) address() string { return r.listener.Addr().String() }

func (r *relay) accept() {
	for {
		client, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.tasks.Go(func() { r.pass(client) })
	}
}

func (r *relay) pass(client net.Conn) {
	defer r.drop(client)
	r.mu.Lock()
	target := r.target
	r.mu.Unlock()
	if target == "" {
		return
	}
	server, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer r.drop(server)
	if !r.keep(target, client, server) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() {
		defer func() { _ = server.Close() }()
		r.send(server, client)
	})
	both.Go(func() {
		defer func() { _ = client.Close() }()
		_, _ = io.Copy(client, server)
	})
	both.Wait()
}

func (r *relay) send(server io.Writer, client io.Reader) {
	if r.sent == nil {
		_, _ = io.Copy(server, client)
		return
	}
	buffer := make([]byte, 64<<10)
	for {
		n, err := client.Read(buffer)
		if n > 0 {
			if _, err := server.Write(buffer[:n]); err != nil {
				return
			}
			r.sent(buffer[:n])
		}
		if err != nil {
			return
		}
	}
}

// keep remembers a pair of connections, unless the target is another one by now.
func (r *relay) keep(target string, pair ...net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.target != target {
		return false
	}
	for _, conn := range pair {
		r.open[conn] = struct{}{}
	}
	return true
}

func (r *relay) drop(conn net.Conn) {
	r.mu.Lock()
	delete(r.open, conn)
	r.mu.Unlock()
	reset(conn)
}

// cut resets every connection, as a node that loses its network does in the end.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for conn := range r.open {
		reset(conn)
	}
}

func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// point has connections from now on go to another server, or nowhere.
func (r *relay) point(target string) {
	r.mu.Lock()
	r.target = target
	r.mu.Unlock()
}

func (r *relay) close() {
	_ = r.listener.Close()
	r.point("")
	r.cut()
	r.tasks.Wait()
}
