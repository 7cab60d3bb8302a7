// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package keyring

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/token"
)

func TestImport(t *testing.T) {
	a, b := newKey(t), newKey(t)
	imported := func(t *testing.T) *life {
		t.Helper()
		l := &life{tb: t, ring: New("uid"), plan: basePlan()}
		l.plan.Import = a
		l.plan.Generate = nil
		l.step(0)
		l.want([]State{Active}, KeyActivated)
		if l.active() != a.Public().ID {
			t.Fatal("the imported key does not sign")
		}
		return l
	}
	t.Run("is not rotated by the clock", func(t *testing.T) {
		l := imported(t)
		l.step(100 * time.Hour)
		l.want([]State{Active})
		l.wantWait(0)
	})
	t.Run("is not rotated by request, which is said once", func(t *testing.T) {
		l := imported(t)
		l.plan.RotateRequest = "1"
		l.step(0)
		l.want([]State{Active}, RotationSkipped)
		l.step(0)
		l.want([]State{Active})
	})
	t.Run("is replaced in due time when the Secret changes", func(t *testing.T) {
		l := imported(t)
		l.plan.Import = b
		l.step(0)
		l.want([]State{Published, Active}, KeyPublished)
		l.step(time.Hour)
		l.want([]State{Active, Retired}, KeyRetired, KeyActivated)
	})
	t.Run("may go back to the key that still signs", func(t *testing.T) {
		l := imported(t)
		l.plan.Import = b
		l.step(0)
		l.plan.Import = a
		l.step(0)
		l.want([]State{Active}, KeyRemoved)
		l.plan.Import = b
		l.step(0)
		l.want([]State{Published, Active}, KeyPublished)
	})
	t.Run("may not go back to a retired key", func(t *testing.T) {
		l := imported(t)
		l.plan.Import = b
		l.step(0)
		l.step(time.Hour)
		l.plan.Import = a
		l.step(0)
		wantImportError(t, l.err, a.Public().ID)
		if !strings.Contains(l.err.Error(), "signs no more: put another private key into the Secret") {
			t.Errorf("the remedy is missing: %v", l.err)
		}
		if l.active() != b.Public().ID || l.state(a.Public().ID) != Retired {
			t.Error("the ring did not stay as it was")
		}
	})
	t.Run("may not go back to a removed key", func(t *testing.T) {
		l := imported(t)
		l.plan.Import = b
		l.step(0)
		l.step(time.Hour)
		l.step(3 * time.Hour)
		l.want([]State{Active}, KeyRemoved)
		l.plan.Import = a
		l.step(0)
		wantImportError(t, l.err, a.Public().ID)
	})
	t.Run("of the revoked key ends with no key and says what to do", func(t *testing.T) {
		l := imported(t)
		l.plan.RevokedKeyIDs = []string{a.Public().ID}
		l.step(0)
		wantImportError(t, l.err, a.Public().ID)
		if len(l.ring.Keys) != 0 {
			t.Error("the revoked key still verifies")
		}
		l.plan.RevokedKeyIDs = nil // taking the id from the list does not bring it back
		l.step(0)
		wantImportError(t, l.err, a.Public().ID)
		l.plan.Import = b
		l.step(0)
		l.want([]State{Active}, KeyActivated)
	})
	t.Run("of a key that was revoked before it came is refused", func(t *testing.T) {
		l := &life{tb: t, ring: New("uid"), plan: basePlan()}
		l.plan.Import, l.plan.RevokedKeyIDs = a, []string{a.Public().ID}
		l.step(0)
		wantImportError(t, l.err, a.Public().ID)
		if len(l.ring.Keys) != 0 {
			t.Error("it is in the ring")
		}
	})
	t.Run("whose Secret cannot be read goes on", func(t *testing.T) {
		l := imported(t)
		l.plan.Import = nil
		l.plan.RotateRequest = "1"
		l.step(100 * time.Hour)
		l.want([]State{Active})
		l.plan.Import = b // it can be read again
		l.step(0)
		l.want([]State{Published, Active}, KeyPublished)
	})
	t.Run("whose Secret cannot be read at the start says so", func(t *testing.T) {
		l := &life{tb: t, ring: New("uid"), plan: basePlan()}
		l.plan.Generate = nil
		l.step(0)
		if !errors.Is(l.err, ErrNoSource) || len(l.ring.Keys) != 0 {
			t.Errorf("got %v", l.err)
		}
	})
	t.Run("that is taken from the spec is replaced by a generated key", func(t *testing.T) {
		l := imported(t)
		l.plan.Import, l.plan.Generate = nil, token.GenerateKey
		l.step(0)
		l.want([]State{Published, Active}, KeyPublished)
		l.step(time.Hour)
		l.want([]State{Active, Retired}, KeyRetired, KeyActivated)
	})
	t.Run("replaces generated keys", func(t *testing.T) {
		l := begin(t)
		l.plan.Import = a
		l.step(0)
		l.want([]State{Published, Active}, KeyPublished)
		l.step(time.Hour)
		if l.active() != a.Public().ID {
			t.Error("the imported key does not sign")
		}
	})
	t.Run("survives the loss of the operator's Secret", func(t *testing.T) {
		l := imported(t)
		l.loseSecret()
		l.step(0)
		l.want([]State{Active})
		if key, _ := l.ring.Active(); key.Private == nil || key.Public.ID != a.Public().ID {
			t.Error("the imported key does not sign any more")
		}
	})
	t.Run("of another key after the loss of the operator's Secret signs at once", func(t *testing.T) {
		l := imported(t)
		l.loseSecret()
		l.plan.Import = b
		l.step(0)
		l.want([]State{Active, Retired}, KeyLost, KeyRetired, KeyActivated)
	})
	t.Run("for one key and two algorithms is refused", func(t *testing.T) {
		rs, err := token.GenerateKey(token.RS256, token.MinRSABits)
		if err != nil {
			t.Fatal(err)
		}
		der, err := rs.PKCS8()
		if err != nil {
			t.Fatal(err)
		}
		ps, err := token.ParsePKCS8(token.PS256, der)
		if err != nil {
			t.Fatal(err)
		}
		l := &life{tb: t, ring: New("uid"), plan: basePlan()}
		l.plan.Import, l.plan.Algorithm = rs, token.RS256
		l.step(0)
		l.plan.Import, l.plan.Algorithm = ps, token.PS256
		l.step(0)
		wantImportError(t, l.err, rs.Public().ID)
		l.plan.Algorithm = token.RS256
		l.step(0)
		wantImportError(t, l.err, rs.Public().ID)
	})
}

func TestRemovedIDsAreBoundedAndImportedOnesAreForgottenLast(t *testing.T) {
	l := begin(t)
	for i := range MaxRemoved {
		l.ring.Removed = append(l.ring.Removed, RemovedKey{ID: fmt.Sprint(i), At: start, Lasting: i < 3})
	}
	l.plan.RevokedKeyIDs = []string{l.active()}
	l.step(0)
	if len(l.ring.Removed) != MaxRemoved {
		t.Fatalf("%d are remembered", len(l.ring.Removed))
	}
	if !l.ring.wasRemoved("0") || l.ring.wasRemoved("3") || !l.ring.wasRemoved(l.plan.RevokedKeyIDs[0]) {
		t.Error("the wrong one was forgotten")
	}
}

func TestIDsThatSomebodyCouldBringBackAreMarked(t *testing.T) {
	l := begin(t)
	generated := l.active()
	imported := newKey(t)
	l.plan.Import = imported
	l.step(0)
	l.step(time.Hour)
	l.plan.Import = newKey(t)
	l.step(3 * time.Hour)
	l.step(time.Hour)
	l.step(3 * time.Hour)
	l.plan.Import, l.plan.RevokedKeyIDs = nil, []string{l.active()}
	l.step(0)
	got := map[string]bool{}
	for _, key := range l.ring.Removed {
		got[key.ID] = key.Lasting
	}
	want := map[string]bool{generated: false, imported.Public().ID: true, l.plan.RevokedKeyIDs[0]: true}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestARevokedGeneratedIDIsMarked(t *testing.T) {
	l := begin(t)
	l.plan.RevokedKeyIDs = []string{l.active()}
	l.step(0)
	if len(l.ring.Removed) != 1 || !l.ring.Removed[0].Lasting {
		t.Errorf("removed is %v", l.ring.Removed)
	}
}
