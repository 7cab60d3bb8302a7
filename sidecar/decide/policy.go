// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tokenward/tokenward/internal/settings"
	"github.com/tokenward/tokenward/internal/token"
)

// Sessions knows which sessions were revoked.
type Sessions interface {
	Revoked(sessionID string) bool
}

// Policy is settings and a key set, compiled for deciding. It is immutable.
type Policy struct {
	// Settings are what the policy was compiled from, and must not be changed.
	Settings *settings.Settings
	// Keys are what tokens verify against; they may be newer than those in Settings.
	Keys *token.KeySet

	verifier token.Verifier
	sessions Sessions
	memory   *memory
	rules    []rule
	claims   []claimHeader
	refresh  string // the folded response header
	denials  map[token.Reason]Denial
}

// Compile prepares settings that passed [settings.Settings.Validate]. memoryBytes
// bounds the remembered tokens, in bytes; 0 remembers none.
func Compile(s *settings.Settings, keys *token.KeySet, sessions Sessions, memoryBytes int) (*Policy, error) {
	p := &Policy{
		Settings: s,
		Keys:     keys,
		verifier: token.Verifier{Keys: keys, Issuer: s.Issuer, Audiences: s.Audiences, Leeway: time.Duration(s.Leeway)},
		sessions: sessions,
		memory:   newMemory(memoryBytes),
		refresh:  fold(s.Refresh.ResponseHeader),
	}
	for i, r := range s.Rules {
		compiled, err := compileRule(r)
		if err != nil {
			return nil, fmt.Errorf("compile rules[%d]: %w", i, err)
		}
		p.rules = append(p.rules, compiled)
	}
	for _, h := range s.Upstream.ClaimHeaders {
		p.claims = append(p.claims, claimHeader{claim: h.Claim, header: h.Header, folded: fold(h.Header)})
	}
	p.denials = compileDenials(s)
	return p, nil
}

// rule is a settings.Rule that was checked once.
type rule struct {
	exact, prefix []string
	methods       []string
	access        settings.Access
	require       []settings.RequiredClaim
}

func compileRule(r settings.Rule) (rule, error) {
	out := rule{methods: r.Methods, access: r.Access, require: r.RequireClaims}
	for _, p := range r.Paths {
		canonical, err := settings.CanonicalPath(p.Value)
		if err != nil {
			return rule{}, err
		}
		if p.Type == settings.PathExact {
			out.exact = append(out.exact, canonical)
		} else {
			out.prefix = append(out.prefix, strings.TrimSuffix(canonical, "/"))
		}
	}
	return out, nil
}

func (r *rule) matches(method, path string) bool {
	if len(r.methods) > 0 && !slices.Contains(r.methods, method) {
		return false
	}
	return slices.Contains(r.exact, path) ||
		slices.ContainsFunc(r.prefix, func(prefix string) bool { return under(path, prefix) })
}

// under reports that path is prefix, or a path below it, by whole segments.
func under(path, prefix string) bool {
	return strings.HasPrefix(path, prefix) && (len(path) == len(prefix) || path[len(prefix)] == '/')
}

// authenticated is the rule for requests that match none.
var authenticated = rule{access: settings.AccessAuthenticated}

// rule finds the first match and its index, -1 for the default.
func (p *Policy) rule(method, path string) (*rule, int) {
	for i := range p.rules {
		if p.rules[i].matches(method, path) {
			return &p.rules[i], i
		}
	}
	return &authenticated, -1
}

// Audit says that denials are counted and logged, not carried out.
func (p *Policy) Audit() bool { return p.Settings.Enforcement == settings.Audit }

// Refreshes says that an expired token may buy a new one.
func (p *Policy) Refreshes() bool { return p.Settings.Refresh.OnExpired == settings.OnExpiredRefresh }

// Remembered is how many tokens are remembered, and roughly how many bytes they take.
func (p *Policy) Remembered() (tokens, bytes int) { return p.memory.size() }
