// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package http_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenward/tokenward/internal/outbound"
	"github.com/tokenward/tokenward/internal/users"
	"github.com/tokenward/tokenward/internal/users/http"
)

// canary is in every credential and field of these tests that no error may show.
const canary = "c4n4ry"

// service is an https server that the test answers for.
type service struct {
	*httptest.Server
	requests atomic.Int32
	mu       sync.Mutex
	answer   nethttp.HandlerFunc
	last     *nethttp.Request
	body     string
}

func newService(t *testing.T) *service {
	t.Helper()
	s := &service{}
	s.Server = httptest.NewUnstartedServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		s.requests.Add(1)
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.last, s.body = r, string(body)
		answer := s.answer
		s.mu.Unlock()
		answer(w, r)
	}))
	s.Config.ErrorLog = nil
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func (s *service) answers(status int, kind, body string) {
	s.does(func(w nethttp.ResponseWriter, _ *nethttp.Request) {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

func (s *service) does(answer nethttp.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

func (s *service) options() http.Options {
	return http.Options{
		URL:     s.URL + "/users?tenant=shop",
		CA:      pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}),
		Token:   users.NewCredential(canary + "\n"),
		Dial:    loopback().DialContext,
		Timeout: 20 * time.Second,
	}
}

func loopback() outbound.Guard {
	return outbound.Guard{Allowed: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}}
}

func open(t *testing.T, o http.Options) *http.Source {
	t.Helper()
	source, err := http.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(source.Close)
	return source
}

func login(id, pass string) map[string]string {
	return map[string]string{"id": id, "password": pass}
}

func isNoUser(t *testing.T, user users.User, err error) {
	t.Helper()
	if !errors.Is(err, users.ErrNoUser) || err.Error() != users.ErrNoUser.Error() || user.Subject != "" {
		t.Errorf("got %v, %v; want no user", user, err)
	}
}

// isFault wants an outage of this kind that says so, and shows no secret.
func isFault(t *testing.T, err error, fault users.Fault, says string) {
	t.Helper()
	var unavailable *users.UnavailableError
	if !errors.As(err, &unavailable) || unavailable.Fault != fault || errors.Is(err, users.ErrNoUser) || errors.Is(err, users.ErrDisabled) {
		t.Errorf("got %v, want a fault of kind %s", err, fault)
		return
	}
	if !strings.Contains(err.Error(), says) {
		t.Errorf("%q does not say %q", err, says)
	}
	for _, secret := range []string{canary, "127.0.0.1", "tenant=shop"} {
		if text := fmt.Sprintf("%v %+v %#v", err, err, err); strings.Contains(text, secret) {
			t.Errorf("the error shows %q: %s", secret, text)
		}
	}
}

const alice = `{"subject": "alice", "disabled": false, "attributes": {"role": "admin", "age": 7, "beta": true, "groups": ["a", "b"], "left": null,
	"password": "plain", "hash": "$argon2id$v=19$x", "hashes": ["$2b$10$x"]}}`

func TestLogin(t *testing.T) {
	s := newService(t)
	s.answers(200, "application/json; charset=UTF-8", alice)
	source := open(t, s.options())
	got, err := source.Authenticate(t.Context(), login("alice", `wonder"<land>`))
	want := users.User{Subject: "alice", Attributes: map[string]any{
		"role": "admin", "age": json.Number("7"), "beta": true, "groups": []any{"a", "b"},
	}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	var question map[string]any
	if err := json.Unmarshal([]byte(s.body), &question); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]any{"action": "authenticate", "fields": map[string]any{"id": "alice", "password": `wonder"<land>`}}, question); diff != "" {
		t.Error(diff)
	}
	if r := s.last; r.Method != "POST" || r.URL.String() != "/users?tenant=shop" || r.Header.Get("Content-Type") != "application/json" ||
		r.Header.Get("Authorization") != "Bearer "+canary || r.ProtoMajor != 2 {
		t.Errorf("request %v", r)
	}
	s.answers(200, "application/json", `{"subject": "alice", "disabled": true}`)
	user, err := source.Authenticate(t.Context(), login("alice", "wonderland"))
	isNoUser(t, user, err)
	if got := users.SubjectOf(err); got != "alice" {
		t.Errorf("the login was about %q", got)
	}
	for _, status := range []int{401, 403, 404} {
		for _, kind := range []string{"application/json", "text/html", ""} {
			s.answers(status, kind, alice)
			user, err := source.Authenticate(t.Context(), login("alice", "wonderland"))
			isNoUser(t, user, err)
			if got := users.SubjectOf(err); got != "" {
				t.Errorf("the service did not say who it was about, and it is %q", got)
			}
		}
	}
}

func TestALoginMustPresentExactlyTheFields(t *testing.T) {
	s := newService(t)
	s.answers(200, "application/json", alice)
	o := s.options()
	o.Fields = []string{"phone"}
	source := open(t, o)
	var invalid *users.InvalidFieldsError
	if _, err := source.Authenticate(t.Context(), login("alice", "x")); !errors.As(err, &invalid) || invalid.Missing[0] != "phone" || invalid.Unknown[0] != "password" {
		t.Errorf("got %v", err)
	}
	for _, fields := range []map[string]string{
		{"id": "alice", "phone": ""}, {"id": "", "phone": "1"}, {"id": "alice", "phone": "\xff"}, {"id": "alice\xff", "phone": "1"},
	} {
		user, err := source.Authenticate(t.Context(), fields)
		isNoUser(t, user, err)
	}
	if s.requests.Load() != 0 {
		t.Error("the service was asked though nothing could come of it")
	}
}

func TestLookup(t *testing.T) {
	s := newService(t)
	source := open(t, s.options())
	s.answers(200, "application/json", alice)
	if got, err := source.Lookup(t.Context(), "alice"); err != nil || got.Subject != "alice" || got.Attributes["role"] != "admin" {
		t.Errorf("got %v, %v", got, err)
	}
	if s.body != `{"action":"lookup","subject":"alice"}` {
		t.Errorf("asked %s", s.body)
	}
	_, err := source.Lookup(t.Context(), "bob")
	isFault(t, err, users.FaultAnswer, "another subject")
	s.answers(200, "application/json", `{"subject": "alice", "disabled": true}`)
	if _, err := source.Lookup(t.Context(), "alice"); !errors.Is(err, users.ErrDisabled) {
		t.Errorf("disabled: %v", err)
	}
	for _, kind := range []string{"application/json", "application/problem+json"} {
		s.answers(404, kind, `{}`)
		user, err := source.Lookup(t.Context(), "alice")
		isNoUser(t, user, err)
	}
}

// What a wrong token, a wrong route or a broken proxy answers may end no session.
func TestWhatIsNoVerdictOnAUser(t *testing.T) {
	s := newService(t)
	source := open(t, s.options())
	const json = "application/json"
	for name, test := range map[string]struct {
		status     int
		kind, body string
		fault      users.Fault
		says       string
	}{
		"401":                    {401, json, `{}`, users.FaultCredentials, "401"},
		"403":                    {403, json, `{}`, users.FaultCredentials, "403"},
		"404 of a proxy":         {404, "text/html", "<h1>no route</h1>", users.FaultAnswer, "wrong url"},
		"404 without a type":     {404, "", "", users.FaultAnswer, "wrong url"},
		"200 with HTML":          {200, "text/html; charset=utf-8", "<h1>sign in</h1>" + canary, users.FaultAnswer, "application/json"},
		"200 with another kind":  {200, "text/json", alice, users.FaultAnswer, "application/json"},
		"another character set":  {200, "application/json; charset=latin1", alice, users.FaultAnswer, "application/json"},
		"HTML that says JSON":    {200, json, "<h1>sign in</h1>", users.FaultAnswer, "JSON object"},
		"201":                    {201, json, alice, users.FaultAnswer, "201"},
		"204":                    {204, json, "", users.FaultAnswer, "204"},
		"410":                    {410, json, `{}`, users.FaultAnswer, "410"},
		"400":                    {400, json, `{}`, users.FaultAnswer, "400"},
		"429":                    {429, json, `{}`, users.FaultUnavailable, "429"},
		"500":                    {500, json, `{}`, users.FaultUnavailable, "500"},
		"503":                    {503, "text/html", `down`, users.FaultUnavailable, "503"},
		"empty":                  {200, json, ``, users.FaultAnswer, "JSON object"},
		"a list":                 {200, json, `[]`, users.FaultAnswer, "JSON object"},
		"null":                   {200, json, `null`, users.FaultAnswer, "JSON object"},
		"cut short":              {200, json, `{"subject": "alice"`, users.FaultAnswer, "JSON object"},
		"something behind":       {200, json, alice + `{}`, users.FaultAnswer, "JSON object"},
		"no subject":             {200, json, `{}`, users.FaultAnswer, "must have a subject"},
		"an empty subject":       {200, json, `{"subject": ""}`, users.FaultAnswer, "must have a subject"},
		"a subject without end":  {200, json, `{"subject": "` + strings.Repeat("a", 513) + `"}`, users.FaultAnswer, "must have a subject"},
		"a number for a subject": {200, json, `{"subject": 7}`, users.FaultAnswer, "subject"},
		"NUL in the subject":     {200, json, `{"subject": "a\u0000"}`, users.FaultAnswer, "subject"},
		"the subject twice":      {200, json, `{"subject": "` + canary + `", "subject": "alice"}`, users.FaultAnswer, "each name once"},
		"twice, escaped":         {200, json, `{"subject": "alice", "subj\u0065ct": "bob"}`, users.FaultAnswer, "each name once"},
		"an attribute twice":     {200, json, `{"subject": "alice", "attributes": {"role": "guest", "role": "admin"}}`, users.FaultAnswer, "each name once"},
		"another case":           {200, json, `{"Subject": "alice"}`, users.FaultAnswer, `"Subject"`},
		"attributes outside":     {200, json, `{"subject": "alice", "role": "` + canary + `"}`, users.FaultAnswer, `"role"`},
		"disabled is a string":   {200, json, `{"subject": "alice", "disabled": "false"}`, users.FaultAnswer, "disabled"},
		"disabled is null":       {200, json, `{"subject": "alice", "disabled": null}`, users.FaultAnswer, "disabled"},
		"attributes are a list":  {200, json, `{"subject": "alice", "attributes": []}`, users.FaultAnswer, "attributes"},
		"an object inside":       {200, json, `{"subject": "alice", "attributes": {"a": {"b": "` + canary + `"}}}`, users.FaultAnswer, `"a"`},
		"a list in a list":       {200, json, `{"subject": "alice", "attributes": {"a": [["` + canary + `"]]}}`, users.FaultAnswer, `"a"`},
		"a list without end":     {200, json, `{"subject": "alice", "attributes": {"a": [1` + strings.Repeat(",1", 64) + `]}}`, users.FaultAnswer, `"a"`},
		"attributes without end": {200, json, `{"subject": "alice", "attributes": {` + manyAttributes(65) + `}}`, users.FaultAnswer, "65 attributes"},
		"values without end":     {200, json, `{"subject": "alice", "attributes": {"a": [` + strings.Repeat("1,", 5000) + `1]}}`, users.FaultAnswer, "1024 values"},
		"nesting without end":    {200, json, `{"subject": "alice", "attributes": ` + strings.Repeat(`{"a":`, 10_000), users.FaultAnswer, "16 levels"},
		"broken UTF-8":           {200, json, "{\"subject\": \"alice\xff\"}", users.FaultAnswer, "JSON object"},
		"half a character":       {200, json, `{"subject": "\ud800"}`, users.FaultAnswer, "JSON object"},
		"just too long":          {200, json, `{"subject": "alice"}` + strings.Repeat(" ", 64<<10), users.FaultAnswer, "65536 bytes"},
		"10 MB":                  {200, json, `{"subject": "alice", "attributes": {"a": "` + strings.Repeat("x", 10<<20) + `"}}`, users.FaultAnswer, "65536 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			s.answers(test.status, test.kind, test.body)
			_, err := source.Lookup(t.Context(), "alice")
			isFault(t, err, test.fault, test.says)
			if test.status != 401 && test.status != 403 && test.status != 404 {
				_, err = source.Authenticate(t.Context(), login("alice", canary))
				isFault(t, err, test.fault, test.says)
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

func TestRedirectsAreNotFollowed(t *testing.T) {
	elsewhere := newService(t)
	elsewhere.answers(200, "application/json", alice)
	s := newService(t)
	source := open(t, s.options())
	for _, status := range []int{301, 302, 303, 307, 308} {
		s.does(func(w nethttp.ResponseWriter, r *nethttp.Request) { nethttp.Redirect(w, r, elsewhere.URL, status) })
		_, err := source.Authenticate(t.Context(), login("alice", canary))
		isFault(t, err, users.FaultAnswer, "redirect")
		_, err = source.Lookup(t.Context(), "alice")
		isFault(t, err, users.FaultAnswer, "redirect")
	}
	if elsewhere.requests.Load() != 0 {
		t.Error("a password was carried elsewhere")
	}
}

// Each of them is what an https URL at a port without TLS leads to.
func TestAServerWithoutTLSIsToldAsOne(t *testing.T) {
	for name, test := range map[string]struct {
		greeting string
		fault    users.Fault
		says     string
	}{
		"it waits for more":        {"", users.FaultTimeout, "speaks no TLS"},
		"it answers at once":       {"220 ready\r\n", users.FaultTLS, "without TLS"},
		"it answers in plain HTTP": {"HTTP/1.1 400 Bad Request\r\n\r\n", users.FaultTLS, "speaks http"},
	} {
		t.Run(name, func(t *testing.T) {
			o := http.Options{URL: "https://users.example/", Timeout: 2 * time.Second}
			if test.fault == users.FaultTLS {
				o.Timeout = 20 * time.Second
			}
			o.Dial = func(context.Context, string, string) (net.Conn, error) {
				ours, theirs := net.Pipe()
				t.Cleanup(func() { _ = theirs.Close() })
				go func() { _, _ = io.Copy(io.Discard, theirs) }()
				go func() { _, _ = io.WriteString(theirs, test.greeting) }()
				return ours, nil
			}
			_, err := open(t, o).Lookup(t.Context(), "alice")
			isFault(t, err, test.fault, test.says)
		})
	}
}

func TestAServiceThatIsSlowIsAnOutage(t *testing.T) {
	s := newService(t)
	release := make(chan struct{})
	t.Cleanup(func() { close(release) }) // before the server waits for its handlers
	o := s.options()
	o.Timeout = 300 * time.Millisecond
	source := open(t, o)
	for name, answer := range map[string]nethttp.HandlerFunc{
		"before the header": func(nethttp.ResponseWriter, *nethttp.Request) { <-release },
		"in the body": func(w nethttp.ResponseWriter, _ *nethttp.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"subject": `)
			_ = nethttp.NewResponseController(w).Flush()
			<-release
		},
	} {
		t.Run(name, func(t *testing.T) {
			s.does(answer)
			_, err := source.Lookup(t.Context(), "alice")
			isFault(t, err, users.FaultTimeout, "in time")
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := source.Lookup(ctx, "alice"); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that gives up: %v", err)
	}
}

func TestConnections(t *testing.T) {
	s := newService(t)
	s.answers(200, "application/json", alice)
	for name, test := range map[string]struct {
		change func(*http.Options)
		fault  users.Fault
		says   string
	}{
		"a certificate of nobody": {func(o *http.Options) { o.CA = nil }, users.FaultTLS, "not trusted"},
		"another's certificate": {func(o *http.Options) {
			o.URL = strings.Replace(o.URL, "127.0.0.1", "127.0.0.2", 1)
			o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				return loopback().DialContext(ctx, network, strings.Replace(address, "127.0.0.2", "127.0.0.1", 1))
			}
		}, users.FaultTLS, "not for the host"},
		"no TLS at all":     {func(o *http.Options) { o.URL = "https://" + plain(t) }, users.FaultTLS, "not https"},
		"nobody listens":    {func(o *http.Options) { o.URL = "https://" + closedPort(t) }, users.FaultAddress, "nothing answers"},
		"loopback":          {func(o *http.Options) { o.Dial = outbound.Guard{}.DialContext }, users.FaultAddress, "loopback"},
		"loopback, by name": {func(o *http.Options) { o.Dial = outbound.Guard{}.DialContext; o.URL = "https://localhost:1" }, users.FaultAddress, "loopback"},
		"metadata":          {func(o *http.Options) { o.Dial = outbound.Guard{}.DialContext; o.URL = "https://169.254.169.254/latest" }, users.FaultAddress, "link-local"},
		"metadata, in decimal": {func(o *http.Options) {
			o.Dial = outbound.Guard{}.DialContext
			o.URL = "https://[::ffff:a9fe:a9fe]/latest"
		}, users.FaultAddress, "link-local"},
	} {
		t.Run(name, func(t *testing.T) {
			o := s.options()
			test.change(&o)
			source := open(t, o)
			isFault(t, source.Check(t.Context()), test.fault, test.says)
			_, err := source.Authenticate(t.Context(), login("alice", canary))
			isFault(t, err, test.fault, test.says)
		})
	}
}

func plain(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(nethttp.NotFoundHandler())
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func closedPort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

// A proxy would resolve the name itself, and where it leads to nobody would check.
func TestNoProxyIsUsed(t *testing.T) {
	s := newService(t)
	s.answers(200, "application/json", alice)
	var proxied atomic.Int32
	proxy := httptest.NewServer(nethttp.HandlerFunc(func(nethttp.ResponseWriter, *nethttp.Request) { proxied.Add(1) }))
	t.Cleanup(proxy.Close)
	t.Setenv("HTTPS_PROXY", proxy.URL)
	t.Setenv("https_proxy", proxy.URL)
	o := s.options()
	o.URL = "https://users.example/" // the environment's proxy is never used for loopback
	o.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return loopback().DialContext(ctx, network, s.Listener.Addr().String())
	}
	_, err := open(t, o).Lookup(t.Context(), "alice")
	if proxied.Load() != 0 || s.requests.Load() == 0 && err != nil && !strings.Contains(err.Error(), "certificate") {
		t.Errorf("%d requests at the proxy, %v", proxied.Load(), err)
	}
}

func TestCheckSaysWhatAnswersHaveShown(t *testing.T) {
	s := newService(t)
	o := s.options()
	clock := time.Unix(1_800_000_000, 0)
	o.Now = func() time.Time { return clock }
	source := open(t, o)
	s.answers(404, "application/json", `{}`)
	if err := source.Check(t.Context()); err != nil {
		t.Errorf("a service that does not know the subject is as it should be: %v", err)
	}
	if s.body != `{"action":"lookup","subject":"`+http.CheckSubject+`"}` {
		t.Errorf("asked %s", s.body)
	}
	s.answers(200, "application/json", `{"name": "alice"}`)
	if _, err := source.Authenticate(t.Context(), login("alice", "x")); err == nil {
		t.Fatal("no error")
	}
	s.answers(404, "application/json", `{}`)
	isFault(t, source.Check(t.Context()), users.FaultAnswer, `"name"`)
	clock = clock.Add(time.Hour)
	if err := source.Check(t.Context()); err != nil {
		t.Errorf("an hour later: %v", err)
	}
	s.answers(401, "application/json", `{}`)
	isFault(t, source.Check(t.Context()), users.FaultCredentials, "bearer token")
}

func TestOptionsAreRefusedByName(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*http.Options)
		says   string
	}{
		"no URL":              {func(o *http.Options) { o.URL = "" }, "url:"},
		"http":                {func(o *http.Options) { o.URL = "http://users.example" }, "https"},
		"no scheme":           {func(o *http.Options) { o.URL = "users.example/path" }, "url:"},
		"opaque":              {func(o *http.Options) { o.URL = "https:users.example" }, "url:"},
		"a file":              {func(o *http.Options) { o.URL = "file:///etc/passwd" }, "url:"},
		"a password":          {func(o *http.Options) { o.URL = "https://u:" + canary + "@users.example" }, "bearer token"},
		"broken":              {func(o *http.Options) { o.URL = "https://users.example/%zz" + canary }, "url:"},
		"a fragment":          {func(o *http.Options) { o.URL = "https://users.example/#" + canary }, "fragment"},
		"a token of two":      {func(o *http.Options) { o.Token = users.NewCredential(canary + "\r\nX: y") }, "token:"},
		"a token with spaces": {func(o *http.Options) { o.Token = users.NewCredential("Bearer " + canary) }, "token:"},
		"a token without end": {func(o *http.Options) { o.Token = users.NewCredential(strings.Repeat("a", 9000)) }, "token:"},
		"a CA that is none":   {func(o *http.Options) { o.CA = []byte(canary) }, "ca.crt:"},
		"no dialler":          {func(o *http.Options) { o.Dial = nil }, "dial"},
	} {
		t.Run(name, func(t *testing.T) {
			o := http.Options{URL: "https://users.example", Dial: loopback().DialContext}
			test.change(&o)
			if _, err := http.New(o); err == nil || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), canary) {
				t.Errorf("got %v, want %q", err, test.says)
			}
		})
	}
}
