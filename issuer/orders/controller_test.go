// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package orders

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/issuer/refusal"
)

func queueOf(t *testing.T) queue {
	t.Helper()
	q := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[ctrl.Request]())
	t.Cleanup(q.ShutDown)
	return q
}

// together has replicas look at the policy at one time.
func (w *world) together(replicas ...*issuer) {
	w.t.Helper()
	var done sync.WaitGroup
	for _, i := range replicas {
		done.Go(func() {
			if _, err := i.Reconcile(w.t.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(w.policy)}); err != nil {
				w.t.Error(err)
			}
		})
	}
	done.Wait()
}

func (i *issuer) claims() int {
	i.memory.mu.Lock()
	defer i.memory.mu.Unlock()
	claims := 0
	for _, r := range i.memory.policies {
		for _, k := range r.orders {
			if k.mine {
				claims++
			}
		}
	}
	return claims
}

func TestTwoIssuersCarryOutOneOrder(t *testing.T) {
	for name, in := range map[string]backend{"memory": inMemory, "configMap": inConfigMaps} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, in)
			one, two := w.issuer(), w.issuer()
			before := w.clock.Now().Add(-time.Minute)
			was := []session.Session{
				w.login(one.store, "alice", before), w.login(two.store, "alice", before), w.login(one.store, "alice", w.clock.Now()),
				w.login(two.store, "bob", before),
			}
			events, err := two.store.Revocations(t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			w.order(api.RevokeSubjectAnnotation, "alice")
			w.together(one, two)

			entry := w.want(api.RevokeSubject, "alice", api.RevocationInProgress, 3)
			if one.claims()+two.claims() != 1 || one.store.calls()+two.store.calls() != 1 {
				t.Errorf("%d and %d claims, %d and %d sweeps", one.claims(), two.claims(), one.store.calls(), two.store.calls())
			}
			if got := w.alive(two.store, was...); got != "bob" {
				t.Errorf("alive: %q", got)
			}
			heard := map[session.ID]bool{}
			for len(heard) < 3 {
				if e := <-events; !e.Synced {
					heard[e.ID] = true
				}
			}
			if heard[was[3].ID] {
				t.Error("bob was revoked")
			}

			// One login was under way, one begins after the order.
			late := w.login(one.store, "alice", entry.OrderTime.Time)
			w.clock.pass(2 * time.Second)
			again := w.login(two.store, "alice", w.clock.Now())
			w.clock.pass(settle)
			w.together(one, two)
			done := w.want(api.RevokeSubject, "alice", api.RevocationCompleted, 4)
			if done.CompletionTime == nil || done.Message != "" || !done.OrderTime.Equal(&entry.OrderTime) {
				t.Errorf("completed as %+v", done)
			}
			if got := w.alive(one.store, append(was, late, again)...); got != "alice bob" {
				t.Errorf("alive: %q", got)
			}
			if e := <-events; e.ID != late.ID {
				t.Errorf("the watcher heard of %q, not of %q", e.ID, late.ID)
			}
			if got := w.events.of(SessionsRevoked); len(got) != 1 || !strings.Contains(got[0], "4 sessions") || strings.Contains(got[0], "alice") {
				t.Errorf("events %q", got)
			}

			// The same value stays what it was.
			calls := one.store.calls() + two.store.calls()
			w.clock.pass(time.Hour)
			w.together(one, two)
			w.want(api.RevokeSubject, "alice", api.RevocationCompleted, 4)
			if one.store.calls()+two.store.calls() != calls {
				t.Error("a completed order was carried out again")
			}
		})
	}
}

func TestBothOrdersAtOnce(t *testing.T) {
	w := newWorld(t, inMemory)
	i := w.issuer()
	now := w.clock.Now()
	was := []session.Session{
		w.login(i.store, "alice", now), w.login(i.store, "bob", now.Add(-3*time.Minute)), w.login(i.store, "carol", now),
	}
	alice, all := "alice", now.Add(-time.Minute).Format(time.RFC3339)
	w.annotate(map[string]*string{api.RevokeSubjectAnnotation: &alice, api.RevokeAllAnnotation: &all})
	if wait := w.look(i); wait <= 0 || wait > settle {
		t.Errorf("looked at again after %s", wait)
	}
	w.want(api.RevokeSubject, "alice", api.RevocationInProgress, 1)
	w.want(api.RevokeAll, all, api.RevocationInProgress, 1)
	if got := w.alive(i.store, was...); got != "carol" {
		t.Errorf("alive: %q", got)
	}
	w.clock.pass(settle)
	w.look(i)
	w.want(api.RevokeSubject, "alice", api.RevocationCompleted, 1)
	w.want(api.RevokeAll, all, api.RevocationCompleted, 1)
}

// A clock that is ahead is not a reason to let sessions live that begin until then.
func TestAMomentThatIsALittleAhead(t *testing.T) {
	w := newWorld(t, inMemory)
	i := w.issuer()
	all := w.clock.Now().Add(40 * time.Second).UTC().Format(time.RFC3339)
	w.order(api.RevokeAllAnnotation, all)
	w.look(i)
	w.clock.pass(35 * time.Second)
	w.login(i.store, "alice", w.clock.Now())
	w.look(i)
	w.want(api.RevokeAll, all, api.RevocationInProgress, 0)
	w.clock.pass(5*time.Second + settle)
	w.look(i)
	w.want(api.RevokeAll, all, api.RevocationCompleted, 1)
}

func TestRefusedOrdersReachNoStore(t *testing.T) {
	future := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	for name, test := range map[string]struct {
		order             api.RevocationOrder
		annotation, value string
		says              string
	}{
		"a moment in the future": {api.RevokeAll, api.RevokeAllAnnotation, future, "$(date -u +%Y-%m-%dT%H:%M:%SZ)"},
		"no moment":              {api.RevokeAll, api.RevokeAllAnnotation, "yesterday", "$(date -u +%Y-%m-%dT%H:%M:%SZ)"},
		"no subject":             {api.RevokeSubject, api.RevokeSubjectAnnotation, "", "empty"},
		"no possible subject":    {api.RevokeSubject, api.RevokeSubjectAnnotation, strings.Repeat("é", 3000), "6000 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, inMemory)
			i := w.issuer()
			alice := w.login(i.store, "alice", w.clock.Now())
			w.order(test.annotation, test.value)
			for range 2 {
				if wait := w.look(i); wait != 0 {
					t.Errorf("looked at again after %s", wait)
				}
			}
			if got := w.want(test.order, beginning(test.value), api.RevocationRefused, 0); !strings.Contains(got.Message, test.says) {
				t.Errorf("message %q", got.Message)
			}
			if got := w.events.of(RevocationRefused); len(got) != 1 {
				t.Errorf("events %q", got)
			}
			if i.store.calls() != 0 || w.alive(i.store, alice) != "alice" {
				t.Error("a store was asked")
			}
			// What is written instead is carried out at once.
			right := map[api.RevocationOrder]string{api.RevokeAll: w.clock.Now().UTC().Format(time.RFC3339), api.RevokeSubject: "alice"}[test.order]
			w.order(test.annotation, right)
			w.look(i)
			w.want(test.order, right, api.RevocationInProgress, 1)
		})
	}
}

func TestAStoreThatIsAwayDelaysAnOrder(t *testing.T) {
	for name, test := range map[string]struct {
		breaks func(*issuer)
		mends  func(*issuer)
		says   string
	}{
		"the store does not answer": {
			breaks: func(i *issuer) { i.store.fail(errors.New("dial tcp 10.1.2.3:6379: refused")) },
			mends:  func(i *issuer) { i.store.fail(nil) },
			says:   "the session store does not answer",
		},
		"the policy cannot be served": {
			breaks: func(i *issuer) { i.err = refusal.Unavailable("the SigningKey has no key yet", nil) },
			mends:  func(i *issuer) { i.err = nil },
			says:   "the SigningKey has no key yet",
		},
		"the registry still has a namesake": {
			breaks: func(i *issuer) { i.serves.UID = "another" },
			mends:  func(i *issuer) { i.serves.UID = session.PolicyID(i.serves.Namespace) },
			says:   "another TokenPolicy",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, inMemory)
			i := w.issuer()
			i.serves.Namespace = string(w.policy.UID)
			w.login(i.store, "alice", w.clock.Now())
			test.breaks(i)
			w.order(api.RevokeSubjectAnnotation, "alice")
			var waited time.Duration
			for range 20 {
				wait := w.look(i)
				if wait < firstDelay || wait > lastDelay || wait < waited && wait != lastDelay {
					t.Fatalf("tried again after %s, then after %s", waited, wait)
				}
				calls := i.store.calls()
				if again := w.look(i); again != wait || i.store.calls() != calls {
					t.Fatalf("a look in between asks the store, or changes the wait to %s", again)
				}
				waited = wait
				w.clock.pass(wait)
			}
			got := w.want(api.RevokeSubject, "alice", api.RevocationInProgress, 0)
			if !strings.Contains(got.Message, test.says) || strings.Contains(got.Message, "10.1.2.3") {
				t.Errorf("message %q", got.Message)
			}
			if got := w.events.of(RevocationDelayed); len(got) != 1 {
				t.Errorf("events %q", got)
			}
			test.mends(i)
			w.look(i)
			w.want(api.RevokeSubject, "alice", api.RevocationCompleted, 1)
		})
	}
}

func TestAnotherIssuerTakesOverAfterACrash(t *testing.T) {
	w := newWorld(t, inMemory)
	one, two := w.issuer(), w.issuer()
	alice := w.login(one.store, "alice", w.clock.Now())
	w.order(api.RevokeSubjectAnnotation, "alice")
	ctx, crash := context.WithCancel(t.Context())
	one.store.before = crash // between the claim and the sweep
	if _, err := one.Reconcile(ctx, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(w.policy)}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	w.want(api.RevokeSubject, "alice", api.RevocationInProgress, 0)
	wait := w.look(two)
	if wait <= 0 || wait > takeOver || two.store.calls() != 0 {
		t.Fatalf("%d sweeps, looked at again after %s", two.store.calls(), wait)
	}
	w.clock.pass(wait)
	w.look(two)
	w.want(api.RevokeSubject, "alice", api.RevocationCompleted, 1)
	if w.alive(two.store, alice) != "" {
		t.Error("the session is alive")
	}
}

func TestACrashBeforeTheReportLosesNoSession(t *testing.T) {
	w := newWorld(t, inMemory)
	one, two := w.issuer(), w.issuer()
	w.login(one.store, "alice", w.clock.Now())
	w.order(api.RevokeSubjectAnnotation, "alice")
	w.look(one)
	w.clock.pass(takeOver)
	late := w.login(two.store, "alice", w.clock.Now().Add(-takeOver))
	w.look(two) // one is gone
	w.want(api.RevokeSubject, "alice", api.RevocationCompleted, 2)
	if w.alive(two.store, late) != "" {
		t.Error("the session is alive")
	}
}

func TestAConflictLosesNoCount(t *testing.T) {
	w := newWorld(t, inMemory)
	i := w.issuer()
	w.login(i.store, "alice", w.clock.Now())
	w.order(api.RevokeSubjectAnnotation, "alice")
	n := 0
	i.store.before = func() { // somebody else writes between the sweep's beginning and its report
		n++
		w.order("example.com/note", strings.Repeat("x", n))
	}
	w.look(i)
	w.want(api.RevokeSubject, "alice", api.RevocationInProgress, 1)
	w.clock.pass(settle)
	w.look(i)
	w.want(api.RevokeSubject, "alice", api.RevocationCompleted, 1)
	if n != 2 {
		t.Errorf("%d sweeps", n)
	}
}

func TestARemovedAnnotationClearsAndMayComeAgain(t *testing.T) {
	w := newWorld(t, inMemory)
	i := w.issuer()
	w.order(api.RevokeSubjectAnnotation, "alice")
	w.look(i)
	w.clock.pass(settle)
	w.look(i)
	first := w.want(api.RevokeSubject, "alice", api.RevocationCompleted, 0)
	w.remove(api.RevokeSubjectAnnotation)
	w.look(i)
	w.want(api.RevokeSubject, "", "", 0)
	w.login(i.store, "alice", w.clock.Now())
	w.order(api.RevokeSubjectAnnotation, "alice")
	w.look(i)
	if second := w.want(api.RevokeSubject, "alice", api.RevocationInProgress, 1); !second.OrderTime.After(first.OrderTime.Time) {
		t.Errorf("ordered at %s, and again at %s", first.OrderTime, second.OrderTime)
	}
}

// Nobody looks in between; both replicas have seen it, and one of them claims it.
func TestARemovalThatOnlyTheWatchHasSeen(t *testing.T) {
	w := newWorld(t, inMemory)
	one, two := w.issuer(), w.issuer()
	w.order(api.RevokeSubjectAnnotation, "alice")
	w.together(one, two)
	w.clock.pass(settle)
	w.together(one, two)
	w.want(api.RevokeSubject, "alice", api.RevocationCompleted, 0)
	w.login(one.store, "alice", w.clock.Now())
	removed := w.remove(api.RevokeSubjectAnnotation)
	added := w.order(api.RevokeSubjectAnnotation, "alice")
	for _, i := range []*issuer{one, two} {
		w.watched(i, added, removed)
		w.watched(i, removed, added)
	}
	w.together(one, two)
	w.want(api.RevokeSubject, "alice", api.RevocationInProgress, 1)
	w.clock.pass(settle)
	w.together(one, two)
	w.clock.pass(takeOver)
	w.together(one, two)
	w.want(api.RevokeSubject, "alice", api.RevocationCompleted, 1)
	if got := w.events.of(SessionsRevoked); len(got) != 2 {
		t.Errorf("events %q", got)
	}
}

// A script that goes from subject to subject does not wait for the second sweep.
func TestOneSubjectAfterTheOther(t *testing.T) {
	w := newWorld(t, inMemory)
	one, two := w.issuer(), w.issuer()
	subjects := []string{"alice", "bob", "carol"}
	began := w.clock.Now()
	for _, subject := range subjects {
		w.login(one.store, subject, began)
		w.order(api.RevokeSubjectAnnotation, subject)
		w.look(one)
		w.look(two)
		w.want(api.RevokeSubject, subject, api.RevocationInProgress, 1)
	}
	var late []session.Session
	for _, subject := range subjects {
		late = append(late, w.login(two.store, subject, began))
	}
	w.clock.pass(settle)
	w.look(one)
	if got := w.alive(one.store, late...); got != "" {
		t.Errorf("logins that were under way are alive: %s", got)
	}
	w.want(api.RevokeSubject, "carol", api.RevocationCompleted, 2)
	w.look(two)
	if wait := w.look(two); wait != 0 {
		t.Errorf("looked at again after %s", wait)
	}
}

func TestAnOrderIsDoneAlthoughItsAnnotationWentOn(t *testing.T) {
	w := newWorld(t, inMemory)
	i := w.issuer()
	was := w.login(i.store, "alice", w.clock.Now())
	i.store.fail(errors.New("away"))
	w.order(api.RevokeSubjectAnnotation, "alice")
	w.look(i)
	w.order(api.RevokeSubjectAnnotation, "bob")
	wait := w.look(i)
	w.want(api.RevokeSubject, "alice", api.RevocationInProgress, 0)
	i.store.fail(nil)
	w.clock.pass(wait)
	w.look(i)
	w.want(api.RevokeSubject, "bob", api.RevocationInProgress, 0)
	if w.alive(i.store, was) != "" {
		t.Error("the first order was lost")
	}
	if got := w.events.of(SessionsRevoked); len(got) != 1 || !strings.Contains(got[0], "1 sessions") {
		t.Errorf("events %q", got)
	}
}

func TestADeletedPolicyIsForgotten(t *testing.T) {
	w := newWorld(t, inMemory)
	i := w.issuer()
	i.store.fail(errors.New("away"))
	w.order(api.RevokeSubjectAnnotation, "alice")
	w.look(i)
	if err := server.Delete(t.Context(), w.policy); err != nil {
		t.Fatal(err)
	}
	w.clock.pass(time.Hour)
	calls := i.store.calls()
	if wait := w.look(i); wait != 0 || i.store.calls() != calls || len(i.memory.policies) != 0 {
		t.Errorf("looked at again after %s; %d policies are remembered", wait, len(i.memory.policies))
	}
}

func TestAPolicyWithoutOrdersCostsNoRequest(t *testing.T) {
	w := newWorld(t, inMemory)
	i := w.issuer()
	i.live = nil // a call would panic
	if wait := w.look(i); wait != 0 {
		t.Errorf("looked at again after %s", wait)
	}
}
