// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/session/memory"
	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/issuer/api"
	"github.com/tokenward/tokenward/issuer/caller"
	"github.com/tokenward/tokenward/issuer/exchange"
	"github.com/tokenward/tokenward/issuer/refusal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const canary = "c4n4ry-v4lue"

// stub is everything behind the handler. Tests set what they need.
type stub struct {
	callerErr error
	policy    *exchange.Policy
	policyErr error

	login  func(map[string]string) (exchange.Token, error)
	token  func(raw string) (exchange.Token, error)
	logout func(raw string) error

	mu       sync.Mutex
	outcomes []string
	from     []netip.Addr
	sentAt   time.Time
	log      strings.Builder
	expires  time.Time
}

func (s *stub) Authenticate(_ context.Context, authorization string) (caller.Pod, error) {
	if s.callerErr != nil {
		return caller.Pod{}, s.callerErr
	}
	if authorization != "Bearer pod-token" {
		return caller.Pod{}, fmt.Errorf("%w: it is not the pod's", caller.ErrRefused)
	}
	return caller.Pod{Namespace: "shop", Name: "web-1", TokenExpires: s.expires}, nil
}

func (s *stub) Policy(namespace, name string) (*exchange.Policy, error) {
	if s.policyErr != nil {
		return nil, s.policyErr
	}
	if namespace != "shop" || name != "web" {
		return nil, refusal.Unavailable("unknown", nil)
	}
	return s.policy, nil
}

func (s *stub) Login(_ context.Context, _ *exchange.Policy, fields map[string]string, from netip.Addr) (exchange.Token, error) {
	s.mu.Lock()
	s.from = append(s.from, from)
	s.mu.Unlock()
	return s.login(fields)
}

func (s *stub) Refresh(_ context.Context, _ *exchange.Policy, raw string, sentAt time.Time) (exchange.Token, error) {
	s.mu.Lock()
	s.sentAt = sentAt
	s.mu.Unlock()
	return s.token(raw)
}

func (s *stub) Logout(_ context.Context, _ *exchange.Policy, raw string) error { return s.logout(raw) }

func (s *stub) CallDone(call protocol.Call, outcome string, _ time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outcomes = append(s.outcomes, string(call)+" "+outcome)
}

func (s *stub) Streams(int) {}

func (s *stub) seen() (outcomes []string, log string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.outcomes, s.log.String()
}

func (s *stub) write(prefix, args string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log.WriteString(prefix + args + "\n")
}

func newServer(t *testing.T) (*httptest.Server, *stub) {
	t.Helper()
	server, s, _ := newClosableServer(t)
	return server, s
}

func newClosableServer(t *testing.T) (*httptest.Server, *stub, chan struct{}) {
	t.Helper()
	now := time.Now()
	s := &stub{
		policy: &exchange.Policy{
			UID: "uid", Namespace: "shop", Name: "web", DenialStatus: 401,
			Sessions: memory.New("uid", memory.Options{}),
		},
		expires: now.Add(time.Hour),
		login: func(map[string]string) (exchange.Token, error) {
			return exchange.Token{Raw: "access-token", ExpiresAt: time.Now().Add(5*time.Minute + 500*time.Millisecond), How: exchange.New, Subject: "alice", Session: "sid"}, nil
		},
		token: func(string) (exchange.Token, error) {
			return exchange.Token{Raw: "next-token", ExpiresAt: time.Now().Add(-time.Second), How: exchange.Rotated}, nil
		},
		logout: func(string) error { return nil },
	}
	closing := make(chan struct{})
	log := funcr.New(s.write, funcr.Options{Verbosity: 9})
	server := httptest.NewUnstartedServer(api.NewHandler(api.Options{
		Callers: s, Policies: s, Exchange: s, Observer: s, Log: log, Now: time.Now, Closing: closing,
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	return server, s, closing
}

// send makes a request as a sidecar does. headers are pairs.
func send(t *testing.T, server *httptest.Server, method, path, body string, headers ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer pod-token")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	response, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	return response
}

func read(t *testing.T, response *http.Response) string {
	t.Helper()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func wantProblem(t *testing.T, response *http.Response, status int, reason token.Reason, detail string) {
	t.Helper()
	body := read(t, response)
	var problem protocol.Problem
	if err := json.Unmarshal([]byte(body), &problem); err != nil {
		t.Fatalf("status %d, %s: %q", response.StatusCode, response.Header.Get("Content-Type"), body)
	}
	if response.StatusCode != status || problem.Status != status || problem.Reason != reason || !strings.Contains(problem.Detail, detail) {
		t.Errorf("status %d, %+v; want %d, %s, %q", response.StatusCode, problem, status, reason, detail)
	}
	if response.Header.Get("Content-Type") != protocol.ProblemContentType || response.Header.Get("Cache-Control") != "no-store" || problem.Title == "" {
		t.Errorf("headers %v, problem %+v", response.Header, problem)
	}
	if strings.Contains(body, canary) {
		t.Errorf("the answer holds what was sent: %s", body)
	}
}

var (
	tokenPath   = protocol.Path("shop", "web", protocol.CallLogin)
	refreshPath = protocol.Path("shop", "web", protocol.CallRefresh)
	logoutPath  = protocol.Path("shop", "web", protocol.CallLogout)
	keysPath    = protocol.Path("shop", "web", protocol.CallKeys)
	streamPath  = protocol.Path("shop", "web", protocol.CallRevocations)
)

const (
	asJSON = "application/json"
	asForm = "application/x-www-form-urlencoded"
)

func TestALoginIsReadInEitherForm(t *testing.T) {
	want := map[string]string{"id": "alice", "password": "pä ss+word&"}
	for name, test := range map[string]struct{ kind, body string }{
		"JSON":              {asJSON, `{"id": "alice", "password": "pä ss+word&"}`},
		"JSON with charset": {asJSON + "; charset=UTF-8", ` {"id": "alice", "p\u0061ssword": "p\u00e4 ss+word&"} `},
		"form":              {asForm, "id=alice&password=p%C3%A4+ss%2Bword%26"},
	} {
		t.Run(name, func(t *testing.T) {
			server, s := newServer(t)
			login := s.login
			s.login = func(fields map[string]string) (exchange.Token, error) {
				if diff := cmp.Diff(want, fields); diff != "" {
					t.Error(diff)
				}
				return login(fields)
			}
			response := send(t, server, http.MethodPost, tokenPath, test.body, "Content-Type", test.kind)
			body := read(t, response)
			if response.StatusCode != 200 || body != `{"access_token":"access-token","token_type":"Bearer","expires_in":300}` {
				t.Errorf("%d %s", response.StatusCode, body)
			}
			if response.Header.Get("Cache-Control") != "no-store" || response.Header.Get("Content-Type") != asJSON {
				t.Errorf("headers %v", response.Header)
			}
		})
	}
}

func TestABadLoginSaysWhatToMend(t *testing.T) {
	tests := map[string]struct {
		kind, body string
		status     int
		detail     string
	}{
		"no content type":            {"", `{}`, 415, "Content-Type must be application/json or application/x-www-form-urlencoded"},
		"plain text":                 {"text/plain", `{}`, 415, "Content-Type must be"},
		"multipart":                  {"multipart/form-data; boundary=x", canary, 415, "Content-Type must be"},
		"content type that is junk":  {";;" + canary, `{}`, 415, "Content-Type must be"},
		"another charset":            {asJSON + "; charset=latin1", `{}`, 415, "utf-8"},
		"too large":                  {asJSON, `{"id": "` + strings.Repeat("a", 64<<10) + `"}`, 413, "65536 bytes"},
		"too large a form":           {asForm, "id=" + strings.Repeat("a", 64<<10), 413, "65536 bytes"},
		"empty":                      {asJSON, ``, 400, "JSON object of strings"},
		"not JSON":                   {asJSON, canary, 400, "JSON object of strings"},
		"a list":                     {asJSON, `["` + canary + `"]`, 400, "JSON object of strings"},
		"null":                       {asJSON, `null`, 400, "JSON object of strings"},
		"cut short":                  {asJSON, `{"id": "` + canary, 400, "JSON object of strings"},
		"a comma too many":           {asJSON, `{"id": "a",}`, 400, "JSON object of strings"},
		"a name without quotes":      {asJSON, `{id: "a"}`, 400, "JSON object of strings"},
		"something behind":           {asJSON, `{"id": "a"}{"id": "b"}`, 400, "something follows"},
		"a field twice":              {asJSON, `{"password": "` + canary + `", "password": "b"}`, 400, `"password" is there twice`},
		"a field twice, escaped":     {asJSON, `{"password": "` + canary + `", "p\u0061ssword": "b"}`, 400, `"password" is there twice`},
		"a field twice in a form":    {asForm, "password=" + canary + "&password=b", 400, `"password" is there twice`},
		"a number":                   {asJSON, `{"pin": 1234}`, 400, `"pin" must be a string`},
		"null as a value":            {asJSON, `{"pin": null}`, 400, `"pin" must be a string`},
		"an object as a value":       {asJSON, `{"id": {"$ne": "` + canary + `"}}`, 400, `"id" must be a string`},
		"a list as a value":          {asJSON, `{"id": ["a"]}`, 400, `"id" must be a string`},
		"a value in a name's place":  {asJSON, `{"` + canary + ` is my password": 1}`, 400, "a field whose name is not plain"},
		"broken UTF-8":               {asJSON, "{\"id\": \"\xff\"}", 400, "UTF-8"},
		"broken UTF-8 in a form":     {asForm, "id=%ff", 400, "UTF-8"},
		"a form with a bad escape":   {asForm, "id=%zz" + canary, 400, "well-formed form"},
		"a form with a semicolon":    {asForm, "id=a;b=c", 400, "well-formed form"},
		"a hundred fields":           {asJSON, `{` + many(100, `"f%d":"x"`, ",") + `}`, 400, "more than 32 fields"},
		"a hundred fields in a form": {asForm, many(100, "f%d=x", "&"), 400, "more than 32 fields"},
		"deep nesting":               {asJSON, `{"a":` + strings.Repeat("[", 30_000), 400, `"a" must be a string`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server, s := newServer(t)
			s.login = func(map[string]string) (exchange.Token, error) {
				t.Error("it was let through")
				return exchange.Token{}, nil
			}
			response := send(t, server, http.MethodPost, tokenPath, test.body, "Content-Type", test.kind)
			wantProblem(t, response, test.status, token.RequestInvalid, test.detail)
			if outcomes, log := s.seen(); strings.Contains(log, canary) || len(outcomes) != 1 || outcomes[0] != "token request_invalid" {
				t.Errorf("outcomes %v, log %s", outcomes, log)
			}
		})
	}
}

func many(n int, format, separator string) string {
	parts := make([]string, n)
	for i := range parts {
		parts[i] = fmt.Sprintf(format, i)
	}
	return strings.Join(parts, separator)
}

func TestACompressedBodyIsRefused(t *testing.T) {
	server, _ := newServer(t)
	response := send(t, server, http.MethodPost, tokenPath, "x", "Content-Type", asJSON, "Content-Encoding", "gzip")
	wantProblem(t, response, 415, token.RequestInvalid, "Content-Encoding")
}

func TestRefreshAndLogoutTakeATokenInTheBody(t *testing.T) {
	server, s := newServer(t)
	s.token = func(raw string) (exchange.Token, error) {
		if raw != "old" {
			t.Errorf("got %q", raw)
		}
		return exchange.Token{Raw: "new", ExpiresAt: time.Now().Add(-time.Minute), How: exchange.Replayed}, nil
	}
	// A newer sidecar may send more than this release knows.
	response := send(t, server, http.MethodPost, refreshPath, `{"access_token": "old", "later": {"a": 1}}`, "Content-Type", asJSON)
	if body := read(t, response); response.StatusCode != 200 || body != `{"access_token":"new","token_type":"Bearer","expires_in":0}` {
		t.Errorf("%d %s", response.StatusCode, body)
	}
	response = send(t, server, http.MethodPost, logoutPath, `{"access_token": "old"}`, "Content-Type", asJSON)
	if body := read(t, response); response.StatusCode != 204 || body != "" {
		t.Errorf("%d %s", response.StatusCode, body)
	}
	if outcomes, _ := s.seen(); !cmp.Equal(outcomes, []string{"refresh replayed", "logout done"}) {
		t.Errorf("outcomes %v", outcomes)
	}
}

func TestARefreshIsToldWhenItWasSent(t *testing.T) {
	server, s := newServer(t)
	s.token = func(string) (exchange.Token, error) { return exchange.Token{Raw: "new", How: exchange.Rotated}, nil }
	for said, want := range map[string]time.Time{
		"1764000000123": time.UnixMilli(1764000000123), "": {}, "yesterday": {}, "-5": {}, "99999999999999999999": {},
	} {
		response := send(t, server, http.MethodPost, protocol.Path("shop", "web", protocol.CallRefresh), `{"access_token": "a"}`, "Content-Type", asJSON, protocol.SentAtHeader, said)
		if response.StatusCode != http.StatusOK || !s.sentAt.Equal(want) {
			t.Errorf("%q: status %d, sent at %s, want %s", said, response.StatusCode, s.sentAt, want)
		}
	}
}

func TestAnswersHaveTheIssuersTime(t *testing.T) {
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, answer := range map[string]http.HandlerFunc{
		"with a status": func(w http.ResponseWriter, _ *http.Request) {
			at = at.Add(time.Minute)
			w.WriteHeader(http.StatusNoContent)
		},
		"which is begun": func(w http.ResponseWriter, _ *http.Request) { _ = http.NewResponseController(w).Flush() },
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				answer(api.NewDated(w, func() time.Time { return at }), r)
			}))
			defer server.Close()
			response, err := server.Client().Get(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			_ = response.Body.Close()
			if got := response.Header.Get("Date"); got != at.Format(http.TimeFormat) {
				t.Errorf("%s, want %s", got, at)
			}
		})
	}
}

func TestABadRefreshOrLogoutIsRefused(t *testing.T) {
	for _, path := range []string{refreshPath, logoutPath} {
		for name, test := range map[string]struct {
			kind, body string
			status     int
		}{
			"not JSON":          {asJSON, canary, 400},
			"no token":          {asJSON, `{}`, 400},
			"empty token":       {asJSON, `{"access_token": ""}`, 400},
			"token no string":   {asJSON, `{"access_token": 1}`, 400},
			"name in caps":      {asJSON, `{"ACCESS_TOKEN": "` + canary + `"}`, 400},
			"a form":            {asForm, "access_token=" + canary, 415},
			"larger than 64KiB": {asJSON, `{"access_token": "` + strings.Repeat("a", 64<<10) + `"}`, 413},
		} {
			t.Run(path+" "+name, func(t *testing.T) {
				server, _ := newServer(t)
				wantProblem(t, send(t, server, http.MethodPost, path, test.body, "Content-Type", test.kind), test.status, token.RequestInvalid, "")
			})
		}
	}
}

func TestCallersPassTheGates(t *testing.T) {
	tests := map[string]struct {
		method, path string
		headers      []string
		change       func(*stub)
		status       int
		reason       token.Reason
	}{
		"no pod token":           {http.MethodGet, keysPath, []string{"Authorization", ""}, nil, 401, token.IssuerUnavailable},
		"another's token":        {http.MethodGet, keysPath, []string{"Authorization", "Bearer " + canary}, nil, 401, token.IssuerUnavailable},
		"another namespace":      {http.MethodGet, protocol.Path("bank", "web", protocol.CallKeys), nil, nil, 403, token.IssuerUnavailable},
		"namespace in capitals":  {http.MethodGet, protocol.Path("Shop", "web", protocol.CallKeys), nil, nil, 403, token.IssuerUnavailable},
		"unknown policy":         {http.MethodGet, protocol.Path("shop", "nope", protocol.CallKeys), nil, nil, 503, token.IssuerUnavailable},
		"API server down":        {http.MethodGet, keysPath, nil, func(s *stub) { s.callerErr = errors.New("dial " + canary) }, 503, token.IssuerUnavailable},
		"wrong method for token": {http.MethodGet, tokenPath, nil, nil, 405, token.RequestInvalid},
		"wrong method for keys":  {http.MethodPost, keysPath, nil, nil, 405, token.RequestInvalid},
		"no such call":           {http.MethodGet, "/v1/policies/shop/web/secrets", nil, nil, 404, token.RequestInvalid},
		"another version":        {http.MethodGet, "/v2/policies/shop/web/keys", nil, nil, 404, token.RequestInvalid},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server, s := newServer(t)
			if test.change != nil {
				test.change(s)
			}
			response := send(t, server, test.method, test.path, "", test.headers...)
			wantProblem(t, response, test.status, test.reason, "")
			if allow := response.Header.Get("Allow"); (test.status == 405) != (allow != "") {
				t.Errorf("Allow %q", allow)
			}
			if after := response.Header.Get("Retry-After"); (test.status == 503) != (after != "") {
				t.Errorf("Retry-After %q", after)
			}
		})
	}
}

// A body is not even read of a caller that is not let in.
func TestTheCallerIsToldBeforeTheBodyIsRead(t *testing.T) {
	server, _ := newServer(t)
	response := send(t, server, http.MethodPost, tokenPath, strings.Repeat("a", 1<<20), "Authorization", "", "Content-Type", asJSON)
	wantProblem(t, response, 401, token.IssuerUnavailable, "")
}

func TestErrorsBecomeProblems(t *testing.T) {
	secret := errors.New("password=" + canary)
	tests := map[string]struct {
		err     error
		status  int
		reason  token.Reason
		after   string
		outcome string
	}{
		"failed authentication has the policy's status": {refusal.Denied(token.CredentialsInvalid, "no"), 401, token.CredentialsInvalid, "", "credentials_invalid"},
		"a refused token too":                           {refusal.Denied(token.TokenReused, "no"), 401, token.TokenReused, "", "token_reused"},
		"an outage":                                     {refusal.Unavailable("later", secret), 503, token.IssuerUnavailable, "2", "issuer_unavailable"},
		"a full store":                                  {&refusal.Error{Reason: token.StoreFull, Status: 503, RetryAfter: time.Minute}, 503, token.StoreFull, "60", "store_full"},
		"too many logins":                               {&refusal.Error{Reason: token.RateLimited, Status: 429, RetryAfter: time.Second}, 429, token.RateLimited, "1", "rate_limited"},
		"a wait is rounded up":                          {&refusal.Error{Reason: token.RateLimited, Status: 429, RetryAfter: time.Second + 1}, 429, token.RateLimited, "2", "rate_limited"},
		"and never to none":                             {&refusal.Error{Reason: token.RateLimited, Status: 429, RetryAfter: time.Millisecond}, 429, token.RateLimited, "1", "rate_limited"},
		"anything else":                                 {secret, 500, token.IssuerUnavailable, "", "fault"},
		"our identity has ended":                        {refusal.Unavailable("later", apierrors.NewUnauthorized(canary)), 421, token.IssuerUnavailable, "2", "issuer_unavailable"},
		"wrapped":                                       {fmt.Errorf("a: %w", refusal.Denied(token.SessionRevoked, "no")), 401, token.SessionRevoked, "", "session_revoked"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server, s := newServer(t)
			s.login = func(map[string]string) (exchange.Token, error) { return exchange.Token{}, test.err }
			response := send(t, server, http.MethodPost, tokenPath, `{"id": "a"}`, "Content-Type", asJSON)
			wantProblem(t, response, test.status, test.reason, "")
			if after := response.Header.Get("Retry-After"); after != test.after {
				t.Errorf("Retry-After %q, want %q", after, test.after)
			}
			if outcomes, _ := s.seen(); !cmp.Equal(outcomes, []string{"token " + test.outcome}) {
				t.Errorf("outcomes %v", outcomes)
			}
		})
	}
}

// Whoever is sent to another issuer must not come back over the same connection.
func TestAnIssuerThatSendsCallersElsewhereEndsTheConnection(t *testing.T) {
	server, s := newServer(t)
	var failure error
	s.login = func(map[string]string) (exchange.Token, error) { return exchange.Token{}, failure }
	used := func() (reused bool) {
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) { reused = c.Reused }})
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+tokenPath, strings.NewReader(`{"id": "a"}`))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer pod-token")
		request.Header.Set("Content-Type", asJSON)
		response, err := server.Client().Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		return reused
	}
	failure = refusal.Unavailable("later", errors.New("an outage of all"))
	if first, second := used(), used(); first || !second {
		t.Errorf("after an outage of all the connection is used again: %t", second)
	}
	failure = refusal.Unavailable("later", apierrors.NewUnauthorized(canary))
	used()
	for tries := 0; used(); tries++ { // the answer may come a moment before the GOAWAY
		if tries == 1000 {
			t.Fatal("the connection does not end")
		}
	}
}

func TestAPanicIsAFaultThatTellsNothing(t *testing.T) {
	server, s := newServer(t)
	s.login = func(map[string]string) (exchange.Token, error) { panic(canary) }
	wantProblem(t, send(t, server, http.MethodPost, tokenPath, `{"id": "a"}`, "Content-Type", asJSON), 500, token.IssuerUnavailable, "log")
	if _, log := s.seen(); strings.Contains(log, canary) || !strings.Contains(log, "panic") {
		t.Errorf("log %s", log)
	}
}

func TestKeysAreTheKeySetOfThePolicy(t *testing.T) {
	server, s := newServer(t)
	key, err := token.GenerateKey(token.ES256, 0)
	if err != nil {
		t.Fatal(err)
	}
	s.policy.Keys.Set, err = token.NewKeySet("owner", 7, []token.PublicKey{key.Public()})
	if err != nil {
		t.Fatal(err)
	}
	response := send(t, server, http.MethodGet, keysPath, "")
	got, err := token.ParseKeySet([]byte(read(t, response)))
	if err != nil || got.Version() != 7 || got.Owner() != "owner" || len(got.Keys()) != 1 {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestNothingSecretIsLogged(t *testing.T) {
	server, s := newServer(t)
	s.login = func(map[string]string) (exchange.Token, error) {
		return exchange.Token{Raw: canary, ExpiresAt: time.Now(), How: exchange.New, Subject: "alice", Session: "sid-1"}, nil
	}
	s.token = func(string) (exchange.Token, error) { return exchange.Token{Raw: canary, How: exchange.Rotated}, nil }
	send(t, server, http.MethodPost, tokenPath, `{"id": "`+canary+`", "password": "`+canary+`"}`, "Content-Type", asJSON)
	send(t, server, http.MethodPost, refreshPath, `{"access_token": "`+canary+`"}`, "Content-Type", asJSON)
	send(t, server, http.MethodPost, logoutPath, `{"access_token": "`+canary+`"}`, "Content-Type", asJSON)
	_, log := s.seen()
	if strings.Contains(log, canary) || strings.Contains(log, "pod-token") {
		t.Errorf("log %s", log)
	}
	if !strings.Contains(log, `"subject"="alice"`) || !strings.Contains(log, `"session"="sid-1"`) || !strings.Contains(log, `"pod"="web-1"`) {
		t.Errorf("the log does not say who logged in: %s", log)
	}
}

func revoke(t *testing.T, store session.Store, id session.ID) {
	t.Helper()
	pol := session.Policy{TTL: time.Hour, IdleTimeout: time.Hour, AbsoluteTimeout: 2 * time.Hour}
	s := session.New("uid", "alice", time.Now(), pol, session.NewTokenID())
	s.ID = id
	if err := store.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Swap(t.Context(), s.Revoke(token.SessionRevoked, time.Now())); err != nil {
		t.Fatal(err)
	}
}
