// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"context"
	"errors"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/session/configmap"
)

// onePolicy is an API server that holds at most one policy.
type onePolicy struct {
	client.Reader
	policy *api.TokenPolicy
	err    error
}

func (o onePolicy) Get(_ context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	if o.err != nil {
		return o.err
	}
	if o.policy == nil || client.ObjectKeyFromObject(o.policy) != key {
		return apierrors.NewNotFound(schema.GroupResource{Resource: "tokenpolicies"}, key.Name)
	}
	o.policy.DeepCopyInto(into.(*api.TokenPolicy))
	return nil
}

func TestOnlyALivingPolicyMayGetShards(t *testing.T) {
	policy := func(change ...func(*api.TokenPolicy)) *api.TokenPolicy {
		p := &api.TokenPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "1"}}
		for _, f := range change {
			f(p)
		}
		return p
	}
	outage := errors.New("the connection was cut")
	for name, test := range map[string]struct {
		server onePolicy
		want   error
	}{
		"it is there":                          {onePolicy{policy: policy()}, nil},
		"it is being deleted":                  {onePolicy{policy: policy(func(p *api.TokenPolicy) { p.DeletionTimestamp = &metav1.Time{Time: time.Now()} })}, configmap.ErrPolicyGone},
		"it is gone":                           {onePolicy{}, configmap.ErrPolicyGone},
		"a namesake is in its place":           {onePolicy{policy: policy(func(p *api.TokenPolicy) { p.UID = "2" })}, configmap.ErrPolicyGone},
		"nobody knows, and it is an outage":    {onePolicy{err: outage}, outage},
		"a refusal by the server is an outage": {onePolicy{err: apierrors.NewTooManyRequests("later", 1)}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			err := permit(test.server, policy())(t.Context())
			if test.want == nil && test.server.err != nil {
				if err == nil || errors.Is(err, configmap.ErrPolicyGone) {
					t.Errorf("got %v", err)
				}
				return
			}
			if !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}
