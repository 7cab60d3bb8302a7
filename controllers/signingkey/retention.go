// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package signingkey

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

// The defaults of a TokenPolicy: what counts for a key that no policy names yet, and
// for a policy that was stored before the schema had the default.
const (
	defaultTTL         = 5 * time.Minute
	defaultIdleTimeout = 12 * time.Hour
	defaultLeeway      = 30 * time.Second
)

// readRetention asks the policies that name the key how long their tokens matter.
func (r *reconciler) readRetention(ctx context.Context, s *scope) error {
	policies := &api.TokenPolicyList{}
	if err := r.client.List(ctx, policies, client.InNamespace(s.key.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("list the TokenPolicies of namespace %q: %w", s.key.Namespace, err)
	}
	s.retention = retention(policies.Items, s.key.Name)
	return nil
}

// retention is how long after its last signature a key must still verify: the
// longest of ttl + idleTimeout + leeway over the policies that name it (design
// section 5). A token can be refreshed for so long. The key ring remembers the
// longest it has ever been told, so a policy that goes away shortens nothing.
func retention(policies []api.TokenPolicy, key string) time.Duration {
	longest := time.Duration(0)
	for i := range policies {
		spec := &policies[i].Spec
		if spec.SigningKeyRef.Name != key {
			continue
		}
		longest = max(longest, of(spec.AccessToken.TTL, defaultTTL)+of(spec.Refresh.IdleTimeout, defaultIdleTimeout)+of(spec.Leeway, defaultLeeway))
	}
	if longest == 0 {
		return defaultTTL + defaultIdleTimeout + defaultLeeway
	}
	return longest
}

func of(value *metav1.Duration, fallback time.Duration) time.Duration {
	if value == nil {
		return fallback
	}
	return value.Duration
}
