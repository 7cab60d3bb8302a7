// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package caller

import (
	"sync"
	"time"
)

// maxRemembered bounds the memory: about 5 MB. Beyond it the API server is asked
// more often, and nothing else happens.
const maxRemembered = 20_000

// memory of verdicts, by digest of the token. The zero value is ready to use.
type memory struct {
	mu       sync.Mutex
	verdicts map[digest]verdict
	swept    time.Time
}

func (m *memory) get(key digest, now time.Time) (verdict, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.verdicts[key]
	return v, ok && now.Before(v.until)
}

func (m *memory) put(key digest, v verdict, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.verdicts == nil {
		m.verdicts = map[digest]verdict{}
	}
	if len(m.verdicts) >= maxRemembered || now.Sub(m.swept) > Remember {
		m.sweep(now)
	}
	m.verdicts[key] = v
}

// sweep removes what has ended, and if that makes no room, anything.
func (m *memory) sweep(now time.Time) {
	m.swept = now
	for key, v := range m.verdicts {
		if !now.Before(v.until) {
			delete(m.verdicts, key)
		}
	}
	for key := range m.verdicts {
		if len(m.verdicts) < maxRemembered {
			return
		}
		delete(m.verdicts, key)
	}
}
