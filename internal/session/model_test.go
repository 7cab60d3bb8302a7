// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/token"
)

// minted is a token as its holder has it.
type minted struct {
	generation  int64
	id          string
	issued, exp time.Time
}

// lineage is the reference: what the store's history was, as a list, from which every
// answer is derived anew. It knows nothing of the fields of a session.
type lineage struct {
	tokens  []minted    // of generation 1, 2, …; the last is the current one
	at      []time.Time // when each was made
	revoked bool
}

func (l lineage) current() minted { return l.tokens[len(l.tokens)-1] }

func (l lineage) clone() lineage {
	return lineage{tokens: append([]minted(nil), l.tokens...), at: append([]time.Time(nil), l.at...), revoked: l.revoked}
}

// expect is rules 1 to 5 of the design, in its words.
func (l lineage) expect(p minted, now time.Time, pol session.Policy) (session.Action, token.Reason) {
	n := len(l.tokens)
	dead := func(at time.Time) bool { return at.Add(pol.Leeway).Before(now) }
	end := l.at[0].Add(pol.AbsoluteTimeout)
	switch {
	case l.revoked:
		return session.ActionDeny, token.SessionRevoked
	case dead(end) || dead(l.at[n-1].Add(pol.IdleTimeout)):
		return session.ActionDeny, token.SessionExpired
	case p == l.current():
		if p.exp.Equal(end) || p.exp.After(end) {
			return session.ActionReplay, ""
		}
		return session.ActionRotate, ""
	case n >= 2 && p == l.tokens[n-2]:
		grace := l.at[n-1]
		if usable := p.exp.Add(pol.Leeway); usable.After(grace) {
			grace = usable
		}
		if !grace.Add(pol.ReuseGrace).Before(now) {
			if dead(l.current().exp) {
				return session.ActionRotate, ""
			}
			return session.ActionReplay, ""
		}
	}
	switch {
	case p.generation >= int64(n):
		return session.ActionRevoke, token.SessionRevoked
	case dead(p.exp) && pol.OnReuse != session.OnReuseDeny:
		return session.ActionRevoke, token.TokenReused
	default:
		return session.ActionDeny, token.TokenReused
	}
}

// goodUntil is until when a token was the current one, or within its grace and the one before.
func (l lineage) goodUntil(i int, now time.Time, pol session.Policy) time.Time {
	if i+1 == len(l.at) {
		return now
	}
	// Rotations are not in order where the clock stepped back.
	current := slices.MinFunc(l.at[i+1:], time.Time.Compare)
	grace := l.at[i+1]
	if usable := l.tokens[i].exp.Add(pol.Leeway); usable.After(grace) {
		grace = usable
	}
	grace = grace.Add(pol.ReuseGrace)
	if i+2 < len(l.at) {
		if replaced := slices.MinFunc(l.at[i+2:], time.Time.Compare); replaced.Before(grace) {
			grace = replaced
		}
	}
	if grace.After(current) {
		return grace
	}
	return current
}

// world is one session, its reference, the tokens in everybody's hands and backups.
type world struct {
	t       *rapid.T
	pol     session.Policy
	now     time.Time
	session session.Session
	lineage lineage
	held    []minted
	backups []backup
	names   int
}

type backup struct {
	session session.Session
	lineage lineage
}

func newWorld(t *rapid.T) *world {
	secs := func(name string, from, to int) time.Duration {
		return time.Duration(rapid.IntRange(from, to).Draw(t, name)) * time.Second
	}
	w := &world{t: t, now: login, pol: session.Policy{
		TTL: secs("ttl", 30, 600), ReuseGrace: secs("grace", 0, 60), Leeway: secs("leeway", 0, 60),
		OnReuse: rapid.SampledFrom([]session.OnReuse{session.OnReuseRevoke, session.OnReuseDeny}).Draw(t, "on reuse"),
	}}
	w.pol.IdleTimeout = w.pol.TTL + secs("idle", 0, 3600)
	w.pol.AbsoluteTimeout = w.pol.IdleTimeout + secs("absolute", 0, 7200)
	w.session = session.New("policy", "alice", w.now, w.pol, w.name())
	w.receive()
	return w
}

func (w *world) name() string {
	w.names++
	return fmt.Sprintf("token-%d", w.names)
}

// receive is the token of a login or a rotation reaching its client.
func (w *world) receive() {
	c := w.session.Current
	w.lineage.tokens = append(w.lineage.tokens, minted{w.session.Generation, c.ID, c.IssuedAt, c.ExpiresAt})
	w.lineage.at = append(w.lineage.at, w.now)
	w.held = append(w.held, w.lineage.current())
	if !c.IssuedAt.Equal(w.now) || c.ExpiresAt.After(w.now.Add(w.pol.TTL)) || c.ExpiresAt.After(w.session.ExpiresAt) {
		w.t.Fatalf("at %s, in a session until %s, a token from %s to %s", w.now, w.session.ExpiresAt, c.IssuedAt, c.ExpiresAt)
	}
	if w.session.Generation != int64(len(w.lineage.tokens)) {
		w.t.Fatalf("generation %d after %d tokens", w.session.Generation, len(w.lineage.tokens))
	}
	for _, m := range w.lineage.tokens {
		if w.session.TokensUntil.Before(m.exp) {
			w.t.Fatalf("generation %d lives until %s, the session says %s", m.generation, m.exp, w.session.TokensUntil)
		}
	}
}

// present is a refresh: by a client, by one that retries, or by a thief.
func (w *world) present(p minted) {
	action, reason := w.lineage.expect(p, w.now, w.pol)
	shown := session.Presented{Generation: p.generation, TokenID: p.id, ExpiresAt: p.exp}
	v := session.Decide(w.session, shown, w.now.Add(999*time.Millisecond), w.pol, w.name())
	if v.Action != action || v.Reason != reason {
		w.t.Fatalf("generation %d of %d at %s: %s %q, the reference says %s %q",
			p.generation, len(w.lineage.tokens), w.now, v.Action, v.Reason, action, reason)
	}
	switch v.Action {
	case session.ActionRotate:
		w.session = v.Next
		w.receive()
	case session.ActionReplay:
		if w.session.Current.ID != w.lineage.current().id || v.Next.Current.ID != w.session.Current.ID {
			w.t.Fatal("a replay of another token than the current one")
		}
		if v.Next.Current.ExpiresAt.Add(w.pol.Leeway).Before(w.now) {
			w.t.Fatal("a replay of a dead token")
		}
	case session.ActionRevoke:
		w.session, w.lineage.revoked = v.Next, true
	case session.ActionDeny:
		if (v.Next.Revoked != nil) != w.lineage.revoked {
			w.t.Fatal("a denial changed the session")
		}
	}
	if w.session.KeepUntil().Before(w.session.ForgetAfter()) {
		w.t.Fatal("the session is forgotten before its last token is dead")
	}
}

func TestDecideAgainstAReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		t.Repeat(map[string]func(*rapid.T){
			"the newest token is refreshed": func(*rapid.T) { w.present(w.lineage.current()) },
			"the one before is retried": func(t *rapid.T) {
				if len(w.lineage.tokens) < 2 {
					t.Skip()
				}
				w.present(w.lineage.tokens[len(w.lineage.tokens)-2])
			},
			"any token ever made is presented": func(t *rapid.T) { w.present(rapid.SampledFrom(w.held).Draw(t, "token")) },
			"what was sent while its token was good arrives at last, and harms nobody": func(t *rapid.T) {
				i := rapid.IntRange(0, len(w.lineage.tokens)-1).Draw(t, "token")
				m, ago := w.lineage.tokens[i], rapid.Int64Range(0, int64(time.Hour)).Draw(t, "before that ended")
				shown := session.Presented{
					Generation: m.generation, TokenID: m.id, ExpiresAt: m.exp,
					SentAt: w.lineage.goodUntil(i, w.now, w.pol).Add(999*time.Millisecond - time.Duration(ago)),
				}
				if v := session.Decide(w.session, shown, w.now.Add(999*time.Millisecond), w.pol, "new"); v.Action == session.ActionRevoke {
					t.Fatalf("generation %d of %d, sent at %s: %s %q", m.generation, len(w.lineage.tokens), shown.SentAt, v.Action, v.Reason)
				}
			},
			"time passes": func(t *rapid.T) {
				w.now = w.now.Add(time.Duration(rapid.IntRange(1, 120).Draw(t, "seconds")) * time.Second)
			},
			"much time passes": func(t *rapid.T) {
				w.now = w.now.Add(time.Duration(rapid.IntRange(1, 90).Draw(t, "minutes")) * time.Minute)
			},
			"the clock steps back": func(t *rapid.T) {
				w.now = w.now.Add(-time.Duration(rapid.IntRange(1, 600).Draw(t, "seconds")) * time.Second)
			},
			"the session is revoked": func(t *rapid.T) {
				if rapid.IntRange(0, 9).Draw(t, "luck") > 0 {
					t.Skip()
				}
				w.session, w.lineage.revoked = w.session.Revoke(token.SessionRevoked, w.now), true
			},
			"a backup is made": func(*rapid.T) {
				w.backups = append(w.backups, backup{w.session, w.lineage.clone()})
			},
			"a backup is restored": func(t *rapid.T) {
				if len(w.backups) == 0 {
					t.Skip()
				}
				b := rapid.SampledFrom(w.backups).Draw(t, "backup")
				w.session, w.lineage = b.session, b.lineage.clone()
			},
		})
	})
}
