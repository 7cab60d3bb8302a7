// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sql

import (
	"sync"

	"github.com/tokenward/tokenward/internal/users/password"
)

// maxRemembered bounds the users whose hashes are remembered by cost.
const maxRemembered = 256

// costs remembers what hashes cost, so that the dummy of "no such user" costs what
// most users' do. Each user counts once: who logs in often does not decide for all.
// Until a user was seen it is the cost of new hashes.
type costs struct {
	mu        sync.Mutex
	bySubject map[string]password.Cost
	unusable  map[string]error
}

func (c *costs) saw(subject string, cost password.Cost) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.unusable, subject)
	if c.bySubject == nil {
		c.bySubject = map[string]password.Cost{}
	}
	if _, ok := c.bySubject[subject]; !ok && len(c.bySubject) >= maxRemembered {
		for other := range c.bySubject { // any, in no order that a client could know
			delete(c.bySubject, other)
			break
		}
	}
	c.bySubject[subject] = cost
}

// sawUnusable remembers that a user's password column has no hash that can be verified.
func (c *costs) sawUnusable(subject string, why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unusable == nil {
		c.unusable = map[string]error{}
	}
	if len(c.unusable) < maxRemembered {
		c.unusable[subject] = why
	}
}

func (c *costs) dummy() password.Encoded {
	c.mu.Lock()
	defer c.mu.Unlock()
	counts := map[password.Cost]int{}
	for _, cost := range c.bySubject {
		counts[cost]++
	}
	best, most := password.DefaultCost(), 0
	for cost, count := range counts {
		if count > most || count == most && best.Less(cost) {
			best, most = cost, count
		}
	}
	return password.Dummy(best)
}

func (c *costs) report() Report {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := Report{Unusable: len(c.unusable)}
	for _, why := range c.unusable {
		if r.Reason == "" || why.Error() < r.Reason {
			r.Reason = why.Error()
		}
	}
	return r
}
