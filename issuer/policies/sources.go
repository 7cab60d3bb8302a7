// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/outbound"
	"github.com/tokenward/tokenward/internal/users"
	"github.com/tokenward/tokenward/internal/users/secret"
	"github.com/tokenward/tokenward/internal/users/sql"
)

// Users is the user source of a policy, with an account of how it is.
type Users interface {
	users.Source
	// Look looks whether the source can be used, and opens it if its Secret has changed.
	Look(ctx context.Context) UsersLook
	// Close ends it. Calls under way are waited for.
	Close() error
}

// UsersLook is what a look at a user source has shown.
type UsersLook struct {
	// Err is why it cannot be used: [*InvalidError], [*outbound.RefusedError],
	// [*users.UnavailableError], or an error of the API server about its Secret.
	Err error
	// Former says that calls go on with the Secret as it was before.
	Former bool
	// Secret is about the entries of a Secret, SQL about the rows of a database.
	Secret secret.Report
	SQL    sql.Report
}

// InvalidError is a mistake that only opening shows. It quotes no secret.
type InvalidError struct {
	// InSecret says that it is in the Secret, and begins with the key; else it is in the
	// spec, and begins with a field.
	InSecret bool
	Text     string
}

// Error is the text.
func (e *InvalidError) Error() string { return e.Text }

// SourceOptions are what all user sources share.
type SourceOptions struct {
	// Live reads Secrets. It must not be a cache: the issuer may read the single Secrets
	// that tenants have granted, and watch none of them.
	Live   client.Reader
	Hasher secret.Hasher
	// Guard decides where sources may connect to.
	Guard outbound.Guard
	Now   func() time.Time
}

// sources of the policies, one each, shared by the calls and by the report on them.
// They live on through changes that do not concern users.
type sources struct {
	SourceOptions

	mu      sync.Mutex
	closed  bool
	byName  map[types.NamespacedName]userSource
	leaving leaving
}

type userSource struct {
	uid  types.UID
	spec api.Users
	Users
}

func newSources(options SourceOptions) *sources {
	return &sources{SourceOptions: options, byName: map[types.NamespacedName]userSource{}}
}

// of a policy. Only the controller calls it, so that no other makes a second one from an
// older state of the policy.
func (s *sources) of(policy *api.TokenPolicy) (Users, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	if have, ok := s.find(policy); ok {
		return have, nil
	}
	var source Users
	switch spec := policy.Spec.Users; {
	case spec.Secret != nil:
		source = s.fromSecret(policy.Namespace, spec.Secret)
	case spec.SQL != nil:
		source = s.fromSQL(policy.Namespace, spec.SQL)
	case spec.HTTP != nil:
		source = s.fromHTTP(policy.Namespace, spec.HTTP)
	default:
		return nil, errNewerRelease
	}
	key := client.ObjectKeyFromObject(policy)
	if have, ok := s.byName[key]; ok {
		s.leaving.supersede(key, have.Users)
	}
	s.byName[key] = userSource{uid: policy.UID, spec: *policy.Spec.Users.DeepCopy(), Users: source}
	return source, nil
}

// find the source of a policy, if the one that there is is of this very state of it.
func (s *sources) find(policy *api.TokenPolicy) (Users, bool) {
	have, ok := s.byName[client.ObjectKeyFromObject(policy)]
	if !ok || have.uid != policy.UID || !equality.Semantic.DeepEqual(have.spec, policy.Spec.Users) {
		return nil, false
	}
	return have.Users, true
}

func (s *sources) current(policy *api.TokenPolicy) (Users, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.find(policy)
}

// forget the source of a policy that is gone.
func (s *sources) forget(key types.NamespacedName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if have, ok := s.byName[key]; ok {
		delete(s.byName, key)
		s.leaving.supersede(key, have.Users)
	}
	s.leaving.settle(key)
}

// close all of them, for good.
func (s *sources) close() error {
	s.mu.Lock()
	s.closed = true
	for _, have := range s.byName {
		s.leaving.retire(have.Users)
	}
	clear(s.byName)
	s.mu.Unlock()
	return s.leaving.close()
}

// secretUsers are in a Secret, which is read again and again and never open.
type secretUsers struct{ *secret.Source }

func (s *sources) fromSecret(namespace string, spec *api.SecretUsers) Users {
	return secretUsers{secret.New(secret.Options{
		Reader: grantedSecret{live: s.Live, key: client.ObjectKey{Namespace: namespace, Name: spec.Name}},
		Hasher: s.Hasher,
		Fields: spec.Fields,
		Now:    s.Now,
	})}
}

// Look implements [Users].
func (u secretUsers) Look(ctx context.Context) UsersLook {
	report, err := u.Check(ctx)
	return UsersLook{Err: err, Secret: report}
}

// Close implements [Users].
func (secretUsers) Close() error { return nil }

// grantedSecret reads one Secret from the API server.
type grantedSecret struct {
	live client.Reader
	key  client.ObjectKey
}

// ReadSecret implements [secret.Reader].
func (r grantedSecret) ReadSecret(ctx context.Context) (map[string][]byte, string, error) {
	var found corev1.Secret
	if err := r.live.Get(ctx, r.key, &found); err != nil {
		return nil, "", fmt.Errorf("get Secret %s: %w", r.key, err)
	}
	return found.Data, string(found.UID) + "/" + found.ResourceVersion, nil
}
