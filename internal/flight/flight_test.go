// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package flight_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenward/tokenward/internal/flight"
)

type key struct{ a, b string }

func TestCallersWithOneKeyShareOneAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var group flight.Group[key, int]
		var runs, joined atomic.Int32
		for range 50 {
			go func() {
				got, j, err := group.Do(t.Context(), key{"a", "b"}, time.Minute, func(context.Context) (int, error) {
					time.Sleep(time.Second)
					return int(runs.Add(1)), nil
				})
				if got != 1 || err != nil {
					t.Errorf("got %d, %v", got, err)
				}
				if j {
					joined.Add(1)
				}
			}()
		}
		synctest.Wait()
		group.Wait()
		synctest.Wait()
		if runs.Load() != 1 || joined.Load() != 49 {
			t.Errorf("%d runs, %d joined; want 1 and 49", runs.Load(), joined.Load())
		}
	})
}

func TestKeysThatJoinToTheSameStringAreApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var group flight.Group[key, string]
		for _, k := range []key{{"a/b", "c"}, {"a", "b/c"}} {
			go func() {
				got, joined, err := group.Do(t.Context(), k, time.Minute, func(context.Context) (string, error) {
					time.Sleep(time.Second)
					return k.a, nil
				})
				if got != k.a || joined || err != nil {
					t.Errorf("%v: got %q, joined %v, %v", k, got, joined, err)
				}
			}()
		}
		time.Sleep(2 * time.Second)
	})
}

func TestACallerThatGivesUpLeavesTheOthersTheirAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var group flight.Group[int, string]
		work := func(ctx context.Context) (string, error) {
			select {
			case <-time.After(10 * time.Second):
				return "done", nil
			case <-ctx.Done():
				return "", ctx.Err()
			}
		}
		first, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go func() {
			if _, _, err := group.Do(first, 1, time.Minute, work); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the first caller got %v", err)
			}
		}()
		synctest.Wait()
		if got, joined, err := group.Do(t.Context(), 1, time.Minute, work); got != "done" || !joined || err != nil {
			t.Errorf("the second caller got %q, joined %v, %v", got, joined, err)
		}
	})
}

func TestWorkIsBoundedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var group flight.Group[int, string]
		_, _, err := group.Do(t.Context(), 1, time.Second, func(ctx context.Context) (string, error) {
			<-ctx.Done()
			return "", ctx.Err()
		})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestAPanicIsAnErrorWithoutItsValueAndTheKeyIsFreeAgain(t *testing.T) {
	var group flight.Group[int, string]
	_, _, err := group.Do(t.Context(), 1, time.Second, func(context.Context) (string, error) { panic("canary") })
	if err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("got %v", err)
	}
	if got, _, err := group.Do(t.Context(), 1, time.Second, func(context.Context) (string, error) { return "next", nil }); got != "next" || err != nil {
		t.Errorf("afterwards: %q, %v", got, err)
	}
}
