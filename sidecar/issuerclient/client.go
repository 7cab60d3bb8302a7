// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package issuerclient asks the issuer, in the words of internal/protocol: logins,
// refreshes, logouts, key sets, and the stream of revocations.
//
// It owns how the issuer is reached (TLS under the authorities of the settings, the
// pod's identity, time limits, no redirects, no proxy of the environment), that
// requests with the same token share one refresh, and that keys are asked for at
// most once per second. Whether a token is any good, old or new, is decided by
// package decide. Nothing here logs, and no error holds a token.
package issuerclient

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/internal/settings"
	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/sidecar/metrics"
)

const (
	// callTimeout bounds a refresh, a logout and a request for keys.
	callTimeout = 5 * time.Second
	// silence is after how long without a word from the issuer it is asked whether it is
	// there, and how long it has to say so: together less than callTimeout.
	silence = 2 * time.Second
	// loginTimeout is longer: passwords are hashed, and wait their turn.
	loginTimeout = 20 * time.Second
	// maxAnswer bounds an answer; a key set of 64 keys has under 128 KiB.
	maxAnswer = 512 << 10
	// maxIdentity bounds the service account token; a projected one has 1 to 2 KiB.
	maxIdentity = 16 << 10
)

// ErrUnavailable is what errors wrap that are no answer: the issuer was not reached,
// did not answer in time, does not accept this pod, or said what is not understood.
var ErrUnavailable = errors.New("the issuer is not available")

// Refusal is an answer of the issuer's that grants nothing.
type Refusal struct {
	Reason token.Reason
	// Detail is a sentence for the client, which holds nothing that it sent.
	Detail string
	// RetryAfter is in seconds, 0 when the issuer did not say.
	RetryAfter int
}

// Error is the reason.
func (r *Refusal) Error() string { return "the issuer refused: " + string(r.Reason) }

// Unwrap lets [token.ReasonOf] find the reason.
func (r *Refusal) Unwrap() error { return &token.Error{Reason: r.Reason} }

// Client talks to the issuer that the settings in force name.
type Client struct {
	// Settings are those in force, nil before there are any.
	Settings func() *settings.Settings
	// IdentityFile holds the pod's service account token. It is read at each call,
	// because the kubelet replaces it.
	IdentityFile string
	Metrics      *metrics.Metrics
	Now          func() time.Time
	// StoodStill is for how long requests that are read now may have lain here because this
	// process stood still; never when it is nil.
	StoodStill func() time.Duration

	mu        sync.Mutex
	service   settings.IssuerService
	transport *http.Transport
	outage    outage
	leaving   leaving
	// unfollow ends the stream of revocations that is open; nil before there was one.
	unfollow   context.CancelFunc
	issuerTime issuerTime
	// dial is that of the operating system when it is nil.
	dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Login relays a client's own body. clientAddress is an IP, for limits only.
func (c *Client) Login(ctx context.Context, body []byte, contentType, clientAddress string) (protocol.TokenResponse, error) {
	header := http.Header{"Content-Type": {contentType}, protocol.ClientAddressHeader: {clientAddress}}
	return c.askForToken(ctx, protocol.CallLogin, loginTimeout, body, header)
}

// refresh buys a new token; callers go through a Refresher.
func (c *Client) refresh(ctx context.Context, raw string) (protocol.TokenResponse, error) {
	body, err := json.Marshal(protocol.RefreshRequest{AccessToken: raw}) //nolint:gosec // the token goes to the issuer, which is what the call is for
	if err != nil {
		return protocol.TokenResponse{}, fmt.Errorf("encode refresh: %w", err)
	}
	return c.askForToken(ctx, protocol.CallRefresh, callTimeout, body, jsonHeader())
}

// Logout ends the session of a token.
func (c *Client) Logout(ctx context.Context, raw string) error {
	body, err := json.Marshal(protocol.LogoutRequest{AccessToken: raw}) //nolint:gosec // the token goes to the issuer, which is what the call is for
	if err != nil {
		return fmt.Errorf("encode logout: %w", err)
	}
	_, err = c.call(ctx, protocol.CallLogout, callTimeout, http.MethodPost, body, jsonHeader())
	return err
}

// Keys fetches the key set in force.
func (c *Client) Keys(ctx context.Context) (*token.KeySet, error) {
	answer, err := c.call(ctx, protocol.CallKeys, callTimeout, http.MethodGet, nil, http.Header{})
	if err != nil {
		return nil, err
	}
	keys, err := token.ParseKeySet(answer)
	if err != nil {
		return nil, fmt.Errorf("%w: its key set is not one: %w", ErrUnavailable, err)
	}
	return keys, nil
}

// Revocations opens the stream, whose lines are [protocol.RevocationEvent]. It lives
// until ctx ends or the caller closes it.
func (c *Client) Revocations(ctx context.Context, since string) (io.ReadCloser, error) {
	ctx, end := context.WithCancel(ctx)
	res, via, err := c.do(ctx, protocol.CallRevocations, http.MethodGet, since, nil, http.Header{})
	if err != nil {
		end()
		c.Metrics.IssuerCall(string(protocol.CallRevocations), resultOf(err), 0)
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		defer end()
		defer func() { _ = res.Body.Close() }()
		err := failureOf(res, via)
		c.leaveFor(err)
		c.Metrics.IssuerCall(string(protocol.CallRevocations), resultOf(err), 0)
		return nil, err
	}
	c.Metrics.IssuerCall(string(protocol.CallRevocations), metrics.OK, 0)
	c.follows(via, end)
	return stream{res.Body, end}, nil
}

func jsonHeader() http.Header { return http.Header{"Content-Type": {"application/json"}} }

func (c *Client) askForToken(ctx context.Context, call protocol.Call, timeout time.Duration, body []byte, header http.Header) (protocol.TokenResponse, error) {
	answer, err := c.call(ctx, call, timeout, http.MethodPost, body, header)
	if err != nil {
		return protocol.TokenResponse{}, err
	}
	var response protocol.TokenResponse
	if json.Unmarshal(answer, &response) != nil || response.AccessToken == "" {
		return protocol.TokenResponse{}, fmt.Errorf("%w: its answer holds no token", ErrUnavailable)
	}
	return response, nil
}

// call makes one call with a bounded answer.
func (c *Client) call(ctx context.Context, call protocol.Call, timeout time.Duration, method string, body []byte, header http.Header) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	began, begun := c.Now(), c.begun()
	attempt := func() ([]byte, error) {
		if call == protocol.CallRefresh {
			c.stamp(header, begun)
		}
		return c.exchange(ctx, call, method, body, header)
	}
	answer, err := attempt()
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		wait, again := c.mayTryAgain(call, err)
		if !again || !sleep(ctx, max(wait, pause)) {
			break
		}
		if wait > 0 {
			c.leaveFor(err)
		}
		answer, err = attempt()
	}
	c.Metrics.IssuerCall(string(call), resultOf(err), c.Now().Sub(began))
	return answer, err
}

func (c *Client) exchange(ctx context.Context, call protocol.Call, method string, body []byte, header http.Header) ([]byte, error) {
	res, via, err := c.do(ctx, call, method, "", body, header)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusNoContent {
		return nil, failureOf(res, via)
	}
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return nil, &lostError{cause: fmt.Errorf("read its answer: %w", err), via: via}
	}
	if len(answer) > maxAnswer {
		return nil, fmt.Errorf("%w: its answer is too large", ErrUnavailable)
	}
	return answer, nil
}

func (c *Client) do(ctx context.Context, call protocol.Call, method, since string, body []byte, header http.Header) (res *http.Response, via *http.Transport, err error) {
	s := c.Settings()
	if s == nil {
		return nil, nil, fmt.Errorf("%w: there are no settings yet", ErrUnavailable)
	}
	identity, err := c.identity()
	if err != nil {
		return nil, nil, err
	}
	via, err = c.reach(s.IssuerService)
	if err != nil {
		return nil, nil, err
	}
	target := strings.TrimSuffix(s.IssuerService.URL, "/") + protocol.Path(s.Policy.Namespace, s.Policy.Name, call)
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if since != "" {
		query := req.URL.Query()
		query.Set("since", since)
		req.URL.RawQuery = query.Encode()
	}
	req.Header = header.Clone() // an attempt before this one may be reading it yet
	req.Header.Set("Authorization", "Bearer "+identity)
	// RoundTrip follows no redirect and keeps no cookie. Its errors name the address.
	res, err = via.RoundTrip(req)
	if err != nil {
		return nil, nil, &lostError{cause: err, via: via}
	}
	c.hear(res)
	return res, via, nil
}

func (c *Client) identity() (string, error) {
	f, err := os.Open(c.IdentityFile)
	if err != nil {
		return "", fmt.Errorf("%w: this pod's identity: %w", ErrUnavailable, err)
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxIdentity))
	if err != nil {
		return "", fmt.Errorf("%w: this pod's identity: %w", ErrUnavailable, err)
	}
	identity := string(bytes.TrimSpace(data))
	if identity == "" || strings.ContainsAny(identity, " \r\n\t") {
		return "", fmt.Errorf("%w: this pod's identity: %s does not hold a token", ErrUnavailable, c.IdentityFile)
	}
	return identity, nil
}

// reach gives the transport for an issuer service, a new one when that changed.
func (c *Client) reach(service settings.IssuerService) (*http.Transport, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.transport != nil && c.service == service {
		return c.transport, nil
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(service.CABundle)) {
		return nil, fmt.Errorf("%w: issuerService.caBundle holds no certificate", ErrUnavailable)
	}
	if c.transport != nil {
		// Calls under way, the stream of revocations among them, go on to their end.
		go c.transport.CloseIdleConnections() // not under the lock: it may take its time
	}
	c.service = service
	dial := c.dial
	if dial == nil {
		dial = (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext
	}
	to := &connector{dial: dial, tls: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13, NextProtos: []string{"h2", "http/1.1"}}}
	c.transport = &http.Transport{
		DialTLSContext:    to.connect,
		ForceAttemptHTTP2: true,
		// An issuer that has gone without a word is noticed while a refresh that waits for it
		// can still be made elsewhere.
		HTTP2:               &http.HTTP2Config{SendPingTimeout: silence, PingTimeout: silence},
		MaxIdleConnsPerHost: 4,
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  true,
	}
	return c.transport, nil
}

// failureOf tells what the issuer cannot do from what it refuses.
func failureOf(res *http.Response, via *http.Transport) error {
	if res.StatusCode == http.StatusMisdirectedRequest {
		return &lostError{cause: errElsewhere, via: via}
	}
	err := refusalOf(res)
	if res.StatusCode == http.StatusServiceUnavailable && errors.Is(err, ErrUnavailable) {
		return &lostError{cause: err, via: via, unable: true}
	}
	return err
}

// refusalOf reads a problem. What is none, and a status of the server's own, is no
// answer: nobody may be logged out because of it.
func refusalOf(res *http.Response) error {
	var problem protocol.Problem
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil || json.Unmarshal(body, &problem) != nil {
		return fmt.Errorf("%w: status %d without a problem", ErrUnavailable, res.StatusCode)
	}
	if !isVerdict(problem.Reason) {
		return fmt.Errorf("%w: status %d, %s: %s", ErrUnavailable, res.StatusCode, printable(string(problem.Reason)), printable(problem.Detail))
	}
	retry, err := strconv.Atoi(res.Header.Get("Retry-After"))
	if err != nil || retry < 0 {
		retry = 0
	}
	return &Refusal{Reason: problem.Reason, Detail: problem.Detail, RetryAfter: retry}
}

// isVerdict says that a reason judges the client's token, credentials or attempts.
// Others would mean that the issuer does not accept the sidecar's own request.
func isVerdict(reason token.Reason) bool {
	switch reason {
	case token.IssuerUnavailable, token.HeadersAmbiguous, token.PathAmbiguous, token.RuleDenied, token.TokenMissing:
		return false
	default:
	}
	return slices.Contains(token.Reasons(), reason)
}

// printable makes a peer's text fit for an error.
func printable(s string) string {
	if len(s) > 256 {
		s = s[:256]
	}
	return strconv.QuoteToASCII(s)
}

func resultOf(err error) metrics.Result {
	if err == nil {
		return metrics.OK
	}
	if _, ok := errors.AsType[*Refusal](err); ok {
		return metrics.Refused
	}
	return metrics.Unavailable
}
