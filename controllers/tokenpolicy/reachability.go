// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package tokenpolicy

import (
	"fmt"
	"slices"
	"strings"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

// endpoints stands for "the endpoints" where otherwise the index of a rule stands.
const endpoints = -1

// unreachable says that no request ever comes to a rule.
type unreachable struct {
	// rule is the index in spec.rules.
	rule int
	// by are the indexes of the rules that take its requests, ascending, or [endpoints].
	by []int
}

// unreachableRules finds the rules that can never match, because what comes before
// them takes all their requests: the endpoints of the policy, then the earlier rules.
//
// It is exact, not a guess. A rule is a set of path × method pairs. There are
// infinitely many segments and methods, so finitely many earlier pairs can cover a
// prefix, or "every method", only if one of them does so alone: no union has to be tried.
func unreachableRules(rules []api.Rule, endpointsPrefix string) []unreachable {
	var found []unreachable
	for i, rule := range rules {
		by, covered := takers(rules[:i], rule, endpointsPrefix)
		if covered {
			found = append(found, unreachable{rule: i, by: by})
		}
	}
	return found
}

// takers says whether every request of the rule is taken before it, and by whom.
func takers(earlier []api.Rule, rule api.Rule, endpointsPrefix string) (by []int, covered bool) {
	for _, path := range rule.Paths {
		if under(endpointsPrefix, path) {
			by = append(by, endpoints)
			continue
		}
		taken, ok := pathTakers(earlier, path, rule.Methods)
		if !ok {
			return nil, false
		}
		by = append(by, taken...)
	}
	slices.Sort(by)
	return slices.Compact(by), len(rule.Paths) > 0
}

// pathTakers is takers for one path of a rule.
func pathTakers(earlier []api.Rule, path api.Path, methods []string) (by []int, covered bool) {
	open := methods // not taken yet
	for j, candidate := range earlier {
		if !slices.ContainsFunc(candidate.Paths, func(p api.Path) bool { return covers(p, path) }) {
			continue
		}
		if len(candidate.Methods) == 0 {
			return append(by, j), true
		}
		left := slices.DeleteFunc(slices.Clone(open), func(m string) bool { return slices.Contains(candidate.Methods, m) })
		if len(left) < len(open) {
			by, open = append(by, j), left
		}
		if len(methods) > 0 && len(open) == 0 {
			return by, true
		}
	}
	return nil, false
}

// covers says whether every request path that b matches is matched by a too.
func covers(a, b api.Path) bool {
	switch {
	case a == b:
		return true
	case a.Type == api.PathPrefix:
		// A prefix is whole segments, so a slash at its end says nothing.
		outer, inner := strings.TrimSuffix(a.Value, "/"), b.Value
		if b.Type == api.PathPrefix {
			inner = strings.TrimSuffix(inner, "/")
		}
		return inner == outer || strings.HasPrefix(inner, outer+"/")
	default:
		return false
	}
}

// under says whether the endpoints take every request path that p matches.
func under(prefix string, p api.Path) bool {
	return covers(api.Path{Type: api.PathPrefix, Value: prefix}, p)
}

// maxReported bounds the condition's message; who mends five rules sees the rest after.
const maxReported = 5

// explain is the message of a condition: which rule, taken by whom, and the remedy.
func explain(found []unreachable, endpointsPrefix string) string {
	sentences := make([]string, 0, maxReported+1)
	for _, u := range found[:min(len(found), maxReported)] {
		sentences = append(sentences, u.sentence(endpointsPrefix))
	}
	if more := len(found) - maxReported; more > 0 {
		sentences = append(sentences, fmt.Sprintf("%d more rules can never match.", more))
	}
	return strings.Join(sentences, " ")
}

func (u unreachable) sentence(endpointsPrefix string) string {
	rule := field(u.rule)
	if u.by[0] == endpoints {
		others := u.by[1:]
		also := ""
		if len(others) > 0 {
			also = ", and " + list(others) + " the others"
		}
		return fmt.Sprintf("%s can never match: the endpoints take all paths below %s (spec.endpoints.prefix)%s. "+
			"Remove %s, or choose another spec.endpoints.prefix.", rule, endpointsPrefix, also, rule)
	}
	verb := "takes"
	if len(u.by) > 1 {
		verb = "take"
	}
	return fmt.Sprintf("%s can never match: the first match wins, and %s already %s all its requests. "+
		"Move %s before %s, or remove it.", rule, list(u.by), verb, rule, field(u.by[0]))
}

func field(rule int) string { return fmt.Sprintf("spec.rules[%d]", rule) }

func list(rules []int) string {
	names := make([]string, len(rules))
	for i, rule := range rules {
		names[i] = field(rule)
	}
	if len(names) == 1 {
		return names[0]
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}
