// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package reach

import (
	"context"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

const (
	// Timeout is how long an attempt may take: enough for a lost packet to be sent again.
	Timeout = 2 * time.Second
	// A target is tried again after as much time as it is known, within these.
	soonest, latest = 10 * time.Second, 10 * time.Minute
	// jitter is the share of that time by which attempts are spread.
	jitter = 0.2
	// maxPods of a target are looked at in one attempt.
	maxPods = 3
	// patience is how long an answer about a target is expected that cannot be tried.
	patience = 30 * time.Minute
	// stale is how long a result holds that could not be found out again.
	stale = time.Hour
)

// Tries tries, as long as Start runs.
type Tries struct {
	// Lookup, Dial and Changed must be set. Changed is called with the name of a policy
	// when its results are others than before; it may block.
	Lookup  Lookup
	Dial    Dial
	Changed func(context.Context, types.NamespacedName)
	// Every is the time between two attempts, over all policies.
	Every time.Duration
	// Settle is how long nothing is tried after what is wanted of the network changed:
	// networks need a moment to close a port.
	Settle time.Duration
	// Count is called with the outcome of each connection; may be nil.
	Count func(Outcome)

	mu       sync.Mutex
	policies map[types.NamespacedName]*policy
	wake     chan struct{}
}

type policy struct {
	network string
	notFor  time.Time // nothing is tried before
	targets map[targetKey]*target
}

type target struct {
	Target
	since, due time.Time
	// result is nil as long as nothing is known; found is when it was.
	result  *Result
	found   time.Time
	givenUp bool
}

// Findings are what is known of a policy's targets.
type Findings struct {
	// Results are those of the targets that were tried, in their order.
	Results []Result
	// Pending says that an answer about another target is to be expected.
	Pending bool
}

// Want says which targets a policy has, and returns what is known of them. Network is any
// word for what is wanted of the network: what was found out under another is forgotten.
func (t *Tries) Want(name types.NamespacedName, network string, targets []Target) Findings {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if t.policies == nil {
		t.policies = map[types.NamespacedName]*policy{}
	}
	p := t.policies[name]
	if p == nil || p.network != network {
		p = &policy{network: network, notFor: now.Add(t.Settle), targets: map[targetKey]*target{}}
		t.policies[name] = p
	}
	wanted := map[targetKey]*target{}
	var findings Findings
	for _, w := range targets {
		has := p.targets[w.key()]
		if has == nil {
			has = &target{since: now}
		}
		has.Target = w
		wanted[w.key()] = has
		if has.result != nil {
			findings.Results = append(findings.Results, *has.result)
		} else if !has.givenUp {
			findings.Pending = true
		}
	}
	p.targets = wanted
	if t.wake != nil {
		select {
		case t.wake <- struct{}{}:
		default:
		}
	}
	return findings
}

// Forget forgets a policy.
func (t *Tries) Forget(name types.NamespacedName) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.policies, name)
}

// Start tries until ctx ends. It implements manager.Runnable, of the leader.
func (t *Tries) Start(ctx context.Context) error {
	wake := make(chan struct{}, 1)
	t.mu.Lock()
	t.wake = wake
	t.mu.Unlock()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		name, chosen, due := t.next()
		if chosen != nil && !due.After(time.Now()) {
			t.try(ctx, name, *chosen)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(t.Every):
			}
			continue
		}
		timer.Reset(latest)
		if chosen != nil {
			timer.Reset(time.Until(due))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		case <-timer.C:
		}
	}
}

// next is the target whose turn it is, and when.
func (t *Tries) next() (name types.NamespacedName, wanted *Target, due time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var chosen *target
	for n, p := range t.policies {
		for _, has := range p.targets {
			at := has.due
			if at.Before(p.notFor) {
				at = p.notFor
			}
			if chosen == nil || at.Before(due) {
				name, chosen, due = n, has, at
			}
		}
	}
	if chosen == nil {
		return name, nil, due
	}
	copied := chosen.Target
	copied.Pods = some(copied.Pods, chosen.result)
	return name, &copied, due
}

// some are the pods to look at: the one of the last result first, so that what is said
// stays the same, and then any, as the first ones may never become ready.
func some(pods []string, last *Result) []string {
	order := make([]string, 0, maxPods)
	if last != nil && slices.Contains(pods, last.Pod) {
		order = append(order, last.Pod)
	}
	for _, i := range rand.Perm(len(pods)) { //nolint:gosec // nobody gains by guessing
		if len(order) == maxPods {
			break
		}
		if !slices.Contains(order, pods[i]) {
			order = append(order, pods[i])
		}
	}
	return order
}

// try tries the first pod of a target that can be tried.
func (t *Tries) try(ctx context.Context, name types.NamespacedName, wanted Target) {
	var result *Result
	for _, pod := range wanted.Pods {
		if result = t.tryPod(ctx, name, pod, wanted.Port); result != nil {
			break
		}
	}
	if t.note(name, wanted, result) {
		t.Changed(ctx, name)
	}
}

// tryPod is nil when nothing was found out.
func (t *Tries) tryPod(ctx context.Context, policy types.NamespacedName, name string, port int32) *Result {
	pod, err := t.Lookup(ctx, policy, name, port)
	if err != nil || pod == nil {
		return nil
	}
	outcomes := make(chan map[netip.Addr]Outcome, len(pod.Addresses))
	for _, address := range pod.Addresses {
		go func() {
			outcome, ok := connect(ctx, t.Dial, netip.AddrPortFrom(address, uint16(port))) //nolint:gosec // a port
			if ok && t.Count != nil {
				t.Count(outcome)
			}
			outcomes <- map[netip.Addr]Outcome{address: outcome}
		}()
	}
	all := map[netip.Addr]Outcome{}
	for range pod.Addresses {
		maps.Copy(all, <-outcomes)
	}
	outcome, with := worst(all, pod.Addresses)
	if outcome == "" || ctx.Err() != nil {
		return nil
	}
	if outcome == Open { // the address may have been given to another pod meanwhile
		again, err := t.Lookup(ctx, policy, name, port)
		if err != nil || again == nil || again.UID != pod.UID {
			return nil
		}
	}
	return &Result{Pod: name, Port: port, Outcome: outcome, Addresses: with}
}

// note notes a result, if it is still wanted, and says whether it is another than before.
func (t *Tries) note(name types.NamespacedName, tried Target, result *Result) (changed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.policies[name]
	if p == nil || time.Now().Before(p.notFor) {
		return false // what is wanted of the network has changed meanwhile
	}
	has := p.targets[tried.key()]
	if has == nil {
		return false
	}
	now := time.Now()
	pause := min(max(now.Sub(has.since), soonest), latest)
	has.due = now.Add(pause + time.Duration(float64(pause)*jitter*rand.Float64())) //nolint:gosec // spreads load
	switch {
	case result != nil:
		changed = has.result == nil || !has.result.equal(*result)
		has.result, has.found, has.givenUp = result, now, false
	case has.result != nil && now.Sub(has.found) >= stale, has.result == nil && now.Sub(has.since) >= patience:
		changed = !has.givenUp
		has.result, has.givenUp = nil, true
	}
	return changed
}
