// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package issuerclient

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/internal/token"
)

// network leads to issuers in memory, so that time can be that of synctest. Each
// connection goes where the next of its ways leads; after the last, where that one did.
type network struct {
	t    *testing.T
	ways []way

	mu    sync.Mutex
	dials int
	open  map[*cable]bool
}

// way is what becomes of an attempt to connect.
type way func(ctx context.Context, n *network) (net.Conn, error)

// nowhere is where an issuer was whose node is gone.
func nowhere(ctx context.Context, _ *network) (net.Conn, error) {
	<-ctx.Done()
	return nil, &net.OpError{Op: "dial", Net: "tcp", Err: ctx.Err()}
}

// refused is a Service without an issuer.
func refused(context.Context, *network) (net.Conn, error) {
	return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
}

// frozen is an issuer that the system accepts connections for, and that says nothing.
func frozen(_ context.Context, n *network) (net.Conn, error) {
	near, far := n.cable()
	go func() { _, _ = io.Copy(io.Discard, far) }()
	return near, nil
}

// listening is an issuer that lives.
type listening struct {
	accepted chan net.Conn
	closed   chan struct{}
	close    func()
}

func (l listening) Accept() (net.Conn, error) {
	select {
	case conn := <-l.accepted:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l listening) Close() error { l.close(); return nil }
func (listening) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443} }

func (l listening) way(ctx context.Context, n *network) (net.Conn, error) {
	near, far := n.cable()
	select {
	case l.accepted <- far:
		return near, nil
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), near.Close())
	}
}

// serve starts an issuer of n.
func (n *network) serve(handler http.HandlerFunc) (*httptest.Server, way) {
	closed := make(chan struct{})
	l := listening{accepted: make(chan net.Conn), closed: closed, close: sync.OnceFunc(func() { close(closed) })}
	server := httptest.NewUnstartedServer(handler)
	_ = server.Listener.Close()
	server.Listener = l
	server.EnableHTTP2 = true
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	server.StartTLS()
	n.t.Cleanup(server.Close)
	return server, l.way
}

func (n *network) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	n.mu.Lock()
	w := n.ways[min(n.dials, len(n.ways)-1)]
	n.dials++
	n.mu.Unlock()
	return w(ctx, n)
}

func (n *network) counts() (dials, open int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dials, len(n.open)
}

// cut takes the far ends off without a word: nothing arrives any more, in either direction.
func (n *network) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.open {
		c.dark.Store(true)
	}
}

// end closes what is open.
func (n *network) end() {
	n.mu.Lock()
	open := slices.Collect(maps.Keys(n.open))
	n.mu.Unlock()
	for _, c := range open {
		_ = c.Close()
	}
}

// cable is the near end of a connection.
type cable struct {
	net.Conn
	n    *network
	dark atomic.Bool
	end  chan struct{}
	once sync.Once
}

func (n *network) cable() (near *cable, far net.Conn) {
	a, b := net.Pipe()
	c := &cable{Conn: a, n: n, end: make(chan struct{})}
	n.mu.Lock()
	n.open[c] = true
	n.mu.Unlock()
	return c, b
}

func (c *cable) Read(p []byte) (int, error) {
	got, err := c.Conn.Read(p)
	if c.dark.Load() {
		<-c.end
		return 0, net.ErrClosed
	}
	return got, err
}

func (c *cable) Write(p []byte) (int, error) {
	if c.dark.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *cable) Close() error {
	c.once.Do(func() {
		close(c.end)
		c.n.mu.Lock()
		delete(c.n.open, c)
		c.n.mu.Unlock()
	})
	return c.Conn.Close()
}

func granted(w http.ResponseWriter, _ *http.Request) {
	_ = json.NewEncoder(w).Encode(protocol.TokenResponse{AccessToken: "new"})
}

// over makes a client whose connections go these ways; nil is an issuer that grants all.
func over(t *testing.T, handler http.HandlerFunc, ways ...way) (*Client, *network) {
	t.Helper()
	n := &network{t: t, open: map[*cable]bool{}}
	server, alive := n.serve(handler)
	for _, w := range ways {
		if w == nil {
			w = alive
		}
		n.ways = append(n.ways, w)
	}
	c := clientOf(t, server)
	c.dial = n.dial
	t.Cleanup(n.end)
	return c, n
}

// ask makes every call that a client waits for, and says how long the slowest took.
func ask(t *testing.T, c *Client) (slowest time.Duration, failed error) {
	t.Helper()
	for _, call := range []func() error{
		func() error { _, err := c.Login(t.Context(), []byte("{}"), "application/json", ""); return err },
		func() error { _, err := c.refresh(t.Context(), "old"); return err },
		func() error { return c.Logout(t.Context(), "old") },
	} {
		began := time.Now()
		failed = errors.Join(failed, call())
		slowest = max(slowest, time.Since(began))
	}
	return slowest, failed
}

func TestAnIssuerThatIsNotThereIsNotWaitedFor(t *testing.T) {
	for name, test := range map[string]struct {
		ways []way
		want time.Duration
	}{
		"all are there":                  {[]way{nil}, 0},
		"one is gone with its node":      {[]way{nowhere, nil}, firstPatience},
		"one is frozen":                  {[]way{frozen, nil}, firstPatience},
		"led to those that are gone":     {[]way{nowhere, frozen, nil}, 3 * firstPatience},
		"one is not listening":           {[]way{refused, nil}, firstPause},
		"none is listening for a moment": {[]way{refused, refused, refused, nil}, 7 * firstPause},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, n := over(t, granted, test.ways...)
				took, err := ask(t, c)
				if err != nil || took != test.want {
					t.Errorf("after %s, want %s: %v", took, test.want, err)
				}
				synctest.Wait()
				if dials, open := n.counts(); dials != len(test.ways) || open != 1 {
					t.Errorf("%d attempts, %d connections are open, want %d and 1", dials, open, len(test.ways))
				}
			})
		})
	}
}

func TestAnIssuerThatGoesWithoutAWordFailsNoRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var gone atomic.Bool
		c, n := over(t, func(w http.ResponseWriter, r *http.Request) {
			if gone.Load() { // it is cut off while it works
				<-r.Context().Done()
				return
			}
			granted(w, r)
		}, nil)
		if _, err := c.refresh(t.Context(), "old"); err != nil {
			t.Fatal(err)
		}
		gone.Store(true)
		var refreshes sync.WaitGroup
		for i := range 20 {
			refreshes.Go(func() {
				time.Sleep(time.Duration(i) * 100 * time.Millisecond)
				began := time.Now()
				response, err := c.refresh(t.Context(), "old")
				if err != nil || response.AccessToken != "new" {
					t.Errorf("a refresh %s after the end: %v, after %s", time.Duration(i)*100*time.Millisecond, err, time.Since(began))
				}
			})
		}
		synctest.Wait()
		n.cut()
		gone.Store(false)
		n.mu.Lock()
		n.ways = []way{n.ways[0], nowhere, n.ways[0]}
		n.mu.Unlock()
		refreshes.Wait()
	})
}

// unable is an issuer that lacks something that others have.
func (n *network) unable(calls *atomic.Int32) way {
	_, w := n.serve(func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		w.WriteHeader(http.StatusServiceUnavailable)
		_ = json.NewEncoder(w).Encode(protocol.NewProblem(http.StatusServiceUnavailable, token.IssuerUnavailable, "the session store does not answer"))
	})
	return w
}

// Two issuers behind one address, of which the first has lost its identity: nothing that
// is asked fails, and it is asked nothing any more.
func TestWhatAnIssuerSendsElsewhereGoesThere(t *testing.T) {
	for name, call := range map[string]func(context.Context, *Client) error{
		"login": func(ctx context.Context, c *Client) error {
			_, err := c.Login(ctx, []byte("{}"), "application/json", "")
			return err
		},
		"refresh": func(ctx context.Context, c *Client) error {
			_, err := c.refresh(ctx, "old")
			return err
		},
		"logout": func(ctx context.Context, c *Client) error { return c.Logout(ctx, "old") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var lost atomic.Int32
				c, n := over(t, granted, nil)
				_, leavers := n.serve(func(w http.ResponseWriter, _ *http.Request) {
					lost.Add(1)
					w.Header().Set("Connection", "close")
					w.WriteHeader(http.StatusMisdirectedRequest)
					_ = json.NewEncoder(w).Encode(protocol.NewProblem(http.StatusMisdirectedRequest, token.IssuerUnavailable, ""))
				})
				n.ways = []way{leavers, n.ways[0]}
				for range 2 {
					if err := call(t.Context(), c); err != nil || lost.Load() != 1 {
						t.Errorf("%d calls to the one that has lost its identity: %v", lost.Load(), err)
					}
				}
			})
		})
	}
}

// An issuer that cannot answer a refresh may not hear of revocations either.
func TestTheStreamOfRevocationsLeavesWithTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
		c, n := over(t, granted, nil)
		var followed atomic.Int32
		_, broken := n.serve(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet {
				followed.Add(1)
				begin(w, r)
				return
			}
			w.WriteHeader(http.StatusServiceUnavailable)
			_ = json.NewEncoder(w).Encode(protocol.NewProblem(http.StatusServiceUnavailable, token.IssuerUnavailable, ""))
		})
		n.ways = []way{broken, n.ways[0]}
		events, err := c.Revocations(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.refresh(t.Context(), "old"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(events); err == nil {
			t.Error("the stream ended as if its issuer had ended it")
		}
		_ = events.Close()
		again, err := c.Revocations(t.Context(), "")
		if err != nil || followed.Load() != 1 {
			t.Fatalf("%v, and it was followed %d times", err, followed.Load())
		}
		_ = again.Close()
	})
}

// Many calls without a connection are not so many attempts at each of its issuers.
func TestOneOfManyCallsRacesForAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := over(t, granted, nil)
		alive := n.ways[0]
		const calls = 50
		n.ways = append(slices.Repeat([]way{frozen}, calls), alive)
		var refreshes sync.WaitGroup
		for range calls {
			refreshes.Go(func() {
				if _, err := c.refresh(t.Context(), "old"); err != nil {
					t.Error(err)
				}
			})
		}
		refreshes.Wait()
		if dials, _ := n.counts(); dials != calls+1 {
			t.Errorf("%d attempts at a connection for %d calls", dials, calls)
		}
	})
}

func TestAnIssuerThatIsUnableIsLeftForOneThatIsAble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := over(t, granted, nil)
		var calls atomic.Int32
		able, unable := n.ways[0], n.unable(&calls)
		n.ways = []way{unable, unable, able}
		began := time.Now()
		if response, err := c.refresh(t.Context(), "old"); err != nil || response.AccessToken != "new" || time.Since(began) > firstStay || calls.Load() != 2 {
			t.Errorf("a refresh: %v, after %s, with %d calls to the one that is unable", err, time.Since(began), calls.Load())
		}
		before := calls.Load()
		if _, err := ask(t, c); err != nil || calls.Load() != before {
			t.Errorf("afterwards: %v, and %d more calls to the one that is unable", err, calls.Load()-before)
		}
	})
}

func TestAnIssuerThatAnswersNothingInTimeIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := over(t, granted, nil)
		_, slow := n.serve(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		n.ways = []way{slow, n.ways[0]}
		if _, err := c.refresh(t.Context(), "old"); !errors.Is(err, ErrUnavailable) {
			t.Error(err)
		}
		if _, err := ask(t, c); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

func TestAnIssuerThatHasNoRevocationsIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := over(t, granted, nil)
		var calls atomic.Int32
		n.ways = []way{n.unable(&calls), n.ways[0]}
		if _, err := c.Revocations(t.Context(), ""); !errors.Is(err, ErrUnavailable) {
			t.Error(err)
		}
		stream, err := c.Revocations(t.Context(), "")
		if err != nil || calls.Load() != 1 {
			t.Fatalf("afterwards: %v, and %d calls to the one that is unable", err, calls.Load())
		}
		_ = stream.Close()
	})
}

// A login is a password hashed: only the next one goes elsewhere.
func TestALoginAtAnIssuerThatIsUnableIsMadeOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := over(t, granted, nil)
		var calls atomic.Int32
		n.ways = []way{n.unable(&calls), n.ways[0]}
		for _, want := range []error{ErrUnavailable, nil} {
			if _, err := c.Login(t.Context(), []byte("{}"), "application/json", ""); !errors.Is(err, want) || calls.Load() != 1 {
				t.Errorf("%v after %d calls, want %v", err, calls.Load(), want)
			}
		}
	})
}

// An outage of a store must not have every sidecar connect anew all the time.
func TestWhileAllIssuersAreUnableConnectionsStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := over(t, granted, nil)
		var calls atomic.Int32
		n.ways = []way{n.unable(&calls)}
		for range 600 {
			if _, err := c.refresh(t.Context(), "old"); !errors.Is(err, ErrUnavailable) {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if dials, _ := n.counts(); dials < 15 || dials > 30 || calls.Load() > 603 {
			t.Errorf("%d connections and %d calls in ten minutes of an outage", dials, calls.Load())
		}
	})
}

// Nor must one session that nobody can read, beside others that are well.
func TestASessionThatNoIssuerCanReadMovesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var broken int
		c, n := over(t, func(w http.ResponseWriter, r *http.Request) {
			var asked protocol.RefreshRequest
			if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || asked.AccessToken == "well" {
				granted(w, r)
				return
			}
			broken++
			w.WriteHeader(http.StatusServiceUnavailable)
			_ = json.NewEncoder(w).Encode(protocol.NewProblem(http.StatusServiceUnavailable, token.IssuerUnavailable, ""))
		}, nil)
		for range 600 {
			if _, err := c.refresh(t.Context(), "well"); err != nil {
				t.Fatal(err)
			}
			if _, err := c.refresh(t.Context(), "broken"); !errors.Is(err, ErrUnavailable) {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if dials, _ := n.counts(); dials > 30 || broken > 600+dials {
			t.Errorf("%d connections, and %d calls for 600 that were in vain", dials, broken)
		}
	})
}

func TestWhenAllIssuersAreGoneThatIsSaidInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := over(t, granted, nowhere)
		began := time.Now()
		_, err := c.refresh(t.Context(), "old")
		if took := time.Since(began); !errors.Is(err, ErrUnavailable) || took > callTimeout {
			t.Errorf("%v after %s", err, took)
		}
		synctest.Wait()
		if dials, open := n.counts(); dials < 4 || dials > 8 || open != 0 {
			t.Errorf("%d attempts, %d connections", dials, open)
		}
	})
}
