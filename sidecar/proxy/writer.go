// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"time"
)

const (
	// unreadTimeout is for a client to send the body of a request that was refused.
	unreadTimeout = 3 * time.Second
	// maxUnread bounds what of it is read over HTTP/2, in bytes.
	maxUnread = 1 << 20
)

// responseWriter stands between the reverse proxy and the server, for the three
// things that the proxy does not let others see: informational answers, trailers, and
// the end of HTTP.
type responseWriter struct {
	http.ResponseWriter
	exchange *exchange
	began    bool
}

// Unwrap is for [http.ResponseController].
func (w *responseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader keeps the token's header out of informational answers (threat model
// row 17), and ends the connection of an upgrade that did not happen: what the client
// sent after its request is not HTTP.
func (w *responseWriter) WriteHeader(status int) {
	if status >= 100 && status < 200 && status != http.StatusSwitchingProtocols {
		w.strip("")
	} else {
		w.began = true
		w.boundBody()
		if (w.exchange.upgrade || w.exchange.Leaving()) && status != http.StatusSwitchingProtocols {
			w.Header().Set("Connection", "close") // over HTTP/2 the server makes a GOAWAY of it
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

// boundBody limits how long the server waits for a body that nobody reads before it
// sends an answer of ours: it would wait for ever, and hold a connection for anybody
// who promises a body and sends none. After the limit it answers, and closes.
func (w *responseWriter) boundBody() {
	if r := w.exchange.request; r.ProtoMajor == 1 && r.ContentLength != 0 && !w.exchange.forwarded {
		_ = http.NewResponseController(w.ResponseWriter).SetReadDeadline(time.Now().Add(unreadTimeout))
	}
}

// drainStream reads what the client sends of a refused body over HTTP/2. The server
// resets the stream of a handler that has returned, and clients, curl among them, that
// still send then lose the answer. A gRPC client does not, and may send for ever.
func (w *responseWriter) drainStream() {
	x := w.exchange
	if r := x.request; r.ProtoMajor == 2 && r.ContentLength != 0 && !x.forwarded && !x.isGRPC() {
		_ = http.NewResponseController(w.ResponseWriter).SetReadDeadline(time.Now().Add(unreadTimeout))
		_, _ = io.CopyN(io.Discard, r.Body, maxUnread)
	}
}

// Write begins the answer as the server would.
func (w *responseWriter) Write(p []byte) (int, error) {
	if !w.began {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(p)
}

// Hijack hands the connection over after 101.
func (w *responseWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil && w.exchange.conn != nil {
		w.exchange.conn.Release()
	}
	return conn, rw, err
}

// stripTrailers takes the token's header out of trailers that the application sent
// and the server has not written yet.
func (w *responseWriter) stripTrailers() {
	w.strip("")
	w.strip(http.TrailerPrefix)
}

func (w *responseWriter) strip(prefix string) {
	for name := range w.Header() {
		if len(name) >= len(prefix) && name[:len(prefix)] == prefix && w.exchange.policy.CarriesToken(name[len(prefix):]) {
			delete(w.Header(), name)
		}
	}
}
