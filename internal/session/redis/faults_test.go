// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/testservers"
	"github.com/tokenward/tokenward/internal/token"
)

// eventually polls what a real server does in its own time.
func eventually(tb testing.TB, what string, met func() error) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 30*time.Second)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := met()
		if err == nil {
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			tb.Fatalf("%s: %v", what, err)
		}
	}
}

// outage reports whether the caller would answer issuer_unavailable.
func outage(err error) bool {
	var problem *Error
	return errors.As(err, &problem)
}

// busy refreshes one session until told to stop, as a client would, and returns the
// last state that it was given.
func busy(t *testing.T, store *Store, last session.Session, refreshes, outages *atomic.Int64, stop <-chan struct{}) session.Session {
	t.Helper()
	for {
		select {
		case <-stop:
			return last
		default:
		}
		found, err := store.Load(t.Context(), last.ID)
		if err == nil {
			if found.Generation < last.Generation {
				t.Errorf("generation %d is there, %d was acknowledged", found.Generation, last.Generation)
				return last
			}
			found, err = store.Swap(t.Context(), rotate(found, time.Now()))
		}
		switch {
		case err == nil:
			last = found
			refreshes.Add(1)
		case outage(err):
			outages.Add(1)
		default:
			t.Errorf("generation %d: %v", last.Generation, err)
			return last
		}
	}
}

func TestKilledUnderLoad(t *testing.T) {
	server := testservers.Redis(t, testservers.RedisOptions{Config: []string{"appendonly yes", "appendfsync always"}})
	store := open(t, Options{Addresses: []string{server.Addr}, Timeout: 300 * time.Millisecond})
	events, err := store.Revocations(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	revoked := createSession(t, store)
	if _, err := store.Swap(t.Context(), revoked.Revoke(token.SessionRevoked, time.Now())); err != nil {
		t.Fatal(err)
	}

	stop := make(chan struct{})
	var refreshes, outages atomic.Int64
	acknowledged := make([]session.Session, 8)
	var group sync.WaitGroup
	for i := range acknowledged {
		created := createSession(t, store)
		group.Go(func() { acknowledged[i] = busy(t, store, created, &refreshes, &outages, stop) })
	}
	for range 3 {
		goal := refreshes.Load() + 100
		eventually(t, "a load", func() error {
			if n := refreshes.Load(); n < goal {
				return fmt.Errorf("%d refreshes of %d", n, goal)
			}
			return nil
		})
		before := outages.Load()
		server.Kill()
		if err := store.Check(t.Context()); !outage(err) {
			t.Errorf("check of a dead server: %v", err)
		}
		eventually(t, "an outage", func() error {
			if outages.Load() == before {
				return errors.New("there was none")
			}
			return nil
		})
		server.Start(t)
		eventually(t, "the store after the restart", func() error { return store.Check(t.Context()) })
	}
	close(stop)
	group.Wait()
	t.Logf("%d refreshes, %d outages", refreshes.Load(), outages.Load())
	for _, last := range acknowledged {
		if found, err := store.Load(t.Context(), last.ID); err != nil || found.Generation < last.Generation {
			t.Errorf("acknowledged generation %d: generation %d, %v", last.Generation, found.Generation, err)
		}
	}
	if found, err := store.Load(t.Context(), revoked.ID); err != nil || found.Revoked == nil {
		t.Errorf("the revoked session after the restarts: %+v %v", found.Revoked, err)
	}

	// The stream that was open all the time goes on.
	later := createSession(t, store)
	if _, err := store.Swap(t.Context(), later.Revoke(token.SessionRevoked, time.Now())); err != nil {
		t.Fatal(err)
	}
	want := map[session.ID]bool{revoked.ID: true, later.ID: true}
	deadline := time.After(30 * time.Second)
	for len(want) > 0 {
		select {
		case e := <-events:
			delete(want, e.ID)
		case <-deadline:
			t.Fatalf("revocations that did not come: %v", want)
		}
	}
}

// TestLostRevocation puts the server back to before a revocation, as a failover to a
// replica that had not heard of it does.
func TestLostRevocation(t *testing.T) {
	server := testservers.Redis(t, testservers.RedisOptions{})
	admin := server.Client(t)
	for name, lose := range map[string]func(t *testing.T, store *Store, id session.ID, before string){
		"session and stream went back": func(t *testing.T, store *Store, id session.ID, before string) {
			t.Helper()
			_, err := admin.TxPipelined(t.Context(), func(p goredis.Pipeliner) error {
				p.RestoreReplace(t.Context(), store.key(id), time.Hour, before)
				p.Del(t.Context(), store.stream())
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		},
		"only the stream is gone": func(t *testing.T, store *Store, _ session.ID, _ string) {
			t.Helper()
			if err := admin.Del(t.Context(), store.stream()).Err(); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			store := open(t, Options{Addresses: []string{server.Addr}})
			victim := createSession(t, store)
			before, err := admin.Dump(t.Context(), store.key(victim.ID)).Result()
			if err != nil {
				t.Fatal(err)
			}
			revoked, err := store.Swap(t.Context(), victim.Revoke(token.UserDisabled, time.Now()))
			if err != nil {
				t.Fatal(err)
			}
			events, err := store.Revocations(t.Context(), "") // the instance has heard of it
			if err != nil {
				t.Fatal(err)
			}
			if e := <-events; e.ID != victim.ID {
				t.Fatalf("%+v", e)
			}
			lose(t, store, victim.ID, before)

			eventually(t, "the session is revoked again", func() error {
				found, err := store.Load(t.Context(), victim.ID)
				if err == nil && (found.Revoked == nil || *found.Revoked != *revoked.Revoked) {
					err = fmt.Errorf("revoked: %+v", found.Revoked)
				}
				return err
			})
			fresh := open(t, store.options)
			eventually(t, "another instance hears of it", func() error {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				events, err := fresh.Revocations(ctx, "")
				if err != nil {
					return err
				}
				if e := <-events; e.ID != victim.ID || !e.ForgetAfter.Equal(revoked.ForgetAfter()) {
					return fmt.Errorf("%+v", e)
				}
				return nil
			})
		})
	}
}

// TestStreamThatGoesBack has a new primary, whose clock is behind, write places before
// those that a receiver was already told of.
func TestStreamThatGoesBack(t *testing.T) {
	server := testservers.Redis(t, testservers.RedisOptions{})
	store := open(t, Options{Addresses: []string{server.Addr}})
	first := createSession(t, store)
	if _, err := store.Swap(t.Context(), first.Revoke(token.SessionRevoked, time.Now())); err != nil {
		t.Fatal(err)
	}
	events, err := store.Revocations(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if e := <-events; e.ID != first.ID {
		t.Fatalf("%+v", e)
	}
	if e := <-events; !e.Synced {
		t.Fatalf("%+v", e)
	}
	_, err = server.Client(t).TxPipelined(t.Context(), func(p goredis.Pipeliner) error {
		p.Del(t.Context(), store.stream())
		p.XAdd(t.Context(), &goredis.XAddArgs{Stream: store.stream(), ID: "1000-0", Values: []any{
			"id", "later", "at", time.Now().Unix(), "forget", time.Now().Add(time.Hour).Unix(), "reason", "session_revoked",
		}})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.After(30 * time.Second)
	for {
		select {
		case e := <-events:
			if e.ID == "later" {
				return
			}
		case <-deadline:
			t.Fatal("what is new, at an older place, did not come")
		}
	}
}

func TestSentinelFailover(t *testing.T) {
	primary := testservers.Redis(t, testservers.RedisOptions{Config: []string{"repl-diskless-sync-delay 0"}})
	host, port, _ := net.SplitHostPort(primary.Addr)
	replica := testservers.Redis(t, testservers.RedisOptions{Config: []string{"replicaof " + host + " " + port}})
	admin := replica.Client(t)
	eventually(t, "the replica follows", func() error {
		role, err := admin.Do(t.Context(), "ROLE").Slice()
		if err == nil && role[3] != "connected" {
			err = fmt.Errorf("it is %v", role)
		}
		return err
	})
	sentinel := primary.Sentinel(t, "sessions")
	eventually(t, "the Sentinel sees the replica", func() error {
		replicas, err := sentinel.Client(t).Do(t.Context(), "SENTINEL", "REPLICAS", "sessions").Slice()
		if err == nil && len(replicas) != 1 {
			err = fmt.Errorf("%d replicas", len(replicas))
		}
		return err
	})
	store := open(t, Options{Mode: ModeSentinel, MasterName: "sessions", Addresses: []string{sentinel.Addr}, Timeout: 500 * time.Millisecond})
	kept, revoked := createSession(t, store), createSession(t, store)
	if _, err := store.Swap(t.Context(), revoked.Revoke(token.SessionRevoked, time.Now())); err != nil {
		t.Fatal(err)
	}
	if n, err := primary.Client(t).Wait(t.Context(), 1, 10*time.Second).Result(); err != nil || n != 1 {
		t.Fatalf("%d replicas have it: %v", n, err)
	}
	primary.Kill()
	eventually(t, "a refresh at the new primary", func() error {
		found, err := store.Load(t.Context(), kept.ID)
		if err == nil {
			_, err = store.Swap(t.Context(), rotate(found, time.Now()))
		}
		if err != nil && !outage(err) && !errors.Is(err, session.ErrStale) {
			t.Fatalf("a failover is more than an outage: %v", err)
		}
		return err
	})
	if found, err := store.Load(t.Context(), revoked.ID); err != nil || found.Revoked == nil {
		t.Errorf("the revoked session after the failover: %+v %v", found.Revoked, err)
	}
}

func TestOutOfMemory(t *testing.T) {
	server := testservers.Redis(t, testservers.RedisOptions{Config: []string{"maxmemory 3mb", "maxmemory-policy noeviction"}})
	store := open(t, Options{Addresses: []string{server.Addr}})
	first, second := createSession(t, store), createSession(t, store)
	var err error
	for n := 0; err == nil; n++ {
		if n > 20000 {
			t.Fatal("the server does not fill up")
		}
		err = store.Create(t.Context(), newSession(store.options.Policy, time.Now()))
	}
	if !errors.Is(err, session.ErrFull) {
		t.Fatalf("create in a full server: %v", err)
	}
	if first, err = store.Swap(t.Context(), rotate(first, time.Now())); err != nil || first.Generation != 2 {
		t.Errorf("a refresh in a full server: %v", err)
	}
	if _, err := store.Swap(t.Context(), second.Revoke(token.SessionRevoked, time.Now())); err != nil {
		t.Errorf("a revocation in a full server: %v", err)
	}
	if err := store.Check(t.Context()); err != nil {
		t.Errorf("check: %v", err)
	}
}
