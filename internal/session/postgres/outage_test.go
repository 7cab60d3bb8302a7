// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tokenward/tokenward/internal/attempts"
	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/session/storetest"
	"github.com/tokenward/tokenward/internal/testservers"
)

var oneAnHour = attempts.Limit{Burst: 1, Interval: time.Hour}

// everyCall is one of each that a store has, on a session that is there.
func everyCall(t *testing.T, store *Store, found session.Session) map[string]func() error {
	t.Helper()
	return map[string]func() error{
		"load":      func() error { _, err := store.Load(t.Context(), found.ID); return err },
		"swap":      func() error { _, err := store.Swap(t.Context(), rotate(found, time.Now())); return err },
		"create":    func() error { return store.Create(t.Context(), newSession(store.policy, time.Now())) },
		"take":      func() error { _, err := store.Take(t.Context(), "k", oneAnHour); return err },
		"give back": func() error { return store.GiveBack(t.Context(), "k", oneAnHour) },
		"order": func() error {
			_, err := store.RevokeWhere(t.Context(), session.Selection{Subject: "nobody"}, order())
			return err
		},
		"check": func() error { return store.database.Check(t.Context()) },
	}
}

// stalling is a way to a server on which nothing moves while gate is locked, and nothing
// is closed: a server that hangs, or a network that drops packets.
type stalling struct {
	gate  sync.RWMutex
	conns sync.WaitGroup
}

func (s *stalling) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var dialer net.Dialer
	server, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer func() { _ = listener.Close() }()
	client, err := dialer.DialContext(ctx, "tcp", listener.Addr().String())
	if err != nil {
		return nil, err
	}
	between, err := listener.Accept()
	if err != nil {
		return nil, err
	}
	s.conns.Go(func() { s.move(server, between) })
	s.conns.Go(func() { s.move(between, server) })
	return client, nil
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
	server := testservers.Postgres(t)
	database := server.Database(t)
	var way stalling
	config := testConfig(server, database)
	config.Dial, config.Timeout, config.PollInterval = way.dial, 300*time.Millisecond, 50*time.Millisecond
	policy := storetest.NewPolicyID()
	there := open(t, testConfig(server, database)).Store(policy, StoreOptions{})
	live, ended := create(t, there), create(t, there)
	here := open(t, config)
	store := here.Store(policy, StoreOptions{})
	stream := listen(t, store, "")
	stream.untilSynced(t)
	eventually(t, "it listens", func() bool { return here.Stats().Listening })

	way.gate.Lock()
	for name, call := range everyCall(t, store, live) {
		if kind := KindOf(call()); kind != Unreachable && kind != Busy {
			t.Errorf("%s: %q", name, kind)
		}
	}
	revoke(t, there, ended)
	eventually(t, "it is known that nobody listens", func() bool { return !here.Stats().Listening })
	way.gate.Unlock()

	eventually(t, "the store at a server that answers again", func() bool { return here.Check(t.Context()) == nil })
	stream.untilSeen(t, ended) // the stream that was open all the time
}

func TestAPoolWithoutAFreeConnectionSaysSo(t *testing.T) {
	server := testservers.Postgres(t)
	config := testConfig(server, server.Database(t))
	config.MaxConns, config.Timeout = 1, 300*time.Millisecond
	d := open(t, config)
	store := d.Store(storetest.NewPolicyID(), StoreOptions{})
	found := create(t, store)
	conn, err := d.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, call := range everyCall(t, store, found) {
		if err := call(); KindOf(err) != Busy {
			t.Errorf("%s: %v", name, err)
		}
	}
	conn.Release()
	if err := d.Check(t.Context()); err != nil {
		t.Errorf("with a free connection: %v", err)
	}
}

func TestCloseWhileCallsRun(t *testing.T) {
	server := testservers.Postgres(t)
	d := open(t, testConfig(server, server.Database(t)))
	store := d.Store(storetest.NewPolicyID(), StoreOptions{})
	stream, err := store.Revocations(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	var calls atomic.Int64
	for worker := range 16 {
		s := create(t, store)
		group.Go(func() {
			var err error
			for err == nil {
				switch worker % 4 {
				case 0:
					s, err = store.Swap(t.Context(), rotate(s, time.Now()))
				case 1:
					err = store.Create(t.Context(), newSession(s.Policy, time.Now()))
				case 2:
					_, err = store.Take(t.Context(), "k", oneAnHour)
				case 3:
					_, err = store.RevokeWhere(t.Context(), session.Selection{Subject: "nobody"}, order())
				}
				calls.Add(1)
			}
			if !errors.Is(err, errClosed) {
				t.Errorf("worker %d: %v", worker, err)
			}
		})
	}
	eventually(t, "there were calls", func() bool { return calls.Load() > 100 })
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	group.Wait()
	for e := range stream {
		if !e.Synced {
			t.Errorf("%+v", e)
		}
	}
}

// TestATableThatIsGone hides a table, so that it can be seen whether anything was lost.
func TestATableThatIsGone(t *testing.T) {
	server := testservers.Postgres(t)
	for _, table := range []string{"sessions", "policies", "attempts", "migrations"} {
		t.Run(table, func(t *testing.T) {
			database := server.Database(t)
			d := open(t, testConfig(server, database))
			store := d.Store(storetest.NewPolicyID(), StoreOptions{})
			found := create(t, store)
			server.Exec(t, database, "ALTER TABLE tokenward."+table+" RENAME TO hidden")
			if err := d.Check(t.Context()); KindOf(err) != SchemaDamaged {
				t.Errorf("check: %v", err)
			}
			fresh := open(t, testConfig(server, database)).Store(store.policy, StoreOptions{})
			for _, store := range []*Store{store, fresh} {
				got, err := store.Load(t.Context(), found.ID)
				if err == nil && got.ID != found.ID || err != nil && KindOf(err) != SchemaDamaged {
					t.Errorf("load: %v", err)
				}
			}
			server.Exec(t, database, "ALTER TABLE tokenward.hidden RENAME TO "+table)
			if err := d.Check(t.Context()); err != nil {
				t.Errorf("check of what is whole again: %v", err)
			}
			for _, store := range []*Store{store, fresh} {
				load(t, store, found.ID)
			}
		})
	}
}

func TestASchemaThatIsGoneAndMayNotBeMadeAgain(t *testing.T) {
	server := testservers.Postgres(t)
	database := server.Database(t)
	server.Exec(t, database, "CREATE ROLE guest LOGIN PASSWORD '"+canary+"'; CREATE SCHEMA tokenward AUTHORIZATION guest")
	config := testConfig(server, database)
	config.URL = Secret(server.URLFor("guest", canary, database))
	d := open(t, config)
	store := d.Store(storetest.NewPolicyID(), StoreOptions{})
	found := create(t, store)
	server.Exec(t, database, "DROP SCHEMA tokenward CASCADE")
	for name, call := range everyCall(t, store, found) {
		if err := call(); KindOf(err) != PermissionDenied {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKindOfWhatTheStoreDoesNotSay(t *testing.T) {
	for _, test := range []struct {
		err  error
		want Kind
	}{
		{nil, ""},
		{context.Canceled, ""},
		{context.DeadlineExceeded, Unreachable},
		{errors.New("something"), Unavailable},
		{fmt.Errorf("load: %w", errBusy), Busy},
	} {
		if got := KindOf(test.err); got != test.want {
			t.Errorf("%v: %q, want %q", test.err, got, test.want)
		}
	}
}

// A pool that was busy a moment ago does not look at its connections before it hands
// them out.
func TestOneCallSurvivesThatAllConnectionsAreCut(t *testing.T) {
	server := testservers.Postgres(t)
	name := server.Database(t)
	d := open(t, testConfig(server, name))
	if err := d.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	cut, returned := make(chan struct{}), make(chan struct{})
	var held, others sync.WaitGroup
	use := func(then func(*pgx.Conn) error) error {
		first := true
		return d.do(t.Context(), func(_ context.Context, conn *pgx.Conn) error {
			if first {
				first = false
				held.Done()
				<-cut
			}
			return then(conn)
		})
	}
	held.Add(defaultMaxConns)
	for range defaultMaxConns - 1 { // They give their connections back and know nothing of the cut.
		others.Go(func() {
			if err := use(func(*pgx.Conn) error { return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	outcome := make(chan error, 1)
	go func() {
		outcome <- use(func(conn *pgx.Conn) error {
			<-returned
			return conn.Ping(t.Context())
		})
	}()
	held.Wait()
	server.Exec(t, "postgres", "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '"+name+"'")
	close(cut)
	others.Wait()
	close(returned)
	if err := <-outcome; err != nil {
		t.Errorf("the call that met them: %v", err)
	}
	if losses := d.losses.Load(); losses != 1 {
		t.Errorf("the connections were given up %d times", losses)
	}
	eventually(t, "the dead ones are closed", func() bool { return d.Stats().Connections == 1 })
}
