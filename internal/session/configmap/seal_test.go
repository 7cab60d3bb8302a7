// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package configmap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tokenward/tokenward/internal/session"
)

// shardOf reads the ConfigMap of a session.
func shardOf(tb testing.TB, store *Store, id session.ID) (*corev1.ConfigMap, place) {
	tb.Helper()
	at := locate(store.config.Policy, store.config.Shards, id)
	cm := &corev1.ConfigMap{}
	key := client.ObjectKey{Namespace: testNamespace, Name: store.shardName(at.shard)}
	if err := store.config.Client.Get(tb.Context(), key, cm); err != nil {
		tb.Fatal(err)
	}
	return cm, at
}

func edit(tb testing.TB, store *Store, cm *corev1.ConfigMap) {
	tb.Helper()
	if err := store.config.Client.Update(tb.Context(), cm); err != nil {
		tb.Fatal(err)
	}
}

// await polls what the watch brings.
func await(tb testing.TB, what string, done func() bool) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			tb.Fatalf("waited in vain: %s", what)
		}
	}
}

func TestAReaderOfConfigMapsLearnsNothing(t *testing.T) {
	store := open(t, testConfig(t))
	found := createSession(t, store)
	cm, _ := shardOf(t, store, found.ID)
	raw := bytes.Join(append([][]byte{[]byte(fmt.Sprint(cm.ObjectMeta, cm.Data))}, values(cm)...), nil)
	for _, secret := range []string{string(found.ID), found.Subject, found.Current.ID, found.Current.KeyID, "role"} {
		if bytes.Contains(raw, []byte(secret)) {
			t.Errorf("the ConfigMap shows %q", secret)
		}
	}
	if cm.Labels["tokenward.io/component"] != "sessions" || cm.Labels["tokenward.io/policy-uid"] != string(store.config.Policy) {
		t.Errorf("labels: %v", cm.Labels)
	}
}

func values(cm *corev1.ConfigMap) [][]byte {
	var all [][]byte
	for key, value := range cm.BinaryData {
		all = append(all, []byte(key), value)
	}
	return all
}

func TestBrokenRecords(t *testing.T) {
	otherKeys := AddSealingKey(nil)
	reseal := func(t *testing.T, data map[string][]byte, at place, plain []byte) []byte {
		t.Helper()
		sealer, err := NewSealer(data)
		if err != nil {
			t.Fatal(err)
		}
		return sealer.seal(at, plain)
	}
	tests := map[string]struct {
		// forge returns what is put in the record's place.
		forge func(t *testing.T, at place, sealed, plain []byte) []byte
		// want is ErrNotFound, or nil for an outage.
		want error
	}{
		"one bit changed":              {func(_ *testing.T, _ place, sealed, _ []byte) []byte { sealed[len(sealed)-20] ^= 1; return sealed }, session.ErrNotFound},
		"cut short":                    {func(_ *testing.T, _ place, sealed, _ []byte) []byte { return sealed[:30] }, session.ErrNotFound},
		"cut in its head":              {func(_ *testing.T, _ place, sealed, _ []byte) []byte { return sealed[:5] }, session.ErrNotFound},
		"empty":                        {func(*testing.T, place, []byte, []byte) []byte { return []byte{} }, session.ErrNotFound},
		"written by hand":              {func(*testing.T, place, []byte, []byte) []byte { return []byte{1} }, session.ErrNotFound},
		"an older form than the first": {func(_ *testing.T, _ place, sealed, _ []byte) []byte { sealed[0] = 0; return sealed }, session.ErrNotFound},
		"of another shard": {func(t *testing.T, at place, _, plain []byte) []byte {
			t.Helper()
			at.shard++
			return reseal(t, testKeys, at, plain)
		}, session.ErrNotFound},
		"of another data key": {func(t *testing.T, at place, _, plain []byte) []byte {
			t.Helper()
			at.key += "x"
			return reseal(t, testKeys, at, plain)
		}, session.ErrNotFound},
		"of another policy": {func(t *testing.T, at place, _, plain []byte) []byte {
			t.Helper()
			at.policy += "x"
			return reseal(t, testKeys, at, plain)
		}, session.ErrNotFound},
		"sealed with another key of the same name": {func(t *testing.T, at place, _, plain []byte) []byte {
			t.Helper()
			name := string(testKeys["current"])
			return reseal(t, map[string][]byte{"current": []byte(name), "key-" + name: otherKeys["key-"+string(otherKeys["current"])]}, at, plain)
		}, session.ErrNotFound},
		"sealed by us and not a record": {func(t *testing.T, at place, _, plain []byte) []byte {
			t.Helper()
			return reseal(t, testKeys, at, append(plain, 0))
		}, session.ErrNotFound},
		"sealed with a key that we do not have": {func(t *testing.T, at place, _, plain []byte) []byte {
			t.Helper()
			return reseal(t, otherKeys, at, plain)
		}, nil},
		"sealed in a newer way": {func(_ *testing.T, _ place, sealed, _ []byte) []byte { sealed[0] = sealVersion + 1; return sealed }, nil},
		"in a newer format": {func(t *testing.T, at place, _, plain []byte) []byte {
			t.Helper()
			plain[0] = recordFormat + 1
			return reseal(t, testKeys, at, plain)
		}, nil},
	}
	for name, test := range tests {
		t.Run("a record "+name, func(t *testing.T) {
			var log strings.Builder
			config := testConfig(t)
			config.Shards = 1 // so that a healthy one is beside it
			config.Log = funcr.New(func(prefix, args string) { log.WriteString(prefix + args + "\n") }, funcr.Options{})
			store := open(t, config)
			broken, healthy := createSession(t, store), createSession(t, store)

			cm, at := shardOf(t, store, broken.ID)
			plain, err := store.config.Sealer.open(at, cm.BinaryData[at.key])
			if err != nil {
				t.Fatal(err)
			}
			forged := test.forge(t, at, bytes.Clone(cm.BinaryData[at.key]), plain)
			cm.BinaryData[at.key] = forged
			edit(t, store, cm)

			check := func(what string, err error) {
				t.Helper()
				named := errors.Is(err, session.ErrNotFound) || errors.Is(err, session.ErrStale) || errors.Is(err, session.ErrFull)
				if err == nil || test.want != nil && !errors.Is(err, test.want) || test.want == nil && named {
					t.Errorf("%s: %v", what, err)
				}
			}
			_, err = store.Load(t.Context(), broken.ID)
			check("load", err)
			_, err = store.Swap(t.Context(), rotate(broken, time.Now()))
			check("swap", err)
			_, err = store.Swap(t.Context(), broken.Revoke("session_revoked", time.Now()))
			check("revoke", err)
			if err := store.Create(t.Context(), broken); !errors.Is(err, session.ErrExists) {
				t.Errorf("create in its place: %v", err)
			}

			if _, err := store.Swap(t.Context(), rotate(healthy, time.Now())); err != nil {
				t.Errorf("the session beside it: %v", err)
			}
			cm, _ = shardOf(t, store, broken.ID)
			if !bytes.Equal(cm.BinaryData[at.key], forged) {
				t.Error("the broken record was changed when the shard was rewritten")
			}
			await(t, "the record is counted", func() bool { return store.Stats().Unreadable == 1 })
			_ = store.Close()
			if lines := strings.Count(log.String(), "cannot read a session record"); lines != 1 || strings.Contains(log.String(), "alice") {
				t.Errorf("log:\n%s", log.String())
			}
		})
	}
}

func TestSealingKeysRotate(t *testing.T) {
	config := testConfig(t)
	old := open(t, config)
	first := createSession(t, old)

	newer := AddSealingKey(testKeys)
	config.Sealer, config.Client = newTestSealer(t), newClient(t)
	if err := config.Sealer.Update(newer); err != nil {
		t.Fatal(err)
	}
	rotated := open(t, config)
	found, err := rotated.Load(t.Context(), first.ID)
	if err != nil || cmp.Diff(first, found) != "" {
		t.Fatalf("a session sealed with the old key: %v %s", err, cmp.Diff(first, found))
	}
	second, err := rotated.Swap(t.Context(), rotate(first, time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	// The instance that has not read the Secret again says try again, not log in.
	if _, err := old.Load(t.Context(), first.ID); err == nil || errors.Is(err, session.ErrNotFound) {
		t.Errorf("load without the new key: %v", err)
	}
	if err := old.config.Sealer.Update(newer); err != nil {
		t.Fatal(err)
	}
	if found, err := old.Load(t.Context(), first.ID); err != nil || found.Version != second.Version {
		t.Errorf("load with the new key: %v", err)
	}
	if _, err := old.Swap(t.Context(), rotate(second, time.Now())); err != nil {
		t.Errorf("swap with the new key: %v", err)
	}
}

func TestSealingKeysThatAreWrong(t *testing.T) {
	good := AddSealingKey(nil)
	with := func(change map[string][]byte) map[string][]byte {
		data := maps.Clone(good)
		maps.Copy(data, change)
		return data
	}
	tests := map[string]struct {
		data map[string][]byte
		says string
	}{
		"no keys at all":               {nil, `"current" names ""`},
		"a current key that is not":    {with(map[string][]byte{"current": []byte("gone")}), `no data key "key-gone"`},
		"a key that is too short":      {with(map[string][]byte{"key-short": []byte("not 32 bytes, and a secret")}), `data key "key-short" has 26 bytes`},
		"a key without a name":         {with(map[string][]byte{"key-": make([]byte, 32)}), `data key "key-"`},
		"a key with an excessive name": {with(map[string][]byte{"key-" + strings.Repeat("n", 64): make([]byte, 32)}), "1 to 63"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			sealer, err := NewSealer(good)
			if err != nil {
				t.Fatal(err)
			}
			err = sealer.Update(test.data)
			if err == nil || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "and a secret") {
				t.Errorf("error: %v", err)
			}
			at := place{policy: "p", key: "k"}
			if plain, err := sealer.open(at, sealer.seal(at, []byte("still sealed"))); err != nil || string(plain) != "still sealed" {
				t.Errorf("the keys from before are gone: %v", err)
			}
			if shown := fmt.Sprintf("%v %+v %#v", sealer, sealer, sealer); strings.Count(shown, "redacted") != 3 {
				t.Errorf("printed: %s", shown)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	r := &record{Session: newSession("p", time.Unix(1_800_000_000, 0)), prior: "before", sequence: 7}
	r.Version = "version"
	f.Add(r.encode())
	f.Add((&record{Session: r.Revoke("token_reused", time.Unix(1_800_000_100, 0)), sequence: 1 << 60}).encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decode("p", data)
		if err != nil {
			return
		}
		again, err := decode("p", r.encode())
		if err != nil {
			t.Fatalf("a record that was read cannot be read when written: %v", err)
		}
		if diff := cmp.Diff(r, again, cmp.AllowUnexported(record{})); diff != "" {
			t.Error(diff)
		}
	})
}
