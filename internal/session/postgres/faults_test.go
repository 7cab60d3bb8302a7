// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"errors"
	"io"
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
	"github.com/tokenward/tokenward/internal/token"
)

// shears cut connections: the next write before it is sent, or the next answer after
// it has come from the server.
type shears struct{ request, answer atomic.Bool }

func (s *shears) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, address)
	return &shornConn{Conn: conn, shears: s}, err
}

type shornConn struct {
	net.Conn
	shears *shears
}

func (c *shornConn) Write(p []byte) (int, error) {
	if c.shears.request.CompareAndSwap(true, false) {
		_ = c.Close()
		return 0, net.ErrClosed
	}
	return c.Conn.Write(p)
}

func (c *shornConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && c.shears.answer.CompareAndSwap(true, false) {
		_ = c.Close()
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

func TestACallWhoseConnectionBreaksIsMadeOnce(t *testing.T) {
	server := testservers.Postgres(t)
	var cut shears
	config := testConfig(server, server.Database(t))
	config.Dial, config.MaxConns = cut.dial, 1
	store := open(t, config).Store(storetest.NewPolicyID(), StoreOptions{})
	// Once undisturbed, so that what is cut is the statement and not its preparation.
	warm := create(t, store)
	order := func(subject string) (n int) {
		t.Helper()
		n, err := store.RevokeWhere(t.Context(), session.Selection{Subject: subject, CreatedUntil: time.Now()}, order())
		if err != nil {
			t.Fatalf("order: %v", err)
		}
		return n
	}
	attempt := func(key attempts.Key) time.Duration {
		t.Helper()
		wait, err := store.Take(t.Context(), key, oneAnHour)
		if err == nil {
			err = store.GiveBack(t.Context(), "other", oneAnHour)
		}
		if err != nil {
			t.Fatalf("attempt: %v", err)
		}
		return wait
	}
	for name, arm := range map[string]func(){
		"before the request": func() { cut.request.Store(true) },
		"before the answer":  func() { cut.answer.Store(true) },
	} {
		t.Run(name, func(t *testing.T) {
			prepare := func() {
				t.Helper()
				warm = create(t, store)
				next, err := store.Swap(t.Context(), rotate(warm, time.Now()))
				if err != nil {
					t.Fatal(err)
				}
				revoke(t, store, next)
				order("warm")
				attempt("warm")
			}
			prepare()
			created := newSession(store.policy, time.Now())
			arm()
			if err := store.Create(t.Context(), created); err != nil {
				t.Fatalf("create: %v", err)
			}
			if err := store.Create(t.Context(), created); !errors.Is(err, session.ErrExists) {
				t.Errorf("create again: %v", err)
			}
			prepare()
			arm()
			found := load(t, store, created.ID)
			prepare()
			arm()
			swapped, err := store.Swap(t.Context(), rotate(found, time.Now()))
			if err != nil || swapped.Generation != 2 {
				t.Fatalf("swap: generation %d, %v", swapped.Generation, err)
			}
			if again := load(t, store, created.ID); again.Version != swapped.Version {
				t.Errorf("version %q was returned, %q is stored", swapped.Version, again.Version)
			}
			if _, err := store.Swap(t.Context(), rotate(found, time.Now())); !errors.Is(err, session.ErrStale) {
				t.Errorf("the swap of another: %v", err)
			}
			prepare()
			arm()
			revoked := revoke(t, store, swapped)
			if again := load(t, store, created.ID); again.Revoked == nil || again.Version != revoked.Version {
				t.Errorf("stored is %+v", again)
			}
			prepare()
			order(warm.Subject)
			create(t, store)
			arm()
			if n := order(warm.Subject); n != 1 {
				t.Errorf("an order ended %d sessions, one was there", n)
			}
			prepare()
			arm()
			if wait := attempt(attempts.Key(name)); wait != 0 {
				t.Errorf("the first attempt has to wait for %s", wait)
			}
			if wait := attempt(attempts.Key(name)); wait == 0 {
				t.Error("a second attempt was allowed")
			}
			arm()
			if err := store.GiveBack(t.Context(), attempts.Key(name), oneAnHour); err != nil {
				t.Errorf("give back: %v", err)
			}
			if attempt(attempts.Key(name)) != 0 || attempt(attempts.Key(name)) == 0 {
				t.Error("not one attempt was given back")
			}
			if cut.request.Load() || cut.answer.Load() {
				t.Error("nothing was cut: the test tests nothing")
			}
		})
	}
}

func TestARestartUnderLoad(t *testing.T) {
	server := testservers.Postgres(t)
	database := server.Database(t)
	policy := storetest.NewPolicyID()
	var stores []*Store
	for range 3 {
		stores = append(stores, open(t, testConfig(server, database)).Store(policy, StoreOptions{}))
	}
	stream := listen(t, stores[0], "")
	stream.untilSynced(t)

	stop := make(chan struct{})
	var group sync.WaitGroup
	var mu sync.Mutex
	var revoked []session.Session
	var answered, refused atomic.Int64
	outage := func(err error) bool {
		var ours *Error
		if errors.As(err, &ours) && ours.Kind != Misconfigured && ours.Kind != PermissionDenied && ours.Kind != CredentialsRefused {
			refused.Add(1)
			return true
		}
		return false
	}
	for worker := range 12 {
		store := stores[worker%len(stores)]
		last := create(t, store)
		group.Go(func() {
			open := int64(0) // swaps that failed since the last answer, and may have been made
			for round := 1; ; round++ {
				select {
				case <-stop:
					return
				default:
				}
				found, err := store.Load(t.Context(), last.ID)
				if err != nil {
					if !outage(err) {
						t.Errorf("load: %v", err)
						return
					}
					continue
				}
				if found.Generation < last.Generation || found.Generation > last.Generation+open {
					t.Errorf("generation %d is stored, %d was answered and %d are uncertain", found.Generation, last.Generation, open)
					return
				}
				last, open = found, 0
				next := rotate(found, time.Now())
				swapped, err := store.Swap(t.Context(), next)
				switch {
				case err == nil:
					answered.Add(1)
					last = swapped
				case outage(err):
					open = 1
				default: // nobody else writes this session
					t.Errorf("swap: %v", err)
					return
				}
				if round%50 == 0 {
					end, err := store.Swap(t.Context(), session.Session{ID: last.ID, Policy: policy}.Revoke(token.SessionRevoked, time.Now()))
					if err != nil {
						if !outage(err) {
							t.Errorf("revoke: %v", err)
						}
						return // it may be revoked now: this worker has done its part
					}
					mu.Lock()
					revoked = append(revoked, end)
					mu.Unlock()
					fresh := newSession(policy, time.Now())
					for {
						if err := store.Create(t.Context(), fresh); err == nil {
							break
						} else if !outage(err) {
							t.Errorf("create: %v", err)
							return
						}
						fresh = newSession(policy, time.Now())
					}
					last, open = fresh, 0
				}
			}
		})
	}
	progress := func() {
		t.Helper()
		from := answered.Load()
		eventually(t, "refreshes go on", func() bool { return t.Failed() || answered.Load() > from+300 })
	}
	progress()
	server.Restart(t)
	progress()
	server.Kill()
	server.Start(t)
	progress()
	server.Restart(t)
	progress()
	close(stop)
	group.Wait()
	stream.untilSeen(t, revoked...)
	t.Logf("%d refreshes, %d outages, %d revocations", answered.Load(), refused.Load(), len(revoked))
}

func TestAStandbyIsAnOutage(t *testing.T) {
	server := testservers.Postgres(t)
	config := testConfig(server, server.Database(t))
	store := open(t, config).Store(storetest.NewPolicyID(), StoreOptions{})
	found := create(t, store)
	server.Standby(t, true)
	var ours *Error
	for name, call := range map[string]func() error{
		"load a session that is not there": func() error { _, err := store.Load(t.Context(), session.NewID()); return err },
		"load":                             func() error { _, err := store.Load(t.Context(), found.ID); return err },
		"swap":                             func() error { _, err := store.Swap(t.Context(), rotate(found, time.Now())); return err },
		"create":                           func() error { return store.Create(t.Context(), newSession(store.policy, time.Now())) },
		"check":                            func() error { return store.database.Check(t.Context()) },
	} {
		if err := call(); !errors.As(err, &ours) || ours.Kind != ReadOnly {
			t.Errorf("%s: %v", name, err)
		}
	}
	server.Standby(t, false)
	if _, err := store.Swap(t.Context(), rotate(found, time.Now())); err != nil {
		t.Errorf("swap at the primary again: %v", err)
	}
}

// A proxy may move a connection that was made to the primary.
func TestAConnectionMovedToAStandbyIsAnOutage(t *testing.T) {
	server := testservers.Postgres(t)
	database := server.Database(t)
	if err := open(t, testConfig(server, database)).Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	server.Standby(t, true)
	var found loaded
	if err := found.query(t.Context(), raw(t, server, database), "policy", "id"); !errors.Is(err, errStandby) {
		t.Errorf("load: %v", err)
	}
}

func TestSweep(t *testing.T) {
	server := testservers.Postgres(t)
	database := server.Database(t)
	clock := storetest.NewClock()
	config := testConfig(server, database)
	config.Now = clock.Now
	d := open(t, config)
	ours, gone := d.Store(storetest.NewPolicyID(), StoreOptions{}), d.Store(storetest.NewPolicyID(), StoreOptions{})
	rows := func() (n int) {
		t.Helper()
		if err := d.do(t.Context(), func(ctx context.Context, conn *pgx.Conn) error {
			return conn.QueryRow(ctx, "SELECT count(*) FROM tokenward.sessions").Scan(&n)
		}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n, err := d.Sweep(t.Context()); n != 0 || err != nil {
		t.Errorf("an empty database: %d, %v", n, err)
	}
	const dead = 2*sweepPage + 7
	keep := create(t, ours)
	for _, store := range []*Store{ours, gone} {
		copied := create(t, store)
		if err := d.do(t.Context(), func(ctx context.Context, conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, `INSERT INTO tokenward.sessions (policy, id, version, prior, subject, generation, current_id, current_key_id, previous_id, keep_until, forget_after)
				SELECT policy, id || n, version, prior, subject, generation, current_id, current_key_id, previous_id, keep_until, forget_after
				FROM tokenward.sessions, generate_series(1, $2::int) AS n WHERE id = $1`, string(copied.ID), dead-1)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := d.Sweep(t.Context()); n != 0 || err != nil {
		t.Errorf("all are alive: %d, %v", n, err)
	}
	clock.Advance(testPolicy.IdleTimeout)
	if _, err := ours.Swap(t.Context(), rotate(keep, clock.Now())); err != nil {
		t.Fatal(err)
	}
	clock.Advance(session.MaxLeeway + time.Second)

	// Two at once are in nobody's way.
	var group sync.WaitGroup
	var removed atomic.Int64
	for range 2 {
		group.Go(func() {
			n, err := d.Sweep(t.Context())
			if err != nil {
				t.Error(err)
			}
			removed.Add(int64(n))
		})
	}
	group.Wait()
	if removed.Load() != 2*dead || rows() != 1 {
		t.Errorf("%d removed of %d, %d are left", removed.Load(), 2*dead, rows())
	}
	load(t, ours, keep.ID)
}

func TestAClosedStoreIsAnOutage(t *testing.T) {
	server := testservers.Postgres(t)
	d := open(t, testConfig(server, server.Database(t)))
	store, other := d.Store(storetest.NewPolicyID(), StoreOptions{}), d.Store(storetest.NewPolicyID(), StoreOptions{})
	found := create(t, store)
	events, err := store.Revocations(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	<-events
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if _, open := <-events; open {
		t.Error("the stream goes on")
	}
	if _, err := store.Load(t.Context(), found.ID); !errors.Is(err, errClosed) {
		t.Errorf("load: %v", err)
	}
	kept := create(t, other) // shares nothing but the database
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Load(t.Context(), kept.ID); !errors.Is(err, errClosed) {
		t.Errorf("load after the database was closed: %v", err)
	}
}
