// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package secret_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/bcrypt"

	"github.com/tokenward/tokenward/internal/users"
	"github.com/tokenward/tokenward/internal/users/password"
	"github.com/tokenward/tokenward/internal/users/secret"
)

// reader is a Secret in memory.
type reader struct {
	mu    sync.Mutex
	data  map[string][]byte
	err   error
	reads atomic.Int32
}

func (r *reader) ReadSecret(context.Context) (map[string][]byte, string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.reads.Add(1)
	return r.data, fmt.Sprint(n), r.err
}

func (r *reader) set(data map[string]string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.data, r.err = map[string][]byte{}, err
	for key, value := range data {
		r.data[key] = []byte(value)
	}
}

// counter is the real pool with a count of the hashes by cost.
type counter struct {
	pool   *password.Pool
	mu     sync.Mutex
	hashes []password.Cost
	err    error
}

func (c *counter) Verify(ctx context.Context, hash password.Encoded, presented string) (bool, error) {
	c.mu.Lock()
	c.hashes = append(c.hashes, hash.Cost())
	err := c.err
	c.mu.Unlock()
	if err != nil {
		return false, err
	}
	return c.pool.Verify(ctx, hash, presented)
}

type fixture struct {
	*secret.Source
	reader *reader
	hasher *counter
	clock  atomic.Int64
}

func newFixture(data map[string]string, fields ...string) *fixture {
	f := &fixture{reader: &reader{}, hasher: &counter{pool: password.NewPool(4, 100, nil)}}
	f.reader.set(data, nil)
	f.clock.Store(1_800_000_000_000)
	f.Source = secret.New(secret.Options{
		Reader: f.reader, Hasher: f.hasher, Fields: fields,
		Now: func() time.Time { return time.UnixMilli(f.clock.Load()) },
	})
	return f
}

func (f *fixture) pass(d time.Duration) { f.clock.Add(d.Milliseconds()) }

// hash is a cheap hash: these tests are about what is computed, not how long it takes.
func hash(t *testing.T, plain string) string {
	t.Helper()
	b, err := bcrypt.GenerateFromPassword([]byte(plain), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func login(id, pass string) map[string]string {
	return map[string]string{"id": id, "password": pass}
}

func TestLogin(t *testing.T) {
	f := newFixture(map[string]string{
		"alice": `{"password": "` + hash(t, "wonderland") + `", "role": "admin", "age": 7, "beta": true, "groups": ["a", "b"], "pin": "` + hash(t, "1234") + `", "old": ["` + hash(t, "x") + `"]}`,
		"bob":   `{"password": "` + hash(t, "builder") + `", "disabled": true}`,
		"carol": `{"password": "` + hash(t, "christmas") + `", "disabled": false}`,
	})
	got, err := f.Authenticate(t.Context(), login("alice", "wonderland"))
	if err != nil {
		t.Fatal(err)
	}
	want := users.User{Subject: "alice", Attributes: map[string]any{
		"role": "admin", "age": json.Number("7"), "beta": true, "groups": []any{"a", "b"},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("alice, without password and hashes (-want +got):\n%s", diff)
	}
	if _, err := f.Authenticate(t.Context(), login("carol", "christmas")); err != nil {
		t.Errorf("disabled false shuts nobody out: %v", err)
	}
	for name, fields := range map[string]map[string]string{
		"wrong password":                 login("alice", "Wonderland"),
		"empty password":                 login("alice", ""),
		"the hash itself":                login("alice", hash(t, "wonderland")),
		"no such user":                   login("mallory", "wonderland"),
		"empty id":                       login("", "wonderland"),
		"id in another case":             login("Alice", "wonderland"),
		"disabled, right password":       login("bob", "builder"),
		"disabled, wrong password":       login("bob", "wrong"),
		"another user's password":        login("alice", "builder"),
		"id with a path in front of it":  login("../alice", "wonderland"),
		"id with a NUL byte in the tail": login("alice\x00", "wonderland"),
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := f.Authenticate(t.Context(), fields); !errors.Is(err, users.ErrNoUser) || got.Subject != "" {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

// What is equal in all kinds of "no" is the work: the hashes, their number and cost.
func TestEveryKindOfNoComputesTheSameHashes(t *testing.T) {
	data := map[string]string{
		"alice":  `{"password": "` + hash(t, "wonderland") + `", "pin": "` + hash(t, "1234") + `", "phone": "1"}`,
		"bob":    `{"password": "` + hash(t, "builder") + `", "pin": "` + hash(t, "1234") + `", "phone": "2", "disabled": true}`,
		"broken": `{"password": "plain", "pin": "` + hash(t, "1234") + `", "phone": "3"}`,
		"junk":   `not JSON`,
	}
	present := func(id, pass, pin, phone string) map[string]string {
		return map[string]string{"id": id, "password": pass, "pin": pin, "phone": phone}
	}
	cheap := password.Cost{BcryptCost: bcrypt.MinCost}
	for name, fields := range map[string]map[string]string{
		"no such user":                   present("mallory", "wonderland", "1234", "1"),
		"all wrong":                      present("alice", "x", "x", "x"),
		"first field wrong":              present("alice", "x", "1234", "1"),
		"second field wrong":             present("alice", "wonderland", "x", "1"),
		"last field wrong":               present("alice", "wonderland", "1234", "x"),
		"disabled, everything right":     present("bob", "builder", "1234", "2"),
		"disabled, everything wrong":     present("bob", "x", "x", "x"),
		"entry with a plain password":    present("broken", "plain", "1234", "3"),
		"entry that is not JSON":         present("junk", "x", "x", "x"),
		"no such user and empty fields ": present("", "", "", ""),
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(data, "password", "pin", "phone")
			_, err := f.Authenticate(t.Context(), fields)
			if !errors.Is(err, users.ErrNoUser) || err.Error() != users.ErrNoUser.Error() {
				t.Errorf("got %v", err)
			}
			about := map[string]string{"alice": "alice", "bob": "bob"}[fields["id"]] // who could log in if all was right
			if got := users.SubjectOf(err); got != about {
				t.Errorf("the login was about %q, want %q", got, about)
			}
			if diff := cmp.Diff([]password.Cost{cheap, cheap}, f.hasher.hashes, cmp.Comparer(func(a, b password.Cost) bool { return a == b })); diff != "" {
				t.Errorf("hashes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTheDecoyHasTheCostThatMostUsersHave(t *testing.T) {
	argon := "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	parsed, err := password.Parse(argon)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		data map[string]string
		want password.Cost
	}{
		"no users at all": {nil, password.DefaultCost()},
		"mostly argon2id": {map[string]string{
			"a": `{"password": "` + argon + `"}`, "b": `{"password": "` + argon + `"}`, "c": `{"password": "` + hash(t, "c") + `"}`,
		}, parsed.Cost()},
		"mostly bcrypt, and broken ones do not count": {map[string]string{
			"a": `{"password": "` + hash(t, "a") + `"}`, "b": `{"password": "` + argon + `", "disabled": 1}`, "c": `{"password": "` + argon + `", "disabled": 1}`,
		}, password.Cost{BcryptCost: bcrypt.MinCost}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFixture(test.data)
			if _, err := f.Authenticate(t.Context(), login("nobody", "x")); !errors.Is(err, users.ErrNoUser) {
				t.Fatal(err)
			}
			if len(f.hasher.hashes) != 1 || f.hasher.hashes[0] != test.want {
				t.Errorf("hashed %+v, want one of %+v", f.hasher.hashes, test.want)
			}
		})
	}
}

func TestAFieldWithoutHashIsComparedAsItStands(t *testing.T) {
	f := newFixture(map[string]string{"alice": `{"phone": "+82 10", "badge": "7"}`}, "phone", "badge")
	if got, err := f.Authenticate(t.Context(), map[string]string{"id": "alice", "phone": "+82 10", "badge": "7"}); err != nil || got.Attributes["phone"] != "+82 10" {
		t.Errorf("got %v, %v", got, err)
	}
	for _, wrong := range []string{"", "+82 1", "+82 10 ", "+8210"} {
		if _, err := f.Authenticate(t.Context(), map[string]string{"id": "alice", "phone": wrong, "badge": "7"}); !errors.Is(err, users.ErrNoUser) {
			t.Errorf("%q: %v", wrong, err)
		}
	}
	if len(f.hasher.hashes) != 0 {
		t.Error("a hash was computed though no user has one")
	}
}

func TestALoginMustPresentExactlyTheFields(t *testing.T) {
	f := newFixture(map[string]string{}, "password", "phone")
	tests := map[string]struct {
		fields           map[string]string
		missing, unknown []string
	}{
		"nothing":           {map[string]string{}, []string{"id", "password", "phone"}, nil},
		"one missing":       {map[string]string{"id": "a", "password": "b"}, []string{"phone"}, nil},
		"one too many":      {map[string]string{"id": "a", "password": "b", "phone": "c", "role": "admin"}, nil, []string{"role"}},
		"another's in case": {map[string]string{"id": "a", "Password": "b", "phone": "c"}, []string{"password"}, []string{"Password"}},
		"disabled":          {map[string]string{"id": "a", "password": "b", "phone": "c", "disabled": "false"}, nil, []string{"disabled"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := f.Authenticate(t.Context(), test.fields)
			var invalid *users.InvalidFieldsError
			if !errors.As(err, &invalid) {
				t.Fatalf("got %v", err)
			}
			want := &users.InvalidFieldsError{Missing: test.missing, Unknown: test.unknown, Expected: []string{"id", "password", "phone"}}
			if diff := cmp.Diff(want, invalid); diff != "" {
				t.Error(diff)
			}
		})
	}
	if f.reader.reads.Load() != 0 {
		t.Error("the Secret was read for a request that cannot succeed")
	}
}

func TestTheReportTellsWhoIsDisabled(t *testing.T) {
	f := newFixture(map[string]string{
		"alice": `{"password": "` + hash(t, "wonderland") + `"}`, "bob": `{"password": "` + hash(t, "builder") + `", "disabled": true}`, "bad": `{"disabled": true}`,
	})
	if report, err := f.Check(t.Context()); err != nil || report.Users != 2 || report.Disabled != 1 || len(report.Broken) != 1 {
		t.Errorf("%+v, %v", report, err)
	}
}

func TestBrokenEntriesAreNamedAndTheOthersWork(t *testing.T) {
	good := `{"password": "` + hash(t, "wonderland") + `"}`
	tests := map[string]struct{ value, want string }{
		"not JSON":                    {`canary`, "not a JSON object"},
		"empty":                       {``, "not a JSON object"},
		"a list":                      {`["canary"]`, "not a JSON object"},
		"a string":                    {`"canary"`, "not a JSON object"},
		"cut short":                   {`{"password": "canary"`, "not well-formed"},
		"a comma too many":            {`{"password": "canary",}`, "not well-formed"},
		"something behind":            {good + `{}`, "something follows"},
		"password in plain":           {`{"password": "canary"}`, `"password": not an argon2id hash`},
		"password empty":              {`{"password": ""}`, `"password" must be a string that is not empty`},
		"password a number":           {`{"password": 1234}`, `"password" must be a string`},
		"no password":                 {`{"role": "admin"}`, `"password" is missing`},
		"password twice":              {`{"password": "canary", "password": "x"}`, `"password" is there twice`},
		"attribute twice, escaped":    {`{"role": "canary", "r\u006fle": "x"}`, `"role" is there twice`},
		"disabled a string":           {`{"password": "canary", "disabled": "false"}`, `"disabled" must be true or false`},
		"null":                        {`{"password": "x", "role": null}`, `"role" is not a string`},
		"an object inside":            {`{"password": "x", "role": {"a": "canary"}}`, `"role" is not a string`},
		"an object in a list":         {`{"password": "x", "role": ["a", {"a": "canary"}]}`, `"role" is not a string`},
		"a list in a list":            {`{"password": "x", "role": [["canary"]]}`, `"role" is not a string`},
		"a list without end":          {`{"password": "x", "role": [` + strings.Repeat(`"a",`, 100) + `"a"]}`, "more than 64 items"},
		"attributes without end":      {`{` + manyAttributes(100) + `}`, "more than 64 attributes"},
		"nesting without end":         {`{"password": "x", "role": ` + strings.Repeat("[", 10_000) + `}`, `"role" is not a string`},
		"broken UTF-8":                {"{\"password\": \"\xff\"}", "not UTF-8"},
		"a hash that is too costly":   {`{"password": "$argon2id$v=19$m=4194304,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"}`, "4194304 KiB"},
		"a hash that cannot be right": {`{"password": "$2b$10$canary"}`, "60 characters"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFixture(map[string]string{"alice": good, "bad": test.value})
			report, err := f.Check(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if report.Users != 1 || len(report.Broken) != 1 || report.Broken[0].Key != "bad" || !strings.Contains(report.Broken[0].Reason, test.want) {
				t.Errorf("report %+v, want it to say %q of bad", report, test.want)
			}
			if strings.Contains(fmt.Sprintf("%+v", report), "canary") {
				t.Errorf("the report quotes a value: %+v", report)
			}
			if _, err := f.Authenticate(t.Context(), login("alice", "wonderland")); err != nil {
				t.Errorf("alice, whose entry is fine: %v", err)
			}
			if _, err := f.Authenticate(t.Context(), login("bad", "canary")); !errors.Is(err, users.ErrNoUser) {
				t.Errorf("the user with the broken entry: %v", err)
			}
		})
	}
}

func manyAttributes(n int) string {
	var members []string
	for i := range n {
		members = append(members, fmt.Sprintf(`"a%d": "x"`, i))
	}
	return strings.Join(members, ",")
}

func TestLookup(t *testing.T) {
	f := newFixture(map[string]string{
		"alice":   `{"password": "` + hash(t, "wonderland") + `", "role": "admin"}`,
		"bob":     `{"password": "` + hash(t, "builder") + `", "disabled": true}`,
		"no-pass": `{"role": "guest"}`,
		"junk":    `{"role": `,
	})
	got, err := f.Lookup(t.Context(), "alice")
	if diff := cmp.Diff(users.User{Subject: "alice", Attributes: map[string]any{"role": "admin"}}, got); diff != "" || err != nil {
		t.Errorf("alice: %v\n%s", err, diff)
	}
	if _, err := f.Lookup(t.Context(), "bob"); !errors.Is(err, users.ErrDisabled) {
		t.Errorf("disabled: %v", err)
	}
	if _, err := f.Lookup(t.Context(), "mallory"); !errors.Is(err, users.ErrNoUser) {
		t.Errorf("removed: %v", err)
	}
	if got, err := f.Lookup(t.Context(), "no-pass"); err != nil || got.Attributes["role"] != "guest" {
		t.Errorf("a user who could not log in any more keeps the session: %v, %v", got, err)
	}
	_, err = f.Lookup(t.Context(), "junk")
	if err == nil || errors.Is(err, users.ErrNoUser) || errors.Is(err, users.ErrDisabled) {
		t.Errorf("a slip in editing must end no session: %v", err)
	}
}

func TestAChangeIsSeenAfterASecond(t *testing.T) {
	alice := `{"password": "` + hash(t, "wonderland") + `"}`
	f := newFixture(map[string]string{"alice": alice})
	lookup := func() error { _, err := f.Lookup(t.Context(), "alice"); return err }
	if err := lookup(); err != nil {
		t.Fatal(err)
	}
	f.reader.set(nil, nil)
	f.pass(secret.Freshness - time.Millisecond)
	if err := lookup(); err != nil || f.reader.reads.Load() != 1 {
		t.Errorf("within the second: %v after %d reads", err, f.reader.reads.Load())
	}
	f.pass(time.Millisecond)
	if err := lookup(); !errors.Is(err, users.ErrNoUser) {
		t.Errorf("after a second: %v", err)
	}
	f.reader.set(map[string]string{"alice": alice}, nil)
	f.pass(-time.Hour) // a clock that is set back must not freeze what is known
	if err := lookup(); err != nil {
		t.Errorf("after the clock went back: %v", err)
	}
}

func TestAnOutageIsNoVerdictAndIsAskedAboutOnceASecond(t *testing.T) {
	outage := errors.New("connection refused")
	f := newFixture(nil)
	f.reader.set(nil, outage)
	for range 100 {
		_, err := f.Lookup(t.Context(), "alice")
		if !errors.Is(err, outage) || errors.Is(err, users.ErrNoUser) {
			t.Fatalf("lookup: %v", err)
		}
		if _, err := f.Authenticate(t.Context(), login("alice", "x")); !errors.Is(err, outage) {
			t.Fatalf("login: %v", err)
		}
	}
	if n := f.reader.reads.Load(); n != 1 {
		t.Errorf("%d reads in one second", n)
	}
	f.reader.set(map[string]string{"alice": `{"password": "` + hash(t, "w") + `"}`}, nil)
	f.pass(time.Second)
	if _, err := f.Lookup(t.Context(), "alice"); err != nil {
		t.Errorf("when it is back: %v", err)
	}
}

func TestManyCallersReadOnce(t *testing.T) {
	f := newFixture(map[string]string{"alice": `{"password": "` + hash(t, "w") + `"}`})
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if _, err := f.Lookup(t.Context(), "alice"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := f.reader.reads.Load(); n != 1 {
		t.Errorf("%d reads", n)
	}
}

func TestAFullQueueIsBusyAndNoVerdict(t *testing.T) {
	f := newFixture(map[string]string{"alice": `{"password": "` + hash(t, "w") + `"}`})
	f.hasher.err = password.ErrQueueFull
	for _, id := range []string{"alice", "mallory"} {
		if _, err := f.Authenticate(t.Context(), login(id, "w")); !errors.Is(err, users.ErrBusy) {
			t.Errorf("%s: %v", id, err)
		}
	}
}

func TestWhatACallerDoesToAUserStaysWithTheCaller(t *testing.T) {
	f := newFixture(map[string]string{"alice": `{"password": "` + hash(t, "w") + `", "role": "guest"}`})
	got, err := f.Lookup(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	got.Attributes["role"] = "admin"
	if again, _ := f.Lookup(t.Context(), "alice"); again.Attributes["role"] != "guest" {
		t.Error("a caller changed what the source knows")
	}
}

func FuzzEntry(f *testing.F) {
	for _, seed := range []string{`{}`, `{"password":"$2b$04$x"}`, `{"a":[1,true,"x"]}`, `{"a":{"b":1}}`, `{"disabled":true}`, `[`, "{\"a\":\"\xff\"}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		fix := newFixture(map[string]string{"alice": string(value)})
		fix.hasher.err = password.ErrQueueFull // nobody logs in, nothing is computed
		report, err := fix.Check(t.Context())
		if err != nil || report.Users+len(report.Broken) != 1 {
			t.Fatalf("%+v, %v", report, err)
		}
		got, err := fix.Lookup(t.Context(), "alice")
		if err != nil {
			return
		}
		if !json.Valid(value) {
			t.Fatalf("%q is not JSON and gave a user", value)
		}
		for name, attribute := range got.Attributes {
			if text, ok := attribute.(string); name == "password" || ok && password.LooksLikeHash(text) {
				t.Fatalf("%q gave away %q", value, name)
			}
		}
	})
}
