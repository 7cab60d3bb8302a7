// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package issuer_test

import (
	"context"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/tokenward/tokenward/internal/protocol"
)

// wires are connections that can go silent, as when the machine at their other end is gone.
type wires struct {
	mu   sync.Mutex
	open []*wire
}

type wire struct {
	net.Conn
	silent, closed chan struct{}
	close          func() error
}

func (w *wires) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	closed := make(chan struct{})
	one := &wire{Conn: conn, silent: make(chan struct{}), closed: closed, close: sync.OnceValue(func() error { close(closed); return conn.Close() })}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open = append(w.open, one)
	return one, nil
}

// cut makes all that are open silent, for good; others may be opened.
func (w *wires) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, one := range w.open {
		close(one.silent)
	}
	w.open = nil
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	select {
	case <-w.silent:
		<-w.closed
		return 0, net.ErrClosed
	default:
		return n, err
	}
}

func (w *wire) Write(p []byte) (int, error) {
	select {
	case <-w.silent:
		return len(p), nil
	default:
		return w.Conn.Write(p)
	}
}

func (w *wire) Close() error { return w.close() }

// TestAnAPIServerThatGoesWithoutAWordIsNoticed holds that what config/issuer/deployment.yaml
// sets for that is what client-go goes by; here in seconds that a test can wait for.
func TestAnAPIServerThatGoesWithoutAWordIsNoticed(t *testing.T) {
	content, err := os.ReadFile("../config/issuer/deployment.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var deployment appsv1.Deployment
	if err := yaml.Unmarshal(content, &deployment); err != nil {
		t.Fatal(err)
	}
	var set []string
	for _, variable := range deployment.Spec.Template.Spec.Containers[0].Env {
		if strings.HasPrefix(variable.Name, "HTTP2_") {
			t.Setenv(variable.Name, "1")
			set = append(set, variable.Name)
		}
	}
	if len(set) != 2 {
		t.Fatalf("the deployment sets %v", set)
	}

	n := newTenant(t)
	n.grant()
	var connections wires
	as := rest.CopyConfig(shared.config)
	as.Impersonate = asIssuer
	as.Dial = connections.dial
	i := startIssuerAs(t, as, n.clock)
	n.serving(i)
	raw := n.login(i, "alice", rightPassword).token
	n.expire()
	connections.cut()
	began := time.Now()
	eventually(t, "a refresh is granted over another connection", func() (bool, string) {
		got := n.exchange(i, protocol.CallRefresh, raw)
		return got.status == http.StatusOK, got.String()
	})
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("after %s: client-go has gone by its own 45 s", took)
	}
}
