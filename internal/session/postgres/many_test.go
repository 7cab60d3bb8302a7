// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tokenward/tokenward/internal/attempts"
	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/session/memory"
	"github.com/tokenward/tokenward/internal/session/storetest"
	"github.com/tokenward/tokenward/internal/testservers"
	"github.com/tokenward/tokenward/internal/token"
)

func order() session.Revocation {
	return session.Revocation{At: time.Now(), Reason: token.SessionRevoked}
}

// copies makes that many more of a session.
func copies(tb testing.TB, store *Store, of session.Session, n int) {
	tb.Helper()
	if err := store.database.do(tb.Context(), func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `INSERT INTO tokenward.sessions (policy, id, version, prior, subject, generation, current_id, current_key_id, current_expires_at, previous_id, created_at, keep_until, forget_after)
			SELECT policy, id || n, version, prior, subject, generation, current_id, current_key_id, current_expires_at, previous_id, created_at, keep_until, forget_after
			FROM tokenward.sessions, generate_series(1, $2::int) AS n WHERE id = $1`, string(of.ID), n)
		return err
	}); err != nil {
		tb.Fatal(err)
	}
}

func TestAnOrderOfOneSubjectGoesByItsIndex(t *testing.T) {
	server := testservers.Postgres(t)
	database := server.Database(t)
	store := open(t, testConfig(server, database)).Store(storetest.NewPolicyID(), StoreOptions{})
	copies(t, store, create(t, store), 20000)
	server.Exec(t, database, "UPDATE tokenward.sessions SET subject = 'somebody' || id; ANALYZE tokenward.sessions")
	conn := raw(t, server, database)
	rows, err := conn.Query(t.Context(), "EXPLAIN "+revokeSubjectStatement, pgx.QueryExecModeSimpleProtocol,
		string(store.policy), "", time.Now(), time.Now(), revokeAtOnce, "v", time.Now(), "session_revoked", "alice")
	if err != nil {
		t.Fatal(err)
	}
	plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(strings.Join(plan, "\n"), "sessions_subjects") {
		t.Error(strings.Join(plan, "\n"))
	}
}

func TestOrdersAndRevocationsAtOnceNumberEachOnce(t *testing.T) {
	server := testservers.Postgres(t)
	d := open(t, testConfig(server, server.Database(t)))
	store := d.Store(storetest.NewPolicyID(), StoreOptions{})
	copies(t, store, create(t, store), 2*revokeAtOnce+10)
	var singles []session.Session
	for range 40 {
		singles = append(singles, create(t, store))
	}
	var group sync.WaitGroup
	total, counts := 2*revokeAtOnce+11+len(singles), make([]int, 3)
	for i := range counts {
		group.Go(func() {
			n, err := store.RevokeWhere(t.Context(), session.Selection{AllSubjects: true, CreatedUntil: time.Now()}, order())
			if err != nil {
				t.Error(err)
			}
			counts[i] = n
		})
	}
	for _, s := range singles {
		group.Go(func() {
			if _, err := store.Swap(t.Context(), s.Revoke(token.UserDisabled, time.Now())); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	var rows, numbers, highest, counter, alone int
	if err := d.do(t.Context(), func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, `SELECT count(revoked_at), count(DISTINCT revocation), max(revocation), (SELECT revocations FROM tokenward.policies),
			count(*) FILTER (WHERE revoked_reason = 'user_disabled') FROM tokenward.sessions`).Scan(&rows, &numbers, &highest, &counter, &alone)
	}); err != nil {
		t.Fatal(err)
	}
	if rows != total || numbers != total || highest > counter || counts[0]+counts[1]+counts[2]+alone != total {
		t.Errorf("%d of %d are revoked, %v by orders and %d alone, with %d numbers up to %d; the counter is at %d", rows, total, counts, alone, numbers, highest, counter)
	}
}

// TestCounterDoesTheArithmeticOfLimits compares the statements with [attempts.Limit].
func TestCounterDoesTheArithmeticOfLimits(t *testing.T) {
	server := testservers.Postgres(t)
	clock := storetest.NewClock()
	policy := storetest.NewPolicyID()
	store := open(t, testConfig(server, server.Database(t))).Store(policy, StoreOptions{Now: clock.Now})
	model := memory.New(policy, memory.Options{Now: clock.Now})
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

func TestARefusedAttemptWritesNothing(t *testing.T) {
	server := testservers.Postgres(t)
	database := server.Database(t)
	store := open(t, testConfig(server, database)).Store(storetest.NewPolicyID(), StoreOptions{})
	limit := attempts.Limit{Burst: 1, Interval: time.Hour}
	conn := raw(t, server, database)
	row := func() (place string) {
		if err := conn.QueryRow(t.Context(), "SELECT ctid || ' ' || xmin || ' ' || xmax FROM tokenward.attempts").Scan(&place); err != nil {
			t.Fatal(err)
		}
		return place
	}
	if wait, err := store.Take(t.Context(), "k", limit); wait != 0 || err != nil {
		t.Fatalf("%s, %v", wait, err)
	}
	before := row()
	for range 3 {
		if wait, err := store.Take(t.Context(), "k", limit); wait <= 0 || err != nil {
			t.Errorf("%s, %v", wait, err)
		}
	}
	if after := row(); after != before {
		t.Errorf("the row was %s, and is %s", before, after)
	}
}
