// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package granted

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var (
	errGone     = errors.New("no such Secret")
	errAway     = errors.New("the API server does not answer")
	errNoSense  = errors.New("the Secret is not understood")
	errRefused  = errors.New("credentials refused")
	errPartly   = errors.New("one user's row is wrong")
	errDown     = errors.New("the server does not answer")
	errUnchecks = errors.New("nobody has looked")
)

// server takes one password, or two, or is down.
type server struct {
	mu     sync.Mutex
	takes  []string
	says   error // of every check that gets in
	opened []*connection
}

// connection stays authenticated when the password changes, as those of databases do.
type connection struct {
	server   *server
	password string
	warm     bool // it was let in before
	closed   int
	uses     int
}

func (s *server) open(data map[string][]byte) (Opened[*connection], error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if string(data["password"]) == "nonsense" {
		return Opened[*connection]{}, errNoSense
	}
	c := &connection{server: s, password: string(data["password"])}
	s.opened = append(s.opened, c)
	return Opened[*connection]{Value: c, Check: c.check, Close: c.close}, nil
}

func (c *connection) check(context.Context) error {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	switch {
	case c.closed > 0:
		return errUnchecks
	case errors.Is(c.server.says, errDown):
		return errDown
	case !slices.Contains(c.server.takes, c.password):
		return errRefused
	}
	c.warm = true
	return c.server.says
}

func (c *connection) close() {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	if c.uses > 0 {
		panic("closed under a call")
	}
	c.closed++
}

// call works on a connection that is let in.
func (c *connection) call(ctx context.Context, fresh bool, takes time.Duration) error {
	c.server.mu.Lock()
	if c.closed > 0 {
		c.server.mu.Unlock()
		return errUnchecks
	}
	if (fresh || !c.warm) && !slices.Contains(c.server.takes, c.password) {
		c.server.mu.Unlock()
		return errRefused
	}
	c.uses++
	c.server.mu.Unlock()
	defer func() {
		c.server.mu.Lock()
		defer c.server.mu.Unlock()
		c.uses--
	}()
	select {
	case <-time.After(takes):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fixture is a keeper, the Secret that it reads, and the server.
type fixture struct {
	*testing.T
	server *server
	keeper *Keeper[*connection]

	mu     sync.Mutex
	secret string
	err    error
	reads  int
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{T: t, server: &server{takes: []string{"one"}}, secret: "one"}
	f.keeper = New(Options[*connection]{
		Read: func(context.Context) (map[string][]byte, error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.reads++
			if f.err != nil {
				return nil, fmt.Errorf("get Secret: %w", f.err)
			}
			return map[string][]byte{"password": []byte(f.secret)}, nil
		},
		Gone:    func(err error) bool { return errors.Is(err, errGone) },
		Open:    f.server.open,
		Serves:  func(err error) bool { return errors.Is(err, errPartly) },
		Refused: func(err error) bool { return errors.Is(err, errRefused) },
		Now:     time.Now,
	})
	return f
}

func (f *fixture) set(secret string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.secret, f.err = secret, err
}

func (f *fixture) serverTakes(passwords ...string) {
	f.server.mu.Lock()
	defer f.server.mu.Unlock()
	f.server.takes = passwords
}

func (f *fixture) serverSays(err error) {
	f.server.mu.Lock()
	defer f.server.mu.Unlock()
	f.server.says = err
}

func (f *fixture) look(want error, former bool) {
	f.Helper()
	got, err := f.keeper.Look(f.Context())
	if err != nil || !errors.Is(got.Err, want) || got.Former != former {
		f.Errorf("a look shows %+v (%v), want %v, former %t", got, err, want, former)
	}
}

func (f *fixture) call(want error) {
	f.Helper()
	err := f.keeper.Use(f.Context(), func(c *connection) error { return c.call(f.Context(), true, 0) })
	if !errors.Is(err, want) {
		f.Errorf("a call gets %v, want %v", err, want)
	}
}

// inUse is the password that calls go with; empty when nothing is open.
func (f *fixture) inUse(want string) {
	f.Helper()
	got := ""
	f.keeper.Peek(func(c *connection) { got = c.password })
	if got != want {
		f.Errorf("%q is in use, want %q", got, want)
	}
}

// open says how many connections are open in the end.
func (f *fixture) open(want int) {
	f.Helper()
	synctest.Wait()
	f.server.mu.Lock()
	defer f.server.mu.Unlock()
	open := 0
	for i, c := range f.server.opened {
		if c.closed == 0 {
			open++
		}
		if c.closed > 1 {
			f.Errorf("connection %d was closed %d times", i, c.closed)
		}
	}
	if open != want {
		f.Errorf("%d connections are open, want %d", open, want)
	}
}

func TestWhatIsInUseGoesByTheSecretAndTheServer(t *testing.T) {
	steps := map[string]func(f *fixture){
		"the first is in use although it does not work": func(f *fixture) {
			f.serverTakes("two")
			f.look(errRefused, false)
			f.inUse("one")
			f.call(errRefused)
			f.serverTakes("one")
			f.call(nil)
		},
		"the first call opens it": func(f *fixture) {
			f.call(nil)
			f.inUse("one")
		},
		"the Secret first, the server later": func(f *fixture) {
			f.look(nil, false)
			f.set("two", nil)
			f.look(errRefused, true)
			f.inUse("one")
			f.call(nil)
			f.serverTakes("two")
			f.look(nil, false)
			f.inUse("two")
			f.call(nil)
		},
		"the server first, the Secret later": func(f *fixture) {
			f.look(nil, false)
			f.serverTakes("two")
			f.look(errRefused, false)
			f.inUse("one")
			f.call(errRefused)
			f.set("two", nil)
			time.Sleep(Gap)
			f.call(nil) // it does not wait for the clock
			f.inUse("two")
		},
		"the server and the Secret at once": func(f *fixture) {
			f.look(nil, false)
			f.serverTakes("two")
			f.set("two", nil)
			f.call(nil)
			f.inUse("two")
		},
		"a wrong one does not take the place of one that has a blemish": func(f *fixture) {
			f.look(nil, false)
			f.serverSays(errPartly)
			f.look(errPartly, false)
			f.set("two", nil)
			f.look(errRefused, true)
			f.inUse("one")
		},
		"nor does one with a blemish take the place of one that works": func(f *fixture) {
			f.look(nil, false)
			f.set("two", nil)
			f.serverTakes("one", "two")
			f.serverSays(errPartly)
			f.look(errPartly, false) // both have it
			f.inUse("two")
		},
		"when neither works the newer one is in use": func(f *fixture) {
			f.look(nil, false)
			f.serverSays(errDown)
			f.set("two", nil)
			f.look(errDown, false)
			f.inUse("two")
		},
		"a Secret that is not understood": func(f *fixture) {
			f.set("nonsense", nil)
			f.look(errNoSense, false)
			f.call(errNoSense)
			f.set("one", nil)
			f.look(nil, false)
			f.set("nonsense", nil)
			f.look(errNoSense, true)
			f.inUse("one")
			f.call(nil)
		},
		"an API server that does not answer": func(f *fixture) {
			f.set("one", errAway)
			f.look(errAway, false)
			f.call(errAway)
			f.set("one", nil)
			f.look(nil, false)
			f.set("one", errAway)
			f.look(errAway, true)
			f.call(nil)
		},
		"a Secret that is gone, and comes back": func(f *fixture) {
			f.look(nil, false)
			f.set("one", errGone)
			f.look(errGone, false)
			f.inUse("")
			f.call(errGone)
			f.open(0)
			f.set("one", nil)
			time.Sleep(Gap)
			f.call(nil) // it does not wait for the clock
		},
	}
	for name, run := range steps {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				run(f)
				f.keeper.Close()
				f.open(0)
				f.call(ErrClosed)
				if _, err := f.keeper.Look(t.Context()); !errors.Is(err, ErrClosed) {
					t.Errorf("a look after the end: %v", err)
				}
			})
		})
	}
}

func TestNoCallFailsWhileThePasswordChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.call(nil)
		ctx, stop := context.WithCancel(t.Context())
		var calls sync.WaitGroup
		for i := range 50 {
			calls.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					err := f.keeper.Use(t.Context(), func(c *connection) error {
						return c.call(t.Context(), (i+n)%7 == 0, time.Duration(i+1)*10*time.Millisecond)
					})
					if err != nil {
						t.Errorf("call %d of %d: %v", n, i, err)
						return
					}
				}
			})
		}
		for n := range 20 {
			was, is := fmt.Sprint("p", n), fmt.Sprint("p", n+1)
			f.serverTakes("one", was, is)
			f.set(is, nil)
			if n%2 == 0 {
				f.look(nil, false) // the clock comes first
			}
			f.serverTakes(is)
			time.Sleep(3 * time.Second)
			f.look(nil, false)
			f.inUse(is)
		}
		stop()
		calls.Wait()
		f.open(1)
		f.keeper.Close()
		f.open(0)
	})
}

func TestCallsThatAreRefusedDoNotAskTheAPIServerMoreThanNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.serverTakes("two")
		began, reads := time.Now(), 0
		var calls sync.WaitGroup
		for range 20 {
			calls.Go(func() {
				for time.Since(began) < time.Minute {
					asked := time.Now()
					f.call(errRefused)
					if took := time.Since(asked); took > 0 {
						t.Errorf("a call that is refused in any case waited %v", took)
					}
					time.Sleep(100 * time.Millisecond)
				}
			})
		}
		calls.Wait()
		f.mu.Lock()
		reads = f.reads
		f.mu.Unlock()
		if most := int(time.Since(began)/Gap) + 1; reads > most || reads < most/3 {
			t.Errorf("%d reads in %v, at most %d", reads, time.Since(began), most)
		}
		// The same while nothing is open.
		f.set("", errGone)
		f.look(errGone, false)
		began, f.reads = time.Now(), 0
		for time.Since(began) < time.Minute {
			f.call(errGone)
			time.Sleep(time.Millisecond)
		}
		if most := int(time.Minute/Gap) + 1; f.reads > most {
			t.Errorf("%d reads in a minute, at most %d", f.reads, most)
		}
		f.keeper.Close()
	})
}

func TestAStreamEndsWithWhatItIsOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		follow := func(ctx context.Context) context.Context {
			var following context.Context
			err := f.keeper.Follow(ctx, func(ctx context.Context, _ *connection) error {
				following = ctx
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			return following
		}
		first, cancel := context.WithCancel(t.Context())
		gone := follow(first)
		cancel()
		synctest.Wait()
		if gone.Err() == nil {
			t.Error("it outlives its caller")
		}
		following := follow(t.Context())
		f.look(nil, false)
		synctest.Wait()
		if following.Err() != nil {
			t.Error("it was ended by a look that changed nothing")
		}
		f.serverTakes("two")
		f.set("two", nil)
		f.look(nil, false)
		synctest.Wait()
		if following.Err() == nil {
			t.Error("it goes on with what was replaced")
		}
		f.open(1)
		last := follow(t.Context())
		f.keeper.Close()
		synctest.Wait()
		if last.Err() == nil {
			t.Error("it outlives the keeper")
		}
	})
}

func TestClosingWaitsForCallsAndEndsLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.call(nil)
		called := make(chan error, 1)
		go func() {
			called <- f.keeper.Use(t.Context(), func(c *connection) error { return c.call(t.Context(), false, time.Minute) })
		}()
		refused := make(chan error, 1)
		f.serverTakes("two")
		go func() {
			refused <- f.keeper.Use(t.Context(), func(c *connection) error { return c.call(t.Context(), true, 0) })
		}()
		synctest.Wait() // the one works, the other waits for a look
		began := time.Now()
		f.keeper.Close()
		if took := time.Since(began); took != time.Minute {
			t.Errorf("closed after %v", took)
		}
		if err := <-called; err != nil {
			t.Errorf("the call under way got %v", err)
		}
		if err := <-refused; !errors.Is(err, ErrClosed) && !errors.Is(err, errRefused) {
			t.Errorf("the refused call got %v", err)
		}
		f.open(0)
	})
}

func TestAPanicLeavesNothingOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.look(nil, false)
		func() {
			defer func() { _ = recover() }()
			_ = f.keeper.Use(t.Context(), func(*connection) error { panic("the driver's fault") })
		}()
		f.set("two", nil)
		open := f.keeper.Open
		f.keeper.Open = func(data map[string][]byte) (Opened[*connection], error) {
			opened, err := open(data)
			opened.Check = func(context.Context) error { panic("the driver's fault") }
			return opened, err
		}
		if _, err := f.keeper.Look(t.Context()); err == nil {
			t.Error("a look that panics shows nothing wrong")
		}
		f.open(1)
		f.call(nil)
		f.keeper.Close()
		f.open(0)
	})
}

func TestTheSmallestChangeOfASecretIsAnotherContent(t *testing.T) {
	contents := []map[string][]byte{
		nil,
		{"a": nil},
		{"a": []byte("b")},
		{"ab": nil},
		{"a": nil, "b": nil},
		{"a": []byte("b"), "c": []byte("d")},
		{"a": []byte("d"), "c": []byte("b")},
		{"a": []byte("b1 1 cd")},
	}
	for i, a := range contents {
		for j, b := range contents {
			if (digest(a) == digest(b)) != (i == j) {
				t.Errorf("%q and %q", a, b)
			}
		}
	}
}

func TestCallsThatComeTooLateForALookTakeWhatItHasShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.serverTakes("two")
		f.look(errRefused, false)
		for name, late := range map[string]func(context.Context) (Look, error){"to open": f.keeper.lookFirst, "after a refusal": f.keeper.lookSoon} {
			if got, err := late(t.Context()); err != nil || !errors.Is(got.Err, errRefused) || f.reads != 1 {
				t.Errorf("%s: %+v, %v, %d reads", name, got, err, f.reads)
			}
		}
		f.keeper.Close()
	})
}
