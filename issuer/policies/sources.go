// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/users/secret"
)

// Sources are the user sources of the policies, one each, shared by the calls and by
// the report on them. They live on through changes that do not concern users.
type Sources struct {
	live   client.Reader
	hasher secret.Hasher
	now    func() time.Time

	mu     sync.Mutex
	byName map[types.NamespacedName]userSource
}

type userSource struct {
	uid    types.UID
	spec   api.SecretUsers
	source *secret.Source
}

// NewSources reads Secrets through live, which must not be a cache: the issuer may
// read the single Secrets that tenants have granted, and watch none of them.
func NewSources(live client.Reader, hasher secret.Hasher, now func() time.Time) *Sources {
	return &Sources{live: live, hasher: hasher, now: now, byName: map[types.NamespacedName]userSource{}}
}

// For is the source of a policy.
func (s *Sources) For(policy *api.TokenPolicy) *secret.Source {
	s.mu.Lock()
	defer s.mu.Unlock()
	key, spec := client.ObjectKeyFromObject(policy), *policy.Spec.Users.Secret
	if have, ok := s.byName[key]; ok && have.uid == policy.UID && have.spec.Name == spec.Name && slices.Equal(have.spec.Fields, spec.Fields) {
		return have.source
	}
	source := secret.New(secret.Options{
		Reader: secretReader{live: s.live, key: client.ObjectKey{Namespace: policy.Namespace, Name: spec.Name}},
		Hasher: s.hasher,
		Fields: spec.Fields,
		Now:    s.now,
	})
	s.byName[key] = userSource{uid: policy.UID, spec: spec, source: source}
	return source
}

// Forget the source of a policy that is gone.
func (s *Sources) Forget(key types.NamespacedName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byName, key)
}

// secretReader reads one Secret from the API server.
type secretReader struct {
	live client.Reader
	key  client.ObjectKey
}

// ReadSecret implements [secret.Reader].
func (r secretReader) ReadSecret(ctx context.Context) (map[string][]byte, string, error) {
	var found corev1.Secret
	if err := r.live.Get(ctx, r.key, &found); err != nil {
		return nil, "", fmt.Errorf("get Secret %s: %w", r.key, err)
	}
	return found.Data, string(found.UID) + "/" + found.ResourceVersion, nil
}
