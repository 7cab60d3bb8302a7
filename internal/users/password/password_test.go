// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package password_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/tokenward/tokenward/internal/users/password"
)

func verify(t *testing.T, encoded, presented string) bool {
	t.Helper()
	hash, err := password.Parse(encoded)
	if err != nil {
		t.Fatal(err)
	}
	ok, err := password.NewPool(1, 1, nil).Verify(t.Context(), hash, presented)
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

func TestAHashVerifiesItsPasswordAndNoOther(t *testing.T) {
	b, err := bcrypt.GenerateFromPassword([]byte("open sesame"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	hashes := map[string]string{
		"what Hash makes":         password.Hash("open sesame"),
		"bcrypt $2a$":             string(b),
		"bcrypt $2b$":             "$2b$" + string(b[4:]),
		"bcrypt $2y$, as PHP has": "$2y$" + string(b[4:]),
	}
	for name, hash := range hashes {
		t.Run(name, func(t *testing.T) {
			if !verify(t, hash, "open sesame") {
				t.Error("the right password was refused")
			}
			for _, wrong := range []string{"", "open sesame ", hash} {
				if verify(t, hash, wrong) {
					t.Errorf("%q was accepted", wrong)
				}
			}
		})
	}
}

// The vector of the reference implementation's own test (phc-winner-argon2, test.c):
// version 0x13, t=2, m=2^16, p=1, password "password", salt "somesalt".
func TestAHashOfTheReferenceImplementationVerifies(t *testing.T) {
	const reference = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	if !verify(t, reference, "password") {
		t.Error("the reference hash does not verify")
	}
}

func TestTwoHashesOfOnePasswordDiffer(t *testing.T) {
	one, two := password.Hash("a"), password.Hash("a")
	if one == two {
		t.Error("the salt is not random")
	}
}

func TestParseRefusesWhatIsBrokenOrTooCostly(t *testing.T) {
	const salt, key = "c29tZXNhbHQ", "CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	argon := func(parameters string) string { return "$argon2id$v=19$" + parameters + "$" + salt + "$" + key }
	bcryptTail := strings.Repeat("a", 53)
	tests := map[string]struct{ value, want string }{
		"empty":                           {"", "not an argon2id hash"},
		"a plain password":                {"canary-password", "not an argon2id hash"},
		"argon2i":                         {"$argon2i$v=19$m=65536,t=2,p=1$" + salt + "$" + key, "not an argon2id hash"},
		"SHA-512 crypt":                   {"$6$canary$abc", "not an argon2id hash"},
		"bcrypt of the broken kind $2x$":  {"$2x$10$" + bcryptTail, "not an argon2id hash"},
		"too long":                        {argon("m=65536,t=2,p=1") + strings.Repeat("A", 512), "more than 512"},
		"old version":                     {"$argon2id$v=16$m=65536,t=2,p=1$" + salt + "$" + key, "v=19"},
		"no version":                      {"$argon2id$m=65536,t=2,p=1$" + salt + "$" + key, "form"},
		"parameters in another order":     {argon("t=2,m=65536,p=1"), "m=…,t=…,p=…"},
		"parameters missing":              {argon("m=65536,t=2"), "m=…,t=…,p=…"},
		"negative memory":                 {argon("m=-1,t=2,p=1"), "m=…,t=…,p=…"},
		"memory that does not fit":        {argon("m=4294967296,t=1,p=1"), "m=…,t=…,p=…"},
		"4 GiB of memory":                 {argon("m=4194304,t=1,p=1"), "4194304 KiB"},
		"just above the memory cap":       {argon("m=131073,t=1,p=1"), "131073 KiB"},
		"a million passes":                {argon("m=8,t=1000000,p=1"), "t of the argon2id"},
		"no passes":                       {argon("m=65536,t=0,p=1"), "t of the argon2id"},
		"no threads":                      {argon("m=65536,t=1,p=0"), "p of the argon2id"},
		"255 threads":                     {argon("m=65536,t=1,p=255"), "p of the argon2id"},
		"less memory than threads need":   {argon("m=7,t=1,p=1"), "7 KiB"},
		"salt too short":                  {"$argon2id$v=19$m=65536,t=2,p=1$AAAA$" + key, "salt"},
		"salt with padding":               {"$argon2id$v=19$m=65536,t=2,p=1$" + salt + "=$" + key, "salt"},
		"hash too short":                  {"$argon2id$v=19$m=65536,t=2,p=1$" + salt + "$AAAA", "16 to 64 bytes"},
		"hash empty":                      {"$argon2id$v=19$m=65536,t=2,p=1$" + salt + "$", "16 to 64 bytes"},
		"bcrypt cost 15":                  {"$2b$15$" + bcryptTail, "15, more than 14"},
		"bcrypt cost 31":                  {"$2b$31$" + bcryptTail, "31, more than 14"},
		"bcrypt cost 3":                   {"$2b$03$" + bcryptTail, "not a number from 4"},
		"bcrypt cost no number":           {"$2b$1x$" + bcryptTail, "not a number"},
		"bcrypt too short":                {"$2b$10$" + bcryptTail[1:], "60 characters"},
		"bcrypt with foreign characters":  {"$2b$10$" + bcryptTail[:20] + "+" + bcryptTail[21:], "alphabet"},
		"bcrypt with something behind it": {"$2b$10$" + bcryptTail + "\n", "60 characters"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := password.Parse(test.value)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want it to say %q", err, test.want)
			}
			if err != nil && strings.Contains(err.Error(), "canary") {
				t.Errorf("the error holds the value: %v", err)
			}
		})
	}
}

func TestTheLargestAcceptedHashIsComputed(t *testing.T) {
	if _, err := password.Parse("$argon2id$v=19$m=131072,t=4,p=4$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"); err != nil {
		t.Error(err)
	}
}

func TestADummyHasItsCostAndNoPassword(t *testing.T) {
	tests := []string{
		"$argon2id$v=19$m=4096,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"$argon2id$v=19$m=64,t=3,p=2$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"$2b$05$" + strings.Repeat("a", 53),
	}
	for _, value := range tests {
		parsed, err := password.Parse(value)
		if err != nil {
			t.Fatal(err)
		}
		dummy := password.Dummy(parsed.Cost())
		if dummy.Cost() != parsed.Cost() {
			t.Errorf("cost %+v, want %+v", dummy.Cost(), parsed.Cost())
		}
		if ok, err := password.NewPool(1, 1, nil).Verify(t.Context(), dummy, "a"); ok || err != nil {
			t.Errorf("%+v: %v, %v", parsed.Cost(), ok, err)
		}
	}
}

// A bcrypt dummy that the library refused at once would tell by its time that there
// is no such user. One of cost 8 takes 16 times one of cost 4; the test asks for 4.
func TestABcryptDummyIsReallyComputed(t *testing.T) {
	took := func(cost int) time.Duration {
		dummy := password.Dummy(password.Cost{BcryptCost: cost})
		began := time.Now()
		if _, err := password.NewPool(1, 1, nil).Verify(t.Context(), dummy, "a"); err != nil {
			t.Fatal(err)
		}
		return time.Since(began)
	}
	fast, slow := took(4), took(8)
	for range 3 { // the machine may have been busy during the fast one
		fast = min(fast, took(4))
	}
	if slow < 4*fast {
		t.Errorf("cost 8 took %v, cost 4 %v", slow, fast)
	}
}

func TestAHashDoesNotPrint(t *testing.T) {
	const value = "$argon2id$v=19$m=64,t=3,p=2$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	hash, err := password.Parse(value)
	if err != nil {
		t.Fatal(err)
	}
	for _, printed := range []string{fmt.Sprint(hash), fmt.Sprintf("%v %+v %#v %s", hash, hash, hash, hash)} {
		if strings.Contains(printed, "somesalt") || strings.Contains(printed, "c29t") || strings.Contains(printed, "115 111") {
			t.Errorf("printed %s", printed)
		}
	}
}

// gauge counts what the pool reports.
type gauge struct {
	mu                     sync.Mutex
	waiting, done, refused int
}

func (g *gauge) HashWaiting(delta int)    { g.mu.Lock(); g.waiting += delta; g.mu.Unlock() }
func (g *gauge) HashDone(_ time.Duration) { g.mu.Lock(); g.done++; g.mu.Unlock() }
func (g *gauge) HashRefused()             { g.mu.Lock(); g.refused++; g.mu.Unlock() }
func (g *gauge) counts() (waiting, done, refused int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.waiting, g.done, g.refused
}

func TestThePoolIsBounded(t *testing.T) {
	// A hash long enough for all callers to come while the first one is computed.
	hash := password.Dummy(password.Cost{BcryptCost: 9})
	g := &gauge{}
	pool := password.NewPool(1, 3, g)
	var wg sync.WaitGroup
	results := make(chan error, 40)
	start := make(chan struct{})
	for range 40 {
		wg.Go(func() {
			<-start
			_, err := pool.Verify(t.Context(), hash, "a")
			results <- err
		})
	}
	close(start)
	wg.Wait()
	close(results)
	done, refused := 0, 0
	for err := range results {
		switch {
		case err == nil:
			done++
		case errors.Is(err, password.ErrQueueFull):
			refused++
		default:
			t.Error(err)
		}
	}
	if refused == 0 || done < 4 || done+refused != 40 {
		t.Errorf("%d done, %d refused", done, refused)
	}
	if waiting, counted, refusals := g.counts(); waiting != 0 || counted != done || refusals != refused {
		t.Errorf("the observer saw %d waiting, %d done, %d refused", waiting, counted, refusals)
	}
}

// impatient ends the context as soon as somebody waits.
type impatient struct {
	gauge
	giveUp context.CancelFunc
}

func (i *impatient) HashWaiting(int) { i.giveUp() }

func TestACallerThatGivesUpLeavesTheQueueAndAHashThatHasBegunIsFinished(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	pool := password.NewPool(1, 1, &impatient{giveUp: cancel})
	hash := password.Dummy(password.Cost{BcryptCost: 9})
	results := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := pool.Verify(ctx, hash, "a")
			results <- err
		}()
	}
	first, second := <-results, <-results
	if !errors.Is(first, context.Canceled) || second != nil {
		t.Errorf("got %v, then %v; want the waiting one to end at once, and the other to finish", first, second)
	}
}

func BenchmarkHash(b *testing.B) {
	hash, err := password.Parse(password.Hash("open sesame"))
	if err != nil {
		b.Fatal(err)
	}
	pool := password.NewPool(0, 0, nil)
	for b.Loop() {
		if ok, err := pool.Verify(b.Context(), hash, "open sesame"); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}
