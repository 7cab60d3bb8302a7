// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"bufio"
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/tokenward/tokenward/internal/attempts"
	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/testservers"
	"github.com/tokenward/tokenward/internal/token"
)

// stalling is a way to a server on which nothing moves while gate is locked, and nothing
// is closed: a server that hangs, or a network that drops packets.
type stalling struct {
	address string
	gate    sync.RWMutex
}

func stallable(tb testing.TB, to string) *stalling {
	tb.Helper()
	s := &stalling{}
	s.address = serve(tb, func(client net.Conn) {
		var dialer net.Dialer
		server, err := dialer.DialContext(context.Background(), "tcp", to) //nolint:usetesting // ends with its client
		if err != nil {
			return
		}
		var group sync.WaitGroup
		group.Go(func() { s.move(server, client) })
		group.Go(func() { s.move(client, server) })
		group.Wait()
	})
	return s
}

func (s *stalling) move(to, from net.Conn) {
	defer func() { _, _ = to.Close(), from.Close() }()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		s.gate.RLock()
		if n > 0 && err == nil {
			_, err = to.Write(buffer[:n])
		}
		s.gate.RUnlock()
		if err != nil {
			return
		}
	}
}

func TestAServerThatHangsIsAnOutageAndComesBack(t *testing.T) {
	server := testservers.Redis(t, testservers.RedisOptions{})
	way := stallable(t, server.Addr)
	store := open(t, Options{Addresses: []string{way.address}, Timeout: 300 * time.Millisecond})
	there := open(t, Options{Policy: store.options.Policy, Addresses: []string{server.Addr}})
	events, err := store.Revocations(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if e := <-events; !e.Synced {
		t.Fatalf("%+v", e)
	}
	live, ended := createSession(t, there), createSession(t, there)

	way.gate.Lock()
	for name, call := range map[string]func() error{
		"load":   func() error { _, err := store.Load(t.Context(), live.ID); return err },
		"swap":   func() error { _, err := store.Swap(t.Context(), rotate(live, time.Now())); return err },
		"create": func() error { return store.Create(t.Context(), newSession(live.Policy, time.Now())) },
		"order": func() error {
			_, err := store.RevokeWhere(t.Context(), session.Selection{AllSubjects: true}, order)
			return err
		},
		"take": func() error {
			_, err := store.Take(t.Context(), "k", attempts.Limit{Burst: 1, Interval: time.Second})
			return err
		},
		"check": func() error { return store.Check(t.Context()) },
	} {
		if err := call(); !outage(err) || ProblemOf(err) != ProblemUnreachable {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := there.Swap(t.Context(), ended.Revoke(token.SessionRevoked, time.Now())); err != nil {
		t.Fatal(err)
	}
	way.gate.Unlock()

	eventually(t, "the store at a server that answers again", func() error { return store.Check(t.Context()) })
	if e := <-events; e.ID != ended.ID { // the test's own deadline bounds it
		t.Errorf("the stream that was open all the time goes on with %+v", e)
	}
}

func TestCloseWhileCallsRun(t *testing.T) {
	server := testservers.Redis(t, testservers.RedisOptions{})
	store := open(t, Options{Addresses: []string{server.Addr}})
	events, err := store.Revocations(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	var calls atomic.Int64
	for worker := range 16 {
		s := createSession(t, store)
		group.Go(func() {
			var err error
			for err == nil {
				switch worker % 4 {
				case 0:
					s, err = store.Swap(t.Context(), rotate(s, time.Now()))
				case 1:
					err = store.Create(t.Context(), newSession(s.Policy, time.Now()))
				case 2:
					_, err = store.Take(t.Context(), "k", attempts.Limit{Burst: 1, Interval: time.Second})
				case 3:
					_, err = store.RevokeWhere(t.Context(), session.Selection{Subject: "nobody"}, order)
				}
				calls.Add(1)
			}
			if !errors.Is(err, errClosed) {
				t.Errorf("worker %d: %v", worker, err)
			}
		})
	}
	eventually(t, "calls", func() error {
		if calls.Load() < 100 {
			return errors.New("too few")
		}
		return nil
	})
	if err := store.Close(); err != nil {
		t.Error(err)
	}
	group.Wait()
	for e := range events {
		if !e.Synced {
			t.Errorf("%+v", e)
		}
	}
	if err := store.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
}

// TestAServerThatEvicts loses sessions, which Check warns of. It must let nobody in.
func TestAServerThatEvicts(t *testing.T) {
	server := testservers.Redis(t, testservers.RedisOptions{Config: []string{"maxmemory 3mb", "maxmemory-policy allkeys-random"}})
	admin := server.Client(t)
	store := open(t, Options{Addresses: []string{server.Addr}})
	var live, ended []session.Session
	evicted := func() bool {
		info, err := admin.Info(t.Context(), "stats").Result()
		if err != nil {
			t.Fatal(err)
		}
		return !strings.Contains(info, "evicted_keys:0\r\n")
	}
	for n := 0; n < 500 || !evicted(); n++ {
		if n > 20000 {
			t.Fatal("the server does not evict")
		}
		s := newSession(store.options.Policy, time.Now())
		if err := store.Create(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		if n%2 == 0 {
			live = append(live, s)
			continue
		}
		s.Policy = store.options.Policy
		if _, err := store.Swap(t.Context(), s.Revoke(token.SessionRevoked, time.Now())); err == nil {
			ended = append(ended, s)
		} else if !errors.Is(err, session.ErrNotFound) {
			t.Fatal(err)
		}
	}
	gone := 0
	for _, s := range live {
		found, err := store.Load(t.Context(), s.ID)
		switch {
		case errors.Is(err, session.ErrNotFound):
			gone++
		case err != nil, found.Current.ID != s.Current.ID, found.Revoked != nil:
			t.Fatalf("a live session is %+v, %v", found, err)
		}
	}
	for _, s := range ended {
		if found, err := store.Load(t.Context(), s.ID); err == nil && found.Revoked == nil {
			t.Fatal("a revoked session lives")
		} else if err != nil && !errors.Is(err, session.ErrNotFound) {
			t.Fatal(err)
		}
	}
	t.Logf("%d of %d live sessions are gone", gone, len(live))
	if _, err := store.RevokeWhere(t.Context(), everybody(), order); ProblemOf(err) != ProblemEviction {
		t.Errorf("an order that may have missed sessions says %v", err)
	}
}

func TestAServerThatTakesNoMoreConnections(t *testing.T) {
	server := testservers.Redis(t, testservers.RedisOptions{Config: []string{"maxclients 4"}})
	for full := false; !full; {
		var dialer net.Dialer
		connection, err := dialer.DialContext(t.Context(), "tcp", server.Addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = connection.Close() })
		_, _ = connection.Write([]byte("PING\r\n")) // it may have been refused already
		answer, err := bufio.NewReader(connection).ReadString('\n')
		if full = strings.Contains(answer, "max number of clients"); !full && err != nil {
			t.Fatal(err)
		}
	}
	store := open(t, Options{Addresses: []string{server.Addr}})
	// The server says why and hangs up at once, so the reason may be lost on the way.
	err := store.Check(t.Context())
	if problem := ProblemOf(err); problem != ProblemBusy && (problem != ProblemUnreachable || !strings.Contains(err.Error(), "maxclients")) {
		t.Errorf("%s: %v", problem, err)
	}
}

func TestProblemOfWhatTheStoreDoesNotSay(t *testing.T) {
	for _, test := range []struct {
		err  error
		want Problem
	}{
		{nil, ""},
		{context.Canceled, ""},
		{context.DeadlineExceeded, ProblemUnreachable},
		{errors.New("something"), ProblemOther},
		{errClosed, ProblemUnreachable},
	} {
		if got := ProblemOf(test.err); got != test.want {
			t.Errorf("%v: %q, want %q", test.err, got, test.want)
		}
	}
}

// There are more of them than tries at a call, also where nobody can see in a socket that
// it was closed.
func TestOneCallSurvivesThatAllConnectionsAreCut(t *testing.T) {
	server := testservers.Redis(t, testservers.RedisOptions{TLS: true})
	for name, options := range map[string]Options{
		"with TLS":    {Addresses: []string{server.TLSAddr}, TLS: trust(t, server.CA)},
		"without TLS": {Addresses: []string{server.Addr}},
	} {
		t.Run(name, func(t *testing.T) {
			store := open(t, options)
			created := createSession(t, store)
			// Eight connections at the same time, and then idle.
			client, ok := store.client.(*goredis.Client)
			if !ok {
				t.Fatalf("the client is a %T", store.client)
			}
			var held []*goredis.Conn
			for range 8 {
				conn := client.Conn()
				if err := conn.Ping(t.Context()).Err(); err != nil {
					t.Fatal(err)
				}
				held = append(held, conn)
			}
			for _, conn := range held {
				_ = conn.Close()
			}
			if idle := client.PoolStats().IdleConns; idle < 8 {
				t.Fatalf("%d connections are idle: the test tests nothing", idle)
			}
			killed, err := server.Client(t).Do(t.Context(), "CLIENT", "KILL", "SKIPME", "yes").Int()
			if err != nil || killed < 8 {
				t.Fatalf("%d connections were cut, %v", killed, err)
			}
			if _, err := store.Load(t.Context(), created.ID); err != nil {
				t.Errorf("the first call after it: %v", err)
			}
		})
	}
}
