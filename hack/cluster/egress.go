// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// target is one port of a Service.
type target struct {
	namespace, service string
	port               int
}

func (t target) String() string { return fmt.Sprintf("%s/%s:%d", t.namespace, t.service, t.port) }

// egress is the API server's way into the cluster network: an HTTP CONNECT proxy
// on a unix socket, as in KEP-1281. Only routed Services are reached.
type egress struct {
	dir    string // of the socket; short, as a socket's path has at most 107 bytes
	server *http.Server

	mu     sync.RWMutex
	kube   kubernetes.Interface
	routes map[target]string
}

func startEgress(ctx context.Context) (*egress, error) {
	dir, err := os.MkdirTemp("", "tw-")
	if err != nil {
		return nil, fmt.Errorf("make the folder of the egress socket: %w", err)
	}
	e := &egress{dir: dir, routes: map[target]string{}}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", e.socket())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on the egress socket: %w", err), os.RemoveAll(dir))
	}
	e.server = &http.Server{Handler: http.HandlerFunc(e.connect), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = e.server.Serve(listener) }() // ends with stop, and says nothing else
	return e, nil
}

func (e *egress) socket() string { return filepath.Join(e.dir, "egress.sock") }

func (e *egress) stop() error { return errors.Join(e.server.Close(), os.RemoveAll(e.dir)) }

// configuration is the EgressSelectorConfiguration for kube-apiserver.
func (e *egress) configuration() []byte {
	type object = map[string]any
	content, err := json.Marshal(object{
		"apiVersion": "apiserver.k8s.io/v1beta1",
		"kind":       "EgressSelectorConfiguration",
		"egressSelections": []object{{
			"name": "cluster",
			"connection": object{
				"proxyProtocol": "HTTPConnect",
				"transport":     object{"uds": object{"udsName": e.socket()}},
			},
		}},
	})
	if err != nil {
		panic(err) // strings and maps always marshal
	}
	return content
}

func (e *egress) lookUpWith(kube kubernetes.Interface) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.kube = kube
}

func (e *egress) route(to target, local string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.routes[to] = local
}

// connect serves one CONNECT. A refusal is told in the status line, which is all
// that the API server repeats in its own error.
func (e *egress) connect(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect {
		http.Error(w, "only CONNECT", http.StatusMethodNotAllowed)
		return
	}
	upstream, dialErr := e.dial(r.Context(), r.Host)
	if dialErr == nil {
		defer func() { _ = upstream.Close() }()
	}
	downstream, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return // the connection is gone
	}
	defer func() { _ = downstream.Close() }()
	if dialErr != nil {
		_, _ = fmt.Fprintf(downstream, "HTTP/1.1 502 %s\r\nContent-Length: 0\r\n\r\n", dialErr)
		return
	}
	if _, err := io.WriteString(downstream, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		return
	}
	ended := make(chan struct{}, 2)
	for _, pair := range [][2]net.Conn{{upstream, downstream}, {downstream, upstream}} {
		go func() {
			_, _ = io.Copy(pair[0], pair[1]) // either side may hang up at any time
			ended <- struct{}{}
		}()
	}
	<-ended // TLS has no half-closed connections worth keeping
}

// dial finds the Service that has the address and dials where it is routed to.
func (e *egress) dial(ctx context.Context, address string) (net.Conn, error) {
	to, err := e.resolve(ctx, address)
	if err != nil {
		return nil, err
	}
	e.mu.RLock()
	local, ok := e.routes[to]
	e.mu.RUnlock()
	if !ok {
		return nil, fmt.Errorf("no route for Service %s", to)
	}
	dialer := net.Dialer{Timeout: 5 * time.Second}
	return dialer.DialContext(ctx, "tcp", local)
}

// resolve asks the API server which Service has the ClusterIP and port of address.
func (e *egress) resolve(ctx context.Context, address string) (target, error) {
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return target{}, err
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return target{}, fmt.Errorf("port %q is not a number", portText)
	}
	e.mu.RLock()
	kube := e.kube
	e.mu.RUnlock()
	if kube == nil {
		return target{}, errors.New("the control plane is still starting")
	}
	services, err := kube.CoreV1().Services(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return target{}, fmt.Errorf("list Services: %w", err)
	}
	for _, service := range services.Items {
		if service.Spec.ClusterIP == host {
			return target{namespace: service.Namespace, service: service.Name, port: port}, nil
		}
	}
	return target{}, fmt.Errorf("no Service has the address %s", host)
}
