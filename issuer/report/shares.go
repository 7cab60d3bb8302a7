// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package report

import "sync"

// shares of the namespaces in what goes on at one time. The zero value is ready to use.
type shares struct {
	mu    sync.Mutex
	taken map[string]int
}

// take is false when the namespace has its share.
func (s *shares) take(namespace string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken[namespace] == ofNamespace {
		return false
	}
	if s.taken == nil {
		s.taken = map[string]int{}
	}
	s.taken[namespace]++
	return true
}

func (s *shares) giveBack(namespace string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken[namespace]--; s.taken[namespace] == 0 {
		delete(s.taken, namespace)
	}
}
