// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package keyring

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/token"
)

// fullLife is a ring with a key in every state.
func fullLife(tb testing.TB) *life {
	tb.Helper()
	l := begin(tb)
	l.plan.RotateRequest = "1"
	l.step(time.Minute)
	l.step(time.Hour)
	l.plan.RotateRequest = "2"
	l.step(time.Minute)
	l.want([]State{Published, Active, Retired}, KeyPublished)
	return l
}

func TestTheDocumentHoldsEverything(t *testing.T) {
	for _, alg := range token.Algorithms() {
		t.Run(string(alg), func(t *testing.T) {
			plan := basePlan()
			plan.Algorithm, plan.RSABits = alg, token.MinRSABits
			plan.Now = start.Add(123456789 * time.Nanosecond)
			next, _, _, err := Advance(New("uid"), plan)
			if err != nil {
				t.Fatal(err)
			}
			data, err := next.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			again, err := Parse(data)
			if err != nil {
				t.Fatal(err)
			}
			if !sameRing(t, next, again) || !again.Keys[0].ActiveFrom.Equal(plan.Now) {
				t.Error("something was lost")
			}
			if key, _ := again.Active(); key.Private == nil {
				t.Error("the private half was lost")
			}
		})
	}
}

func TestThePublicRecordHoldsNoPrivateHalf(t *testing.T) {
	l := fullLife(t)
	record, err := l.ring.MarshalPublic()
	if err != nil {
		t.Fatal(err)
	}
	var document struct{ Keys []map[string]any }
	if err := json.Unmarshal(record, &document); err != nil {
		t.Fatal(err)
	}
	for _, key := range document.Keys {
		for name := range key {
			if strings.Contains(name, "private") {
				t.Errorf("it has a member %s", name)
			}
		}
	}
	whole, err := l.ring.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	var full struct{ Keys []struct{ Private string } }
	if err := json.Unmarshal(whole, &full); err != nil {
		t.Fatal(err)
	}
	secrets := 0
	for _, key := range full.Keys {
		if key.Private == "" {
			continue
		}
		secrets++
		if strings.Contains(string(record), key.Private[20:]) {
			t.Error("it holds a private half")
		}
	}
	if secrets != 2 {
		t.Errorf("%d private halves in the document, want those of the active and the published key", secrets)
	}
}

func TestTheKeySetHoldsKeysOfEveryState(t *testing.T) {
	l := fullLife(t)
	set, err := l.ring.KeySet()
	if err != nil {
		t.Fatal(err)
	}
	if len(set.Keys()) != 3 || set.Owner() != "uid" || set.Version() != l.ring.Version {
		t.Errorf("%d keys of %s, version %d", len(set.Keys()), set.Owner(), set.Version())
	}
}

func TestBrokenDocumentsAreRefusedWithoutQuotingThem(t *testing.T) {
	whole, err := fullLife(t).ring.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	swap := func(old, with string) string {
		if !strings.Contains(string(whole), old) {
			t.Fatalf("the document has no %s", old)
		}
		return strings.Replace(string(whole), old, with, 1)
	}
	edit := func(change func(keys []map[string]any) []map[string]any) string {
		var document map[string]json.RawMessage
		if err := json.Unmarshal(whole, &document); err != nil {
			t.Fatal(err)
		}
		var keys []map[string]any
		if err := json.Unmarshal(document["keys"], &keys); err != nil {
			t.Fatal(err)
		}
		changed, err := json.Marshal(change(keys))
		if err != nil {
			t.Fatal(err)
		}
		document["keys"] = changed
		data, err := json.Marshal(document)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	if _, err := Parse(whole); err != nil {
		t.Fatalf("the document that the cases start from is refused: %v", err)
	}
	for name, in := range map[string]string{
		"nothing":                        "",
		"no JSON":                        "canary",
		"a later format":                 swap(`"format":1`, `"format":2`),
		"no format":                      swap(`"format":1`, `"formax":1`),
		"no owner":                       swap(`"owner":"uid"`, `"owner":""`),
		"a negative version":             swap(`"version":`, `"version":-`),
		"two active keys":                swap(`"Published"`, `"Active"`),
		"an unknown state":               swap(`"Published"`, `"canary"`),
		"a retention that is none":       swap(`"retention":"3h`, `"retention":"canary`),
		"a negative retention":           swap(`"retention":"3h`, `"retention":"-3h`),
		"a private half that is no key":  swap(`"private":"`, `"private":"Y2FuYXJ5`),
		"a private half that is no text": swap(`"private":"`, `"private":"*canary*`),
		"a retired key with its half":    swap(`"Published"`, `"Retired"`),
		"a key with another's half": edit(func(keys []map[string]any) []map[string]any {
			a, b := keys[0], keys[1]
			a["private"] = b["private"]
			return keys
		}),
		"a key without its public half": edit(func(keys []map[string]any) []map[string]any { delete(keys[0], "public"); return keys }),
		"a key twice":                   edit(func(keys []map[string]any) []map[string]any { return append(keys, keys[2]) }),
		"a JWK with a private member": edit(func(keys []map[string]any) []map[string]any {
			keys[0]["public"] = map[string]any{"kty": "OKP", "d": "canary"}
			return keys
		}),
		"a time that is none":      edit(func(keys []map[string]any) []map[string]any { keys[0]["activeFrom"] = "canary"; return keys }),
		"more than a Secret takes": string(whole) + strings.Repeat(" ", maxBytes),
		"more keys than a ring takes": edit(func(keys []map[string]any) []map[string]any {
			for range MaxKeys {
				keys = append(keys, keys[2])
			}
			return keys
		}),
		"another document of the cluster": `{"apiVersion":"v1","kind":"Secret"}`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(in))
			if err == nil {
				t.Fatal("accepted")
			}
			if strings.Contains(err.Error(), "canary") {
				t.Errorf("the error quotes the document: %v", err)
			}
		})
	}
}

func TestTheLargestRingFitsIntoASecret(t *testing.T) {
	size := func(change func(*life)) int {
		l := &life{tb: t, ring: New("uid"), plan: basePlan()}
		change(l)
		l.step(0)
		data, err := l.ring.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return len(data)
	}
	small := size(func(*life) {})
	// Keys of 8192 bits take too long to make for a test: four times one of 2048 bits.
	rsaKey := 4 * size(func(l *life) { l.plan.Algorithm, l.plan.RSABits = token.RS512, token.MinRSABits })
	removed := size(func(l *life) {
		for range MaxRemoved {
			l.ring.Removed = append(l.ring.Removed, RemovedKey{ID: strings.Repeat("A", 43), At: start, Lasting: true})
		}
	}) - small
	// As if each of the keys had its private half.
	if worst := removed + MaxKeys*rsaKey; worst > maxBytes {
		t.Errorf("%d bytes, a Secret takes %d", worst, maxBytes)
	} else {
		t.Logf("at most %d bytes", worst)
	}
}

func FuzzParse(f *testing.F) {
	l := fullLife(f)
	whole, err := l.ring.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	record, err := l.ring.MarshalPublic()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(record)
	f.Add([]byte(`{"format":1,"owner":"uid","version":0,"keys":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		ring, err := Parse(data)
		if err != nil {
			return
		}
		written, err := ring.Marshal()
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		again, err := Parse(written)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		if !sameRing(t, ring, again) {
			t.Fatal("reading and writing changed it")
		}
		plan := basePlan()
		next, _, _, err := Advance(ring, plan)
		if err != nil {
			return
		}
		if key, ok := next.Active(); !ok || key.Private == nil || len(next.Keys) > MaxKeys {
			t.Fatal("no key signs, or there are too many")
		}
		if _, err := next.Marshal(); err != nil {
			t.Fatalf("the next ring cannot be written: %v", err)
		}
	})
}
