// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package certificates

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"testing"
	"time"
)

var (
	start = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	hosts = []string{"tokenward-webhook.tokenward-system.svc", "192.0.2.7"}
)

const day = 24 * time.Hour

// held is what the Secrets hold.
type held struct{ authority, serving content }

// advance does what the reconciler does at now, and says when time changes something next.
func (h *held) advance(t *testing.T, now time.Time) time.Time {
	t.Helper()
	a, recheck, err := nextAuthority(h.authority, time.Time{}, now)
	if err != nil {
		t.Fatal(err)
	}
	if h.authority, err = a.content(); err != nil {
		t.Fatal(err)
	}
	serving, renew, err := nextServing(h.serving, a, hosts, now)
	if err != nil {
		t.Fatal(err)
	}
	h.serving = serving
	return earlier(recheck, renew)
}

// verifies checks a serving certificate as a client does that has bundle.
func verifies(serving content, bundle []byte, now time.Time) error {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		return errors.New("the bundle is empty")
	}
	p, err := parsePair(serving[certKey], serving[keyKey])
	if err != nil {
		return err
	}
	for _, host := range hosts {
		if _, err := p.cert.Verify(x509.VerifyOptions{
			Roots: roots, DNSName: host, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}); err != nil {
			return err
		}
	}
	return nil
}

// TestThreeYears lets a bundle and a certificate arrive up to publishBefore late, and
// has every combination that can meet verify at every time.
func TestThreeYears(t *testing.T) {
	type snapshot struct {
		at   time.Time
		held held
	}
	var (
		now     = start
		h       held
		recent  []snapshot
		changes int
		signers = map[string]bool{}
	)
	for now.Before(start.AddDate(3, 0, 0)) {
		before := h
		recheck := h.advance(t, now)
		if !recheck.After(now) {
			t.Fatalf("at %s: look again at %s?", now, recheck)
		}
		if maps.EqualFunc(before.authority, h.authority, bytes.Equal) && maps.EqualFunc(before.serving, h.serving, bytes.Equal) {
			t.Fatalf("at %s: woken up for nothing", now)
		}
		changes++
		signers[string(h.authority[certKey])] = true
		if n := len(parseCertificates(h.authority[BundleKey])); n > 3 {
			t.Fatalf("at %s: %d authorities in the bundle", now, n)
		}
		if !bytes.Equal(h.serving[caKey], h.authority[BundleKey]) {
			t.Fatalf("at %s: ca.crt is not the bundle", now)
		}
		recent = append(recent, snapshot{now, h})
		for len(recent) > 1 && now.Sub(recent[1].at) >= publishBefore-time.Minute {
			recent = recent[1:]
		}
		for _, server := range recent {
			for _, client := range recent {
				if err := verifies(server.held.serving, client.held.authority[BundleKey], now); err != nil {
					t.Fatalf("at %s: the certificate of %s under the bundle of %s: %v", now, server.at, client.at, err)
				}
			}
		}
		// In between nothing changes.
		between := h
		between.advance(t, now.Add(recheck.Sub(now)/2))
		if !maps.EqualFunc(between.authority, h.authority, bytes.Equal) || !maps.EqualFunc(between.serving, h.serving, bytes.Equal) {
			t.Fatalf("between %s and %s something changed", now, recheck)
		}
		now = recheck
	}
	if len(signers) < 4 {
		t.Errorf("only %d authorities have signed in three years", len(signers))
	}
	t.Logf("%d changes, %d authorities", changes, len(signers))
}

func TestAuthorityFromWhatIsHeld(t *testing.T) {
	fresh := func(at time.Time) held {
		var h held
		h.advance(t, at)
		return h
	}
	succeeding := func() held { // with a next authority
		h := fresh(start)
		h.advance(t, start.Add(authorityLife-succession))
		return h
	}
	tests := map[string]struct {
		held func() held
		now  time.Time
		// wants, given what was held
		sameSigner bool
		bundle     int // how many authorities
		oldTrusted bool
	}{
		"nothing": {held: func() held { return held{} }, now: start, bundle: 1},
		"a good one": {
			held: func() held { return fresh(start) }, now: start.Add(day),
			sameSigner: true, bundle: 1, oldTrusted: true,
		},
		"a lost key": {
			held: func() held { h := fresh(start); delete(h.authority, keyKey); return h }, now: start.Add(day),
			bundle: 2, oldTrusted: true,
		},
		"another authority's key": {
			held: func() held {
				h := fresh(start)
				h.authority[keyKey] = fresh(start).authority[keyKey]
				return h
			}, now: start.Add(day), bundle: 2, oldTrusted: true,
		},
		"a lost bundle": {
			held: func() held { h := fresh(start); delete(h.authority, BundleKey); return h }, now: start.Add(day),
			sameSigner: true, bundle: 1, oldTrusted: true,
		},
		"nonsense": {
			held: func() held {
				return held{authority: content{certKey: []byte("x"), keyKey: nil, BundleKey: []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")}}
			}, now: start, bundle: 1,
		},
		"a serving certificate in the authority's place": {
			held: func() held {
				h := fresh(start)
				h.authority[certKey], h.authority[keyKey] = h.serving[certKey], h.serving[keyKey]
				return h
			}, now: start.Add(day), bundle: 2, oldTrusted: true,
		},
		"an authority that ended while nobody looked": {
			held: func() held { return fresh(start) }, now: start.Add(authorityLife + day), bundle: 1,
		},
		"one that ended, with a next one that has not": {
			held: succeeding, now: start.Add(authorityLife + day), bundle: 1,
		},
		"a broken next one": {
			held: func() held { h := succeeding(); h.authority[nextKeyKey] = []byte("x"); return h },
			now:  start.Add(authorityLife - succession + time.Hour), sameSigner: true, bundle: 3, oldTrusted: true,
		},
		"a next one that waits": {
			held: succeeding, now: start.Add(authorityLife - succession + publishBefore - time.Minute),
			sameSigner: true, bundle: 2, oldTrusted: true,
		},
		"a next one that has waited": {
			held: succeeding, now: start.Add(authorityLife - succession + publishBefore),
			bundle: 2, oldTrusted: true,
		},
		"a clock that went back": {
			held: func() held { return fresh(start) }, now: start.Add(-30 * day),
			sameSigner: true, bundle: 1, oldTrusted: true,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h := tt.held()
			signer := parseCertificates(h.authority[certKey])
			old := h.serving
			h.advance(t, tt.now)
			if now := parseCertificates(h.authority[certKey]); tt.sameSigner != (len(signer) == 1 && now[0].Equal(signer[0])) {
				t.Errorf("the same authority signs: want %t", tt.sameSigner)
			}
			if n := len(parseCertificates(h.authority[BundleKey])); n != tt.bundle {
				t.Errorf("%d authorities in the bundle, want %d", n, tt.bundle)
			}
			if at := tt.now; at.After(start) {
				if err := verifies(h.serving, h.authority[BundleKey], at); err != nil {
					t.Errorf("the certificate does not verify: %v", err)
				}
				if len(old) > 0 && at.Before(start.Add(servingLife)) {
					if err := verifies(old, h.authority[BundleKey], at); (err == nil) != tt.oldTrusted {
						t.Errorf("the old certificate verifies: want %t: %v", tt.oldTrusted, err)
					}
				}
			}
		})
	}
}

// The manager that made the next authority ended before the bundle was everywhere, and
// none ran for a week: the next authority must not sign in the moment of the start.
func TestANextAuthorityWaitsForTheBundleToBePublishedAgain(t *testing.T) {
	var h held
	h.advance(t, start)
	h.advance(t, start.Add(authorityLife-succession))
	signer := h.authority[certKey]
	back := start.Add(authorityLife - succession + 7*day)

	r := &reconciler{}
	look := func(now time.Time) time.Time {
		t.Helper()
		a, recheck, err := nextAuthority(h.authority, r.nextSeen(h.authority[nextCertKey], now), now)
		if err != nil {
			t.Fatal(err)
		}
		if h.authority, err = a.content(); err != nil {
			t.Fatal(err)
		}
		return recheck
	}
	for _, now := range []time.Time{back, back.Add(time.Minute), back.Add(republishBefore - time.Second)} {
		if recheck := look(now); !bytes.Equal(h.authority[certKey], signer) || !recheck.Equal(back.Add(republishBefore)) {
			t.Fatalf("%s after the start: look again at %s, the same authority signs: %t", now.Sub(back), recheck, bytes.Equal(h.authority[certKey], signer))
		}
	}
	if look(back.Add(republishBefore)); bytes.Equal(h.authority[certKey], signer) {
		t.Error("the next authority never signs")
	}
	if len(parseCertificates(h.authority[BundleKey])) != 2 {
		t.Error("the one before it is no longer trusted")
	}

	// There is nothing to wait for when the present one cannot sign.
	h.authority[certKey] = []byte("x")
	if look(back.Add(day)); len(h.authority[nextCertKey]) > 0 {
		t.Error("somebody waits to sign")
	}
}

func TestServingCertificateIsRenewed(t *testing.T) {
	a, _, err := nextAuthority(nil, time.Time{}, start)
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := nextAuthority(nil, time.Time{}, start)
	if err != nil {
		t.Fatal(err)
	}
	first, renew, err := nextServing(nil, a, hosts, start)
	if err != nil {
		t.Fatal(err)
	}
	if left := start.Add(servingLife).Sub(renew); left < 30*day || left > 30*day+time.Hour {
		t.Errorf("renewed with %s left", left)
	}
	tests := map[string]struct {
		held      content
		authority *authority
		hosts     []string
		now       time.Time
		same      bool
	}{
		"when nothing has changed":   {first, a, hosts, start.Add(day), true},
		"in another order of names":  {first, a, []string{hosts[1], hosts[0], hosts[0]}, start.Add(day), true},
		"just before its time":       {first, a, hosts, renew.Add(-time.Second), true},
		"at its time":                {first, a, hosts, renew, false},
		"for one name more":          {first, a, append([]string{"a.example"}, hosts...), start.Add(day), false},
		"for one name less":          {first, a, hosts[:1], start.Add(day), false},
		"for another authority":      {first, other, hosts, start.Add(day), false},
		"when its key is lost":       {content{certKey: first[certKey]}, a, hosts, start.Add(day), false},
		"when it is the authority's": {content{certKey: encodeCertificate(a.current.cert), keyKey: mustKey(t, a.current)}, a, hosts, start.Add(day), false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			next, _, err := nextServing(tt.held, tt.authority, tt.hosts, tt.now)
			if err != nil {
				t.Fatal(err)
			}
			if same := bytes.Equal(next[certKey], first[certKey]) && bytes.Equal(next[keyKey], first[keyKey]); same != tt.same {
				t.Errorf("kept: %t, want %t", same, tt.same)
			}
		})
	}
}

func TestPairHidesItsKey(t *testing.T) {
	a, _, err := nextAuthority(nil, time.Time{}, start)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{fmt.Sprint(a.current), fmt.Sprintf("%v", a.current), fmt.Sprintf("%+v", a.current)} {
		if want := `certificate of "Tokenward CA 2026-01-01T12:00:00Z" until 2027-01-01T12:00:00Z`; text != want {
			t.Errorf("printed as %s", text)
		}
	}
}

func mustKey(t *testing.T, p pair) []byte {
	t.Helper()
	key, err := p.encodeKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}
