// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

// story walks through what the product does. Each chapter prints its requests and
// answers and returns an error when an answer is not the expected one.
type story struct {
	platform *platform
	workload *workload
	stage    stage
	backend  backend
	caller   *caller
	out      io.Writer
	say      func(string, ...any)

	token     string // the newest token that alice has seen
	expiresAt time.Time
	spare     string // a token of a second session of hers, which expires unused
	bob       string
}

func (s *story) tell(ctx context.Context) error {
	for _, chapter := range []struct {
		title string
		tell  func(context.Context) error
	}{
		{"steps 1-4: log in with id, phone and password; the answer has the access token only", s.login},
		{"a wrong password and an unknown user get the same answer", s.wrongCredentials},
		{"guessing ends soon: the eleventh wrong password for one account is not even looked at", s.guessing},
		{"steps 5-7: an authorised call; the application sees who it is", s.authorisedCall},
		{"a call without a token is refused", s.withoutToken},
		{"a forged token is refused", s.forgedToken},
		{"a header that claims to be somebody else does not reach the application", s.spoofedHeader},
		{"what a rule makes anonymous needs no token; what needs a role asks for it", s.rules},
		{"key rotation: tokens signed before go on working", s.rotation},
		{"log out, and the token is refused although it has not expired", s.logout},
		{"step 8a: an expired token under onExpired: Reject is refused", s.expiredReject},
		{"step 8b: under onExpired: Refresh it goes through, and the new token is in the header", s.expiredRefresh},
		{"the exchanged token gets the same new one again while the grace lasts", s.lostAnswer},
		{"an administrator ends all sessions of a user: the token is refused although it has not expired", s.order},
		{"a removed user is refused at the next refresh", s.removedUser},
		{"emergency: the signing key is revoked; its tokens are refused, the next key signs", s.revokedKey},
	} {
		_, _ = fmt.Fprintln(s.out)
		s.say("%s", chapter.title)
		if err := chapter.tell(ctx); err != nil {
			return fmt.Errorf("%s: %w", chapter.title, err)
		}
	}
	return nil
}

func (s *story) logIn(ctx context.Context, u user) (string, error) {
	answer, err := s.caller.do(ctx,
		call{method: http.MethodPost, path: "/auth/token", body: u.credentials()},
		expectation{status: http.StatusOK})
	if err != nil {
		return "", err
	}
	return answer.loginToken()
}

func (s *story) login(ctx context.Context) (err error) {
	if s.token, err = s.logIn(ctx, alice); err != nil {
		return err
	}
	if s.spare, err = s.logIn(ctx, alice); err != nil {
		return err
	}
	s.bob, err = s.logIn(ctx, bob)
	s.expiresAt = time.Now().Add(31 * time.Second) // ttl 30s, and times in tokens are whole seconds
	return err
}

func (s *story) wrongCredentials(ctx context.Context) error {
	for _, u := range []user{{ID: "alice", Phone: alice.Phone, Password: "guess"}, {ID: "nobody", Phone: alice.Phone, Password: "guess"}} {
		_, err := s.caller.do(ctx,
			call{method: http.MethodPost, path: "/auth/token", body: u.credentials()},
			expectation{status: http.StatusForbidden, reason: "credentials_invalid"})
		if err != nil {
			return err
		}
	}
	return nil
}

// guessing uses up what one account is allowed: spec.login.perAccount, 10 by default.
func (s *story) guessing(ctx context.Context) error {
	guess := func(caller *caller, n int, want expectation) error {
		u := user{ID: "carol", Phone: alice.Phone, Password: fmt.Sprintf("guess %d", n)}
		_, err := caller.do(ctx, call{method: http.MethodPost, path: "/auth/token", body: u.credentials()}, want)
		return err
	}
	wrong := expectation{status: http.StatusForbidden, reason: "credentials_invalid"}
	if err := guess(s.caller, 1, wrong); err != nil {
		return err
	}
	_, _ = fmt.Fprintln(s.out, "    … the same with guess 2 to guess 10")
	silent := newCaller(s.caller.base, io.Discard)
	for n := 2; n <= 10; n++ {
		if err := guess(silent, n, wrong); err != nil {
			return err
		}
	}
	return guess(s.caller, 11, expectation{status: http.StatusTooManyRequests, reason: "rate_limited"})
}

func (s *story) authorisedCall(ctx context.Context) error {
	_, err := s.caller.do(ctx,
		call{method: http.MethodGet, path: "/orders", token: s.token, tokenName: "TOKEN"},
		expectation{status: http.StatusOK, check: sawUser("alice", 1)})
	return err
}

func (s *story) withoutToken(ctx context.Context) error {
	_, err := s.caller.do(ctx, call{method: http.MethodGet, path: "/orders"},
		expectation{status: http.StatusForbidden, reason: "token_missing"})
	return err
}

// forgedToken changes one character of the signature, in its middle.
func (s *story) forgedToken(ctx context.Context) error {
	at := strings.LastIndex(s.token, ".") + 20
	replacement := "A"
	if s.token[at] == 'A' {
		replacement = "B"
	}
	_, err := s.caller.do(ctx,
		call{method: http.MethodGet, path: "/orders", token: s.token[:at] + replacement + s.token[at+1:], tokenName: "FORGED"},
		expectation{status: http.StatusForbidden, reason: "signature_invalid"})
	return err
}

func (s *story) spoofedHeader(ctx context.Context) error {
	_, err := s.caller.do(ctx,
		call{method: http.MethodGet, path: "/orders", token: s.token, tokenName: "TOKEN", header: "X_User-ID: root"},
		expectation{status: http.StatusOK, check: sawUser("alice", 1)})
	return err
}

func (s *story) rules(ctx context.Context) error {
	if _, err := s.caller.do(ctx, call{method: http.MethodGet, path: "/healthz"}, expectation{status: http.StatusOK}); err != nil {
		return err
	}
	if _, err := s.caller.do(ctx, call{method: http.MethodGet, path: "/admin", token: s.bob, tokenName: "BOB"},
		expectation{status: http.StatusForbidden, reason: "claim_mismatch"}); err != nil {
		return err
	}
	_, err := s.caller.do(ctx, call{method: http.MethodGet, path: "/admin", token: s.token, tokenName: "TOKEN"},
		expectation{status: http.StatusOK, check: sawUser("alice", 1)})
	return err
}

// rotation asks for a new key by annotation. It is published at once, so that every
// verifier knows it, and signs after publishBefore, which is at least 3 minutes and
// so beyond this demo.
func (s *story) rotation(ctx context.Context) error {
	if err := s.patch(ctx, "signingkey", &api.SigningKey{ObjectMeta: shop}, `{"metadata":{"annotations":{"`+api.RotateAnnotation+`":"now"}}}`); err != nil {
		return err
	}
	if err := s.inForce(ctx, servesKeys(2)); err != nil {
		return err
	}
	if _, err := s.caller.do(ctx, call{method: http.MethodGet, path: "/auth/jwks.json"},
		expectation{status: http.StatusOK, check: keyCount(2)}); err != nil {
		return err
	}
	_, err := s.caller.do(ctx,
		call{method: http.MethodGet, path: "/orders", token: s.token, tokenName: "TOKEN"},
		expectation{status: http.StatusOK, check: sawUser("alice", 1)})
	return err
}

func (s *story) logout(ctx context.Context) error {
	if _, err := s.caller.do(ctx,
		call{method: http.MethodPost, path: "/auth/logout", token: s.token, tokenName: "TOKEN"},
		expectation{status: http.StatusNoContent}); err != nil {
		return err
	}
	if len(s.workload.sidecars) > 1 { // the others hear of it a moment after the one that was asked
		if err := s.everywhere(ctx, refuses(s.token, "session_revoked")); err != nil {
			return err
		}
	}
	_, err := s.caller.do(ctx,
		call{method: http.MethodGet, path: "/orders", token: s.token, tokenName: "TOKEN"},
		expectation{status: http.StatusForbidden, reason: "session_revoked"})
	return err
}

func (s *story) expiredReject(ctx context.Context) error {
	if err := s.setOnExpired(ctx, api.OnExpiredReject); err != nil {
		return err
	}
	if err := s.waitForExpiry(ctx); err != nil {
		return err
	}
	_, err := s.caller.do(ctx,
		call{method: http.MethodGet, path: "/orders", token: s.spare, tokenName: "EXPIRED"},
		expectation{status: http.StatusForbidden, reason: "token_expired"})
	return err
}

func (s *story) expiredRefresh(ctx context.Context) error {
	if err := s.setOnExpired(ctx, api.OnExpiredRefresh); err != nil {
		return err
	}
	answer, err := s.caller.do(ctx,
		call{method: http.MethodGet, path: "/orders", token: s.spare, tokenName: "EXPIRED"},
		expectation{status: http.StatusOK, newToken: true, check: sawUser("alice", 2)})
	if err != nil {
		return err
	}
	s.token = answer.newToken()
	_, err = s.caller.do(ctx,
		call{method: http.MethodGet, path: "/orders", token: s.token, tokenName: "NEW_TOKEN"},
		expectation{status: http.StatusOK, check: sawUser("alice", 2)})
	return err
}

func (s *story) lostAnswer(ctx context.Context) error {
	_, err := s.caller.do(ctx,
		call{method: http.MethodGet, path: "/orders", token: s.spare, tokenName: "EXPIRED"},
		expectation{status: http.StatusOK, newToken: true, check: func(a answerOf) error {
			if a.newToken() != s.token {
				return fmt.Errorf("the new token is another one than before")
			}
			return sawUser("alice", 2)(a)
		}})
	return err
}

func (s *story) order(ctx context.Context) error {
	line := fmt.Sprintf("kubectl -n %s annotate tokenpolicy %s %s=alice", shop.Namespace, shop.Name, api.RevokeSubjectAnnotation)
	if err := s.change(ctx, line, &api.TokenPolicy{ObjectMeta: shop}, `{"metadata":{"annotations":{"`+api.RevokeSubjectAnnotation+`":"alice"}}}`); err != nil {
		return err
	}
	// The order goes from the API server over an issuer to the sidecars.
	if err := s.everywhere(ctx, refuses(s.token, "session_revoked")); err != nil {
		return err
	}
	_, err := s.caller.do(ctx,
		call{method: http.MethodGet, path: "/orders", token: s.token, tokenName: "NEW_TOKEN"},
		expectation{status: http.StatusForbidden, reason: "session_revoked"})
	return err
}

func (s *story) removedUser(ctx context.Context) error {
	if err := s.backend.remove(ctx, s, "bob"); err != nil {
		return err
	}
	_, err := s.caller.do(ctx,
		call{method: http.MethodGet, path: "/orders", token: s.bob, tokenName: "BOB"},
		expectation{status: http.StatusForbidden, reason: "user_disabled"})
	return err
}

// revokedKey is the emergency: the key that signs was stolen.
func (s *story) revokedKey(ctx context.Context) error {
	key := &api.SigningKey{ObjectMeta: shop}
	if err := s.platform.Get(ctx, client.ObjectKeyFromObject(key), key); err != nil {
		return err
	}
	if err := s.patch(ctx, "signingkey", key, `{"spec":{"revokedKeyIDs":["`+key.Status.ActiveKeyID+`"]}}`); err != nil {
		return err
	}
	if err := s.inForce(ctx, servesKeys(1)); err != nil {
		return err
	}
	if _, err := s.caller.do(ctx,
		call{method: http.MethodGet, path: "/orders", token: s.token, tokenName: "NEW_TOKEN"},
		expectation{status: http.StatusForbidden, reason: "key_unknown"}); err != nil {
		return err
	}
	token, err := s.logIn(ctx, alice)
	if err != nil {
		return err
	}
	_, err = s.caller.do(ctx,
		call{method: http.MethodGet, path: "/orders", token: token, tokenName: "TOKEN"},
		expectation{status: http.StatusOK, check: sawUser("alice", 1)})
	return err
}
