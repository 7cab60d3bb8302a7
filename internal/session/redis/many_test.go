// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/tokenward/tokenward/internal/attempts"
	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/session/memory"
	"github.com/tokenward/tokenward/internal/session/storetest"
	"github.com/tokenward/tokenward/internal/testservers"
	"github.com/tokenward/tokenward/internal/token"
)

var order = session.Revocation{At: time.Now().UTC().Truncate(time.Second), Reason: token.SessionRevoked}

func everybody() session.Selection {
	return session.Selection{AllSubjects: true, CreatedUntil: time.Now()}
}

// TestTheDocumentedRightsAreTheTestedOnes: TestStore runs with aclUser.
func TestTheDocumentedRightsAreTheTestedOnes(t *testing.T) {
	page, err := os.ReadFile("../../../docs/stores/redis.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(page), "\nuser tokenward ")
	documented, _, ended := strings.Cut(rest, "\n")
	if !found || !ended {
		t.Fatal("no ACL rules in the page")
	}
	rights := func(text string) []string {
		var found []string
		for word := range strings.FieldsSeq(text) {
			if word[0] == '+' || word[0] == '-' {
				found = append(found, word)
			}
		}
		slices.Sort(found)
		return found
	}
	if got, want := rights(documented), rights(aclUser); !slices.Equal(got, want) {
		t.Errorf("documented are %v, tested are %v", got, want)
	}
}

func TestAnOrderAmongRecordsOfANewerRelease(t *testing.T) {
	server := testservers.Redis(t, testservers.RedisOptions{})
	store := open(t, Options{Addresses: []string{server.Addr}})
	newer, ours := createSession(t, store), createSession(t, store)
	if err := server.Client(t).Set(t.Context(), store.key(newer.ID), "2 some other form", time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	n, err := store.RevokeWhere(t.Context(), everybody(), order)
	if n != 1 || ProblemOf(err) != ProblemNewerRecord {
		t.Errorf("%d revoked, %v", n, err)
	}
	if found, err := store.Load(t.Context(), ours.ID); err != nil || found.Revoked == nil {
		t.Errorf("the session that is understood: %+v %v", found.Revoked, err)
	}
}

// Their places are told, and nothing of the rest of the index is left undone.
func TestARecordOfANewerReleaseDoesNotEndAnOrder(t *testing.T) {
	server := testservers.Redis(t, testservers.RedisOptions{})
	store := open(t, Options{Addresses: []string{server.Addr}})
	ours := createSession(t, store)
	client := server.Client(t)
	for i := range 2 * indexPage { // "!" is before every character of an ID
		id := session.ID(fmt.Sprintf("!%05d", i))
		if err := client.ZAdd(t.Context(), store.index(), goredis.Z{Member: string(id)}).Err(); err != nil {
			t.Fatal(err)
		}
		if i%indexPage != 0 {
			continue
		}
		if err := client.Set(t.Context(), store.key(id), "2 some other form", time.Hour).Err(); err != nil {
			t.Fatal(err)
		}
	}
	n, err := store.RevokeWhere(t.Context(), everybody(), order)
	unreadable, ok := errors.AsType[*session.UnreadableError](err)
	if n != 1 || !ok || ProblemOf(err) != ProblemNewerRecord || !strings.Contains(unreadable.Remedy, "upgrade") {
		t.Fatalf("%d revoked, %v", n, err)
	}
	want := []string{"key " + store.key("!00000"), "key " + store.key("!00256")}
	if unreadable.Records != len(want) || !slices.Equal(unreadable.Places, want) {
		t.Errorf("%d records, places %q, want %q", unreadable.Records, unreadable.Places, want)
	}
	if found, err := store.Load(t.Context(), ours.ID); err != nil || found.Revoked == nil {
		t.Errorf("the session behind them: %+v %v", found.Revoked, err)
	}
}

func TestAnOrderWithoutScriptsInTheServersCache(t *testing.T) {
	server := testservers.Redis(t, testservers.RedisOptions{})
	store := open(t, Options{Addresses: []string{server.Addr}})
	for range revokeAtOnce + 1 {
		createSession(t, store)
	}
	if err := server.Client(t).ScriptFlush(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if n, err := store.RevokeWhere(t.Context(), everybody(), order); n != revokeAtOnce+1 || err != nil {
		t.Errorf("%d revoked of %d, %v", n, revokeAtOnce+1, err)
	}
}

// TestTheIndexLosesOnlyTheDead has sessions go as Redis lets them go.
func TestTheIndexLosesOnlyTheDead(t *testing.T) {
	server := testservers.Redis(t, testservers.RedisOptions{})
	admin := server.Client(t)
	store := open(t, Options{Addresses: []string{server.Addr}})
	listed := func() int64 { return admin.ZCard(t.Context(), store.index()).Val() }

	t.Run("logins keep it small", func(t *testing.T) {
		const logins = 2000
		for range logins {
			if err := admin.Del(t.Context(), store.key(createSession(t, store).ID)).Err(); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "the index is smaller than all logins", func() error {
			if n := listed(); n > logins/2 {
				return fmt.Errorf("it lists %d", n)
			}
			return nil
		})
	})
	t.Run("whoever lives stays", func(t *testing.T) {
		var live []session.Session
		for range 3 * trimPage {
			live = append(live, createSession(t, store))
			if err := admin.Del(t.Context(), store.key(createSession(t, store).ID)).Err(); err != nil {
				t.Fatal(err)
			}
		}
		for around := session.ID(""); listed() > int64(len(live)); {
			before := listed()
			if err := store.trim(t.Context(), around); err != nil {
				t.Fatal(err)
			}
			if listed() == before { // nothing dead there: go on behind it
				part := mustList(t, store, "("+string(around))
				if len(part) == 0 {
					t.Fatalf("%d are listed, %d live", before, len(live))
				}
				around = session.ID(part[len(part)-1])
			}
		}
		if n, err := store.RevokeWhere(t.Context(), everybody(), order); n != len(live) || err != nil {
			t.Errorf("%d revoked of %d, %v", n, len(live), err)
		}
	})
}

// TestRepeatedOrder sends what an order and a counter send twice, as the client does when
// the answer to the first was lost.
func TestRepeatedOrder(t *testing.T) {
	server := testservers.Redis(t, testservers.RedisOptions{})
	store := open(t, Options{Addresses: []string{server.Addr}})
	ctx := t.Context()
	s := createSession(t, store)
	for _, attempt := range []struct {
		version string
		mine    bool
	}{{"one", true}, {"one", true}, {"two", false}} {
		keys, arguments := store.revocation(s.ID, order, attempt.version, time.Time{}, false)
		if mine, err := wroteIt(store.scripts.revoke.Run(ctx, store.client, keys, arguments...), attempt.version); mine != attempt.mine || err != nil {
			t.Errorf("%q: it was mine: %v, %v", attempt.version, mine, err)
		}
	}

	now, key := time.Now().UnixMilli(), []string{store.allowance("k")}
	const minute = 60000
	take := func(writer string) int64 {
		t.Helper()
		wait, err := store.scripts.take.Run(ctx, store.client, key, writer, now, now+2*minute, now+3*minute, minute).Int64()
		if err != nil {
			t.Fatal(err)
		}
		return wait
	}
	giveBack := func(writer string) {
		t.Helper()
		if err := store.scripts.giveBack.Run(ctx, store.client, key, writer, minute).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for _, writer := range []string{"a", "a", "b", "b"} {
		if take(writer) != 0 {
			t.Error("an attempt that was sent twice was counted twice")
		}
	}
	if take("c") == 0 {
		t.Error("two attempts were not counted")
	}
	giveBack("d")
	giveBack("d")
	if take("e") != 0 || take("f") == 0 {
		t.Error("one that was given back twice counts more than once")
	}
}

// TestCounterDoesTheArithmeticOfLimits compares the script with [attempts.Limit].
func TestCounterDoesTheArithmeticOfLimits(t *testing.T) {
	server := testservers.Redis(t, testservers.RedisOptions{})
	clock := storetest.NewClock()
	store := open(t, Options{Addresses: []string{server.Addr}, Now: clock.Now})
	model := memory.New(store.options.Policy, memory.Options{Now: clock.Now})
	random := rand.New(rand.NewPCG(1, 2))
	limits := []attempts.Limit{{Burst: 1, Interval: time.Hour}, {Burst: 5, Interval: 7 * time.Minute}, {Burst: 30, Interval: 24 * time.Hour}}
	for step := range 2000 {
		clock.Advance(time.Duration(random.Int64N(int64(11*time.Minute))).Truncate(time.Millisecond) * time.Duration(random.IntN(2)))
		key, limit := attempts.Key([]string{"a", "b"}[random.IntN(2)]), limits[random.IntN(3)]
		if random.IntN(6) == 0 {
			if err := errors.Join(store.GiveBack(t.Context(), key, limit), model.GiveBack(t.Context(), key, limit)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		got, err := store.Take(t.Context(), key, limit)
		want, _ := model.Take(t.Context(), key, limit)
		if err != nil || got != want {
			t.Fatalf("step %d, %+v: the wait is %s, it should be %s; %v", step, limit, got, want, err)
		}
	}
}

func TestAttemptsLiveAsLongAsTheyCount(t *testing.T) {
	server := testservers.Redis(t, testservers.RedisOptions{})
	store := open(t, Options{Addresses: []string{server.Addr}})
	limit := attempts.Limit{Burst: 3, Interval: time.Hour}
	key := store.allowance("k")
	left := func() time.Duration {
		return server.Client(t).PTTL(t.Context(), key).Val().Round(time.Minute)
	}
	for n := 1; n <= 2; n++ {
		if _, err := store.Take(t.Context(), "k", limit); err != nil {
			t.Fatal(err)
		}
		if got := left(); got != time.Duration(n)*time.Hour {
			t.Errorf("after %d attempts it lives for %s", n, got)
		}
	}
	for n := 1; n <= 2; n++ {
		if err := store.GiveBack(t.Context(), "k", limit); err != nil {
			t.Fatal(err)
		}
	}
	if n := server.Client(t).Exists(t.Context(), key).Val(); n != 0 {
		t.Error("a whole allowance is kept")
	}
}

func mustList(tb testing.TB, store *Store, from string) []string {
	tb.Helper()
	ids, err := store.listed(tb.Context(), from, trimPage)
	if err != nil {
		tb.Fatal(err)
	}
	return ids
}
