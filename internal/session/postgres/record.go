// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/token"
)

// newVersion names one write. It is random: two writers that both follow the same
// version must not come to the same name.
func newVersion() string {
	var b [9]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// columns of a record, in the order of its fields.
const columns = `version, prior, subject, generation,
	current_id, current_issued_at, current_expires_at, current_key_id, current_claims,
	previous_id, previous_issued_at, previous_expires_at,
	rotated_at, created_at, last_refresh_at, idle_until, expires_at, tokens_until,
	revoked_at, revoked_reason, keep_until`

// record is a row of sessions. A column is nil where it is NULL, and all are where
// there is no row.
type record struct {
	version, prior, subject *string
	generation              *int64

	currentID                         *string
	currentIssuedAt, currentExpiresAt *time.Time
	currentKeyID, currentClaims       *string

	previousID                          *string
	previousIssuedAt, previousExpiresAt *time.Time

	rotatedAt, createdAt, lastRefreshAt, idleUntil, expiresAt, tokensUntil *time.Time

	revokedAt     *time.Time
	revokedReason *string
	keepUntil     *time.Time
}

// fields are where columns are scanned to.
func (r *record) fields() []any {
	return []any{
		&r.version, &r.prior, &r.subject, &r.generation,
		&r.currentID, &r.currentIssuedAt, &r.currentExpiresAt, &r.currentKeyID, &r.currentClaims,
		&r.previousID, &r.previousIssuedAt, &r.previousExpiresAt,
		&r.rotatedAt, &r.createdAt, &r.lastRefreshAt, &r.idleUntil, &r.expiresAt, &r.tokensUntil,
		&r.revokedAt, &r.revokedReason, &r.keepUntil,
	}
}

// landed reports whether the write with that version was made, even if another one
// followed it since.
func (r *record) landed(version string) bool {
	return text(r.version) == version || text(r.prior) == version
}

// alive reports whether there is a session that may not be forgotten yet.
func (r *record) alive(now time.Time) bool {
	return r.version != nil && !now.After(instant(r.keepUntil))
}

func (r *record) session(policy session.PolicyID, id session.ID) session.Session {
	s := session.Session{
		ID: id, Policy: policy, Subject: text(r.subject), Version: text(r.version),
		Current: session.Issued{
			ID: text(r.currentID), IssuedAt: instant(r.currentIssuedAt), ExpiresAt: instant(r.currentExpiresAt), KeyID: text(r.currentKeyID),
		},
		Previous:  session.Issued{ID: text(r.previousID), IssuedAt: instant(r.previousIssuedAt), ExpiresAt: instant(r.previousExpiresAt)},
		RotatedAt: instant(r.rotatedAt), CreatedAt: instant(r.createdAt), LastRefreshAt: instant(r.lastRefreshAt),
		IdleUntil: instant(r.idleUntil), ExpiresAt: instant(r.expiresAt), TokensUntil: instant(r.tokensUntil),
	}
	if r.generation != nil {
		s.Generation = *r.generation
	}
	if r.currentClaims != nil {
		s.Current.Claims = []byte(*r.currentClaims)
	}
	if r.revokedAt != nil {
		s.Revoked = &session.Revocation{At: instant(r.revokedAt), Reason: token.Reason(text(r.revokedReason))}
	}
	return s
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func instant(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

// when is NULL for the zero time.
func when(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// claims are NULL where there are none.
func claims(i session.Issued) *string {
	if len(i.Claims) == 0 {
		return nil
	}
	s := string(i.Claims)
	return &s
}

// loaded is what there is of a session.
type loaded struct{ record }

// loadQuery always has a row: that the server is a standby is to be known above all
// where it does not have the session.
const loadQuery = `SELECT pg_is_in_recovery(), ` + columns + `
	FROM (SELECT 1) AS one LEFT JOIN tokenward.sessions ON policy = $1 AND id = $2`

func (l *loaded) query(ctx context.Context, conn *pgx.Conn, policy session.PolicyID, id session.ID) error {
	l.record = record{}
	var standby bool
	if err := conn.QueryRow(ctx, loadQuery, string(policy), string(id)).Scan(append([]any{&standby}, l.fields()...)...); err != nil {
		return err
	}
	if standby {
		return errStandby
	}
	return nil
}
