// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/tokenward/tokenward/internal/settings"
	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/sidecar/admin"
)

func (w *world) readiness() (int, admin.Readiness) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.admin+"/readyz", nil)
	if err != nil {
		w.t.Fatal(err)
	}
	res, err := w.client.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var r admin.Readiness
	if err := json.NewDecoder(res.Body).Decode(&r); err != nil {
		w.t.Fatal(err)
	}
	return res.StatusCode, r
}

func TestReloadUnderLoadDropsNothing(t *testing.T) {
	w := newWorld(t)
	raw := w.signer.token()
	var served atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if a := w.do("GET", "/x", bearer(raw)); a.Status != 200 {
					t.Errorf("status %d: %s", a.Status, a.Body)
					return
				}
				served.Add(1)
			}
		})
	}
	for generation := int64(2); generation < 22; generation++ {
		w.publish(w.settings(func(s *settings.Settings) { s.Policy.Generation = generation }))
		eventually(t, "the settings are in force", func() bool { _, r := w.readiness(); return r.Settings.Generation == generation })
	}
	close(stop)
	wg.Wait()
	if served.Load() < 100 {
		t.Fatalf("only %d requests in the meantime", served.Load())
	}
}

func TestChangedSettingsForgetRememberedTokens(t *testing.T) {
	w := newWorld(t)
	raw := w.signer.token()
	if a := w.do("GET", "/x", bearer(raw)); a.Status != 200 {
		t.Fatal("not valid to begin with")
	}
	w.publish(w.settings(func(s *settings.Settings) { s.Audiences = []string{"other"}; s.Policy.Generation = 2 }))
	eventually(t, "the token is refused", func() bool { return w.do("GET", "/x", bearer(raw)).Status == 403 })
	if a := w.do("GET", "/x", bearer(raw)); a.reason(t) != token.AudienceMismatch {
		t.Fatalf("reason %s", a.reason(t))
	}
}

func TestRemovedKeyStopsVerifying(t *testing.T) {
	w := newWorld(t)
	raw := w.signer.token()
	if a := w.do("GET", "/x", bearer(raw)); a.Status != 200 {
		t.Fatal("not valid to begin with")
	}
	other := newSigner(t)
	keys, err := json.Marshal(other.keys(2))
	if err != nil {
		t.Fatal(err)
	}
	w.issuer.set(func() { w.issuer.keys = other.keys(2) })
	w.publish(w.settings(func(s *settings.Settings) { s.Keys = keys }))
	eventually(t, "the new keys are in force", func() bool { return w.metric("tokenward_sidecar_key_set_version 2") })
	if a := w.do("GET", "/x", bearer(raw)); a.Status != 403 || a.reason(t) != token.KeyUnknown {
		t.Fatalf("status %d: %s", a.Status, a.Body)
	}
	// The file of before comes back: the removed key does not.
	w.publish(w.settings(func(s *settings.Settings) { s.Policy.Generation = 3 }))
	eventually(t, "the settings are in force", func() bool { _, r := w.readiness(); return r.Settings.Generation == 3 })
	if a := w.do("GET", "/x", bearer(raw)); a.Status != 403 {
		t.Fatalf("an older key set replaced a newer one: status %d", a.Status)
	}
}

func TestBrokenSettingsChangeNothing(t *testing.T) {
	w := newWorld(t)
	w.publishBytes([]byte(`{"version":1,"minReader":1,"enforcement":"Audit"`))
	eventually(t, "the file is found to be broken", func() bool { return w.metric("tokenward_sidecar_settings_broken 1") })
	if a := w.do("GET", "/x", bearer(w.signer.token())); a.Status != 200 {
		t.Errorf("a valid token: status %d", a.Status)
	}
	if a := w.do("GET", "/x"); a.Status != 403 {
		t.Errorf("no token: status %d", a.Status)
	}
	status, r := w.readiness()
	if status != 200 || !r.Ready || r.Settings.Error == "" || r.Settings.Generation != 1 {
		t.Errorf("readiness %d %+v", status, r)
	}
	if !strings.Contains(w.logs.String(), "the last good ones stay in force") || !w.metric(`tokenward_sidecar_settings_reloads_total{result="refused"} 1`) {
		t.Error("neither log nor metric says so")
	}
	// Keys from the issuer are taken, and the file is as broken as before.
	other := newSigner(t)
	w.issuer.set(func() { w.issuer.keys = w.signer.keys(2, other) })
	if a := w.do("GET", "/x", bearer(other.token())); a.Status != 200 {
		t.Errorf("a token of a new key: status %d", a.Status)
	}
	if _, r := w.readiness(); r.Settings.Error == "" || r.Settings.KeySetVersion != 2 {
		t.Errorf("after new keys: %+v", r.Settings)
	}
	w.publish(w.settings(func(s *settings.Settings) { s.Policy.Generation = 2 }))
	eventually(t, "good settings are taken", func() bool { _, r := w.readiness(); return r.Settings.Generation == 2 && r.Settings.Error == "" })
}

func TestSettingsThatCouldNotBeReadComeBackUnchanged(t *testing.T) {
	w := newWorld(t)
	// A directory in the place of the file opens and cannot be read; it never is absent.
	data, unreadable := filepath.Join(w.dir, "..data"), filepath.Join(w.dir, "..unreadable")
	if err := errors.Join(os.MkdirAll(filepath.Join(unreadable, settings.Key), 0o700), os.Symlink("..unreadable", data+"1"), os.Rename(data+"1", data)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the file cannot be read", func() bool { return w.metric("tokenward_sidecar_settings_broken 1") })
	w.publish(w.settings())
	eventually(t, "it can be read again", func() bool { return w.metric("tokenward_sidecar_settings_broken 0") })
}

func TestStartWithoutSettings(t *testing.T) {
	w := &world{t: t, signer: newSigner(t), backend: newBackend(t), issuer: newFakeIssuer(t), dir: t.TempDir(), logs: &lockedBuffer{}, done: make(chan error, 1)}
	w.start()
	if a := w.do("GET", "/public"); a.Status != 503 || a.Header.Get("Retry-After") == "" {
		t.Errorf("status %d: %s", a.Status, a.Body)
	}
	if status, r := w.readiness(); status != 503 || r.Ready || r.Reason == "" {
		t.Errorf("readiness %d %+v", status, r)
	}
	if len(w.backend.take()) != 0 {
		t.Error("the application saw a request before there were settings")
	}
	w.publish(w.settings())
	eventually(t, "settings that come later are taken", func() bool { status, _ := w.readiness(); return status == 200 })
	if a := w.do("GET", "/public"); a.Status != 200 {
		t.Errorf("status %d", a.Status)
	}
}

func TestShutdownFinishesWhatIsInFlight(t *testing.T) {
	w := newWorld(t)
	entered, release := make(chan struct{}, 2), make(chan struct{})
	w.backend.handle(func(rw http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		if r.Header.Get("Upgrade") != "" {
			echoWebSocket(t, func() {})(rw, r)
			return
		}
		<-release
		_, _ = io.WriteString(rw, "finished")
	})
	socket := dialRaw(t, w.addr)
	socket.send("GET /stream HTTP/1.1\r\n" + webSocketHead + "Authorization: Bearer " + w.signer.token() + "\r\n\r\n")
	if res := socket.response(); res.StatusCode != 101 {
		t.Fatalf("status %d", res.StatusCode)
	}
	slow := make(chan answer, 1)
	go func() { slow <- w.do("GET", "/slow", bearer(w.signer.token())) }()
	<-entered
	<-entered
	w.stop()
	eventually(t, "readiness is gone", func() bool { status, r := w.readiness(); return status == 503 && strings.Contains(r.Reason, "ending") })
	eventually(t, "nobody new is let in", func() bool {
		c, err := net.Dial("tcp", w.addr)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	socket.echo("still open")
	close(release)
	if a := <-slow; a.Status != 200 || a.Body != "finished" {
		t.Errorf("the request in flight: status %d %q", a.Status, a.Body)
	}
	select {
	case err := <-w.done:
		t.Fatalf("ended under an open WebSocket: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	_ = socket.Close()
	select {
	case err := <-w.done:
		if err != nil {
			t.Fatal(err)
		}
		w.done <- nil
	case <-time.After(deadline):
		t.Fatal("does not end after the last stream")
	}
}

// TestSecretsStayOut sends canaries every way a client and an issuer can, and looks
// for them in logs, metrics and readiness.
func TestSecretsStayOut(t *testing.T) {
	w := newWorld(t)
	const password = "password-canary"
	valid, old := w.signer.token(), w.signer.token(expired)
	foreign := newSigner(t).token()
	w.issuer.set(func() {
		w.issuer.login = func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	})
	w.do("POST", "/auth/token", header("Content-Type", "application/json"), body(`{"password":"`+password+`"}`))
	for _, raw := range []string{valid, old, foreign, valid + "x", strings.Repeat("token-canary", 1000)} {
		w.do("GET", "/x", bearer(raw))
		w.do("GET", "/x?access_token="+raw)
		w.do("GET", "/a//b?access_token="+raw)
		w.do("GET", "/auth/me", bearer(raw))
		w.do("POST", "/auth/logout", bearer(raw), header("Authorization", "Bearer "+raw))
	}
	w.issuer.set(func() { w.issuer.down = true })
	w.do("GET", "/x", bearer(w.signer.token(expired, session("s2"))))
	w.backend.server.Close()
	w.do("GET", "/public", bearer(valid))
	_, readiness := w.readiness()
	detail, err := json.Marshal(readiness)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"logs": w.logs.String(), "metrics": w.metrics(), "readiness": string(detail)} {
		if len(text) < 50 {
			t.Fatalf("there are no %s", name)
		}
		for _, canary := range []string{password, "token-canary", "pod-identity-canary", "eyJ", strings.Split(valid, ".")[2], strings.Split(old, ".")[1], strings.Split(foreign, ".")[2]} {
			if i := strings.Index(text, canary); i >= 0 {
				t.Errorf("%q is in the %s: %s", canary, name, text[max(0, i-100):min(len(text), i+100)])
			}
		}
	}
}

func TestMetricsCanBeParsed(t *testing.T) {
	w := newWorld(t)
	w.do("GET", "/x", bearer(w.signer.token(expired)))
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(w.metrics()))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(families["tokenward_sidecar_denials_total"].GetMetric()); n != len(token.Reasons()) {
		t.Errorf("%d reasons, want %d from the start", n, len(token.Reasons()))
	}
	var refreshes uint64
	for _, m := range families["tokenward_sidecar_issuer_call_duration_seconds"].GetMetric() {
		h := m.GetHistogram()
		if b := h.GetBucket(); b[len(b)-1].GetCumulativeCount() != h.GetSampleCount() {
			t.Errorf("buckets do not add up: %v", m)
		}
		if m.GetLabel()[0].GetValue() == "refresh" {
			refreshes = h.GetSampleCount()
		}
	}
	if refreshes != 1 {
		t.Errorf("%d refreshes timed, want 1", refreshes)
	}
	for name, f := range families {
		if f.GetHelp() == "" || !strings.HasPrefix(name, "tokenward_sidecar_") {
			t.Errorf("family %s: %q", name, f.GetHelp())
		}
	}
}
