// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/issuer/policies"
)

// cachedPolicy is a cache that holds one policy, and nothing else.
type cachedPolicy struct {
	client.Client
	policy *api.TokenPolicy
}

func (c cachedPolicy) Get(_ context.Context, _ client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	if policy, ok := into.(*api.TokenPolicy); ok {
		c.policy.DeepCopyInto(policy)
		return nil
	}
	return context.Canceled
}

func TestAScrapeAndAStoreThatIsOpenedDoNotWaitForEachOther(t *testing.T) {
	metrics := newStoreMetrics()
	key := types.NamespacedName{Namespace: "shop", Name: "web"}
	opening, scraping := make(chan struct{}), make(chan struct{})
	registry := policies.New(cachedPolicy{policy: &api.TokenPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name, UID: "1"},
		Spec: api.TokenPolicySpec{
			Users: api.Users{Secret: &api.SecretUsers{Name: "users"}},
			Store: api.Store{ConfigMap: &api.ConfigMapStore{Shards: 1, MaxSessions: 1}},
		},
	}}, policies.Options{
		Users: policies.SourceOptions{Now: time.Now},
		Stores: policies.StoreOptions{OpenConfigMaps: func(context.Context, *api.TokenPolicy) (policies.Store, error) {
			close(opening)
			<-scraping
			metrics.follow(key, policies.ConfigMaps{})
			return nil, context.Canceled // it need not be collected
		}},
	})
	metrics.observe(func(see func(types.NamespacedName, policies.PoolStats)) {
		close(scraping)
		registry.Pools(see)
	})
	done := make(chan struct{}, 2)
	go func() {
		_, _ = registry.Reconcile(t.Context(), ctrl.Request{NamespacedName: key}) // it fails, which is not the question
		done <- struct{}{}
	}()
	go func() {
		<-opening
		metrics.Collect(make(chan prometheus.Metric, 100))
		done <- struct{}{}
	}()
	for range 2 {
		select {
		case <-done:
		case <-time.After(30 * time.Second):
			t.Fatal("both hang")
		}
	}
}
