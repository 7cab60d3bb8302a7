// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

// shop is the name of key and policy.
var shop = metav1.ObjectMeta{Namespace: "shop", Name: "shop"}

// patch changes an object and prints the line that does the same.
func (s *story) patch(ctx context.Context, kind string, object client.Object, patch string) error {
	return s.change(ctx, fmt.Sprintf("kubectl -n %s patch %s %s --type merge \\\n        -p '%s'", object.GetNamespace(), kind, object.GetName(), patch), object, patch)
}

// change is what a line of kubectl does, and prints it.
func (s *story) change(ctx context.Context, line string, object client.Object, patch string) error {
	_, _ = fmt.Fprintln(s.out, "    $ "+line)
	return s.platform.Patch(ctx, object, client.RawPatch(types.MergePatchType, []byte(patch)))
}

// setOnExpired changes the policy and waits until the sidecar goes by it.
func (s *story) setOnExpired(ctx context.Context, to api.OnExpired) error {
	policy := &api.TokenPolicy{ObjectMeta: shop}
	if err := s.patch(ctx, "tokenpolicy", policy, `{"spec":{"refresh":{"onExpired":"`+string(to)+`"}}}`); err != nil {
		return err
	}
	return s.inForce(ctx, goesBy(policy.Generation))
}

// inForce waits until all sidecars have what was changed in their settings.
func (s *story) inForce(ctx context.Context, have func(context.Context, sidecar) error) error {
	again := false
	return s.everywhere(ctx, func(ctx context.Context, one sidecar) error {
		if err := s.stage.hasten(ctx, again); err != nil {
			return err
		}
		again = true
		return have(ctx, one)
	})
}

// everywhere waits until all sidecars have heard of something.
func (s *story) everywhere(ctx context.Context, heard func(context.Context, sidecar) error) error {
	for _, one := range s.workload.sidecars {
		if err := until(ctx, func(ctx context.Context) error { return heard(ctx, one) }); err != nil {
			return err
		}
	}
	return nil
}

// goesBy: the settings are those of a generation of the policy.
func goesBy(generation int64) func(context.Context, sidecar) error {
	return func(ctx context.Context, one sidecar) error {
		got, err := newCaller(one.admin, io.Discard).get(ctx, "/readyz")
		if err != nil {
			return err
		}
		var detail struct {
			Settings struct {
				Generation int64 `json:"generation"`
			} `json:"settings"`
		}
		if err := json.Unmarshal(got, &detail); err != nil {
			return err
		}
		if detail.Settings.Generation != generation {
			return fmt.Errorf("a sidecar goes by generation %d of the policy, not yet by %d", detail.Settings.Generation, generation)
		}
		return nil
	}
}

// servesKeys: the key set has n keys.
func servesKeys(n int) func(context.Context, sidecar) error {
	return func(ctx context.Context, one sidecar) error {
		got, err := newCaller(one.url, io.Discard).get(ctx, "/auth/jwks.json")
		if err != nil {
			return err
		}
		return keyCount(n)(answerOf{body: got})
	}
}

// refuses: the token is, for that reason.
func refuses(token, reason string) func(context.Context, sidecar) error {
	return func(ctx context.Context, one sidecar) error {
		_, err := newCaller(one.url, io.Discard).do(ctx,
			call{method: http.MethodGet, path: "/orders", token: token},
			expectation{status: http.StatusForbidden, reason: reason})
		return err
	}
}

func keyCount(n int) func(answerOf) error {
	return func(a answerOf) error {
		var set struct {
			Keys []json.RawMessage `json:"keys"`
		}
		if err := json.Unmarshal(a.body, &set); err != nil {
			return err
		}
		if len(set.Keys) != n {
			return fmt.Errorf("the key set has %d keys, expected %d", len(set.Keys), n)
		}
		return nil
	}
}

// waitForExpiry shows how long it still takes until the first tokens have expired.
func (s *story) waitForExpiry(ctx context.Context) error {
	for left := time.Until(s.expiresAt); left > 0; left = time.Until(s.expiresAt) {
		_, _ = fmt.Fprintf(s.out, "    waiting %2.0fs for the token to expire\n", math.Ceil(left.Seconds()))
		if err := pause(ctx, min(left, 5*time.Second)); err != nil {
			return err
		}
	}
	return nil
}

// issuerMemory is for how long the issuer may go by what it has read of a users Secret.
const issuerMemory = 1500 * time.Millisecond

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// leaveUp prints how to go on and waits for Ctrl-C.
func (s *story) leaveUp(ctx context.Context) error {
	_, _ = fmt.Fprintf(s.out, `
Everything stays up until Ctrl-C. Go on with:

    %s
    kubectl -n shop get signingkeys,tokenpolicies,pods

    TOKEN=$(curl -s %[2]s/auth/token -H 'Content-Type: application/json' \
        -d '%[3]s' \
        | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
    curl -i %[2]s/orders -H "Authorization: Bearer $TOKEN"
    # Half a minute later the same line brings a new token in the header Authorization.
    sleep 31; curl -i %[2]s/orders -H "Authorization: Bearer $TOKEN"
    curl -i -X POST %[2]s/auth/logout -H "Authorization: Bearer $TOKEN"
    curl -s %[2]s/auth/jwks.json
    curl -s %[4]s/metrics
    # The sessions, which are the refresh tokens that never leave the server:
    %[5]s

`, s.platform.access, s.caller.base, alice.credentials(), s.workload.sidecars[0].admin, s.backend.hint())
	select {
	case <-ctx.Done():
		return nil
	case <-s.workload.lifeline.ended:
		return s.workload.lifeline.wait()
	}
}
