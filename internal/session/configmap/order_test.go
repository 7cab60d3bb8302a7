// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package configmap

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/token"
)

func everybody() session.Selection {
	return session.Selection{AllSubjects: true, CreatedUntil: time.Now().Add(time.Minute)}
}

func order() session.Revocation {
	return session.Revocation{At: time.Now(), Reason: token.SessionRevoked}
}

// fillShards makes sessions at once, so that they share writes.
func fillShards(tb testing.TB, store *Store, sessions int) []session.Session {
	tb.Helper()
	all := make([]session.Session, sessions)
	var group sync.WaitGroup
	for i := range all {
		all[i] = newSession(store.config.Policy, time.Now())
		group.Go(func() {
			if err := store.Create(tb.Context(), all[i]); err != nil {
				tb.Errorf("create: %v", err)
			}
		})
	}
	group.Wait()
	return all
}

func TestAnOrderIsOneWriteForEachShard(t *testing.T) {
	config := testConfig(t)
	config.Shards, config.WritesPerSecond = 16, 500
	store := open(t, config)
	for _, created := range fillShards(t, store, 2000)[:3] {
		found, err := store.Load(t.Context(), created.ID)
		if err == nil {
			_, err = store.Swap(t.Context(), rotate(found, time.Now()))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	lone := newSession(config.Policy, time.Now())
	lone.Subject = "bob"
	if err := store.Create(t.Context(), lone); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		what           string
		which          session.Selection
		ends, writings int
	}{
		{"one session of 2001", session.Selection{Subject: "bob", CreatedUntil: time.Now()}, 1, 1},
		{"all the others", everybody(), 2000, 16},
		{"the same again", everybody(), 0, 0},
	} {
		before := store.Stats()
		ended, err := store.RevokeWhere(t.Context(), step.which, order())
		after := store.Stats()
		// A lost race would be another write: nobody else writes here.
		if writes := int(after.Writes - before.Writes); ended != step.ends || writes != step.writings || err != nil {
			t.Errorf("%s: %d ended in %d writes, should be %d in %d: %v", step.what, ended, writes, step.ends, step.writings, err)
		}
	}
}

func TestOrdersWithLostAnswersCountRight(t *testing.T) {
	var count atomic.Int64
	var losing atomic.Bool
	config := testConfig(t)
	config.WritesPerSecond = 500
	config.Client = faulty(t, func(write func() error) error {
		err := write()
		if losing.Load() && count.Add(1)%2 == 1 && err == nil {
			return errors.New("the connection was cut")
		}
		return err
	})
	store := open(t, config)
	fillShards(t, store, 40)
	losing.Store(true)
	if n, err := store.RevokeWhere(t.Context(), everybody(), order()); n != 40 || err != nil {
		t.Errorf("%d of 40 ended: %v", n, err)
	}
	if count.Load() < 2 {
		t.Error("no answer was lost, so this showed nothing")
	}
}

func TestAnOrderAmongBrokenRecords(t *testing.T) {
	otherKeys, err := NewSealer(AddSealingKey(nil))
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		forge func(at place, sealed []byte) []byte
		fails bool
	}{
		"a forged one is none of ours":         {func(_ place, sealed []byte) []byte { sealed[len(sealed)-1] ^= 1; return sealed }, false},
		"one of a newer release may be anyone": {func(_ place, sealed []byte) []byte { sealed[0] = sealVersion + 1; return sealed }, true},
		"one of a lost key may be anyone":      {func(at place, sealed []byte) []byte { return otherKeys.seal(at, sealed) }, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			config := testConfig(t)
			config.Shards = 1
			store := open(t, config)
			broken, healthy := createSession(t, store), createSession(t, store)
			cm, at := shardOf(t, store, broken.ID)
			forged := test.forge(at, bytes.Clone(cm.BinaryData[at.key]))
			cm.BinaryData[at.key] = forged
			edit(t, store, cm)
			for again, ends := range []int{1, 0} {
				if n, err := store.RevokeWhere(t.Context(), everybody(), order()); n != ends || (err != nil) != test.fails {
					t.Errorf("order %d: %d ended, should be %d: %v", again+1, n, ends, err)
				}
			}
			if found, err := store.Load(t.Context(), healthy.ID); err != nil || found.Revoked == nil {
				t.Errorf("the session beside it: %v", err)
			}
			if cm, _ = shardOf(t, store, broken.ID); !bytes.Equal(cm.BinaryData[at.key], forged) {
				t.Error("the broken record was changed")
			}
		})
	}
}

// Who gets the error can find the records, and as many as there are make it no longer.
func TestAnOrderTellsWhichRecordsAreClosed(t *testing.T) {
	config := testConfig(t)
	config.Shards = 2
	store := open(t, config)
	sessions := fillShards(t, store, 20)
	places := make([]string, len(sessions))
	for i, s := range sessions {
		at := locate(config.Policy, config.Shards, s.ID)
		places[i] = "ConfigMap " + config.Namespace + "/" + store.shardName(at.shard) + " key " + at.key
	}
	slices.Sort(places)
	other, err := NewSealer(AddSealingKey(nil))
	if err != nil {
		t.Fatal(err)
	}
	config.Client, config.Sealer = newClient(t), other
	blind := open(t, config)
	own := createSession(t, blind)
	for range 2 {
		n, err := blind.RevokeWhere(t.Context(), everybody(), order())
		unreadable, ok := errors.AsType[*session.UnreadableError](err)
		if !ok {
			t.Fatalf("%d revoked: %v", n, err)
		}
		if unreadable.Records != len(sessions) || !slices.Equal(unreadable.Places, places[:3]) || !strings.Contains(unreadable.Where(), "; and 17 more") {
			t.Errorf("%d records, at %s; want %q", unreadable.Records, unreadable.Where(), places[:3])
		}
		if !strings.Contains(unreadable.Remedy, SecretName) || !errors.Is(err, errKeyUnknown) || len(err.Error()) > 700 {
			t.Errorf("%v; to go on, %s", err, unreadable.Remedy)
		}
	}
	if found, err := blind.Load(t.Context(), own.ID); err != nil || found.Revoked == nil {
		t.Errorf("the session beside them: %v", err)
	}
}

func TestAnOrderForAPolicyWithoutSessionsWritesNothing(t *testing.T) {
	store := open(t, testConfig(t))
	if n, err := store.RevokeWhere(t.Context(), everybody(), order()); n != 0 || err != nil || store.Stats().Writes != 0 {
		t.Errorf("%d ended in %d writes: %v", n, store.Stats().Writes, err)
	}
}
