// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/internal/settings"
	"github.com/tokenward/tokenward/internal/token"
)

const deadline = 10 * time.Second

// eventually polls a condition that depends on real sockets or files.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	end := time.After(deadline)
	for !ok() {
		select {
		case <-ticker.C:
		case <-end:
			tb.Fatalf("not within %s: %s", deadline, what)
		}
	}
}

// signer makes tokens as the issuer would.
type signer struct {
	t   testing.TB
	key *token.PrivateKey
}

func newSigner(tb testing.TB) *signer {
	tb.Helper()
	key, err := token.GenerateKey(token.ES256, 0)
	if err != nil {
		tb.Fatal(err)
	}
	return &signer{t: tb, key: key}
}

func (s *signer) claims(change ...func(*token.Claims)) token.Claims {
	now := time.Now()
	c := token.Claims{
		Issuer: "https://shop.example.com", Subject: "alice", Audience: []string{"shop-api"},
		IssuedAt: now.Add(-time.Minute), ExpiresAt: now.Add(5 * time.Minute),
		ID: "jti-0", SessionID: "session-1", ClientID: "shop/shop", Generation: 0,
		Extra: map[string]any{"role": "admin"},
	}
	for _, f := range change {
		f(&c)
	}
	return c
}

func (s *signer) token(change ...func(*token.Claims)) string {
	s.t.Helper()
	raw, err := s.key.Sign(s.claims(change...))
	if err != nil {
		s.t.Fatal(err)
	}
	return raw
}

func (s *signer) keys(version int64, more ...*signer) *token.KeySet {
	s.t.Helper()
	keys := []token.PublicKey{s.key.Public()}
	for _, other := range more {
		keys = append(keys, other.key.Public())
	}
	set, err := token.NewKeySet("skey-uid", version, keys)
	if err != nil {
		s.t.Fatal(err)
	}
	return set
}

func expired(c *token.Claims)     { c.ExpiresAt = time.Now().Add(-10 * time.Minute) }
func expiresSoon(c *token.Claims) { c.ExpiresAt = time.Now().Add(10 * time.Second) }
func session(id string) func(*token.Claims) {
	return func(c *token.Claims) { c.SessionID = id }
}

func next(c *token.Claims) { c.Generation, c.ID = c.Generation+1, "jti-1" }

// received is what the backend saw of a request.
type received struct {
	Method, Target, Host string
	Header               http.Header
	Body                 string
	Proto                int
}

// backend records what reaches the application.
type backend struct {
	mu       sync.Mutex
	requests []received
	handler  http.HandlerFunc
	server   *httptest.Server
}

func newBackend(tb testing.TB) *backend {
	tb.Helper()
	b := &backend{}
	b.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		handler := b.handler
		b.mu.Unlock()
		if handler != nil && strings.HasPrefix(r.URL.Path, "/stream") {
			b.record(r, "")
			handler(w, r)
			return
		}
		body, _ := io.ReadAll(r.Body)
		b.record(r, string(body))
		if handler != nil {
			handler(w, r)
		}
	}))
	b.server.Config.Protocols = &http.Protocols{}
	b.server.Config.Protocols.SetHTTP1(true)
	b.server.Config.Protocols.SetUnencryptedHTTP2(true)
	b.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	b.server.Start()
	tb.Cleanup(b.server.Close)
	return b
}

func (b *backend) record(r *http.Request, body string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.requests = append(b.requests, received{Method: r.Method, Target: r.RequestURI, Host: r.Host, Header: r.Header.Clone(), Body: body, Proto: r.ProtoMajor})
}

func (b *backend) handle(h http.HandlerFunc) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.handler = h
}

// take empties the record.
func (b *backend) take() []received {
	b.mu.Lock()
	defer b.mu.Unlock()
	got := b.requests
	b.requests = nil
	return got
}

func (b *backend) last(tb testing.TB) received {
	tb.Helper()
	got := b.take()
	if len(got) != 1 {
		tb.Fatalf("the application saw %d requests, want 1", len(got))
	}
	return got[0]
}

// fakeIssuer speaks internal/protocol.
type fakeIssuer struct {
	t      testing.TB
	server *httptest.Server

	mu       sync.Mutex
	calls    map[protocol.Call]int
	login    func(w http.ResponseWriter, r *http.Request)
	refresh  func(raw string) (string, *protocol.Problem)
	logout   func(raw string) *protocol.Problem
	keys     *token.KeySet
	down     bool
	streams  map[chan protocol.RevocationEvent]struct{}
	identity []string
}

func newFakeIssuer(tb testing.TB) *fakeIssuer {
	tb.Helper()
	f := &fakeIssuer{t: tb, calls: map[protocol.Call]int{}, streams: map[chan protocol.RevocationEvent]struct{}{}}
	mux := http.NewServeMux()
	for _, call := range []protocol.Call{protocol.CallLogin, protocol.CallRefresh, protocol.CallLogout, protocol.CallKeys, protocol.CallRevocations} {
		mux.HandleFunc(protocol.PathPattern(call), func(w http.ResponseWriter, r *http.Request) { f.serve(call, w, r) })
	}
	f.server = httptest.NewUnstartedServer(mux)
	f.server.EnableHTTP2 = true
	f.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	f.server.StartTLS()
	tb.Cleanup(func() {
		f.server.CloseClientConnections()
		f.server.Close()
	})
	return f
}

func (f *fakeIssuer) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeIssuer) count(call protocol.Call) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[call]
}

func problem(w http.ResponseWriter, p protocol.Problem) {
	w.Header().Set("Content-Type", protocol.ProblemContentType)
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p)
}

func (f *fakeIssuer) serve(call protocol.Call, w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.calls[call]++
	f.identity = append(f.identity, r.Header.Get("Authorization"))
	login, refresh, logout, keys, down := f.login, f.refresh, f.logout, f.keys, f.down
	f.mu.Unlock()
	if down {
		problem(w, protocol.NewProblem(503, token.IssuerUnavailable, "down"))
		return
	}
	switch call {
	case protocol.CallLogin:
		login(w, r)
	case protocol.CallRefresh:
		var req protocol.RefreshRequest
		_ = json.NewDecoder(r.Body).Decode(&req)
		raw, p := refresh(req.AccessToken)
		if p != nil {
			problem(w, *p)
			return
		}
		_ = json.NewEncoder(w).Encode(protocol.TokenResponse{AccessToken: raw, TokenType: "Bearer", ExpiresIn: 300})
	case protocol.CallLogout:
		var req protocol.LogoutRequest
		_ = json.NewDecoder(r.Body).Decode(&req)
		if p := logout(req.AccessToken); p != nil {
			problem(w, *p)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	case protocol.CallKeys:
		_ = json.NewEncoder(w).Encode(keys)
	case protocol.CallRevocations:
		f.stream(w, r)
	}
}

func (f *fakeIssuer) stream(w http.ResponseWriter, r *http.Request) {
	events := make(chan protocol.RevocationEvent, 16)
	events <- protocol.RevocationEvent{Cursor: "c"}
	f.set(func() { f.streams[events] = struct{}{} })
	defer f.set(func() { delete(f.streams, events) })
	for {
		select {
		case e := <-events:
			_ = json.NewEncoder(w).Encode(e)
			_ = http.NewResponseController(w).Flush()
		case <-r.Context().Done():
			return
		}
	}
}

func (f *fakeIssuer) revoke(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for events := range f.streams {
		events <- protocol.RevocationEvent{Cursor: "c", SessionID: id, ForgetAfter: time.Now().Add(time.Hour)}
	}
}

func (f *fakeIssuer) caBundle() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.server.Certificate().Raw}))
}

// lockedBuffer takes log lines from many goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// world is a running sidecar with a recording application and a fake issuer.
type world struct {
	t       testing.TB
	url     string
	addr    string
	admin   string
	signer  *signer
	backend *backend
	issuer  *fakeIssuer
	dir     string
	logs    *lockedBuffer
	stop    context.CancelFunc
	done    chan error
	pid     int // of a separate process
	client  *http.Client
}

func (w *world) settings(change ...func(*settings.Settings)) *settings.Settings {
	keys, err := json.Marshal(w.signer.keys(1))
	if err != nil {
		w.t.Fatal(err)
	}
	s := &settings.Settings{
		Policy:      settings.Policy{Namespace: "shop", Name: "shop", UID: "uid-1", Generation: 1},
		Enforcement: settings.Enforce,
		Issuer:      "https://shop.example.com",
		Audiences:   []string{"shop-api"},
		Leeway:      settings.Duration(30 * time.Second),
		Keys:        keys,
		Refresh:     settings.Refresh{OnExpired: settings.OnExpiredRefresh, ResponseHeader: "Authorization", Early: settings.Duration(30 * time.Second)},
		Rules: []settings.Rule{
			{Paths: []settings.Path{{Type: settings.PathPrefix, Value: "/public"}}, Access: settings.AccessAnonymous},
			{Paths: []settings.Path{{Type: settings.PathPrefix, Value: "/closed"}}, Access: settings.AccessDenied},
			{Paths: []settings.Path{{Type: settings.PathExact, Value: "/admin"}}, Access: settings.AccessAuthenticated, RequireClaims: []settings.RequiredClaim{{Claim: "role", Values: []string{"admin"}}}},
		},
		Upstream: settings.Upstream{
			ClaimHeaders:  []settings.ClaimHeader{{Claim: "sub", Header: "X-User-Id"}, {Claim: "role", Header: "X-User-Role"}},
			Authorization: settings.AuthorizationForward,
		},
		Denial:        settings.Denial{StatusCode: 403},
		Endpoints:     settings.Endpoints{Prefix: "/auth"},
		IssuerService: settings.IssuerService{URL: w.issuer.server.URL, CABundle: w.issuer.caBundle()},
	}
	for _, f := range change {
		f(s)
	}
	return s
}

// publish writes settings as the kubelet does: a new directory, and a renamed link.
func (w *world) publish(s *settings.Settings) {
	w.t.Helper()
	data, err := s.Marshal()
	if err != nil {
		w.t.Fatal(err)
	}
	w.publishBytes(data)
}

func (w *world) publishBytes(data []byte) {
	w.t.Helper()
	version, err := os.MkdirTemp(w.dir, "..v")
	if err != nil {
		w.t.Fatal(err)
	}
	steps := []func() error{
		func() error { return os.WriteFile(filepath.Join(version, settings.Key), data, 0o600) },
		func() error { return os.Symlink(filepath.Base(version), filepath.Join(w.dir, "..new")) },
		func() error { return os.Rename(filepath.Join(w.dir, "..new"), filepath.Join(w.dir, "..data")) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			w.t.Fatal(err)
		}
	}
	link := filepath.Join(w.dir, settings.Key)
	if _, err := os.Lstat(link); err != nil {
		if err := os.Symlink(filepath.Join("..data", settings.Key), link); err != nil {
			w.t.Fatal(err)
		}
	}
}

// newWorld starts a sidecar. change shapes its settings.
func newWorld(tb testing.TB, change ...func(*settings.Settings)) *world {
	tb.Helper()
	w := &world{t: tb, signer: newSigner(tb), backend: newBackend(tb), issuer: newFakeIssuer(tb), dir: tb.TempDir(), logs: &lockedBuffer{}, done: make(chan error, 1)}
	w.issuer.refresh = func(string) (string, *protocol.Problem) { return w.signer.token(next), nil }
	w.issuer.logout = func(string) *protocol.Problem { return nil }
	w.issuer.keys = w.signer.keys(1)
	w.publish(w.settings(change...))
	w.start()
	eventually(tb, "the stream of revocations is open", func() bool { return w.issuer.count(protocol.CallRevocations) > 0 })
	return w
}

func (w *world) start() {
	t := w.t
	t.Helper()
	identity := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(identity, []byte("pod-identity-canary\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	public, private := listen(t), listen(t)
	w.addr, w.url, w.admin = public.Addr().String(), "http://"+public.Addr().String(), "http://"+private.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	o := options{upstream: w.backend.server.Listener.Addr().String(), settingsDir: w.dir, identityFile: identity, drainTimeout: deadline}
	log := slog.New(slog.NewJSONHandler(w.logs, nil))
	go func() { w.done <- serve(ctx, o, log, public, private) }()
	transport := &http.Transport{MaxIdleConnsPerHost: 200, DisableCompression: true}
	w.client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		stop()
		select {
		case err := <-w.done:
			if err != nil {
				t.Errorf("the sidecar ended with %v", err)
			}
		case <-time.After(2 * deadline):
			t.Error("the sidecar does not end")
		}
	})
}

func listen(tb testing.TB) net.Listener {
	tb.Helper()
	l, err := (&net.ListenConfig{}).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

// answer is a response that was read to its end.
type answer struct {
	Status  int
	Header  http.Header
	Body    string
	Trailer http.Header
}

func (a answer) reason(tb testing.TB) token.Reason {
	tb.Helper()
	if ct := a.Header.Get("Content-Type"); ct != protocol.ProblemContentType {
		tb.Fatalf("status %d with content type %q, want a problem: %s", a.Status, ct, a.Body)
	}
	var p protocol.Problem
	if err := json.Unmarshal([]byte(a.Body), &p); err != nil {
		tb.Fatal(err)
	}
	if p.Status != a.Status {
		tb.Fatalf("the problem says status %d, the answer has %d", p.Status, a.Status)
	}
	return p.Reason
}

type option func(*http.Request)

func bearer(raw string) option {
	return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+raw) }
}

func header(name, value string) option {
	return func(r *http.Request) { r.Header[name] = append(r.Header[name], value) }
}

func body(s string) option {
	return func(r *http.Request) {
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(s)), int64(len(s))
	}
}

func (w *world) do(method, target string, with ...option) answer {
	w.t.Helper()
	return w.doWith(w.client, method, target, with...)
}

func (w *world) doWith(client *http.Client, method, target string, with ...option) answer {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.url+target, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range with {
		f(req)
	}
	res, err := client.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return answer{Status: res.StatusCode, Header: res.Header, Body: string(data), Trailer: res.Trailer}
}

func (w *world) metrics() string {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.admin+"/metrics", nil)
	if err != nil {
		w.t.Fatal(err)
	}
	res, err := w.client.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(data)
}

// metric says that a sample line is there.
func (w *world) metric(line string) bool {
	w.t.Helper()
	return strings.Contains(w.metrics(), line+"\n")
}
