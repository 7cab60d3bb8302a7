// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/issuer/refusal"
)

const (
	// beat is how often a silent stream says that it is alive: often enough that a
	// delayed line still comes within protocol.HeartbeatInterval.
	beat = protocol.HeartbeatInterval / 2
	// lineTimeout is how long one line may take: a sidecar that does not read is cut off.
	lineTimeout = 10 * time.Second
	// maxCursor is what a cursor has at most (session.Cursor).
	maxCursor = 1 << 10
)

// revocations streams the sessions that were revoked, one JSON object a line, until
// the caller goes, its token ends, the store closes or the server does. The caller
// comes back with the last cursor and misses nothing.
func (h *handler) revocations(w http.ResponseWriter, r *http.Request, s *scope) (string, error) {
	since := r.URL.Query().Get("since")
	if len(since) > maxCursor {
		return "", refusal.Invalid(http.StatusBadRequest, `"since" has more than %d characters: leave it out to get everything still relevant`, maxCursor)
	}
	// A token is checked when the stream begins; the stream must not outlive it.
	ctx, cancel := context.WithTimeout(r.Context(), s.pod.TokenExpires.Sub(h.Now()))
	defer cancel()
	events, err := s.policy.Sessions.Revocations(ctx, session.Cursor(since))
	if err != nil {
		return "", refusal.Unavailable("the session store does not answer", err)
	}
	h.Observer.Streams(1)
	defer h.Observer.Streams(-1)
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	lines := lineWriter{w: w, control: http.NewResponseController(w)}
	lines.begin()
	h.pump(ctx, lines, events, since)
	return outcomeDone, nil
}

func (h *handler) pump(ctx context.Context, lines lineWriter, events <-chan session.Event, since string) {
	cursor, synced := since, false
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	for {
		line := protocol.RevocationEvent{}
		select {
		case <-ctx.Done():
			return
		case <-h.Closing:
			return
		case event, ok := <-events:
			if !ok {
				return
			}
			cursor, synced = string(event.Cursor), synced || event.Synced
			line.SessionID, line.ForgetAfter = string(event.ID), event.ForgetAfter
		case <-ticker.C:
			if !synced {
				continue // a line without a session would say that everything was sent
			}
		}
		line.Cursor = cursor
		if lines.write(line) != nil {
			return
		}
	}
}

type lineWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

// begin sends the head, so that the caller knows that it is connected. The request
// was read, so its deadline must not end the stream.
func (l lineWriter) begin() {
	_ = l.control.SetReadDeadline(time.Time{})
	_ = l.control.SetWriteDeadline(time.Now().Add(lineTimeout))
	_ = l.control.Flush()
}

func (l lineWriter) write(line protocol.RevocationEvent) error {
	encoded, err := json.Marshal(line)
	if err != nil {
		return err
	}
	if err := l.control.SetWriteDeadline(time.Now().Add(lineTimeout)); err != nil {
		return err
	}
	if _, err := l.w.Write(append(encoded, '\n')); err != nil {
		return err
	}
	return l.control.Flush()
}
