// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/token"
)

// recordFormat begins a record. A release reads its own format; a newer one it
// leaves alone.
const recordFormat = 1

// errBroken: not a record that any release has written.
var errBroken = errors.New("not a session record")

// headerFields of the first line, see the package's documentation.
const headerFields = 8

// none stands for an empty word in the header.
const none = "-"

// body is the second line: what the scripts need not know. Times are Unix seconds,
// and 0 is none.
type body struct {
	Subject       string `json:"subject"`
	Generation    int64  `json:"generation"`
	Current       issued `json:"current"`
	Previous      issued `json:"previous,omitzero"`
	RotatedAt     int64  `json:"rotatedAt,omitempty"`
	LastRefreshAt int64  `json:"lastRefreshAt,omitempty"`
	IdleUntil     int64  `json:"idleUntil,omitempty"`
	ExpiresAt     int64  `json:"expiresAt,omitempty"`
	TokensUntil   int64  `json:"tokensUntil,omitempty"`
}

type issued struct {
	ID        string `json:"jti"`
	IssuedAt  int64  `json:"iat,omitempty"`
	ExpiresAt int64  `json:"exp,omitempty"`
	KeyID     string `json:"kid,omitempty"`
}

// encodeRest is a record from its second line on.
func encodeRest(s session.Session) (string, error) {
	line, err := json.Marshal(body{
		Subject: s.Subject, Generation: s.Generation,
		Current: toIssued(s.Current), Previous: toIssued(s.Previous),
		RotatedAt: unix(s.RotatedAt), LastRefreshAt: unix(s.LastRefreshAt),
		IdleUntil: unix(s.IdleUntil), ExpiresAt: unix(s.ExpiresAt), TokensUntil: unix(s.TokensUntil),
	})
	if err != nil {
		return "", fmt.Errorf("encode session: %w", err)
	}
	return string(line) + "\n" + string(s.Current.Claims), nil
}

// encode is the whole record of a session that was just created.
func encode(s session.Session, version string) (string, error) {
	rest, err := encodeRest(s)
	if err != nil {
		return "", err
	}
	revokedAt, reason := int64(0), none
	if s.Revoked != nil {
		revokedAt, reason = unix(s.Revoked.At), string(s.Revoked.Reason)
	}
	header := fmt.Sprintf("%d %s %s %d %d %d %d %s\n", recordFormat, version, none,
		s.KeepUntil().Unix(), s.ForgetAfter().Unix(), unix(s.CreatedAt), revokedAt, reason)
	return header + rest, nil
}

// decode returns errBroken, or errNewer for a record of a later release.
func decode(policy session.PolicyID, id session.ID, raw string) (session.Session, error) {
	header, rest, _ := strings.Cut(raw, "\n")
	fields := strings.Split(header, " ")
	if format, err := strconv.Atoi(fields[0]); err != nil || format < 1 {
		return session.Session{}, errBroken
	} else if format > recordFormat {
		return session.Session{}, errNewer
	}
	line, claims, found := strings.Cut(rest, "\n")
	if len(fields) != headerFields || !found {
		return session.Session{}, errBroken
	}
	forget, errForget := strconv.ParseInt(fields[4], 10, 64)
	created, errCreated := strconv.ParseInt(fields[5], 10, 64)
	revoked, errRevoked := strconv.ParseInt(fields[6], 10, 64)
	var b body
	decoder := json.NewDecoder(bytes.NewReader([]byte(line)))
	decoder.DisallowUnknownFields()
	if err := errors.Join(errForget, errCreated, errRevoked, decoder.Decode(&b)); err != nil {
		return session.Session{}, errBroken
	}
	s := session.Session{
		ID: id, Policy: policy, Subject: b.Subject, Generation: b.Generation,
		Current: b.Current.issued(), Previous: b.Previous.issued(),
		RotatedAt: fromUnix(b.RotatedAt), CreatedAt: fromUnix(created), LastRefreshAt: fromUnix(b.LastRefreshAt),
		IdleUntil: fromUnix(b.IdleUntil), ExpiresAt: fromUnix(b.ExpiresAt), TokensUntil: fromUnix(b.TokensUntil),
		Version: fields[1],
	}
	// A revocation leaves the body as it is, and may know of tokens that the body does not.
	if forgetAfter := time.Unix(forget, 0).UTC(); forgetAfter.After(s.ForgetAfter()) {
		s.TokensUntil = forgetAfter.Add(-session.MaxLeeway)
	}
	if claims != "" {
		s.Current.Claims = json.RawMessage(claims)
	}
	if revoked != 0 {
		s.Revoked = &session.Revocation{At: fromUnix(revoked), Reason: token.Reason(strings.TrimPrefix(fields[7], none))}
	}
	return s, nil
}

func toIssued(i session.Issued) issued {
	return issued{ID: i.ID, IssuedAt: unix(i.IssuedAt), ExpiresAt: unix(i.ExpiresAt), KeyID: i.KeyID}
}

func (i issued) issued() session.Issued {
	return session.Issued{ID: i.ID, IssuedAt: fromUnix(i.IssuedAt), ExpiresAt: fromUnix(i.ExpiresAt), KeyID: i.KeyID}
}

func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func fromUnix(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(n, 0).UTC()
}
