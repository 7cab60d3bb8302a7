// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package probes

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"

	"github.com/tokenward/tokenward/internal/probe"
)

// check calls grpc.health.v1.Health/Check, as the kubelet does. It is one
// message each way, so it is written here: the sidecar links no gRPC library.
// The framing is that of https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.
func (h *Handler) check(ctx context.Context, declared probe.GRPC) result {
	to := url.URL{Scheme: "http", Host: h.upstream, Path: "/grpc.health.v1.Health/Check"}
	if declared.TLS {
		to.Scheme = "https"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), bytes.NewReader(healthRequest(declared.Service)))
	if err != nil {
		return failed("the declared probe is no request: %v", err)
	}
	request.Header.Set("Content-Type", "application/grpc")
	request.Header.Set("Te", "trailers")
	request.Header.Set("User-Agent", "kube-probe/tokenward")
	protocols := &http.Protocols{}
	protocols.SetUnencryptedHTTP2(true)
	protocols.SetHTTP2(true) // over TLS
	transport := &http.Transport{
		Protocols: protocols, DisableCompression: true,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // the kubelet checks none either, and it is loopback
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", h.upstream)
		},
	}
	defer transport.CloseIdleConnections()
	response, err := transport.RoundTrip(request)
	if err != nil {
		return failed("no answer from the application: %v", err)
	}
	defer response.Body.Close() //nolint:errcheck // read as far as wanted
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	if err != nil {
		return failed("the application's answer was cut: %v", err)
	}
	status := response.Trailer.Get("Grpc-Status")
	if status == "" { // an answer without a message has it in its head
		status = response.Header.Get("Grpc-Status")
	}
	if response.StatusCode != http.StatusOK || status != "0" {
		return failed("the application answered with HTTP status %d and gRPC status %q", response.StatusCode, status)
	}
	serving, err := isServing(body)
	switch {
	case err != nil:
		return failed("the application's answer is no health: %v", err)
	case !serving:
		return failed("the application is not serving")
	}
	return passed()
}

// healthRequest is HealthCheckRequest{service} behind its length. Field 1 is a string.
func healthRequest(service string) []byte {
	var message []byte
	if service != "" {
		message = binary.AppendUvarint([]byte{1<<3 | 2}, uint64(len(service)))
		message = append(message, service...)
	}
	framed := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))) //nolint:gosec // some kilobytes at most
	return append(framed, message...)
}

// isServing reads HealthCheckResponse{status}: field 1 is a number, and 1 is SERVING.
func isServing(body []byte) (bool, error) {
	if len(body) < 5 || body[0] != 0 || binary.BigEndian.Uint32(body[1:]) != uint32(len(body)-5) { //nolint:gosec // bounded above
		return false, errors.New("it is not one message without compression")
	}
	status := uint64(0)
	for message := body[5:]; len(message) > 0; {
		tag, n := binary.Uvarint(message)
		if n <= 0 || tag&7 != 0 {
			return false, errors.New("it has a field that is no number")
		}
		value, m := binary.Uvarint(message[n:])
		if m <= 0 {
			return false, errors.New("it ends early")
		}
		if tag>>3 == 1 {
			status = value
		}
		message = message[n+m:]
	}
	return status == 1, nil
}
