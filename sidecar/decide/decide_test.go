// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/settings"
	"github.com/tokenward/tokenward/internal/token"
)

// revoked is a set of sessions.
type revoked map[string]bool

func (r revoked) Revoked(id string) bool { return r[id] }

var start = time.Unix(1_800_000_000, 0)

type fixture struct {
	t   testing.TB
	key *token.PrivateKey
}

func newFixture(tb testing.TB) *fixture {
	tb.Helper()
	key, err := token.GenerateKey(token.ES256, 0)
	if err != nil {
		tb.Fatal(err)
	}
	return &fixture{t: tb, key: key}
}

func (f *fixture) token(change ...func(*token.Claims)) string {
	f.t.Helper()
	c := token.Claims{
		Issuer: "https://i", Subject: "alice", Audience: []string{"a"}, IssuedAt: start, ExpiresAt: start.Add(5 * time.Minute),
		ID: "j", SessionID: "s", ClientID: "n/p", Extra: map[string]any{"roles": []any{"admin", "user"}},
	}
	for _, g := range change {
		g(&c)
	}
	raw, err := f.key.Sign(c)
	if err != nil {
		f.t.Fatal(err)
	}
	return raw
}

func (f *fixture) policy(memory int, sessions Sessions, change ...func(*settings.Settings)) *Policy {
	f.t.Helper()
	s := &settings.Settings{
		Policy: settings.Policy{Namespace: "n", Name: "p", UID: "u", Generation: 1}, Enforcement: settings.Enforce,
		Issuer: "https://i", Audiences: []string{"a"}, Leeway: settings.Duration(30 * time.Second),
		Refresh: settings.Refresh{OnExpired: settings.OnExpiredRefresh, ResponseHeader: "Authorization", Early: settings.Duration(30 * time.Second)},
		Rules: []settings.Rule{
			{Paths: []settings.Path{{Type: settings.PathExact, Value: "/open"}}, Methods: []string{"GET"}, Access: settings.AccessAnonymous},
			{Paths: []settings.Path{{Type: settings.PathPrefix, Value: "/open"}}, Access: settings.AccessDenied},
			{Paths: []settings.Path{{Type: settings.PathPrefix, Value: "/admin/"}}, Access: settings.AccessAuthenticated, RequireClaims: []settings.RequiredClaim{{Claim: "roles", Values: []string{"admin", "root"}}, {Claim: "sub", Values: []string{"alice"}}}},
			{Paths: []settings.Path{{Type: settings.PathPrefix, Value: "/"}}, Methods: []string{"TRACE"}, Access: settings.AccessDenied},
		},
		Upstream:  settings.Upstream{ClaimHeaders: []settings.ClaimHeader{{Claim: "sub", Header: "X-User-Id"}, {Claim: "roles", Header: "X-Roles"}}},
		Denial:    settings.Denial{StatusCode: 401},
		Endpoints: settings.Endpoints{Prefix: "/auth"},
	}
	for _, g := range change {
		g(s)
	}
	keys, err := token.NewKeySet("o", 1, []token.PublicKey{f.key.Public()})
	if err != nil {
		f.t.Fatal(err)
	}
	p, err := Compile(s, keys, sessions, memory)
	if err != nil {
		f.t.Fatal(err)
	}
	return p
}

func request(method, target string, authorization ...string) Request {
	return Request{Method: method, Target: target, Authorization: authorization}
}

func TestDecide(t *testing.T) {
	f := newFixture(t)
	p := f.policy(1<<20, revoked{"gone": true})
	raw := "Bearer " + f.token()
	tests := map[string]struct {
		req     Request
		at      time.Duration
		outcome Outcome
		reason  token.Reason
		rule    int
	}{
		"the first rule that matches wins":                     {request("GET", "/open"), 0, Forward, "", 0},
		"a rule for another method does not match":             {request("POST", "/open", raw), 0, Deny, token.RuleDenied, 1},
		"exact is not prefix":                                  {request("GET", "/open/x"), 0, Deny, token.RuleDenied, 1},
		"a prefix is whole segments":                           {request("GET", "/opening", raw), 0, Forward, "", -1},
		"a prefix with a slash at its end has the path itself": {request("GET", "/admin", raw), 0, Forward, "", 2},
		"the root prefix is everything":                        {request("TRACE", "/x", raw), 0, Deny, token.RuleDenied, 3},
		"no rule means a token":                                {request("GET", "/x"), 0, Deny, token.TokenMissing, -1},
		"the scheme in another case, with two spaces":          {request("GET", "/x", "bEARER  "+f.token()), 0, Forward, "", -1},
		"something after the token":                            {request("GET", "/x", raw+" x"), 0, Deny, token.TokenMalformed, -1},
		"a list claim with one of the values":                  {request("GET", "/admin/x", raw), 0, Forward, "", 2},
		"all required claims count":                            {request("GET", "/admin/x", "Bearer "+f.token(func(c *token.Claims) { c.Subject = "bob" })), 0, Deny, token.ClaimMismatch, 2},
		"within the leeway":                                    {request("GET", "/x", raw), 5*time.Minute + 20*time.Second, Forward, "", -1},
		"after the leeway":                                     {request("GET", "/x", raw), 5*time.Minute + 40*time.Second, Refresh, "", -1},
		"ten minutes before it was issued":                     {request("GET", "/x", raw), -10 * time.Minute, Deny, token.TokenNotYetValid, -1},
		"a revoked session":                                    {request("GET", "/x", "Bearer "+f.token(func(c *token.Claims) { c.SessionID = "gone" })), 0, Deny, token.SessionRevoked, -1},
		"a revoked session, expired":                           {request("GET", "/x", "Bearer "+f.token(func(c *token.Claims) { c.SessionID = "gone" })), time.Hour, Deny, token.SessionRevoked, -1},
		"our endpoint":                                         {request("POST", "/auth/token"), 0, Serve, "", -1},
		"our endpoint, spelled otherwise":                      {request("POST", "/%61uth/token"), 0, Serve, "", -1},
		"a path beside our endpoints":                          {request("GET", "/authority", raw), 0, Forward, "", -1},
		"a digest with commas is no token, and no two":         {request("GET", "/x", `Digest a="b", c="d"`), 0, Deny, token.TokenMissing, -1},
		"a digest with a token behind it":                      {request("GET", "/open", `Digest a="b", bearer x`), 0, Deny, token.HeadersAmbiguous, -1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for _, round := range []string{"first", "remembered"} {
				v := p.Decide(tt.req, start.Add(tt.at))
				reason := v.Reason()
				if v.Outcome == Refresh {
					reason = ""
				}
				if v.Outcome != tt.outcome || reason != tt.reason || v.Rule != tt.rule {
					t.Fatalf("%s: outcome %d reason %q rule %d, want %d %q %d", round, v.Outcome, v.Reason(), v.Rule, tt.outcome, tt.reason, tt.rule)
				}
				if v.Outcome == Deny && v.Identity != nil {
					t.Fatal("a denial has an identity")
				}
			}
		})
	}
}

func TestRememberedTokensAreCheckedEveryTime(t *testing.T) {
	f := newFixture(t)
	gone := revoked{}
	p := f.policy(1<<20, gone, func(s *settings.Settings) { s.Refresh.OnExpired = settings.OnExpiredReject })
	req := request("GET", "/x", "Bearer "+f.token())
	if v := p.Decide(req, start); v.Outcome != Forward {
		t.Fatal("not valid to begin with")
	}
	if n, _ := p.Remembered(); n != 1 {
		t.Fatalf("%d tokens remembered", n)
	}
	if v := p.Decide(req, start.Add(time.Hour)); v.Reason() != token.TokenExpired {
		t.Errorf("after its end: %q", v.Reason())
	}
	gone["s"] = true
	if v := p.Decide(req, start); v.Reason() != token.SessionRevoked {
		t.Errorf("after its revocation: %q", v.Reason())
	}
	other := f.policy(1<<20, revoked{}, func(s *settings.Settings) { s.Audiences = []string{"b"} })
	if v := other.Decide(req, start); v.Reason() != token.AudienceMismatch {
		t.Errorf("under other settings: %q", v.Reason())
	}
}

func TestMemoryIsBoundedInBytes(t *testing.T) {
	m := newMemory(1 << 20)
	id := &Identity{Claims: &token.Claims{}}
	for i := range 20_000 {
		raw := fmt.Sprintf("%0400d", i)
		m.put(raw, id)
		if _, ok := m.get(raw); !ok {
			t.Fatalf("token %d is not remembered", i)
		}
		if _, bytes := m.size(); bytes > 1<<20 {
			t.Fatalf("%d bytes after %d tokens", bytes, i)
		}
	}
	if n, _ := m.size(); n < 100 {
		t.Fatalf("only %d tokens fit", n)
	}
	if _, ok := m.get(fmt.Sprintf("%0400d", 0)); ok {
		t.Fatal("the first token is still there")
	}
	none := newMemory(0)
	none.put("a", id)
	if n, _ := none.size(); n != 0 {
		t.Fatal("a memory of no bytes remembers")
	}
}

func TestMemoryUnderConcurrency(t *testing.T) {
	m := newMemory(1 << 18)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				raw := fmt.Sprint(g%2, "-", i%200)
				if id, ok := m.get(raw); ok && id.Claims.Subject != raw {
					t.Errorf("%s got the identity of %s", raw, id.Claims.Subject)
					return
				}
				m.put(raw, &Identity{Claims: &token.Claims{Subject: raw}})
			}
		})
	}
	wg.Wait()
}

func TestFolding(t *testing.T) {
	p := newFixture(t).policy(0, revoked{})
	for _, name := range []string{"X-User-Id", "x_user_id", "X-USER_ID", "X.User.Id", "x!user~id"} {
		if !p.Reserved(name) {
			t.Errorf("%s is not reserved", name)
		}
	}
	for _, name := range []string{"X-User", "X-User-Idx", "XUserId", "X--User-Id", ""} {
		if p.Reserved(name) {
			t.Errorf("%s is reserved", name)
		}
	}
}

func FuzzFold(f *testing.F) {
	f.Add("X-User-Id")
	f.Add("x_user_id")
	f.Fuzz(func(t *testing.T, name string) {
		folded := fold(name)
		if !foldsTo(name, folded) || fold(folded) != folded {
			t.Fatalf("%q does not fold to its own fold %q", name, folded)
		}
		upper := []byte(name)
		for i, c := range upper {
			if 'a' <= c && c <= 'z' {
				upper[i] = c - 'a' + 'A'
			}
			if c == '-' {
				upper[i] = '_'
			}
		}
		if !foldsTo(string(upper), folded) {
			t.Fatalf("%q and %q are one header to a gateway, and two to us", name, upper)
		}
	})
}

func TestDenialsAreComplete(t *testing.T) {
	p := newFixture(t).policy(0, revoked{})
	for _, reason := range token.Reasons() {
		d := p.Denial(reason)
		if d.Status < 400 || len(d.Body) == 0 || d.GRPCStatus == 0 {
			t.Errorf("%s: %+v", reason, d)
		}
		if (d.RetryAfter > 0) != (d.Status == 503 || d.Status == 429) {
			t.Errorf("%s: status %d with Retry-After %d", reason, d.Status, d.RetryAfter)
		}
	}
	if d := p.Denial("made_up"); d.Status != 503 {
		t.Errorf("a reason that is none: status %d", d.Status)
	}
}

func BenchmarkDecide(b *testing.B) {
	f := newFixture(b)
	for name, bytes := range map[string]int{"remembered": 1 << 20, "not remembered": 0} {
		p := f.policy(bytes, revoked{})
		req := request("GET", "/api/v1/orders/12345?page=2", "Bearer "+f.token())
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if v := p.Decide(req, start); v.Outcome != Forward {
					b.Fatal(v.Err)
				}
			}
		})
	}
}
