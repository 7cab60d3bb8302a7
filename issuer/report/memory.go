// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package report

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

// What another issuer has found wrong stays in the status until that issuer finds it well, or
// for so long: it may have gone. Where it has not, it says so again, and the next time it is
// left alone for twice as long, up to the longest.
const (
	firstPatience   = time.Minute
	longestPatience = time.Hour
)

// memories of the conditions of the policies, for this issuer. The zero value is ready to use.
type memories struct {
	mu sync.Mutex
	of map[memoryKey]memory
}

type memoryKey struct {
	policy    types.NamespacedName
	condition string
}

// memory is what an issuer knows of a condition that all issuers write. Without it two of
// which one sees a fault, as behind a network policy of its node, would overwrite each other
// with every look.
type memory struct {
	// own is what this issuer has written last, or found as it would have written it.
	own metav1.Condition
	// seen is what others have found, since when this issuer knows of it, and its patience
	// with that, zero at first.
	seen     metav1.Condition
	since    time.Time
	patience time.Duration
}

// hold says for how long what the status has is left as it is, although this issuer would write
// wanted; zero is not at all.
func (m *memory) hold(has *metav1.Condition, wanted metav1.Condition, now time.Time) time.Duration {
	if has == nil || has.ObservedGeneration != wanted.ObservedGeneration || badness(*has) == 0 || badness(*has) < badness(wanted) ||
		equality.Semantic.DeepEqual(*has, m.own) {
		return 0
	}
	if !equality.Semantic.DeepEqual(*has, m.seen) {
		m.seen, m.since = *has, now
	}
	patience := max(m.patience, firstPatience)
	if left := m.since.Add(patience).Sub(now); left > 0 {
		return left
	}
	m.patience = min(2*patience, longestPatience)
	return 0
}

// noted: the status has what this issuer has found.
func (m *memory) noted(condition metav1.Condition) { m.own, m.seen = condition, metav1.Condition{} }

// badness puts conditions in order: all is well, some users or records are not, nothing works.
func badness(c metav1.Condition) int {
	switch {
	case c.Status != metav1.ConditionTrue:
		return 2
	case c.Reason == api.ReasonUsersReady, c.Reason == api.ReasonStoreReady:
		return 0
	}
	return 1
}

// hold is that of the memory of a condition.
func (m *memories) hold(key memoryKey, has *metav1.Condition, wanted metav1.Condition, now time.Time) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	known := m.of[key]
	wait := known.hold(has, wanted, now)
	m.keep(key, known)
	return wait
}

// stands notes that the status has what this issuer has found.
func (m *memories) stands(key memoryKey, condition metav1.Condition) {
	m.mu.Lock()
	defer m.mu.Unlock()
	known := m.of[key]
	known.noted(condition)
	m.keep(key, known)
}

// keep it; they are locked.
func (m *memories) keep(key memoryKey, known memory) {
	if m.of == nil {
		m.of = map[memoryKey]memory{}
	}
	m.of[key] = known
}

// forget a policy that is gone.
func (m *memories) forget(policy types.NamespacedName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, condition := range []string{api.ConditionUsersReady, api.ConditionStoreReady} {
		delete(m.of, memoryKey{policy, condition})
	}
}
