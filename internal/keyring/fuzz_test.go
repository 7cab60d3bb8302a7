// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package keyring

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/token"
)

// FuzzAdvance goes on from any document that can be read, with any annotation, list of
// revoked keys and durations: what comes of it can be stored, is the same each time, and
// is at rest.
func FuzzAdvance(f *testing.F) {
	l := fullLife(f)
	whole, err1 := l.ring.Marshal()
	record, err2 := l.ring.MarshalPublic()
	if err := errors.Join(err1, err2); err != nil {
		f.Fatal(err)
	}
	hour := int64(time.Hour)
	f.Add(whole, "now", l.active(), start.Unix(), 10*hour, hour, 3*hour)
	f.Add(record, strings.Repeat("x", 300), "", start.Add(1000*time.Hour).Unix(), int64(0), int64(0), int64(math.MaxInt64))
	f.Add([]byte(`{"format":1,"owner":"uid","version":9223372036854775807,"keys":[]}`), "\x00\xff", "", int64(0), int64(math.MinInt64), int64(math.MaxInt64), int64(-1))
	f.Add(bytes.ReplaceAll(whole, []byte(`"publishedAt":"2026`), []byte(`"publishedAt":"9999`)), "", "", start.Unix(), hour, hour, hour)

	pool := make([]*token.PrivateKey, 3)
	for i := range pool {
		pool[i] = newKey(f)
	}
	f.Fuzz(func(t *testing.T, data []byte, rotate, revoked string, now, interval, publishBefore, retention int64) {
		ring, err := Parse(data)
		if err != nil {
			if len(err.Error()) > 1024 {
				t.Fatalf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		plan := Plan{
			// The clock of a manager: from 1970 to 2200.
			Now: time.Unix(int64(uint64(now)%7_258_118_400), 0), Algorithm: token.EdDSA,
			Interval: time.Duration(interval), PublishBefore: time.Duration(publishBefore), Retention: time.Duration(retention),
			RotateRequest: rotate, RevokedKeyIDs: strings.Fields(revoked),
		}
		advance := func(from *Ring) (*Ring, []Event, time.Duration, error) {
			made := 0
			plan.Generate = func(token.Algorithm, int) (*token.PrivateKey, error) {
				for made++; made <= len(pool); made++ {
					if key := pool[made-1]; !from.has(key.Public().ID) && !from.wasRemoved(key.Public().ID) {
						return key, nil
					}
				}
				return nil, errors.New("no key is left")
			}
			return Advance(from, plan)
		}
		written, _ := ring.Marshal()
		next, events, recheck, err := advance(ring)
		same, sameEvents, _, _ := advance(ring)
		if after, _ := ring.Marshal(); !bytes.Equal(written, after) {
			t.Fatal("the ring that was given is changed")
		}
		if !sameRing(t, next, same) || fmt.Sprint(events) != fmt.Sprint(sameEvents) {
			t.Fatal("the same ring and plan give another ring or other events the second time")
		}
		if recheck < 0 || recheck > 0 && recheck < time.Second || len(events) > 4*MaxKeys+8 {
			t.Fatalf("%d events, looked at again after %s", len(events), recheck)
		}
		for _, event := range events {
			if len(event.Message) > 1024 {
				t.Fatalf("a message of %d bytes", len(event.Message))
			}
		}
		document, marshalErr := next.Marshal()
		if marshalErr != nil || len(next.RotateHandled) > max(128, len(ring.RotateHandled)) || next.Version < ring.Version {
			t.Fatalf("it cannot be stored (%v), or remembers a request of %d bytes, or is version %d after %d", marshalErr, len(next.RotateHandled), next.Version, ring.Version)
		}
		reread, parseErr := Parse(document)
		if parseErr != nil {
			t.Fatalf("what was stored cannot be read: %v", parseErr)
		}
		if err != nil {
			return
		}
		rest, events, _, err := advance(reread)
		if err != nil || len(events) > 0 || !sameRing(t, reread, rest) {
			t.Fatalf("it does not come to rest: %v (%v)", events, err)
		}
	})
}

// Such a request was a new one each time.
func TestARequestIsActedOnOnceWhateverItsBytes(t *testing.T) {
	for _, request := range []string{"now", "\xff", strings.Repeat("x", 256<<10)} {
		l := begin(t)
		l.plan.RotateRequest = request
		l.step(time.Minute)
		l.want([]State{Published, Active}, KeyPublished)
		l.step(0)
		l.want([]State{Published, Active})
	}
}

// The version began again below zero, or at the time.
func TestAVersionNeverTurnsRound(t *testing.T) {
	l := begin(t)
	l.ring.Version = math.MaxInt64
	l.plan.RotateRequest = "now"
	l.step(time.Minute)
	l.want([]State{Published, Active}, KeyPublished)
	if l.ring.Version != math.MaxInt64 {
		t.Errorf("version %d", l.ring.Version)
	}
}
