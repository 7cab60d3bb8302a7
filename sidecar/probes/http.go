// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package probes

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/tokenward/tokenward/internal/probe"
)

const (
	// maxBody of the application's answer is read, as by the kubelet.
	maxBody = 10 << 10
	// maxRedirects are followed, as by the kubelet.
	maxRedirects = 10
)

// get makes the GET as the kubelet does it: the declared headers, no check of the
// certificate, redirects followed on the same host.
func (h *Handler) get(ctx context.Context, declared probe.HTTP, host string) result {
	request, err := newRequest(ctx, declared, host)
	if err != nil {
		return failed("the declared probe is no request: %v", err)
	}
	protocols := &http.Protocols{}
	protocols.SetHTTP1(!declared.H2C)
	protocols.SetHTTP2(true) // over TLS
	protocols.SetUnencryptedHTTP2(declared.H2C)
	transport := &http.Transport{
		Protocols: protocols,
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			return h.dial(ctx, port)
		},
		TLSClientConfig:    &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // the kubelet checks none either, and it is loopback
		DisableKeepAlives:  true,
		DisableCompression: true,
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: sameHost}
	response, err := client.Do(request)
	if err != nil {
		if failure, ok := errors.AsType[*url.Error](err); ok {
			err = failure.Err // without the address: a query may hold a secret
		}
		return failed("no answer from the application: %v", err)
	}
	defer response.Body.Close() //nolint:errcheck // nothing more is wanted of it
	if _, err := io.Copy(io.Discard, io.LimitReader(response.Body, maxBody)); err != nil {
		return failed("the application's answer was cut: %v", err)
	}
	if response.StatusCode >= http.StatusBadRequest {
		return result{response.StatusCode, "the application answered with this status"}
	}
	return passed()
}

func newRequest(ctx context.Context, declared probe.HTTP, host string) (*http.Request, error) {
	to, err := url.Parse(declared.Path)
	if err != nil { // as the kubelet: the path as it is then
		to = &url.URL{Path: declared.Path}
	}
	to.Scheme, to.Host = "http", host
	if declared.TLS {
		to.Scheme = "https"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, to.String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	for _, header := range declared.Headers {
		request.Header.Add(header.Name, header.Value)
	}
	// The kubelet's defaults. An empty value means: do not send it.
	for name, value := range map[string]string{"User-Agent": "kube-probe/tokenward", "Accept": "*/*"} {
		switch values, set := request.Header[name]; {
		case !set:
			request.Header.Set(name, value)
		case strings.Join(values, "") == "" && name == "Accept":
			request.Header.Del(name)
		case strings.Join(values, "") == "":
			request.Header[name] = []string{""} // without it net/http would send its own
		}
	}
	if name := request.Header.Get("Host"); name != "" {
		request.Host = name
	}
	request.Header.Del("Host")
	return request, nil
}

// sameHost follows the application's own redirects; to another host none, and that is
// no failure.
func sameHost(next *http.Request, before []*http.Request) error {
	switch {
	case next.URL.Hostname() != before[0].URL.Hostname():
		return http.ErrUseLastResponse
	case len(before) >= maxRedirects:
		return errors.New("more than 10 redirects")
	}
	return nil
}
