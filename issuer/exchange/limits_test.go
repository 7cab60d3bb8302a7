// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package exchange_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenward/tokenward/internal/attempts"
	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/session/memory"
	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/internal/users"
	"github.com/tokenward/tokenward/issuer/exchange"
	"github.com/tokenward/tokenward/issuer/refusal"
)

// minute allows burst failures, and one more each minute.
func minute(burst int) attempts.Limit { return attempts.Limit{Burst: burst, Interval: time.Minute} }

// guess is a login of which only the error is looked at.
func (f *fixture) guess(tb testing.TB, id, password string, from ...netip.Addr) error {
	tb.Helper()
	_, err := f.issuers[0].Login(tb.Context(), f.policy, map[string]string{"id": id, "password": password}, append(from, client)[0])
	return err
}

// left is how many guesses at an account are answered before one is limited.
func (f *fixture) left(tb testing.TB, id string, from ...netip.Addr) int {
	tb.Helper()
	for n := range 1000 {
		if err := f.guess(tb, id, "wrong", from...); refusal.Of(err).Reason == token.RateLimited {
			return n
		}
	}
	tb.Fatal("nothing limits")
	return 0
}

func wantLimited(tb testing.TB, err error, after time.Duration) {
	tb.Helper()
	wantReason(tb, err, token.RateLimited, 429)
	if got := refusal.Of(err).RetryAfter; got != after {
		tb.Errorf("retry after %v, want %v", got, after)
	}
}

func denied(tb testing.TB, err error) {
	tb.Helper()
	wantReason(tb, err, token.CredentialsInvalid, 0)
}

func granted(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Errorf("got %v, want a token", err)
	}
}

// The figure of issue 3, item 7: of however many guesses at once, at however many
// issuers, by whatever spelling of the name and from wherever, no more than the limit
// allows come as far as a hash.
func TestAThousandGuessesAtTwoIssuersAreNoMoreHashesThanTheLimitAllows(t *testing.T) {
	const guesses, burst = 1000, 10
	for name, id := range map[string][]string{
		"an account that there is":    {"alice", "ALICE", " alice ", "ａｌｉｃｅ"},
		"an account that there isn't": {"mallory", "Mallory", "mallory\u00a0", "MALLORY"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, token.EdDSA, 2)
			backing := memory.NewBacking()
			policies := make([]*exchange.Policy, len(f.issuers))
			for i := range policies {
				own := *f.policy
				store := memory.New(own.UID, memory.Options{Backing: backing, Now: f.now})
				own.Sessions, own.Attempts, own.PerAccount = store, store, minute(burst)
				policies[i] = &own
			}
			errs := make([]error, guesses)
			var all sync.WaitGroup
			begin := make(chan struct{})
			for i := range guesses {
				all.Go(func() {
					<-begin
					from := netip.AddrFrom4([4]byte{192, 0, 2, byte(i % 100)})
					fields := map[string]string{"id": id[i%len(id)], "password": fmt.Sprint(i)}
					_, errs[i] = f.issuers[i%2].Login(t.Context(), policies[i%2], fields, from)
				})
			}
			close(begin)
			all.Wait()
			reasons := map[token.Reason]int{}
			for _, err := range errs {
				refused := refusal.Of(err)
				reasons[refused.Reason]++
				if refused.Reason == token.RateLimited && (refused.Status != 429 || refused.RetryAfter != time.Minute) {
					t.Fatalf("status %d, retry after %v", refused.Status, refused.RetryAfter)
				}
			}
			want := map[token.Reason]int{token.CredentialsInvalid: burst, token.RateLimited: guesses - burst}
			if diff := cmp.Diff(want, reasons); diff != "" || f.users.hashed() != burst {
				t.Errorf("%d hashes; answers (-want +got):\n%s", f.users.hashed(), diff)
			}
		})
	}
}

// What an attacker who locks an account can do to its user, and what not.
func TestAnAccountThatOthersGuessAtKeepsItsSessionsAndRecovers(t *testing.T) {
	f := newFixture(t, token.EdDSA, 1)
	f.policy.PerAccount = minute(3)
	before := f.login(t)
	elsewhere := netip.MustParseAddr("198.51.100.1")
	if n := f.left(t, "alice", elsewhere); n != 3 {
		t.Errorf("%d guesses", n)
	}
	wantLimited(t, f.guess(t, "alice", "right"), time.Minute)
	f.expire() // five and a half minutes: the guesses have grown back
	if n := f.left(t, "alice", elsewhere); n != 3 {
		t.Errorf("%d guesses", n)
	}
	after := f.mustRefresh(t, before.Raw)
	if err := f.issuers[0].Logout(t.Context(), f.policy, after.Raw); err != nil {
		t.Error(err)
	}
	f.pass(59 * time.Second)
	wantLimited(t, f.guess(t, "alice", "right"), time.Second)
	f.pass(time.Second)
	for range 5 {
		granted(t, f.guess(t, "alice", "right"))
	}
}

func TestAnAddressHasOneAllowanceForAllAccounts(t *testing.T) {
	tests := map[string]struct {
		one, other string
		same       bool
	}{
		"one address":              {"192.0.2.1", "192.0.2.1", true},
		"two addresses":            {"192.0.2.1", "192.0.2.2", false},
		"mapped into IPv6":         {"192.0.2.1", "::ffff:192.0.2.1", true},
		"two of a /64":             {"2001:db8::1", "2001:db8::ffff:1", true},
		"two /64 of a site":        {"2001:db8:0:1::1", "2001:db8:0:2::1", false},
		"nobody knows":             {"", "", true},
		"nobody knows the other's": {"192.0.2.1", "", false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, token.EdDSA, 1)
			f.policy.PerAddress = minute(1)
			one, _ := netip.ParseAddr(test.one)
			other, _ := netip.ParseAddr(test.other)
			denied(t, f.guess(t, "alice", "wrong", one))
			if err := f.guess(t, "bob", "wrong", other); test.same {
				wantLimited(t, err, time.Minute)
			} else {
				denied(t, err)
			}
			want := []exchange.Allowance(nil)
			if test.same {
				want = []exchange.Allowance{exchange.OfAddress}
			}
			if got := f.observer.seen(); !slices.Equal(got, want) {
				t.Errorf("counted %v", got)
			}
		})
	}
}

// A login that is refused by one allowance takes nothing out of the others, or a client
// that comes again and again would lock out all others behind its load balancer.
func TestALimitedLoginTakesNothingOfTheOtherAllowances(t *testing.T) {
	f := newFixture(t, token.EdDSA, 1)
	f.policy.PerAccount, f.policy.PerAddress = minute(2), minute(10)
	if n := f.left(t, "alice"); n != 2 {
		t.Errorf("%d guesses", n)
	}
	for range 50 {
		wantLimited(t, f.guess(t, "alice", "wrong"), time.Minute)
	}
	for i := range 8 {
		denied(t, f.guess(t, fmt.Sprint("user", i), "wrong"))
	}
	wantLimited(t, f.guess(t, "bob", "wrong"), time.Minute)
	denied(t, f.guess(t, "bob", "wrong", netip.MustParseAddr("192.0.2.99")))
}

// withAliases lets alice log in under other names too, as collations do, or an id and
// an address of mail.
func (f *fixture) withAliases(names ...string) {
	for _, name := range names {
		f.users.set(name, users.User{Subject: "alice"})
	}
}

func TestAUserHasOneAllowanceUnderAllNames(t *testing.T) {
	f := newFixture(t, token.EdDSA, 1)
	f.withAliases("alice@example.com", "001")
	f.policy.PerAccount = minute(3)
	denied(t, f.guess(t, "alice", "wrong"))
	denied(t, f.guess(t, "alice@example.com", "wrong"))
	granted(t, f.guess(t, "001", "right")) // costs nothing
	denied(t, f.guess(t, "001", "wrong"))
	wantLimited(t, f.guess(t, "001", "wrong"), time.Minute)
	wantLimited(t, f.guess(t, "alice", "right"), time.Minute)
	wantLimited(t, f.guess(t, "alice@example.com", "right"), time.Minute)
	if got := f.observer.seen(); !slices.Equal(got, []exchange.Allowance{exchange.OfSubject, exchange.OfSubject, exchange.OfSubject}) {
		t.Errorf("counted %v", got)
	}
	denied(t, f.guess(t, "bob", "wrong"))
	f.pass(time.Minute)
	granted(t, f.guess(t, "alice", "right"))
}

// Right and wrong credentials are told apart by nothing once the user's allowance is
// used up: not by the answer, and not by what is left of the others afterwards.
func TestAUsedUpUserIsNoOracle(t *testing.T) {
	run := func(password string) (answers []string, takes, backs int) {
		f := newFixture(t, token.EdDSA, 1)
		f.withAliases("alias")
		f.policy.PerAccount = minute(4)
		f.left(t, "alice")
		takesBefore, backsBefore := f.counter.calls()
		for range 6 {
			err := refusal.Of(f.guess(t, "alias", password))
			answers = append(answers, fmt.Sprint(err.Status, err.Reason, err.RetryAfter, err.Detail, f.users.hashed()))
		}
		takes, backs = f.counter.calls()
		return answers, takes - takesBefore, backs - backsBefore
	}
	right, rightTakes, rightBacks := run("right")
	wrong, wrongTakes, wrongBacks := run("wrong")
	if diff := cmp.Diff(wrong, right); diff != "" {
		t.Errorf("(-wrong +right):\n%s", diff)
	}
	if rightTakes != wrongTakes || rightBacks != wrongBacks {
		t.Errorf("the store sees %d and %d with right credentials, %d and %d with wrong ones", rightTakes, rightBacks, wrongTakes, wrongBacks)
	}
	for _, answer := range right {
		if !strings.HasPrefix(answer, "429") {
			t.Errorf("answers %v", right)
		}
	}
}

// Every kind of no is the same work at the store and is limited at the same moment.
func TestEveryKindOfNoIsCountedAlike(t *testing.T) {
	run := func(id, password string) (trace []string) {
		f := newFixture(t, token.EdDSA, 1)
		f.policy.PerAccount = minute(3)
		f.users.set("dora", users.User{Subject: "dora", Disabled: true})
		for range 6 {
			err := refusal.Of(f.guess(t, id, password))
			takes, backs := f.counter.calls()
			trace = append(trace, fmt.Sprint(err.Status, " ", err.Reason, " ", err.RetryAfter, " ", err.Detail, " ", takes, " ", backs, " ", f.users.hashed()))
			f.pass(time.Second)
		}
		return trace
	}
	want := run("nobody", "wrong")
	if !strings.HasPrefix(want[2], "0 credentials_invalid") || !strings.HasPrefix(want[3], "429 rate_limited 57s") {
		t.Fatalf("trace %q", want)
	}
	for name, got := range map[string][]string{
		"wrong password": run("alice", "wrong"), "disabled": run("dora", "right"), "no name": run("", "right"),
	} {
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-no such user +got):\n%s", name, diff)
		}
	}
}

func TestWhatIsNoFailureOfTheUserCostsNothing(t *testing.T) {
	full, outage := session.ErrFull, errors.New("out of reach")
	right := map[string]string{"id": "alice", "password": "right"}
	tests := map[string]struct {
		fields map[string]string
		break_ func(*fixture)
		mend   func(*fixture)
	}{
		"a success":               {right, nil, nil},
		"a field missing":         {map[string]string{"id": "alice"}, nil, nil},
		"id missing":              {map[string]string{"password": "right"}, nil, nil},
		"an unknown field":        {map[string]string{"id": "alice", "password": "wrong", "otp": "1"}, nil, nil},
		"users out of reach":      {right, func(f *fixture) { f.users.fail(outage) }, func(f *fixture) { f.users.fail(nil) }},
		"too many hashes":         {right, func(f *fixture) { f.users.fail(users.ErrBusy) }, func(f *fixture) { f.users.fail(nil) }},
		"a full store":            {right, func(f *fixture) { f.store.fail.Store(&full) }, func(f *fixture) { f.store.fail.Store(nil) }},
		"a store out of reach":    {right, func(f *fixture) { f.store.fail.Store(&outage) }, func(f *fixture) { f.store.fail.Store(nil) }},
		"the counter fails late":  {right, func(f *fixture) { f.failTake(3, outage) }, func(f *fixture) { f.failTake(0, nil) }},
		"claims beyond the token": {right, func(f *fixture) { f.role(strings.Repeat("r", 9000)) }, func(f *fixture) { f.role("admin") }},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, token.EdDSA, 1)
			f.policy.PerAccount, f.policy.PerAddress = minute(1), minute(1)
			for range 3 {
				if test.break_ != nil {
					test.break_(f)
				}
				_, err := f.issuers[0].Login(t.Context(), f.policy, test.fields, client)
				if reason := refusal.Of(err).Reason; err != nil && (reason == token.CredentialsInvalid || reason == token.RateLimited && refusal.Of(err).RetryAfter != 2*time.Second) {
					t.Fatalf("got %v", err)
				}
				if test.mend != nil {
					test.mend(f)
				}
			}
			granted(t, f.guess(t, "alice", "right"))
			if n := f.left(t, "alice"); n != 1 {
				t.Errorf("%d guesses left, want 1", n)
			}
		})
	}
}

func TestAPanicOfTheSourceLocksNobodyOut(t *testing.T) {
	f := newFixture(t, token.EdDSA, 1)
	f.policy.PerAccount, f.policy.PerAddress = minute(1), minute(1)
	f.users.whileHashing = func() { panic("a fault of ours") }
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		_ = f.guess(t, "alice", "right")
	}()
	f.users.whileHashing = nil
	granted(t, f.guess(t, "alice", "right"))
}

// failTake breaks the nth Take from now on; 0 mends it.
func (f *fixture) failTake(nth int, err error) {
	f.counter.mu.Lock()
	defer f.counter.mu.Unlock()
	wanted := f.counter.takes + nth
	f.counter.failTake = func(n int) error {
		if n == wanted {
			return err
		}
		return nil
	}
}

func (f *fixture) role(role string) {
	f.users.set("alice", users.User{Subject: "alice", Attributes: map[string]any{"role": role}})
}

// A login about which nothing is known is 503, before a hash is computed. Sessions do
// not notice.
func TestACounterThatDoesNotAnswerLetsNobodyIn(t *testing.T) {
	f := newFixture(t, token.EdDSA, 1)
	before := f.login(t)
	hashed := f.users.hashed()
	f.counter.mu.Lock()
	f.counter.failTake = func(int) error { return errors.New("dial canary: refused") }
	f.counter.mu.Unlock()
	for _, password := range []string{"right", "wrong"} {
		err := f.guess(t, "alice", password)
		wantReason(t, err, token.IssuerUnavailable, 503)
		if strings.Contains(refusal.Of(err).Detail, "canary") || refusal.Of(err).RetryAfter == 0 {
			t.Errorf("%+v", refusal.Of(err))
		}
	}
	if f.users.hashed() != hashed || f.observer.failures.Load() != 2 {
		t.Errorf("%d hashes, %d failures counted", f.users.hashed()-hashed, f.observer.failures.Load())
	}
	f.expire()
	after := f.mustRefresh(t, before.Raw)
	if err := f.issuers[0].Logout(t.Context(), f.policy, after.Raw); err != nil {
		t.Error(err)
	}
}

// What is used up and what does not answer at the same time: nobody knows wins, and
// what was taken is given back.
func TestAnAllowanceThatCannotBeAskedIsAnOutageBesideOneThatIsUsedUp(t *testing.T) {
	f := newFixture(t, token.EdDSA, 1)
	f.policy.PerAddress = minute(1)
	denied(t, f.guess(t, "bob", "wrong"))
	f.pass(2 * time.Second)
	outage := errors.New("out of reach")
	account := attempts.NewKey(string(f.policy.UID), "account", "alice")
	f.policy.Attempts = brokenKey{f.counter, account, outage}
	wantReason(t, f.guess(t, "alice", "wrong"), token.IssuerUnavailable, 503)
	if got := f.observer.seen(); len(got) != 0 {
		t.Errorf("counted %v", got)
	}
}

// brokenKey is a counter that fails for one key.
type brokenKey struct {
	attempts.Counter
	key attempts.Key
	err error
}

func (b brokenKey) Take(ctx context.Context, key attempts.Key, limit attempts.Limit) (time.Duration, error) {
	if key == b.key {
		return 0, b.err
	}
	return b.Counter.Take(ctx, key, limit)
}

// A login goes well although nothing can be given back; it is counted as a failure of
// the store.
func TestASuccessIsASuccessAlthoughNothingCanBeGivenBack(t *testing.T) {
	f := newFixture(t, token.EdDSA, 1)
	f.policy.PerAccount = minute(1)
	f.counter.failBack = errors.New("out of reach")
	granted(t, f.guess(t, "alice", "right"))
	if got := f.observer.failures.Load(); got != 3 {
		t.Errorf("%d failures counted", got)
	}
	wantLimited(t, f.guess(t, "alice", "right"), time.Minute)
	f.pass(time.Minute)
	granted(t, f.guess(t, "alice", "right"))
}

// While a login is under way it holds its attempts, so a burst of 1 is one at a time.
func TestABurstOfOneIsOneLoginAtATime(t *testing.T) {
	f := newFixture(t, token.EdDSA, 1)
	f.policy.PerAccount = minute(1)
	var during error
	var once sync.Once
	f.users.whileHashing = func() { once.Do(func() { during = f.guess(t, "alice", "right") }) }
	granted(t, f.guess(t, "alice", "right"))
	wantLimited(t, during, time.Minute)
	granted(t, f.guess(t, "alice", "right"))
	denied(t, f.guess(t, "alice", "wrong"))
	f.pass(20 * time.Second)
	wantLimited(t, f.guess(t, "alice", "right"), 40*time.Second)
}

// Whoever hangs up once the password was compared gets nothing back for it, and pays
// nothing if it was right.
func TestACallerThatGoesAwayChangesNothing(t *testing.T) {
	for password, left := range map[string]int{"wrong": 1, "right": 2} {
		t.Run(password, func(t *testing.T) {
			f := newFixture(t, token.EdDSA, 1)
			f.policy.PerAccount = minute(2)
			ctx, hangUp := context.WithCancel(t.Context())
			f.users.whileHashing = hangUp
			_, err := f.issuers[0].Login(ctx, f.policy, map[string]string{"id": "alice", "password": password}, client)
			if err == nil {
				t.Error("there is a token for nobody")
			}
			f.users.whileHashing = nil
			if n := f.left(t, "alice"); n != left {
				t.Errorf("%d guesses left, want %d", n, left)
			}
		})
	}
}

func TestALimitThatIsChangedHoldsFromThenOn(t *testing.T) {
	f := newFixture(t, token.EdDSA, 1)
	changed := func(l attempts.Limit) {
		next := *f.policy
		next.Generation++
		next.PerAccount = l
		f.policy = &next
	}
	for range 5 {
		denied(t, f.guess(t, "alice", "wrong")) // of 10
	}
	changed(minute(3))
	// More were used than there are now: used up, as if it had been 3 of 3.
	wantLimited(t, f.guess(t, "alice", "right"), time.Minute)
	changed(minute(8))
	if n := f.left(t, "alice"); n != 3 {
		t.Errorf("%d guesses left of 8, the user's own allowance knows of 5", n)
	}
	// A shorter interval holds at once: eight minutes of waiting become one interval of
	// each allowance.
	changed(attempts.Limit{Burst: 8, Interval: time.Second})
	wantLimited(t, f.guess(t, "alice", "right"), time.Second) // the account
	f.pass(time.Second)
	wantLimited(t, f.guess(t, "alice", "right"), time.Second) // the subject
	f.pass(time.Second)
	granted(t, f.guess(t, "alice", "right"))
}

// A flood that is refused anyway is no flood on the store.
func TestAUsedUpAllowanceIsAskedForOnceASecond(t *testing.T) {
	f := newFixture(t, token.EdDSA, 1)
	f.policy.PerAccount, f.policy.PerAddress = minute(1), minute(5)
	f.left(t, "alice")
	takes, _ := f.counter.calls()
	for range 500 {
		wantLimited(t, f.guess(t, "alice", "wrong"), time.Minute)
	}
	if again, _ := f.counter.calls(); again != takes {
		t.Errorf("the store was asked %d times", again-takes)
	}
	f.pass(time.Second)
	wantLimited(t, f.guess(t, "alice", "wrong"), 59*time.Second)
	if again, _ := f.counter.calls(); again == takes {
		t.Error("the store was not asked again")
	}

	for i := range 5 {
		_ = f.guess(t, fmt.Sprint("user", i), "wrong")
	}
	takes, backs := f.counter.calls()
	for i := range 500 {
		err := f.guess(t, fmt.Sprint("other", i), "wrong") // another name each time, one address
		wantReason(t, err, token.RateLimited, 429)
	}
	if takesAfter, backsAfter := f.counter.calls(); takesAfter-takes > 2 || backsAfter-backs > 1 {
		t.Errorf("the store was asked %d times and told %d times", takesAfter-takes, backsAfter-backs)
	}
}

// What the client is told does not say which allowance it was, and the log does not
// say whose.
func TestALimitedLoginTellsNothing(t *testing.T) {
	f := newFixture(t, token.EdDSA, 1)
	f.withAliases("alias")
	f.policy.PerAccount, f.policy.PerAddress = minute(2), minute(4)
	f.left(t, "alice")
	account := refusal.Of(f.guess(t, "alice", "wrong"))
	subject := refusal.Of(f.guess(t, "alias", "wrong"))
	_ = f.guess(t, "bob", "wrong")
	address := refusal.Of(f.guess(t, "carol", "wrong"))
	for _, refused := range []*refusal.Error{account, subject, address} {
		if refused.Detail != account.Detail || refused.Status != 429 {
			t.Errorf("%d %q", refused.Status, refused.Detail)
		}
		for _, secret := range []string{"alice", "alias", "carol", client.String(), "wrong"} {
			if strings.Contains(refused.Error(), secret) {
				t.Errorf("the log says %q", refused)
			}
		}
	}
	if got := f.observer.seen(); !slices.Equal(slices.Compact(got), []exchange.Allowance{exchange.OfAccount, exchange.OfSubject, exchange.OfAddress}) {
		t.Errorf("counted %v", got)
	}
}
