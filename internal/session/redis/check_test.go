// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/session/storetest"
	"github.com/tokenward/tokenward/internal/testservers"
)

func TestCheckNamesTheProblem(t *testing.T) {
	plain := testservers.Redis(t, testservers.RedisOptions{})
	secure := testservers.Redis(t, testservers.RedisOptions{TLS: true, Config: []string{
		aclUser, "user half on >" + canary + " ~* resetchannels +get +set +info +evalsha +eval",
		"user blind on >" + canary + " ~* +@all -info", "user default off",
	}})
	other := testservers.Redis(t, testservers.RedisOptions{TLS: true})
	evicting := testservers.Redis(t, testservers.RedisOptions{Config: []string{"maxmemory-policy allkeys-lru"}})
	volatile := testservers.Redis(t, testservers.RedisOptions{Config: []string{"maxmemory-policy volatile-ttl"}})
	cluster := testservers.Redis(t, testservers.RedisOptions{Cluster: true})
	sentinel := plain.Sentinel(t, "sessions")
	host, port, _ := net.SplitHostPort(plain.Addr)
	replica := testservers.Redis(t, testservers.RedisOptions{Config: []string{"replicaof " + host + " " + port}})
	as := func(user string) Credentials {
		return Credentials{Username: user, Password: NewPassword(canary)}
	}

	tests := map[string]struct {
		options Options
		problem Problem
		says    string
		// readable servers can tell that there is no such session all the same.
		readable bool
	}{
		"nobody listens":                {Options{Addresses: []string{unusedAddress(t)}}, ProblemUnreachable, "no server answers", false},
		"the host does not exist":       {Options{Addresses: []string{"redis.invalid:6379"}, Dial: unresolved}, ProblemUnresolved, "does not resolve", false},
		"a Cluster of such hosts":       {Options{Mode: ModeCluster, Addresses: []string{"a.redis.invalid:6379", "b.redis.invalid:6379"}, Dial: unresolved}, ProblemUnresolved, "does not resolve", false},
		"Sentinels on such hosts":       {Options{Mode: ModeSentinel, MasterName: "sessions", Addresses: []string{"a.redis.invalid:6379", "b.redis.invalid:6379"}, Dial: unresolved}, ProblemUnresolved, "does not resolve", false},
		"wrong password":                {Options{Addresses: []string{secure.TLSAddr}, TLS: trust(t, secure.CA), Credentials: Credentials{Username: "tokenward", Password: NewPassword(canary + "x")}}, ProblemCredentials, "refused", false},
		"unknown user":                  {Options{Addresses: []string{secure.TLSAddr}, TLS: trust(t, secure.CA), Credentials: as("nobody")}, ProblemCredentials, "refused", false},
		"no credentials":                {Options{Addresses: []string{secure.TLSAddr}, TLS: trust(t, secure.CA)}, ProblemCredentials, "refused", false},
		"certificate of another CA":     {Options{Addresses: []string{secure.TLSAddr}, TLS: trust(t, other.CA), Credentials: as("tokenward")}, ProblemTLS, "not trusted", false},
		"TLS to a port without":         {Options{Addresses: []string{plain.Addr}, TLS: trust(t, secure.CA)}, ProblemTLS, "does not speak TLS", false},
		"no TLS to a port with it":      {Options{Addresses: []string{secure.TLSAddr}, Credentials: as("tokenward")}, ProblemUnreachable, "does it want TLS?", false},
		"a user who may not XADD":       {Options{Addresses: []string{secure.TLSAddr}, TLS: trust(t, secure.CA), Credentials: as("half")}, ProblemRights, "lacks a right", false},
		"a user who may not INFO":       {Options{Addresses: []string{secure.TLSAddr}, TLS: trust(t, secure.CA), Credentials: as("blind")}, ProblemRights, "info", true},
		"a user of other keys":          {Options{Addresses: []string{secure.TLSAddr}, TLS: trust(t, secure.CA), Credentials: as("tokenward"), Prefix: "other:"}, ProblemRights, "lacks a right", false},
		"keys are evicted":              {Options{Addresses: []string{evicting.Addr}}, ProblemEviction, `"allkeys-lru"`, true},
		"keys with an end are evicted":  {Options{Addresses: []string{volatile.Addr}}, ProblemEviction, `"volatile-ttl"`, true},
		"a Cluster taken for one":       {Options{Addresses: []string{cluster.Addr}}, ProblemMode, "set mode Cluster", true},
		"one taken for a Cluster":       {Options{Mode: ModeCluster, Addresses: []string{plain.Addr}}, ProblemMode, "set mode Single", false},
		"a Sentinel taken for a server": {Options{Addresses: []string{sentinel.Addr}}, ProblemMode, "set mode Sentinel", false},
		"a server taken for a Sentinel": {Options{Mode: ModeSentinel, MasterName: "sessions", Addresses: []string{plain.Addr}}, ProblemMode, "no Sentinels", false},
		"a group that is not watched":   {Options{Mode: ModeSentinel, MasterName: "other", Addresses: []string{sentinel.Addr}}, ProblemMode, "watch a group of this name", false},
		"a replica":                     {Options{Addresses: []string{replica.Addr}}, ProblemReadOnly, "is a replica", true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			store := open(t, test.options)
			err := store.Check(t.Context())
			var problem *Error
			if !errors.As(err, &problem) || problem.Problem != test.problem || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v (%+v), want %s and %q", err, problem, test.problem, test.says)
			}
			withoutSecret(t, fmt.Sprintf("%v %+v %#v", err, err, problem))
			if problem != nil && test.problem == ProblemMode && strings.ContainsAny(problem.Advice(), "0123456789") {
				t.Errorf("%q quotes the server", problem.Advice())
			}
			_, err = store.Load(t.Context(), session.NewID())
			if !test.readable && !outage(err) {
				t.Errorf("a load says %v, which is no outage", err)
			}
			withoutSecret(t, fmt.Sprint(err))
		})
	}
}

// unresolved dials as where the resolver says that there is no such name: the resolver of
// the machine may also say nothing for a long time.
func unresolved(_ context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	return nil, &net.OpError{Op: "dial", Net: network, Err: &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}}
}

func unusedAddress(tb testing.TB) string {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

func withoutSecret(tb testing.TB, text string) {
	tb.Helper()
	if strings.Contains(text, canary) {
		tb.Errorf("the password shows: %s", text)
	}
}

// TestEchoedPassword has a server (as old ones, and proxies) answer with what it did
// not understand.
func TestEchoedPassword(t *testing.T) {
	server := serve(t, func(connection net.Conn) {
		lines := bufio.NewScanner(connection)
		for lines.Scan() {
			if line := lines.Text(); strings.Contains(line, canary) {
				_, _ = fmt.Fprintf(connection, "-ERR unknown command, with args beginning with: '%s'\r\n", line)
			}
		}
	})
	store := open(t, Options{Addresses: []string{server}, Credentials: Credentials{Username: "tokenward", Password: NewPassword(canary)}, Timeout: 5 * time.Second})
	err := store.Check(t.Context())
	var problem *Error
	if !errors.As(err, &problem) || !strings.Contains(err.Error(), "withheld") {
		t.Errorf("check: %v", err)
	}
	withoutSecret(t, fmt.Sprintf("%v %+v %#v", err, err, problem))
}

func TestOptionsShowNoPassword(t *testing.T) {
	options := Options{Credentials: Credentials{Username: "tokenward", Password: NewPassword(canary)}}
	encoded, err := json.Marshal(options.Credentials)
	if err != nil {
		t.Fatal(err)
	}
	var logged bytes.Buffer
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("open", "credentials", options.Credentials, "password", options.Credentials.Password)
	shown := fmt.Sprintf("%v %+v %#v %s %q %x %s %s", options, options, options, options.Credentials, options.Credentials.Password, options.Credentials.Password, encoded, logged.String())
	withoutSecret(t, shown)
	if strings.Contains(shown, fmt.Sprintf("%x", canary)) || !strings.Contains(shown, redacted) {
		t.Error(shown)
	}
}

// serve answers connections at the returned address until the test ends.
func serve(tb testing.TB, handle func(net.Conn)) string {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = connection.Close() }()
				handle(connection)
			}()
		}
	}()
	return listener.Addr().String()
}

func TestCancelledWhileTheServerHangs(t *testing.T) {
	arrived := make(chan struct{}, 100)
	server := serve(t, func(connection net.Conn) {
		buffer := make([]byte, 1024)
		for {
			if _, err := connection.Read(buffer); err != nil {
				return
			}
			arrived <- struct{}{}
		}
	})
	store := open(t, Options{Addresses: []string{server}, Timeout: 20 * time.Second})
	<-arrived // the feed's
	known := newSession(store.options.Policy, time.Now())
	for name, call := range map[string]func(context.Context) error{
		"create":      func(ctx context.Context) error { return store.Create(ctx, known) },
		"load":        func(ctx context.Context) error { _, err := store.Load(ctx, known.ID); return err },
		"swap":        func(ctx context.Context) error { _, err := store.Swap(ctx, known); return err },
		"revocations": func(ctx context.Context) error { _, err := store.Revocations(ctx, ""); return err },
		"check":       store.Check,
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				if name != "revocations" { // waits for the feed's read, without one of its own
					<-arrived
				}
				cancel()
			}()
			begin := time.Now()
			if err := call(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
			if took := time.Since(begin); took > 5*time.Second {
				t.Errorf("it returned after %s", took)
			}
		})
	}
	begin := time.Now()
	_ = store.Close()
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("close returned after %s", took)
	}
	if _, err := store.Load(t.Context(), known.ID); !errors.Is(err, errClosed) {
		t.Errorf("load from a closed store: %v", err)
	}
}

func TestOptionsThatCannotWork(t *testing.T) {
	good := func() Options {
		return Options{Policy: storetest.NewPolicyID(), Addresses: []string{"redis:6379"}}
	}
	for name, test := range map[string]struct {
		change func(*Options)
		says   string
	}{
		"no address":               {func(o *Options) { o.Addresses = nil }, "no address"},
		"no port":                  {func(o *Options) { o.Addresses = []string{"redis"} }, `"redis" is not host:port`},
		"port out of range":        {func(o *Options) { o.Addresses = []string{"redis:70000"} }, "1 to 65535"},
		"a URL with a password":    {func(o *Options) { o.Addresses = []string{"redis://me:" + canary + "@redis:6379"} }, "is a URL"},
		"two servers":              {func(o *Options) { o.Addresses = []string{"a:1", "b:1"} }, "2 addresses"},
		"unknown mode":             {func(o *Options) { o.Mode = "Ring" }, `"Ring"`},
		"Sentinel without a name":  {func(o *Options) { o.Mode = ModeSentinel }, "needs the name"},
		"a name without Sentinel":  {func(o *Options) { o.MasterName = "x" }, "are for mode Sentinel"},
		"a database of a Cluster":  {func(o *Options) { o.Mode, o.Database = ModeCluster, 1 }, "only has database 0"},
		"a hash tag in the prefix": {func(o *Options) { o.Prefix = "{a}" }, `"{a}"`},
		"user without password":    {func(o *Options) { o.Credentials.Username = "u" }, `"u" has no password`},
		"no policy":                {func(o *Options) { o.Policy = "" }, "no policy"},
		"negative timeout":         {func(o *Options) { o.Timeout = -1 }, "negative"},
	} {
		t.Run(name, func(t *testing.T) {
			options := good()
			test.change(&options)
			store, err := New(options)
			if err == nil {
				_ = store.Close()
				t.Fatal("it was opened")
			}
			if !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want %q", err, test.says)
			}
			withoutSecret(t, err.Error())
		})
	}
}
