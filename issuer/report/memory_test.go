// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package report

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

// pair are issuers that write one condition, as [Controller.report] does.
type pair struct {
	now    time.Time
	status *metav1.Condition
	known  [2]memory
	writes int
}

func (p *pair) look(issuer int, found metav1.Condition) {
	found.LastTransitionTime = metav1.NewTime(p.now)
	if p.status != nil && p.status.Status == found.Status {
		found.LastTransitionTime = p.status.LastTransitionTime
	}
	if p.status == nil || !equality.Semantic.DeepEqual(*p.status, found) {
		if p.known[issuer].hold(p.status, found, p.now) > 0 {
			return
		}
		p.status = &found
		p.writes++
	}
	p.known[issuer].noted(found)
}

func TestIssuersThatDoNotFindTheSame(t *testing.T) {
	well := metav1.Condition{Status: metav1.ConditionTrue, Reason: api.ReasonStoreReady}
	partly := metav1.Condition{Status: metav1.ConditionTrue, Reason: api.ReasonStorePartlyUnreadable}
	away := metav1.Condition{Status: metav1.ConditionFalse, Reason: api.ReasonUnreachable}
	slow := metav1.Condition{Status: metav1.ConditionFalse, Reason: api.ReasonStoreUnavailable}
	for name, test := range map[string]struct{ one, other metav1.Condition }{
		"one is cut off":          {well, away},
		"one sees broken records": {well, partly},
		"each sees another fault": {away, slow},
	} {
		t.Run(name, func(t *testing.T) {
			p := &pair{now: time.Unix(1_800_000_000, 0)}
			worse := 0
			const looks = 24 * 60 * 60 / 45
			for range looks {
				p.look(0, test.one)
				p.look(1, test.other)
				if badness(*p.status) == badness(test.other) {
					worse++
				}
				p.now = p.now.Add(45 * time.Second)
			}
			if p.writes > 70 || worse < looks*98/100 {
				t.Errorf("%d writes in a day, and the fault was there after %d of %d looks", p.writes, worse, looks)
			}
			p.look(1, test.one)
			p.look(0, test.one)
			if p.status.Reason != test.one.Reason {
				t.Errorf("it is mended, and the status says %+v", p.status)
			}
		})
	}
	t.Run("who has found it goes", func(t *testing.T) {
		p := &pair{now: time.Unix(1_800_000_000, 0)}
		p.look(1, away)
		p.look(0, well)
		if p.status.Reason != away.Reason {
			t.Errorf("the status says %+v at once", p.status)
		}
		p.now = p.now.Add(firstPatience)
		p.look(0, well)
		if p.status.Reason != well.Reason {
			t.Errorf("the status says %+v for ever", p.status)
		}
	})
	t.Run("the policy changes", func(t *testing.T) {
		p := &pair{now: time.Unix(1_800_000_000, 0)}
		p.look(1, away)
		next := well
		next.ObservedGeneration = 2
		p.look(0, next)
		if p.status.Reason != well.Reason {
			t.Errorf("the status says %+v about the former policy", p.status)
		}
	})
}
