// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tokenward/tokenward/internal/settings"
	"github.com/tokenward/tokenward/sidecar/decide"
	"github.com/tokenward/tokenward/sidecar/metrics"
)

// forwarder sends requests to the application over one version of HTTP.
type forwarder struct{ httputil.ReverseProxy }

func newForwarder(transport http.RoundTripper) *forwarder {
	return &forwarder{httputil.ReverseProxy{
		Transport:      transport,
		Rewrite:        func(pr *httputil.ProxyRequest) { exchangeOf(pr.In).rewrite(pr) },
		ModifyResponse: func(res *http.Response) error { return exchangeOf(res.Request).modify(res) },
		ErrorHandler:   func(_ http.ResponseWriter, r *http.Request, err error) { exchangeOf(r).failed(err) },
		BufferPool:     &buffers{},
		// What the reverse proxy would print are a client's or an application's
		// broken connections, which metrics count.
		ErrorLog: log.New(discard{}, "", 0),
	}}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func dialer(upstream string) func(context.Context, string, string) (net.Conn, error) {
	d := &net.Dialer{Timeout: 5 * time.Second}
	return func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "tcp", upstream) }
}

// upstreamIdle is how long a connection to the application is kept without a request. It is
// below what applications keep theirs (2 s for some, 5 s for many), so that they are
// not the ones who close it: a request that meets that cannot be sent again. To connect
// anew on loopback costs next to nothing.
const upstreamIdle = time.Second

func http1Transport(upstream string) http.RoundTripper {
	return &http.Transport{
		DialContext:           dialer(upstream),
		MaxIdleConns:          256,
		MaxIdleConnsPerHost:   256,
		IdleConnTimeout:       upstreamIdle,
		ExpectContinueTimeout: time.Second,
		DisableCompression:    true,
	}
}

// http2Transport speaks HTTP/2 with prior knowledge: a client that does so to us did
// it to the application before.
func http2Transport(upstream string) http.RoundTripper {
	protocols := &http.Protocols{}
	protocols.SetUnencryptedHTTP2(true)
	return &http.Transport{DialContext: dialer(upstream), Protocols: protocols, IdleConnTimeout: 90 * time.Second, DisableCompression: true}
}

// buffers are shared by copies of bodies.
type buffers struct{ pool sync.Pool }

const bufferSize = 8 << 10

// Get is for httputil.BufferPool.
func (b *buffers) Get() []byte {
	if buf, ok := b.pool.Get().(*[bufferSize]byte); ok {
		return buf[:]
	}
	return make([]byte, bufferSize)
}

// Put is for httputil.BufferPool.
func (b *buffers) Put(buf []byte) {
	if len(buf) == bufferSize {
		b.pool.Put((*[bufferSize]byte)(buf))
	}
}

type exchangeKey struct{}

func exchangeOf(r *http.Request) *exchange {
	x, _ := r.Context().Value(exchangeKey{}).(*exchange)
	return x
}

// errStreamEnded is the cause with which a stream is cut.
var errStreamEnded = errors.New("the session of this stream has ended")

// forward has the application answer.
func (x *exchange) forward() {
	if x.verdict.Outcome == decide.Forward {
		outcome := metrics.Anonymous
		if x.verdict.Identity != nil {
			outcome = metrics.Authenticated
		}
		x.Metrics.Request(outcome)
	}
	ctx, stop := context.WithCancelCause(context.WithValue(x.request.Context(), exchangeKey{}, x))
	defer stop(nil)
	x.stop = stop
	defer x.endStream()
	forwarder := x.http1
	if x.request.ProtoMajor == 2 {
		forwarder = x.http2
	}
	r := x.request.WithContext(ctx)
	if r.Body != nil && r.ContentLength != 0 {
		x.body = &body{ReadCloser: r.Body}
		r.Body = x.body
		defer x.endBody()
		if r.ProtoMajor == 1 {
			// The application may answer before it has read the body, and while it does.
			// Without this the server would read the body first, however long it takes.
			_ = http.NewResponseController(x.w.ResponseWriter).EnableFullDuplex()
		}
	}
	if x.upgrade || x.request.ContentLength < 0 {
		x.beginStream()
	}
	x.forwarded = true
	forwarder.ServeHTTP(x.w, r)
	x.w.stripTrailers()
}

// body notes that a client's body broke off, which the transport reports as if the
// application had failed, and ends a connection whose body the application did not want.
type body struct {
	io.ReadCloser
	ended, broke atomic.Bool
}

// Read reads on.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch {
	case errors.Is(err, io.EOF):
		b.ended.Store(true)
	case err != nil:
		b.broke.Store(true)
	}
	return n, err
}

// endBody does not wait for a client that sends the rest slowly or never.
func (x *exchange) endBody() {
	if x.body != nil && x.conn != nil && x.request.ProtoMajor == 1 && !x.body.ended.Load() {
		x.conn.Finish()
	}
}

// rewrite shapes the request for the application. The reverse proxy has removed
// hop-by-hop headers by now, so that nothing a client lists in Connection can remove
// what is set here.
func (x *exchange) rewrite(pr *httputil.ProxyRequest) {
	out, v := pr.Out, &x.verdict
	out.URL.Scheme, out.URL.Host = "http", x.Upstream
	out.URL.User, out.URL.Fragment, out.URL.RawFragment = nil, "", ""
	out.URL.RawQuery = pr.In.URL.RawQuery
	if !x.raw {
		out.URL.RawPath, out.URL.RawQuery = v.Path, v.Query
		out.URL.ForceQuery = v.HasQuery && v.Query == ""
		// A canonical path always decodes.
		out.URL.Path, _ = url.PathUnescape(v.Path)
	}
	out.Trailer = nil
	for name := range out.Header {
		if x.policy.Reserved(name) {
			delete(out.Header, name)
		}
	}
	forwardedFor(pr)
	switch {
	case x.policy.Settings.Upstream.Authorization == settings.AuthorizationRemove:
		out.Header.Del("Authorization")
	case v.Identity != nil:
		out.Header.Set("Authorization", "Bearer "+v.Token)
	}
	if v.Identity != nil {
		for _, h := range v.Identity.Headers {
			out.Header.Set(h.Name, h.Value)
		}
	}
}

// forwardedFor keeps what an ingress said and adds who called. See the package comment.
func forwardedFor(pr *httputil.ProxyRequest) {
	in := pr.In.Header
	for _, name := range []string{"Forwarded", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if values, ok := in[name]; ok {
			pr.Out.Header[name] = values
		}
	}
	chain := append([]string(nil), in["X-Forwarded-For"]...)
	if address := clientAddress(pr.In); address != "" {
		chain = append(chain, address)
	}
	if len(chain) > 0 {
		pr.Out.Header.Set("X-Forwarded-For", strings.Join(chain, ", "))
	}
	if pr.Out.Header.Get("X-Forwarded-Host") == "" {
		pr.Out.Header.Set("X-Forwarded-Host", pr.In.Host)
	}
	if pr.Out.Header.Get("X-Forwarded-Proto") == "" {
		pr.Out.Header.Set("X-Forwarded-Proto", "http")
	}
}

// clientAddress is the IP of the connection.
func clientAddress(r *http.Request) string {
	address, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	return address.Addr().Unmap().String()
}

// modify shapes the answer of the application.
func (x *exchange) modify(res *http.Response) error {
	for name := range res.Trailer {
		if x.policy.CarriesToken(name) {
			delete(res.Trailer, name)
		}
	}
	x.returnToken(res.Header)
	if res.ContentLength < 0 || res.StatusCode == http.StatusSwitchingProtocols {
		x.beginStream()
	}
	return nil
}

// failed answers when the application did not.
func (x *exchange) failed(err error) {
	if x.body != nil && !x.body.ended.Load() {
		x.closeAfter()
	}
	switch {
	case x.conn != nil && x.request.ProtoMajor == 1 && x.conn.BodyError() != nil:
		x.refuseFraming(x.conn.BodyError())
	case errors.Is(err, errStreamEnded) || x.stream.wasEnded():
		reason := x.stream.endReason()
		x.count(reason, x.verdict)
		x.writeDenial(x.policy.Denial(reason), nil)
	case x.request.Context().Err() != nil:
		panic(http.ErrAbortHandler) // the client has gone
	case x.body != nil && x.body.broke.Load():
		x.plain(http.StatusBadRequest, "The body did not arrive whole.")
	default:
		x.Metrics.UpstreamError()
		x.plain(http.StatusBadGateway, "The application did not answer.")
	}
}
