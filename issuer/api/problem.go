// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/issuer/refusal"
)

// refuse answers with an error and says how to count it.
func (h *handler) refuse(w http.ResponseWriter, r *http.Request, err error, s *scope) (outcome string) {
	denial := 0
	if s.policy != nil {
		denial = s.policy.DenialStatus
	}
	if isOver(err) && r.Context().Err() != nil {
		// The call ran out of time, or the caller has gone and sees none of this.
		err = refusal.Unavailable("the issuer did not finish in time", err)
	}
	refused := refusal.Of(err)
	writeProblem(w, refused, denial)
	if refused.Status == http.StatusInternalServerError {
		return OutcomeFault
	}
	return string(refused.Reason)
}

// withoutIdentity sees when the API server does not know us any more: our pod was deleted
// at once, and the process has not ended yet. Other issuers go on.
func withoutIdentity(err error) error {
	if apierrors.IsUnauthorized(err) {
		return refusal.Elsewhere("this issuer's own identity has ended: ask another issuer", err)
	}
	return err
}

// wholeSeconds rounds up: who comes back any sooner is refused again.
func wholeSeconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

func isOver(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// writeProblem is the one place where an error becomes an answer (RFC 9457). A
// failed authentication has the status that the policy chose.
func writeProblem(w http.ResponseWriter, refused *refusal.Error, denial int) {
	status := refused.Status
	if status == 0 {
		status = denial
	}
	if status == 0 {
		status = http.StatusForbidden
	}
	header := w.Header()
	header.Set("Content-Type", protocol.ProblemContentType)
	header.Set("Cache-Control", "no-store")
	if refused.RetryAfter > 0 {
		header.Set("Retry-After", strconv.FormatInt(wholeSeconds(refused.RetryAfter), 10))
	}
	if status == http.StatusMisdirectedRequest {
		header.Set("Connection", "close") // over HTTP/2 that is a GOAWAY
	}
	body, err := json.Marshal(protocol.NewProblem(status, refused.Reason, refused.Detail))
	if err != nil {
		body = nil // strings and a number: cannot fail
	}
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
