// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package keyring

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/token"
)

func TestTheFirstKeySignsAtOnce(t *testing.T) {
	l := begin(t)
	l.want([]State{Active}, KeyActivated)
	l.wantWait(9 * time.Hour) // an hour before the interval ends
	if l.ring.Version != start.Unix() {
		t.Errorf("version %d", l.ring.Version)
	}
}

func TestAKeyLivesThroughItsStates(t *testing.T) {
	l := begin(t)
	first := l.active()
	version := l.ring.Version

	l.step(9*time.Hour - time.Second)
	l.want([]State{Active})
	l.wantWait(time.Second)

	l.step(time.Second)
	l.want([]State{Published, Active}, KeyPublished)
	l.wantWait(time.Hour)
	if l.ring.Version <= version {
		t.Errorf("publishing: version %d after %d", l.ring.Version, version)
	}
	version = l.ring.Version

	l.step(time.Hour - time.Second)
	l.want([]State{Published, Active})

	l.step(time.Second) // ten hours after the first became active
	l.want([]State{Active, Retired}, KeyRetired, KeyActivated)
	l.wantWait(3 * time.Hour)
	if l.active() == first || l.ring.Version != version {
		t.Errorf("the change of states must change the signer, not the version: %d", l.ring.Version)
	}

	l.step(3*time.Hour - time.Second)
	l.want([]State{Active, Retired})
	l.step(time.Second)
	l.want([]State{Active}, KeyRemoved)
	if l.ring.Version <= version || !l.ring.wasRemoved(first) {
		t.Errorf("version %d, removed %v", l.ring.Version, l.ring.Removed)
	}
}

func TestRotateRequest(t *testing.T) {
	t.Run("one change is one rotation", func(t *testing.T) {
		l := begin(t)
		l.plan.RotateRequest = "1"
		l.step(time.Minute)
		l.want([]State{Published, Active}, KeyPublished)
		l.step(time.Minute)
		l.want([]State{Published, Active})
		l.step(time.Hour)
		l.want([]State{Active, Retired}, KeyRetired, KeyActivated)
		l.step(time.Minute)
		l.want([]State{Active, Retired})
		l.plan.RotateRequest = "2"
		l.step(time.Minute)
		l.want([]State{Published, Active, Retired}, KeyPublished)
	})
	t.Run("that is there before the first key is handled by it", func(t *testing.T) {
		l := &life{tb: t, ring: New("uid"), plan: basePlan()}
		l.plan.RotateRequest = "1"
		l.step(0)
		l.want([]State{Active}, KeyActivated)
		l.step(time.Minute)
		l.want([]State{Active})
	})
	t.Run("while a rotation is under way is handled by it", func(t *testing.T) {
		l := begin(t)
		l.plan.RotateRequest = "1"
		l.step(time.Minute)
		l.plan.RotateRequest = "2"
		l.step(time.Minute)
		l.want([]State{Published, Active}, RotationSkipped)
		l.step(time.Hour)
		l.want([]State{Active, Retired}, KeyRetired, KeyActivated)
		l.step(time.Minute)
		l.want([]State{Active, Retired})
	})
	t.Run("that is taken away asks for nothing", func(t *testing.T) {
		l := begin(t)
		l.plan.RotateRequest = "1"
		l.step(time.Minute)
		l.plan.RotateRequest = ""
		l.step(2 * time.Hour)
		l.step(time.Minute)
		l.want([]State{Active, Retired})
	})
	t.Run("of any length is remembered in little room", func(t *testing.T) {
		l := begin(t)
		l.plan.RotateRequest = strings.Repeat("x", 1<<20)
		l.step(time.Minute)
		l.want([]State{Published, Active}, KeyPublished)
		l.step(2 * time.Hour)
		l.step(time.Minute)
		l.want([]State{Active, Retired})
		if len(l.ring.RotateHandled) > 128 {
			t.Errorf("%d bytes", len(l.ring.RotateHandled))
		}
	})
}

func TestAChangedAlgorithmRotates(t *testing.T) {
	l := begin(t)
	l.plan.Algorithm = token.ES256
	l.step(time.Minute)
	l.want([]State{Published, Active}, KeyPublished)
	if alg := l.ring.Keys[0].Public.Algorithm; alg != token.ES256 {
		t.Errorf("published key is for %s", alg)
	}
	t.Run("and changed again withdraws the key that has not signed", func(t *testing.T) {
		withdrawn := l.published()
		l.plan.Algorithm = token.ES384
		l.step(time.Minute)
		l.want([]State{Published, Active}, KeyRemoved, KeyPublished)
		if l.state(withdrawn) != "" || l.ring.wasRemoved(withdrawn) {
			t.Error("the withdrawn key is still known")
		}
	})
	t.Run("and changed back needs no other key", func(*testing.T) {
		l.plan.Algorithm = token.EdDSA
		l.step(time.Minute)
		l.want([]State{Active}, KeyRemoved)
	})
}

func TestAnIntervalThatIsNotSetNeverEnds(t *testing.T) {
	l := begin(t)
	l.plan.Interval = 0
	l.step(100000 * time.Hour)
	l.want([]State{Active})
	l.wantWait(0)
}

func TestRevocation(t *testing.T) {
	t.Run("of a retired key removes it", func(t *testing.T) {
		l := begin(t)
		first := l.active()
		l.plan.RotateRequest = "1"
		l.step(0)
		l.step(time.Hour)
		l.plan.RevokedKeyIDs = []string{first}
		l.step(0)
		l.want([]State{Active}, KeyRevoked)
	})
	t.Run("of the published key removes it", func(t *testing.T) {
		l := begin(t)
		l.plan.RotateRequest = "1"
		l.step(0)
		l.plan.RevokedKeyIDs = []string{l.published()}
		l.step(0)
		l.want([]State{Active}, KeyRevoked)
	})
	t.Run("of the active key lets the published one sign at once", func(t *testing.T) {
		l := begin(t)
		l.plan.RotateRequest = "1"
		l.step(0)
		next := l.published()
		l.plan.RevokedKeyIDs = []string{l.active()}
		l.step(0)
		l.want([]State{Active}, KeyRevoked, KeyActivated)
		if l.active() != next {
			t.Error("another key took over")
		}
	})
	t.Run("of the active key alone makes a new one that signs at once", func(t *testing.T) {
		l := begin(t)
		version := l.ring.Version
		l.plan.RevokedKeyIDs = []string{l.active()}
		l.step(0)
		l.want([]State{Active}, KeyRevoked, KeyActivated)
		if l.ring.Version != version+1 {
			t.Errorf("version %d, want %d", l.ring.Version, version+1)
		}
		l.step(time.Minute)
		l.want([]State{Active})
	})
	t.Run("of every key leaves one new one", func(t *testing.T) {
		l := begin(t)
		l.plan.RotateRequest = "1"
		l.step(0)
		l.step(time.Hour)
		l.plan.RotateRequest = "2"
		l.step(0)
		for _, key := range l.ring.Keys {
			l.plan.RevokedKeyIDs = append(l.plan.RevokedKeyIDs, key.Public.ID)
		}
		l.step(0)
		l.want([]State{Active}, KeyRevoked, KeyRevoked, KeyRevoked, KeyActivated)
	})
	t.Run("of an unknown id does nothing", func(t *testing.T) {
		l := begin(t)
		l.plan.RevokedKeyIDs = []string{"unknown"}
		l.step(0)
		l.want([]State{Active})
	})
	t.Run("takes effect even when no other key can be made", func(t *testing.T) {
		l := begin(t)
		revoked := l.active()
		l.plan.RevokedKeyIDs = []string{revoked}
		broken := errors.New("no entropy")
		l.plan.Generate = func(token.Algorithm, int) (*token.PrivateKey, error) { return nil, broken }
		l.step(0)
		if !errors.Is(l.err, broken) || len(l.ring.Keys) != 0 {
			t.Fatalf("got %v and %d keys", l.err, len(l.ring.Keys))
		}
		set, err := l.ring.KeySet()
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := set.Lookup(revoked); ok {
			t.Error("the revoked key still verifies")
		}
		l.plan.Generate = token.GenerateKey
		l.step(0)
		l.want([]State{Active}, KeyActivated)
	})
}

func TestALostSecretIsRecoveredFromThePublicRecord(t *testing.T) {
	l := begin(t)
	l.plan.RotateRequest = "1"
	l.step(time.Minute)
	active, published, version := l.active(), l.published(), l.ring.Version
	l.loseSecret()
	if key, ok := l.ring.Active(); !ok || key.Private != nil {
		t.Fatal("the public record has a private half")
	}
	l.step(time.Minute)
	l.want([]State{Active, Retired, Retired}, KeyLost, KeyRetired, KeyLost, KeyRetired, KeyActivated)
	if l.state(active) != Retired || l.state(published) != Retired {
		t.Error("what was signed before does not verify")
	}
	if l.ring.Version <= version {
		t.Errorf("version %d after %d", l.ring.Version, version)
	}
	l.step(3 * time.Hour)
	l.want([]State{Active}, KeyRemoved, KeyRemoved)
}

func TestARingThatLostEverythingStartsAboveTheOldVersion(t *testing.T) {
	l := begin(t)
	for range 5 {
		l.step(l.wait)
	}
	old, err := l.ring.KeySet()
	if err != nil {
		t.Fatal(err)
	}
	l.ring = New("uid")
	l.step(time.Second)
	next, err := l.ring.KeySet()
	if err != nil {
		t.Fatal(err)
	}
	if !next.Supersedes(old) {
		t.Errorf("version %d does not replace %d", next.Version(), old.Version())
	}
}

func TestTheKeysOfABackupReplaceNewerOnesAtTheirNextChange(t *testing.T) {
	l := begin(t)
	backup := l.ring
	for range 10 {
		l.step(l.wait)
	}
	seen := l.ring.Version
	l.ring = backup
	l.step(time.Second)
	if l.ring.Version <= seen {
		t.Errorf("version %d, verifiers have seen %d", l.ring.Version, seen)
	}
}

func TestRetentionIsTheLongestThatWasEverAskedFor(t *testing.T) {
	l := begin(t)
	first := l.active()
	l.plan.Retention = 20 * time.Hour
	l.step(time.Minute)
	l.plan.Retention = time.Hour
	l.plan.RotateRequest = "1"
	l.step(time.Minute)
	l.step(time.Hour)
	l.step(20*time.Hour - time.Second)
	if l.state(first) != Retired {
		t.Error("removed before the tokens minted under the longer policy are dead")
	}
	l.step(time.Second)
	if l.state(first) != "" {
		t.Error("not removed")
	}
	// The key that came after the policy was shortened keeps only the shorter time.
	if key, _ := l.ring.Active(); key.Retention != time.Hour {
		t.Errorf("retention of the next key is %v", key.Retention)
	}
}

func TestAManagerWhoseClockWasFarAheadDoesNotHoldThingsUp(t *testing.T) {
	l := begin(t)
	l.plan.RotateRequest = "1"
	const year = 365 * 24 * time.Hour
	l.step(0)
	l.step(time.Hour)
	l.plan.RotateRequest = "2"
	// All that follows happens a year ahead of time.
	l.step(year)
	l.step(time.Hour)
	l.plan.RotateRequest = "3"
	l.step(0)
	l.want([]State{Published, Active, Retired}, KeyPublished)
	l.step(-year)
	l.want([]State{Published, Active, Retired})
	l.wantWait(time.Hour)
	l.step(time.Hour)
	l.want([]State{Active, Retired, Retired}, KeyRetired, KeyActivated)
	l.step(2 * time.Hour)
	l.want([]State{Active, Retired}, KeyRemoved)
}

func TestManagersWithSmallClockDifferencesDoNotShortenAnything(t *testing.T) {
	l := begin(t)
	first := l.active()
	l.plan.RotateRequest = "1"
	l.step(10 * time.Minute)
	for range 5 { // the leader changes between two managers ten minutes apart
		l.step(-10 * time.Minute)
		l.step(10 * time.Minute)
	}
	l.step(time.Hour - time.Second)
	if l.state(first) != Active {
		t.Error("the next key took over early")
	}
	l.step(time.Second)
	for range 5 {
		l.step(-10 * time.Minute)
		l.step(10 * time.Minute)
	}
	l.step(3*time.Hour - time.Second)
	if l.state(first) != Retired {
		t.Error("removed early")
	}
}

func TestAFullRingDefersRotationsAndSaysSoOnce(t *testing.T) {
	l := begin(t)
	l.plan.Retention = 1000 * time.Hour
	deferred := 0
	for i := range 200 {
		l.plan.RotateRequest = time.Duration(i).String()
		l.step(2 * time.Hour)
		if l.err != nil {
			t.Fatal(l.err)
		}
		for _, event := range l.events {
			if event.Type == RotationDeferred {
				deferred++
			}
		}
		if len(l.ring.Keys) >= MaxKeys {
			t.Fatalf("step %d: %d keys", i, len(l.ring.Keys))
		}
	}
	if deferred != 1 || !l.ring.RotationDeferred {
		t.Errorf("said %d times", deferred)
	}
	if l.wait <= time.Second {
		t.Errorf("recheck after %v: it would spin", l.wait)
	}
	oldest := l.ring.Keys[len(l.ring.Keys)-1]
	until, _ := oldest.RemoveAfter()
	l.step(until.Sub(l.plan.Now))
	if l.published() == "" || l.ring.RotationDeferred {
		t.Error("the rotation does not go on when there is room")
	}
}

func TestAFullRingStillGetsAKeyToSignWith(t *testing.T) {
	l := begin(t)
	l.plan.Retention = 1000 * time.Hour
	for range MaxKeys + 5 {
		l.loseSecret()
		l.step(time.Minute)
		if l.err != nil || len(l.ring.Keys) > MaxKeys {
			t.Fatalf("%d keys, %v", len(l.ring.Keys), l.err)
		}
		if key, ok := l.ring.Active(); !ok || key.Private == nil {
			t.Fatal("no key signs")
		}
	}
	if !slices.ContainsFunc(l.events, func(e Event) bool { return e.Type == KeyRemoved && strings.Contains(e.Message, "before its time") }) {
		t.Errorf("nothing is said about the key that had to go: %v", l.events)
	}
}

func TestAGeneratorThatRepeatsItselfIsRefused(t *testing.T) {
	l := begin(t)
	key, _ := l.ring.Active()
	l.plan.Generate = func(token.Algorithm, int) (*token.PrivateKey, error) { return key.Private, nil }
	l.plan.RotateRequest = "1"
	l.step(0)
	if l.err == nil || len(l.ring.Keys) != 1 || l.ring.RotateHandled != "" {
		t.Errorf("got %v, %d keys, handled %q", l.err, len(l.ring.Keys), l.ring.RotateHandled)
	}
}
