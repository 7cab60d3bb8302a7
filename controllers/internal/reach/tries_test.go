// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package reach

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
)

var shop = types.NamespacedName{Namespace: "shop", Name: "shop"}

// network is what a test tries to reach: errors by address, no error when there is none.
type network struct {
	sync.Mutex
	refuses map[string]error
	dialled []string
	at      []time.Time
	// gone pods are not to be tried, replaced ones are others when they are looked up again.
	gone, replaced map[string]bool
	lookups        int
	changed        []time.Time
	counted        map[Outcome]int
}

func (n *network) dial(ctx context.Context, _, address string) (net.Conn, error) {
	n.Lock()
	n.dialled, n.at = append(n.dialled, address), append(n.at, time.Now())
	err, found := n.refuses[address]
	n.Unlock()
	if errors.Is(err, context.DeadlineExceeded) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if found {
		return nil, err
	}
	client, server := net.Pipe()
	go func() { // whoever sends a byte blocks the test
		_, err := server.Read(make([]byte, 1))
		if err == nil {
			panic("the manager sent something")
		}
	}()
	return client, nil
}

func (n *network) lookup(_ context.Context, _ types.NamespacedName, name string, _ int32) (*Pod, error) {
	n.Lock()
	defer n.Unlock()
	n.lookups++
	if n.gone[name] {
		return nil, nil //nolint:nilnil // as the contract says
	}
	uid := name
	if n.replaced[name] {
		uid = fmt.Sprint(name, n.lookups)
	}
	return &Pod{UID: uid, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}, nil
}

// inBubble runs a test with tries that run, in fake time.
func inBubble(t *testing.T, test func(*Tries, *network)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := &network{refuses: map[string]error{}, gone: map[string]bool{}, replaced: map[string]bool{}, counted: map[Outcome]int{}}
		tries := &Tries{
			Lookup: n.lookup, Dial: n.dial, Every: time.Second, Settle: 15 * time.Second,
			Changed: func(_ context.Context, name types.NamespacedName) {
				if name != shop {
					t.Errorf("another policy changed: %s", name)
				}
				n.Lock()
				defer n.Unlock()
				n.changed = append(n.changed, time.Now())
			},
			Count: func(o Outcome) {
				n.Lock()
				defer n.Unlock()
				n.counted[o]++
			},
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- tries.Start(ctx) }()
		synctest.Wait()
		n.Lock()
		test(tries, n)
		n.Unlock()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// later is for tests, which hold the lock otherwise.
func (n *network) later(d time.Duration) {
	n.Unlock()
	time.Sleep(d)
	synctest.Wait()
	n.Lock()
}

func app(pods ...string) []Target { return []Target{{Workload: "app", Port: 8080, Pods: pods}} }

func TestWhatBecomesOfAConnection(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	for name, test := range map[string]struct {
		err  error
		want []Result
	}{
		"accepted":            {nil, []Result{{Pod: "a", Port: 8080, Outcome: Open, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}}},
		"refused":             {refused, []Result{{Pod: "a", Port: 8080, Outcome: Refused, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}}},
		"not answered":        {context.DeadlineExceeded, []Result{{Pod: "a", Port: 8080, Outcome: Silent, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}}},
		"no route":            {syscall.EHOSTUNREACH, []Result{{Pod: "a", Port: 8080, Outcome: Unreachable, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}}},
		"not to be dialled":   {errors.New("a loopback address"), nil},
		"no descriptors left": {syscall.EMFILE, nil},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(tries *Tries, n *network) {
				if test.err != nil {
					n.refuses["10.0.0.1:8080"] = test.err
				}
				if got := tries.Want(shop, "", app("a")); !got.Pending || got.Results != nil {
					t.Errorf("before anything was tried: %+v", got)
				}
				n.later(14 * time.Second)
				if len(n.dialled) != 0 {
					t.Error("it was tried before the network had its time")
				}
				n.later(4 * time.Second)
				got := tries.Want(shop, "", app("a"))
				if diff := cmp.Diff(test.want, got.Results, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
					t.Error(diff)
				}
				if got.Pending != (test.want == nil) || len(n.changed) != len(test.want) || len(n.counted) != len(test.want) {
					t.Errorf("pending %t, told %d times, counted %v", got.Pending, len(n.changed), n.counted)
				}
			})
		})
	}
}

func TestOneOpenAddressCounts(t *testing.T) {
	four, six := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")
	outcome, with := worst(map[netip.Addr]Outcome{four: Silent, six: Open}, []netip.Addr{four, six})
	if outcome != Open || len(with) != 1 || with[0] != six {
		t.Errorf("%s %v", outcome, with)
	}
}

// The same again says nothing, and the longer it is known, the less it is tried.
func TestATargetIsTriedLessAndLess(t *testing.T) {
	inBubble(t, func(tries *Tries, n *network) {
		tries.Want(shop, "", app("a"))
		n.later(2 * time.Hour)
		if len(n.dialled) < 12 || len(n.dialled) > 22 {
			t.Errorf("%d connections in two hours", len(n.dialled))
		}
		if last := n.at[len(n.at)-1].Sub(n.at[len(n.at)-2]); last < latest || last > latest*2 {
			t.Errorf("the last two are %s apart", last)
		}
		if len(n.changed) != 1 {
			t.Errorf("told %d times, and nothing changed", len(n.changed))
		}
		n.refuses["10.0.0.1:8080"] = syscall.ECONNREFUSED
		n.later(time.Hour)
		if got := tries.Want(shop, "", app("a")); len(n.changed) != 2 || got.Results[0].Outcome != Refused {
			t.Errorf("told %d times: %+v", len(n.changed), got)
		}
	})
}

func TestTheRateHoldsOverAllPolicies(t *testing.T) {
	inBubble(t, func(tries *Tries, n *network) {
		tries.Changed = func(context.Context, types.NamespacedName) {}
		for i := range 200 {
			tries.Want(types.NamespacedName{Namespace: "shop", Name: fmt.Sprint(i)}, "", app("a"))
		}
		n.later(15*time.Second + 60*time.Second)
		if len(n.dialled) < 55 || len(n.dialled) > 61 {
			t.Errorf("%d connections in a minute, expected one each second", len(n.dialled))
		}
		for i := range 200 {
			tries.Forget(types.NamespacedName{Namespace: "shop", Name: fmt.Sprint(i)})
		}
		n.later(time.Second)
		before := len(n.dialled)
		n.later(time.Hour)
		if len(n.dialled) != before {
			t.Error("what is forgotten is tried")
		}
	})
}

func TestAChangeOfTheNetworkVoidsWhatWasFound(t *testing.T) {
	inBubble(t, func(tries *Tries, n *network) {
		tries.Want(shop, "open", app("a"))
		n.later(time.Hour)
		n.refuses["10.0.0.1:8080"] = context.DeadlineExceeded
		before := len(n.dialled)
		if got := tries.Want(shop, "closed", app("a")); got.Results != nil || !got.Pending {
			t.Errorf("an old result: %+v", got)
		}
		n.later(14 * time.Second)
		if len(n.dialled) != before {
			t.Error("the network was given no time")
		}
		n.later(5 * time.Second)
		if got := tries.Want(shop, "closed", app("a")); len(got.Results) != 1 || got.Results[0].Outcome != Silent {
			t.Errorf("%+v", got)
		}
	})
}

// An attempt that was under way when the network changed says nothing about the new one.
func TestAnAttemptOfBeforeDoesNotCount(t *testing.T) {
	inBubble(t, func(tries *Tries, n *network) {
		n.refuses["10.0.0.1:8080"] = context.DeadlineExceeded
		tries.Want(shop, "open", app("a"))
		n.later(16 * time.Second)
		tries.Want(shop, "closed", app("a"))
		n.later(5 * time.Second)
		if got := tries.Want(shop, "closed", app("a")); got.Results != nil || len(n.changed) != 0 {
			t.Errorf("told %d times: %+v", len(n.changed), got)
		}
	})
}

func TestWhichPodIsTried(t *testing.T) {
	inBubble(t, func(tries *Tries, n *network) {
		n.gone["a"], n.gone["b"] = true, true
		tries.Want(shop, "", app("a", "b", "c"))
		n.later(time.Minute)
		pods := app("a", "b", "c", "d", "e", "f")
		n.gone["a"], n.gone["b"] = false, false
		n.later(time.Hour)
		if got := tries.Want(shop, "", pods); len(got.Results) != 1 || got.Results[0].Pod != "c" || len(n.changed) != 1 {
			t.Errorf("expected the pod c, and the same for ever: %+v", got)
		}
		n.gone["c"] = true
		n.later(time.Hour)
		if got := tries.Want(shop, "", pods); got.Results[0].Pod == "c" {
			t.Errorf("a pod that is gone: %+v", got)
		}
	})
}

// An address goes from pod to pod; a connection to another one would accuse the first.
func TestAnAddressThatChangedHandsSaysNothing(t *testing.T) {
	inBubble(t, func(tries *Tries, n *network) {
		n.replaced["a"] = true
		tries.Want(shop, "", app("a"))
		n.later(time.Hour)
		if got := tries.Want(shop, "", app("a")); got.Results != nil || len(n.dialled) == 0 {
			t.Errorf("%d connections: %+v", len(n.dialled), got)
		}
	})
}

func TestWhatCannotBeFoundOutExpires(t *testing.T) {
	inBubble(t, func(tries *Tries, n *network) {
		tries.Want(shop, "", app("a"))
		n.later(time.Minute)
		n.gone["a"] = true
		n.later(30 * time.Minute)
		if got := tries.Want(shop, "", app("a")); len(got.Results) != 1 {
			t.Errorf("half an hour is not long: %+v", got)
		}
		n.later(time.Hour)
		if got := tries.Want(shop, "", app("a")); got.Results != nil || got.Pending || len(n.changed) != 2 {
			t.Errorf("told %d times: %+v", len(n.changed), got)
		}
		tries.Want(shop, "", []Target{{Workload: "other", Port: 1, Pods: []string{"a"}}})
		n.later(time.Hour)
		if got := tries.Want(shop, "", []Target{{Workload: "other", Port: 1, Pods: []string{"a"}}}); got.Pending || len(n.changed) != 3 {
			t.Errorf("nobody waits for ever: told %d times: %+v", len(n.changed), got)
		}
	})
}
