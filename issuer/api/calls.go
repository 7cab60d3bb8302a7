// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/issuer/exchange"
)

func (h *handler) login(w http.ResponseWriter, r *http.Request, s *scope) (string, error) {
	fields, err := readFields(w, r)
	if err != nil {
		return "", err
	}
	got, err := h.Exchange.Login(r.Context(), s.policy, fields, clientAddress(r))
	if err != nil {
		return "", err
	}
	return h.answer(w, s, got)
}

// clientAddress is what the sidecar says that its client's is. It is the word of an
// authenticated pod, and good for limits only.
func clientAddress(r *http.Request) netip.Addr {
	said := r.Header.Values(protocol.ClientAddressHeader)
	if len(said) != 1 {
		return netip.Addr{}
	}
	address, err := netip.ParseAddr(said[0])
	if err != nil {
		return netip.Addr{}
	}
	return address
}

func (h *handler) refresh(w http.ResponseWriter, r *http.Request, s *scope) (string, error) {
	raw, err := readToken(w, r)
	if err != nil {
		return "", err
	}
	got, err := h.Exchange.Refresh(r.Context(), s.policy, raw, sentAt(r))
	if err != nil {
		return "", err
	}
	return h.answer(w, s, got)
}

func (h *handler) logout(w http.ResponseWriter, r *http.Request, s *scope) (string, error) {
	raw, err := readToken(w, r)
	if err != nil {
		return "", err
	}
	if err := h.Exchange.Logout(r.Context(), s.policy, raw); err != nil {
		return "", err
	}
	w.WriteHeader(http.StatusNoContent)
	return outcomeDone, nil
}

// sentAt is what the sidecar says, zero when it says nothing that is understood.
func sentAt(r *http.Request) time.Time {
	milliseconds, err := strconv.ParseInt(r.Header.Get(protocol.SentAtHeader), 10, 64)
	if err != nil || milliseconds <= 0 {
		return time.Time{}
	}
	return time.UnixMilli(milliseconds)
}

func (h *handler) keys(w http.ResponseWriter, _ *http.Request, s *scope) (string, error) {
	return outcomeDone, writeJSON(w, s.policy.Keys.Set)
}

func (h *handler) answer(w http.ResponseWriter, s *scope, got exchange.Token) (string, error) {
	s.subject, s.session = got.Subject, string(got.Session)
	lives := got.ExpiresAt.Sub(h.Now())
	return string(got.How), writeJSON(w, protocol.TokenResponse{
		AccessToken: got.Raw,
		TokenType:   "Bearer",
		ExpiresIn:   max(0, int64(lives.Seconds())),
	})
}

// writeJSON answers with 200. An error means that nothing was written; a client that
// has gone is none.
func writeJSON(w http.ResponseWriter, value any) error {
	body, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(body)
	return nil
}
