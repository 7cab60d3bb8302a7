// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package tokenpolicy

import (
	"cmp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

func exact(value string) api.Path  { return api.Path{Type: api.PathExact, Value: value} }
func prefix(value string) api.Path { return api.Path{Type: api.PathPrefix, Value: value} }

func rule(methods string, paths ...api.Path) api.Rule {
	return api.Rule{Paths: paths, Methods: strings.Fields(methods), Access: api.AccessAuthenticated}
}

func TestRulesThatCanNeverMatch(t *testing.T) {
	tests := map[string]struct {
		rules []api.Rule
		want  string // the condition's message; empty when every rule can match
	}{
		"no rules": {},
		"different paths": {
			rules: []api.Rule{rule("", prefix("/a")), rule("", prefix("/b"))},
		},
		"the same path twice": {
			rules: []api.Rule{rule("", exact("/a")), rule("", exact("/a"))},
			want:  "spec.rules[1] can never match: the first match wins, and spec.rules[0] already takes all its requests. Move spec.rules[1] before spec.rules[0], or remove it.",
		},
		"a wider prefix first": {
			rules: []api.Rule{rule("", prefix("/a")), rule("GET", exact("/a/b"))},
			want:  "spec.rules[1] can never match: the first match wins, and spec.rules[0] already takes all its requests. Move spec.rules[1] before spec.rules[0], or remove it.",
		},
		"a prefix takes whole segments only": {
			rules: []api.Rule{rule("", prefix("/public")), rule("", prefix("/publicity")), rule("", exact("/public-key"))},
		},
		"a prefix takes the path itself": {
			rules: []api.Rule{rule("", prefix("/a")), rule("", exact("/a"))},
			want:  "spec.rules[1] can never match: the first match wins, and spec.rules[0] already takes all its requests. Move spec.rules[1] before spec.rules[0], or remove it.",
		},
		"an exact path does not take a prefix": {
			rules: []api.Rule{rule("", exact("/a")), rule("", prefix("/a"))},
		},
		"the root prefix takes everything after it": {
			rules: []api.Rule{rule("", exact("/a")), rule("", prefix("/")), rule("POST", prefix("/b"))},
			want:  "spec.rules[2] can never match: the first match wins, and spec.rules[1] already takes all its requests. Move spec.rules[2] before spec.rules[1], or remove it.",
		},
		"other methods are left": {
			rules: []api.Rule{rule("GET HEAD", prefix("/a")), rule("GET POST", prefix("/a"))},
		},
		"every method is more than any list of methods": {
			rules: []api.Rule{rule("GET HEAD POST PUT DELETE", prefix("/a")), rule("", prefix("/a"))},
		},
		"each method is taken by another rule": {
			rules: []api.Rule{rule("GET", prefix("/a")), rule("POST", prefix("/")), rule("GET POST", exact("/a/b"))},
			want:  "spec.rules[2] can never match: the first match wins, and spec.rules[0] and spec.rules[1] already take all its requests. Move spec.rules[2] before spec.rules[0], or remove it.",
		},
		"each path is taken by another rule": {
			rules: []api.Rule{rule("", prefix("/a")), rule("", prefix("/b")), rule("", exact("/c")), rule("", exact("/a/1"), prefix("/b/2"))},
			want:  "spec.rules[3] can never match: the first match wins, and spec.rules[0] and spec.rules[1] already take all its requests. Move spec.rules[3] before spec.rules[0], or remove it.",
		},
		"one path of several is left": {
			rules: []api.Rule{rule("", prefix("/a")), rule("", exact("/a/1"), exact("/c"))},
		},
		"children do not take their parent": {
			rules: []api.Rule{rule("", prefix("/a/b"), prefix("/a/c")), rule("", prefix("/a"))},
		},
		"below the endpoints": {
			rules: []api.Rule{rule("", exact("/auth/token"))},
			want:  "spec.rules[0] can never match: the endpoints take all paths below /auth (spec.endpoints.prefix). Remove spec.rules[0], or choose another spec.endpoints.prefix.",
		},
		"below the endpoints or an earlier rule": {
			rules: []api.Rule{rule("", exact("/x")), rule("GET", prefix("/auth/login"), exact("/x"))},
			want:  "spec.rules[1] can never match: the endpoints take all paths below /auth (spec.endpoints.prefix), and spec.rules[0] the others. Remove spec.rules[1], or choose another spec.endpoints.prefix.",
		},
		"a slash at the end of a prefix says nothing": {
			rules: []api.Rule{rule("", prefix("/a/")), rule("", prefix("/a"))},
			want:  "spec.rules[1] can never match: the first match wins, and spec.rules[0] already takes all its requests. Move spec.rules[1] before spec.rules[0], or remove it.",
		},
		"a slash at the end of an exact path does": {
			rules: []api.Rule{rule("", exact("/a")), rule("", exact("/a/"))},
		},
		"a name that begins like the endpoints'": {
			rules: []api.Rule{rule("", prefix("/authors"))},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := ""
			if found := unreachableRules(test.rules, "/auth"); len(found) > 0 {
				got = explain(found, "/auth")
			}
			if got != test.want {
				t.Errorf("message:\n got %q\nwant %q", got, test.want)
			}
		})
	}
}

func TestTheMessageIsBounded(t *testing.T) {
	rules := make([]api.Rule, 64)
	for i := range rules {
		rules[i] = rule("", prefix("/"))
	}
	message := explain(unreachableRules(rules, "/auth"), "/auth")
	if len(message) > 1024 || !strings.HasSuffix(message, "58 more rules can never match.") {
		t.Errorf("63 unreachable rules give %d bytes: %s", len(message), message)
	}
}

// TestReachabilityAgreesWithTrying draws rules and compares what is said about them
// with what a matcher does that is tried with every request that could tell them
// apart: each path of each rule, and a child and a method that no rule names.
func TestReachabilityAgreesWithTrying(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const endpointsPrefix = "/auth"
		rules := rapid.SliceOfN(drawnRule(), 0, 6).Draw(t, "rules")
		said := make(map[int]bool)
		for _, u := range unreachableRules(rules, endpointsPrefix) {
			said[u.rule] = true
		}
		reached := tryAll(rules, endpointsPrefix)
		for i := range rules {
			if said[i] == reached[i] {
				t.Fatalf("rule %d: said to be unreachable: %v; reached by a request: %v\n%+v", i, said[i], reached[i], rules)
			}
		}
	})
}

func drawnRule() *rapid.Generator[api.Rule] {
	return rapid.Custom(func(t *rapid.T) api.Rule {
		segments := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "ab", "auth"}), 0, 3)
		path := rapid.Custom(func(t *rapid.T) api.Path {
			value := strings.Join(segments.Draw(t, "segments"), "/")
			if value != "" && rapid.Bool().Draw(t, "slash at the end") {
				value += "/"
			}
			return api.Path{
				Type:  rapid.SampledFrom([]api.PathType{api.PathExact, api.PathPrefix}).Draw(t, "type"),
				Value: "/" + value,
			}
		})
		return api.Rule{
			Paths:   rapid.SliceOfN(path, 1, 3).Draw(t, "paths"),
			Methods: rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"GET", "POST", "PUT"}), 0, 3, rapid.ID).Draw(t, "methods"),
		}
	})
}

func tryAll(rules []api.Rule, endpointsPrefix string) map[int]bool {
	reached := make(map[int]bool)
	for _, source := range rules {
		for _, path := range source.Paths {
			bare := strings.TrimSuffix(path.Value, "/")
			for _, request := range []string{path.Value, cmp.Or(bare, "/"), bare + "/", bare + "/unnamed"} {
				for _, method := range []string{"GET", "POST", "PUT", "UNNAMED"} {
					if i, ok := firstMatch(rules, endpointsPrefix, method, request); ok {
						reached[i] = true
					}
				}
			}
		}
	}
	return reached
}

// firstMatch compares segment by segment, unlike the code under test.
func firstMatch(rules []api.Rule, endpointsPrefix, method, path string) (int, bool) {
	if hasSegments(path, endpointsPrefix) {
		return 0, false
	}
	for i, rule := range rules {
		if len(rule.Methods) > 0 && !slices.Contains(rule.Methods, method) {
			continue
		}
		for _, p := range rule.Paths {
			if p.Type == api.PathExact && p.Value == path || p.Type == api.PathPrefix && hasSegments(path, p.Value) {
				return i, true
			}
		}
	}
	return 0, false
}

func hasSegments(path, prefix string) bool {
	have, want := segments(path), segments(prefix)
	return len(have) >= len(want) && slices.Equal(have[:len(want)], want)
}

func segments(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}
