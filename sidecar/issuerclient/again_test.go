// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package issuerclient

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/internal/token"
)

// dying makes an issuer that dies with its first calls at hand, and is replaced by one
// that answers.
func dying(t *testing.T, deaths int32) (*Client, *atomic.Int32) {
	t.Helper()
	var calls atomic.Int32
	return newClient(t, func(w http.ResponseWriter, _ *http.Request) {
		if calls.Add(1) <= deaths {
			panic(http.ErrAbortHandler)
		}
		_ = json.NewEncoder(w).Encode(protocol.TokenResponse{AccessToken: "new"})
	}), &calls
}

func TestARefreshOutlivesTheIssuerThatItWasSentTo(t *testing.T) {
	c, calls := dying(t, 3)
	response, err := c.refresh(t.Context(), "old")
	if err != nil || response.AccessToken != "new" || calls.Load() != 4 {
		t.Fatalf("token %q after %d calls: %v", response.AccessToken, calls.Load(), err)
	}
}

func TestALoginThatWasSentIsNotSentAgain(t *testing.T) {
	c, calls := dying(t, 1)
	if _, err := c.Login(t.Context(), []byte("{}"), "application/json", "192.0.2.1"); !errors.Is(err, ErrUnavailable) || calls.Load() != 1 {
		t.Fatalf("%d calls: %v; an attempt would count twice", calls.Load(), err)
	}
	if err := c.Logout(t.Context(), "token"); err == nil && calls.Load() != 2 {
		t.Fatalf("%d calls", calls.Load())
	}
}

func TestALoginThatNobodyGotIsSentAgain(t *testing.T) {
	c, calls := dying(t, 0)
	inForce := c.Settings()
	good := inForce.IssuerService.URL
	inForce.IssuerService.URL = "https://127.0.0.1:1" // nobody listens there
	var looks int
	c.Now = func() time.Time {
		if looks++; looks == 4 { // now somebody does
			inForce.IssuerService.URL = good
		}
		return time.Now()
	}
	if _, err := c.Login(t.Context(), []byte("{}"), "application/json", "192.0.2.1"); err != nil || calls.Load() != 1 {
		t.Fatalf("%d calls: %v", calls.Load(), err)
	}
}

// Two issuers behind one address, of which the first has lost its identity: nothing that
// is asked fails, and it is asked nothing any more.
func TestWhatAnIssuerSendsElsewhereGoesThere(t *testing.T) {
	var lost, other atomic.Int32
	issuers := []*httptest.Server{
		newIssuer(t, func(w http.ResponseWriter, _ *http.Request) {
			lost.Add(1)
			w.Header().Set("Connection", "close")
			w.WriteHeader(http.StatusMisdirectedRequest)
			_ = json.NewEncoder(w).Encode(protocol.NewProblem(http.StatusMisdirectedRequest, token.IssuerUnavailable, ""))
		}),
		newIssuer(t, func(w http.ResponseWriter, _ *http.Request) {
			other.Add(1)
			_ = json.NewEncoder(w).Encode(protocol.TokenResponse{AccessToken: "new"})
		}),
	}
	for name, call := range map[string]func(*Client) error{
		"login": func(c *Client) error {
			_, err := c.Login(t.Context(), []byte("{}"), "application/json", "")
			return err
		},
		"refresh": func(c *Client) error { _, err := c.refresh(t.Context(), "old"); return err },
		"logout":  func(c *Client) error { return c.Logout(t.Context(), "old") },
	} {
		t.Run(name, func(t *testing.T) {
			lost.Store(0)
			other.Store(0)
			c := clientOf(t, issuers[0])
			c.Settings().IssuerService.URL = "https://" + oneAfterTheOther(t, issuers)
			if err := call(c); err != nil {
				t.Fatal(err)
			}
			if err := call(c); err != nil || lost.Load() != 1 || other.Load() != 2 {
				t.Errorf("%d calls to the one and %d to the other: %v", lost.Load(), other.Load(), err)
			}
		})
	}
}

// oneAfterTheOther leads the first connection to the first server, and so on, as a Service does.
func oneAfterTheOther(t *testing.T, servers []*httptest.Server) (address string) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var copying sync.WaitGroup
	ctx, end := context.WithCancel(t.Context())
	t.Cleanup(func() { end(); _ = listener.Close(); copying.Wait() })
	copying.Go(func() {
		for _, server := range servers {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			to, err := (&net.Dialer{}).DialContext(ctx, "tcp", server.Listener.Addr().String())
			if err != nil {
				t.Error(err)
				_ = from.Close()
				return
			}
			context.AfterFunc(ctx, func() { _, _ = from.Close(), to.Close() })
			for _, way := range [][2]net.Conn{{from, to}, {to, from}} {
				copying.Go(func() {
					_, _ = io.Copy(way[0], way[1])
					_ = way[0].Close()
				})
			}
		}
	})
	return listener.Addr().String()
}

func TestALongOutageIsToldAtOnce(t *testing.T) {
	c, calls := dying(t, 1_000_000)
	clock := time.Now()
	c.Now = func() time.Time { clock = clock.Add(time.Second / 2); return clock }
	if _, err := c.refresh(t.Context(), "old"); !errors.Is(err, ErrUnavailable) {
		t.Fatal(err)
	}
	first := calls.Load()
	if first < 2 || first > 8 {
		t.Errorf("%d calls in the first %s", first, tryFor)
	}
	if _, err := c.refresh(t.Context(), "old"); err == nil || calls.Load() != first+1 {
		t.Errorf("%d calls later in the outage, want one", calls.Load()-first)
	}
	clock = clock.Add(2 * calm)
	if _, err := c.refresh(t.Context(), "old"); err == nil || calls.Load() < first+3 {
		t.Errorf("%d calls in the next outage, want several", calls.Load()-first-1)
	}
}
