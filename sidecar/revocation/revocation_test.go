// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package revocation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/internal/token"
)

func TestSetKeepsARevocationUntilItMayBeForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		s := NewSet(time.Now, func(id string) { told = append(told, id) })
		s.Add("a", time.Now().Add(5*time.Minute))
		s.Add("a", time.Now().Add(10*time.Minute))
		s.Add("b", time.Time{})
		time.Sleep(9 * time.Minute)
		s.Add("c", time.Now().Add(time.Minute))
		if !s.Revoked("a") || !s.Revoked("b") || s.Revoked("d") {
			t.Fatal("a revocation was forgotten early")
		}
		if !slices.Equal(told, []string{"a", "b", "c"}) {
			t.Fatalf("told of %v", told)
		}
		time.Sleep(10 * time.Minute)
		s.Add("e", time.Now().Add(time.Minute))
		if s.Len() != 2 || s.Revoked("a") || !s.Revoked("b") {
			t.Fatalf("%d sessions are left", s.Len())
		}
		time.Sleep(keepUnknown)
		s.Add("f", time.Now().Add(time.Minute))
		if s.Len() != 1 {
			t.Fatalf("%d sessions are left", s.Len())
		}
	})
}

// script is an issuer whose streams are given one after the other.
type script struct {
	mu     sync.Mutex
	since  []string
	open   []func(ctx context.Context, since string) (io.ReadCloser, error)
	opened []time.Time
}

func (s *script) Open(ctx context.Context, since string) (io.ReadCloser, error) {
	s.mu.Lock()
	s.since = append(s.since, since)
	s.opened = append(s.opened, time.Now())
	n := min(len(s.since), len(s.open)) - 1
	s.mu.Unlock()
	return s.open[n](ctx, since)
}

// lines is a stream that says some lines and then is silent, or ends.
func lines(ends bool, events ...protocol.RevocationEvent) func(context.Context, string) (io.ReadCloser, error) {
	return func(ctx context.Context, _ string) (io.ReadCloser, error) {
		r, w := io.Pipe()
		stop := context.AfterFunc(ctx, func() { _ = w.CloseWithError(ctx.Err()) })
		go func() {
			for _, e := range events {
				_ = json.NewEncoder(w).Encode(e)
			}
			if ends {
				stop()
				_ = w.Close()
			}
		}()
		return r, nil
	}
}

func failing(err error) func(context.Context, string) (io.ReadCloser, error) {
	return func(context.Context, string) (io.ReadCloser, error) { return nil, err }
}

// run follows a script for a while and says what was reported.
func run(t *testing.T, s *script, d time.Duration) (*Follower, []error) {
	t.Helper()
	var mu sync.Mutex
	var reports []error
	f := &Follower{Set: NewSet(time.Now, func(string) {}), Open: s.Open, Now: time.Now, Report: func(err error) {
		mu.Lock()
		defer mu.Unlock()
		reports = append(reports, err)
	}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		f.Run(ctx)
		close(done)
	}()
	time.Sleep(d)
	synctest.Wait()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	mu.Lock()
	defer mu.Unlock()
	return f, slices.Clone(reports)
}

func TestFollowerGoesOnFromWhereItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{open: []func(context.Context, string) (io.ReadCloser, error){
			lines(true, protocol.RevocationEvent{Cursor: "1", SessionID: "a"}, protocol.RevocationEvent{Cursor: "2"}),
			failing(errors.New("refused")),
			lines(false, protocol.RevocationEvent{Cursor: "3", SessionID: "b"}, protocol.RevocationEvent{Cursor: "3"}),
		}}
		f, reports := run(t, s, 2*time.Second)
		if !f.Set.Revoked("a") || !f.Set.Revoked("b") || !f.Status().Synced {
			t.Fatalf("revocations are missing, status %+v", f.Status())
		}
		if !slices.Equal(s.since, []string{"", "2", "2"}) {
			t.Fatalf("asked from %q", s.since)
		}
		if len(reports) != 2 || reports[0] == nil || reports[1] != nil {
			t.Fatalf("reports %v, want lost and back", reports)
		}
	})
}

func TestFollowerLeavesASilentStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{open: []func(context.Context, string) (io.ReadCloser, error){
			lines(false, protocol.RevocationEvent{Cursor: "1"}), lines(false, protocol.RevocationEvent{Cursor: "1"}),
		}}
		_, reports := run(t, s, silence+time.Second)
		if len(s.since) != 2 || !errors.Is(reports[0], errSilent) {
			t.Fatalf("opened %d times, reports %v", len(s.since), reports)
		}
	})
}

func TestFollowerBacksOffAndNeverStaysAwayForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{open: []func(context.Context, string) (io.ReadCloser, error){failing(errors.New("down"))}}
		f, reports := run(t, s, 5*time.Minute)
		if n := len(s.opened); n < 75 || n > 160 {
			t.Fatalf("%d attempts in five minutes", n)
		}
		for i := range s.opened[1:] {
			if gap := s.opened[i+1].Sub(s.opened[i]); gap > lastPause {
				t.Fatalf("stayed away for %s", gap)
			}
		}
		if len(reports) != 1 || f.Status().Synced {
			t.Fatalf("%d reports of one outage", len(reports))
		}
	})
}

func TestFollowerGivesUpACursorThatIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{open: []func(context.Context, string) (io.ReadCloser, error){
			lines(true, protocol.RevocationEvent{Cursor: "old"}),
			failing(fmt.Errorf("open: %w", &token.Error{Reason: token.RequestInvalid})),
			lines(false, protocol.RevocationEvent{Cursor: "new", SessionID: "a"}),
		}}
		f, _ := run(t, s, 2*time.Second)
		if !slices.Equal(s.since, []string{"", "old", ""}) || !f.Set.Revoked("a") {
			t.Fatalf("asked from %q", s.since)
		}
	})
}

func TestFollowerTakesNothingFromALineThatIsNoEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{open: []func(context.Context, string) (io.ReadCloser, error){
			func(context.Context, string) (io.ReadCloser, error) {
				r, w := io.Pipe()
				go func() {
					_, _ = io.WriteString(w, "<html>\n")
					_ = w.Close()
				}()
				return r, nil
			},
			failing(errors.New("down")),
		}}
		f, reports := run(t, s, time.Second)
		if !f.Status().LastHeard.IsZero() || len(reports) != 1 {
			t.Fatalf("status %+v, reports %v", f.Status(), reports)
		}
	})
}
