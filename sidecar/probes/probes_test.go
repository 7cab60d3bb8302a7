// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package probes_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/tokenward/tokenward/internal/probe"
	"github.com/tokenward/tokenward/sidecar/probes"
)

// ask is what the kubelet does: its own headers, and a path on the admin port.
func ask(t *testing.T, h http.Handler, name string) (status int, body string) {
	t.Helper()
	request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/probes/"+name+"?from=asking", http.NoBody)
	request.Header.Set("X-Asking", "yes")
	request.Header.Set("User-Agent", "asking")
	request = request.WithContext(context.WithValue(request.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.ParseIP("10.1.2.3"), Port: 18081}))
	recorder := httptest.NewRecorder()
	h.ServeHTTP(recorder, request)
	return recorder.Code, recorder.Body.String()
}

func one(p probe.Probe, upstream string) *probes.Handler {
	p.TimeoutSeconds = max(p.TimeoutSeconds, 30)
	return probes.New(map[string]probe.Probe{"app/readiness": p}, upstream)
}

// requests is what has reached an application.
type requests struct {
	mu  sync.Mutex
	all []*http.Request
}

func (r *requests) add(request *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, request)
}

func (r *requests) get() []*http.Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all
}

// application records what reaches it.
func application(t *testing.T, start func(*httptest.Server), handler http.HandlerFunc) (upstream string, seen *requests) {
	t.Helper()
	seen = &requests{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen.add(r)
		handler(w, r)
	}))
	start(server)
	t.Cleanup(server.Close)
	return server.Listener.Addr().String(), seen
}

func ok(http.ResponseWriter, *http.Request) {}

func TestAnHTTPProbeIsMadeAsDeclared(t *testing.T) {
	upstream, seen := application(t, (*httptest.Server).Start, ok)
	_, port, _ := net.SplitHostPort(upstream)
	declared := probe.HTTP{Path: "/ready/%2e?deep=1&b", Headers: []probe.Header{{Name: "x-probe", Value: "a"}, {Name: "X-Probe", Value: "b"}}}
	if status, body := ask(t, one(probe.Probe{HTTP: &declared}, upstream), "app/readiness"); status != http.StatusOK {
		t.Fatalf("status %d: %s", status, body)
	}
	got := seen.get()[0]
	if got.Method != http.MethodGet || got.RequestURI != "/ready/%2e?deep=1&b" || got.ProtoMajor != 1 {
		t.Errorf("%s %s %s", got.Method, got.RequestURI, got.Proto)
	}
	if got.Host != net.JoinHostPort("10.1.2.3", port) {
		t.Errorf("host %s, want the pod's address and the application's port", got.Host)
	}
	want := http.Header{"X-Probe": {"a", "b"}, "User-Agent": {"kube-probe/tokenward"}, "Accept": {"*/*"}, "Connection": {"close"}}
	for name, values := range got.Header {
		if strings.Join(values, ",") != strings.Join(want[name], ",") {
			t.Errorf("header %s: %q, want %q", name, values, want[name])
		}
	}
	if len(got.Header) != len(want) {
		t.Errorf("headers %v", got.Header)
	}

	declared.Headers = []probe.Header{{Name: "Host", Value: "shop.example.com"}, {Name: "User-Agent"}, {Name: "Accept"}}
	ask(t, one(probe.Probe{HTTP: &declared}, upstream), "app/readiness")
	got = seen.get()[1]
	if got.Host != "shop.example.com" || got.Header["User-Agent"] != nil || got.Header["Accept"] != nil {
		t.Errorf("host %s, headers %v", got.Host, got.Header)
	}
}

func TestResultsOfHTTPProbes(t *testing.T) {
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		status  int
		seen    int
	}{
		"200":                  {ok, 200, 1},
		"204":                  {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, 200, 1},
		"304":                  {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(304) }, 200, 1},
		"404":                  {http.NotFound, 404, 1},
		"503 with a secret":    {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "secret", http.StatusServiceUnavailable) }, 503, 1},
		"a redirect to itself": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusFound) }, 503, 10},
		"a redirect that ends": {func(w http.ResponseWriter, r *http.Request) { redirectOnce(w, r, "/next") }, 200, 2},
		"a redirect elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://other.example.com/", http.StatusFound)
		}, 200, 1},
		"a redirect by address": {func(w http.ResponseWriter, r *http.Request) { redirectOnce(w, r, "http://"+r.Host+"/next") }, 200, 2},
		"a connection that is cut": {func(http.ResponseWriter, *http.Request) {
			panic(http.ErrAbortHandler)
		}, 503, 1},
	} {
		t.Run(name, func(t *testing.T) {
			upstream, seen := application(t, (*httptest.Server).Start, test.handler)
			status, body := ask(t, one(probe.Probe{HTTP: &probe.HTTP{Path: "/a?key=hidden"}}, upstream), "app/readiness")
			if status != test.status || len(seen.get()) != test.seen {
				t.Errorf("status %d after %d requests, want %d after %d: %s", status, len(seen.get()), test.status, test.seen, body)
			}
			if strings.Contains(body, "secret") || strings.Contains(body, "hidden") {
				t.Errorf("the answer says %q", body)
			}
		})
	}
}

func redirectOnce(w http.ResponseWriter, r *http.Request, to string) {
	if r.URL.Path != "/next" {
		http.Redirect(w, r, to, http.StatusFound)
	}
}

func TestProtocolsOfHTTPProbes(t *testing.T) {
	tls := func(s *httptest.Server) { s.EnableHTTP2 = true; s.StartTLS() }
	h2c := func(s *httptest.Server) {
		s.Config.Protocols = &http.Protocols{}
		s.Config.Protocols.SetUnencryptedHTTP2(true)
		s.Start()
	}
	for name, test := range map[string]struct {
		start    func(*httptest.Server)
		declared probe.HTTP
		status   int
	}{
		"TLS with a certificate of nobody": {tls, probe.HTTP{TLS: true}, 200},
		"HTTP where there is TLS":          {tls, probe.HTTP{}, 400},
		"TLS where there is HTTP":          {(*httptest.Server).Start, probe.HTTP{TLS: true}, 503},
		"HTTP/2 in clear text":             {h2c, probe.HTTP{H2C: true}, 200},
		"HTTP/1.1 where there is HTTP/2":   {h2c, probe.HTTP{}, 503},
	} {
		t.Run(name, func(t *testing.T) {
			upstream, _ := application(t, test.start, ok)
			if status, body := ask(t, one(probe.Probe{HTTP: &test.declared}, upstream), "app/readiness"); status != test.status {
				t.Errorf("status %d, want %d: %s", status, test.status, body)
			}
		})
	}
}

func TestTCPProbes(t *testing.T) {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := one(probe.Probe{TCP: &probe.TCP{}}, listener.Addr().String())
	if status, body := ask(t, h, "app/readiness"); status != http.StatusOK {
		t.Errorf("status %d: %s", status, body)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	if status, body := ask(t, h, "app/readiness"); status != http.StatusServiceUnavailable {
		t.Errorf("with nobody there: status %d: %s", status, body)
	}
}

// Against the server that most applications use.
func TestGRPCProbes(t *testing.T) {
	certificate := httptest.NewTLSServer(http.HandlerFunc(ok))
	defer certificate.Close()
	for name, options := range map[string][]grpc.ServerOption{
		"clear text": nil,
		"TLS":        {grpc.Creds(credentials.NewServerTLSFromCert(&certificate.TLS.Certificates[0]))},
	} {
		t.Run(name, func(t *testing.T) {
			listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			server, states := grpc.NewServer(options...), health.NewServer()
			healthv1.RegisterHealthServer(server, states)
			go func() { _ = server.Serve(listener) }()
			t.Cleanup(server.Stop)
			states.SetServingStatus("shop", healthv1.HealthCheckResponse_SERVING)
			states.SetServingStatus("cellar", healthv1.HealthCheckResponse_NOT_SERVING)
			for service, want := range map[string]int{"": 200, "shop": 200, "cellar": 503, "nobody": 503} {
				h := one(probe.Probe{GRPC: &probe.GRPC{Service: service, TLS: options != nil}}, listener.Addr().String())
				if status, body := ask(t, h, "app/readiness"); status != want {
					t.Errorf("service %q: status %d, want %d: %s", service, status, want, body)
				}
			}
		})
	}
	t.Run("an application that speaks something else", func(t *testing.T) {
		upstream, _ := application(t, (*httptest.Server).Start, ok)
		if status, _ := ask(t, one(probe.Probe{GRPC: &probe.GRPC{}}, upstream), "app/readiness"); status != http.StatusServiceUnavailable {
			t.Errorf("status %d", status)
		}
	})
}

func TestNothingElseIsReachable(t *testing.T) {
	upstream, seen := application(t, (*httptest.Server).Start, ok)
	h := one(probe.Probe{HTTP: &probe.HTTP{Path: "/ready"}}, upstream)
	for _, name := range []string{"", "app", "app/", "app/liveness", "app/readiness/", "app/readiness/x", "/app/readiness", "APP/readiness", "..%2fready"} {
		if status, _ := ask(t, h, name); status != http.StatusNotFound {
			t.Errorf("%q: status %d", name, status)
		}
	}
	if len(seen.get()) != 0 {
		t.Errorf("%d requests reached the application", len(seen.get()))
	}
}

// However many ask, the application has one probe at a time, and all get its result.
func TestManyWhoAskShareOneProbe(t *testing.T) {
	const many = 20
	began, finish := make(chan struct{}, many), make(chan struct{})
	upstream, seen := application(t, (*httptest.Server).Start, func(http.ResponseWriter, *http.Request) {
		began <- struct{}{}
		<-finish
	})
	h := one(probe.Probe{HTTP: &probe.HTTP{}}, upstream)
	var asking sync.WaitGroup
	first := make(chan int, 1)
	asking.Go(func() { status, _ := ask(t, h, "app/readiness"); first <- status })
	<-began // from here on the probe runs until finish
	for range many {
		ctx, gone := context.WithCancel(t.Context())
		gone() // who asks and goes does not end it either
		request := httptest.NewRequestWithContext(ctx, http.MethodGet, "/probes/app/readiness", http.NoBody)
		recorder := httptest.NewRecorder()
		h.ServeHTTP(recorder, request)
		if recorder.Code != http.StatusServiceUnavailable {
			t.Errorf("who has gone gets status %d", recorder.Code)
		}
	}
	close(finish)
	asking.Wait()
	if status := <-first; status != http.StatusOK || len(seen.get()) != 1 {
		t.Errorf("status %d, and %d probes reached the application", status, len(seen.get()))
	}
}

func TestAProbeEndsAtItsTimeout(t *testing.T) {
	upstream, _ := application(t, (*httptest.Server).Start, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	h := probes.New(map[string]probe.Probe{"app/readiness": {TimeoutSeconds: 1, HTTP: &probe.HTTP{}}}, upstream)
	began := time.Now()
	if status, body := ask(t, h, "app/readiness"); status != http.StatusServiceUnavailable || time.Since(began) < time.Second {
		t.Errorf("status %d after %s: %s", status, time.Since(began), body)
	}
}
