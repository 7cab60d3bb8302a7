// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/sidecar/decide"
	"github.com/tokenward/tokenward/sidecar/framing"
	"github.com/tokenward/tokenward/sidecar/issuerclient"
	"github.com/tokenward/tokenward/sidecar/metrics"
)

// deny carries a denial out, or under Audit only notes it.
func (x *exchange) deny(v decide.Verdict) {
	reason := v.Reason()
	if x.policy.Audit() && x.mayPass(v) {
		x.Metrics.Request(metrics.Audited)
		x.Metrics.Denial(reason, true)
		x.denials.write(x, reason, v, true)
		x.verdict.Identity = nil
		x.raw = v.Path == ""
		x.forward()
		return
	}
	x.count(reason, v)
	x.writeDenial(x.policy.Denial(reason), refusalOf(v.Err))
}

// mayPass says that a request that Audit lets through can be forwarded as one request.
func (x *exchange) mayPass(v decide.Verdict) bool {
	return v.Reason() != token.HeadersAmbiguous && (v.Path != "" || strings.HasPrefix(x.request.URL.Path, "/"))
}

func (x *exchange) count(reason token.Reason, v decide.Verdict) {
	x.Metrics.Request(metrics.Denied)
	x.Metrics.Denial(reason, false)
	x.denials.write(x, reason, v, false)
}

// refuseFraming answers a head that is not one request, and closes.
func (x *exchange) refuseFraming(err *framing.Error) {
	status, reason := http.StatusBadRequest, token.HeadersAmbiguous
	switch {
	case err.TooLarge:
		status = http.StatusRequestHeaderFieldsTooLarge
	case err.Target:
		reason = token.PathAmbiguous
	}
	x.count(reason, decide.Verdict{Rule: -1, Err: &token.Error{Reason: reason, Detail: err.Error()}})
	x.w.Header().Set("Connection", "close")
	body, _ := json.Marshal(protocol.NewProblem(status, reason, ""))
	x.writeProblem(status, body)
}

func (x *exchange) refuseHeaders(detail string) {
	v := decide.Verdict{Rule: -1, Err: &token.Error{Reason: token.HeadersAmbiguous, Detail: detail}}
	x.count(token.HeadersAmbiguous, v)
	x.closeAfter()
	x.writeDenial(x.policy.Denial(token.HeadersAmbiguous), nil)
}

// closeAfter ends an HTTP/1 connection with this answer.
func (x *exchange) closeAfter() {
	if x.request.ProtoMajor == 1 {
		x.w.Header().Set("Connection", "close")
	}
}

func refusalOf(err error) *issuerclient.Refusal {
	refusal, _ := errors.AsType[*issuerclient.Refusal](err)
	return refusal
}

// writeDenial is the one place where a reason becomes an answer.
func (x *exchange) writeDenial(d decide.Denial, refusal *issuerclient.Refusal) {
	if refusal != nil {
		if refusal.Detail != "" {
			d = x.policy.DetailedDenial(refusal.Reason, refusal.Detail)
		}
		if refusal.RetryAfter > 0 {
			d.RetryAfter = refusal.RetryAfter
		}
	}
	header := x.w.Header()
	if d.Challenge != "" {
		header.Set("WWW-Authenticate", d.Challenge)
	}
	if d.RetryAfter > 0 {
		header.Set("Retry-After", strconv.Itoa(d.RetryAfter))
	}
	if d.Status == http.StatusBadRequest {
		x.closeAfter()
	}
	if x.isGRPC() {
		x.writeGRPC(d)
		return
	}
	x.writeProblem(d.Status, d.Body)
}

// isGRPC: such a client reads the status of an HTTP/2 trailer, not a body.
func (x *exchange) isGRPC() bool {
	rest, ok := strings.CutPrefix(x.request.Header.Get("Content-Type"), "application/grpc")
	// application/grpc-web is not it: browsers speak that, and want status and CORS.
	return ok && x.request.ProtoMajor == 2 && !strings.HasPrefix(rest, "-")
}

// writeGRPC is a Trailers-Only answer (grpc/grpc doc/PROTOCOL-HTTP2.md).
func (x *exchange) writeGRPC(d decide.Denial) {
	var problem protocol.Problem
	message := ""
	if json.Unmarshal(d.Body, &problem) == nil {
		message = string(problem.Reason)
	}
	header := x.w.Header()
	x.returnToken(header)
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Type", "application/grpc")
	header.Set("Grpc-Status", strconv.Itoa(d.GRPCStatus))
	header.Set("Grpc-Message", message)
	x.w.WriteHeader(http.StatusOK)
}

// plain is a problem that has no reason of the closed set (RFC 9457 section 4.2.1).
func (x *exchange) plain(status int, detail string) {
	body, _ := json.Marshal(struct {
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
	}{"about:blank", http.StatusText(status), status, detail})
	if status == http.StatusServiceUnavailable {
		x.w.Header().Set("Retry-After", "1")
	}
	x.writeProblem(status, append(body, '\n'))
}

func (x *exchange) writeProblem(status int, body []byte) {
	header := x.w.Header()
	x.allowOrigin(header, true)
	x.returnToken(header)
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Type", protocol.ProblemContentType)
	header.Set("Content-Length", strconv.Itoa(len(body)))
	x.w.WriteHeader(status)
	_, _ = x.w.Write(body) // the client has gone
}
