// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"maps"
	"net/http"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/internal/session"
)

const (
	// refusedEvery is how often a kind of refusal is logged.
	refusedEvery = time.Second
	// forgetAfter is when nobody will tell any more how many were not logged.
	forgetAfter = time.Hour
	// mostKinds is when those that have passed are looked for: more than a flood over one
	// policy makes.
	mostKinds = 1024
)

// callLog writes one line for what an operator may ask about later: logins, logouts
// and everything refused. Refreshes and the rest are for debugging. Of refusals of one
// kind it writes a line a second, however many there are; metrics count all.
type callLog struct {
	log logr.Logger
	now func() time.Time

	mu   sync.Mutex
	seen map[kind]*refusals
}

// kind of refusal. What a caller can make up is not in it: a call that has not come as
// far as a policy has none.
type kind struct {
	policy  session.PolicyID
	call    protocol.Call
	outcome string
}

type refusals struct {
	logged time.Time
	// suppressed since then.
	suppressed int
}

func (l *callLog) write(call protocol.Call, r *http.Request, s *scope, outcome string, err error) {
	log := l.log
	if err == nil && call != protocol.CallLogin && call != protocol.CallLogout {
		log = log.V(1)
	}
	if !log.Enabled() {
		return
	}
	values := []any{"call", call, "outcome", outcome, "namespace", r.PathValue("namespace"), "policy", r.PathValue("policy"), "pod", s.pod.Name}
	if s.session != "" {
		values = append(values, "subject", s.subject, "session", s.session)
	}
	if err != nil {
		k := kind{call: call, outcome: outcome}
		if s.policy != nil {
			k.policy = s.policy.UID
		}
		suppressed, ok := l.allow(k)
		if !ok {
			return
		}
		values = append(values, "error", err.Error())
		if suppressed > 0 {
			values = append(values, "suppressed", suppressed)
		}
	}
	log.Info("call", values...)
}

// allow says whether a refusal is logged, and how many of its kind were not since the
// last one that was.
func (l *callLog) allow(k kind) (suppressed int, ok bool) {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen == nil {
		l.seen = map[kind]*refusals{}
	}
	before := l.seen[k]
	if before != nil && now.Sub(before.logged).Abs() < refusedEvery {
		before.suppressed++
		return 0, false
	}
	if before != nil {
		suppressed = before.suppressed
	} else if len(l.seen) >= mostKinds {
		maps.DeleteFunc(l.seen, func(_ kind, r *refusals) bool {
			age := now.Sub(r.logged).Abs()
			return r.suppressed == 0 && age >= refusedEvery || age >= forgetAfter
		})
	}
	l.seen[k] = &refusals{logged: now}
	return suppressed, true
}
