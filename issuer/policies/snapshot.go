// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"errors"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/attempts"
	"github.com/tokenward/tokenward/internal/keyring"
	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/issuer/exchange"
)

// snapshot is the policy as calls need it, but for keys, users and sessions.
func snapshot(policy *api.TokenPolicy) *exchange.Policy {
	spec := &policy.Spec
	p := &exchange.Policy{
		UID:           session.PolicyID(policy.UID),
		Namespace:     policy.Namespace,
		Name:          policy.Name,
		Generation:    policy.Generation,
		Issuer:        spec.Issuer,
		Audiences:     spec.Audiences,
		RefuseExpired: spec.Refresh.OnExpired == api.OnExpiredReject,
		DenialStatus:  int(spec.Denial.StatusCode),
		Session: session.Policy{
			TTL:             duration(spec.AccessToken.TTL),
			IdleTimeout:     duration(spec.Refresh.IdleTimeout),
			AbsoluteTimeout: duration(spec.Refresh.AbsoluteTimeout),
			ReuseGrace:      duration(spec.Refresh.ReuseGrace),
			Leeway:          duration(spec.Leeway),
			OnReuse:         session.OnReuse(spec.Refresh.OnReuse),
		},
		PerAccount: limit(spec.Login.PerAccount, defaultPerAccount),
		PerAddress: limit(spec.Login.PerAddress, defaultPerAddress),
	}
	for _, m := range spec.AccessToken.Claims {
		p.Claims = append(p.Claims, exchange.ClaimMapping{Claim: m.Claim, Attribute: m.Attribute})
	}
	return p
}

// duration of a field that the API server fills in when the author does not.
func duration(d *metav1.Duration) time.Duration {
	if d == nil {
		return 0
	}
	return d.Duration
}

// The limits of a policy that an API server with an older CustomResourceDefinition has
// stored. They are the defaults of the field.
var (
	defaultPerAccount = attempts.Limit{Burst: 10, Interval: time.Minute}
	defaultPerAddress = attempts.Limit{Burst: 100, Interval: time.Second}
)

func limit(of api.AttemptLimit, otherwise attempts.Limit) attempts.Limit {
	if of.Burst < 1 || duration(of.Interval) <= 0 {
		return otherwise
	}
	return attempts.Limit{Burst: int(of.Burst), Interval: duration(of.Interval)}
}

// errNoActiveKey: the ring has no key that can sign.
var errNoActiveKey = errors.New("no key that signs")

func keysOf(ring *keyring.Ring) (exchange.Keys, error) {
	set, err := ring.KeySet()
	if err != nil {
		return exchange.Keys{}, err
	}
	active, ok := ring.Active()
	if !ok || active.Private == nil {
		return exchange.Keys{}, errNoActiveKey
	}
	keys := exchange.Keys{Set: set, Active: active.Private, Private: map[string]*token.PrivateKey{}}
	for _, key := range ring.Keys {
		if key.Private != nil {
			keys.Private[key.Public.ID] = key.Private
		}
	}
	return keys, nil
}

// newer says whether keys may take the place of old ones. A key set is never
// replaced by an older one of the same owner, or a removed key could come back
// (threat 32). Of one version the states may differ: a published key became active.
func newer(keys, old exchange.Keys) bool {
	return old.Set == nil || keys.Set.Owner() != old.Set.Owner() || keys.Set.Version() >= old.Set.Version()
}
