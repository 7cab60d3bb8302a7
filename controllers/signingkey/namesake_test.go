// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package signingkey

import (
	"context"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/internal/controllertest"
)

// watched is a manager that hands out who hears of TokenPolicies.
type watched struct {
	ctrl.Manager
	handlers chan toolscache.ResourceEventHandler
}

func (w watched) GetCache() cache.Cache { return watchedCache{w.Manager.GetCache(), w.handlers} }

type watchedCache struct {
	cache.Cache
	handlers chan toolscache.ResourceEventHandler
}

func (c watchedCache) GetInformer(ctx context.Context, of client.Object, options ...cache.InformerGetOption) (cache.Informer, error) {
	informer, err := c.Cache.GetInformer(ctx, of, options...)
	if _, ok := of.(*api.TokenPolicy); ok {
		informer = watchedInformer{informer, c.handlers}
	}
	return informer, err
}

type watchedInformer struct {
	cache.Informer
	handlers chan toolscache.ResourceEventHandler
}

func (i watchedInformer) AddEventHandlerWithOptions(handler toolscache.ResourceEventHandler, options toolscache.HandlerOptions) (toolscache.ResourceEventHandlerRegistration, error) {
	i.handlers <- handler
	return i.Informer.AddEventHandlerWithOptions(handler, options)
}

// What a watch that was interrupted shows of a policy that was deleted and created again:
// one update, from one object of generation 1 to another.
func TestANamesakeOfAPolicyIsHeardOf(t *testing.T) {
	w := &world{TB: t, namespace: cluster.Tenant(t), clock: clocktesting.NewFakePassiveClock(epoch)}
	t.Cleanup(w.forget)
	handlers := make(chan toolscache.ResourceEventHandler, 1)
	w.requests, w.stop = cluster.Manager(t, func(mgr ctrl.Manager) error {
		return SetupWithManager(watched{mgr, handlers}, Options{Namespace: controllertest.Namespace, Clock: w.clock})
	})
	key := w.create("new", api.SigningKeySpec{Algorithm: "ES256", Rotation: &api.Rotation{Interval: &metav1.Duration{Duration: time.Hour}}})
	w.ready(key, api.ReasonKeyActive)
	w.states(key, api.KeyActive)
	w.requests.Quiet(t, time.Second)

	policy := func(uid types.UID, names string) *api.TokenPolicy {
		return &api.TokenPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "shop", UID: uid, Generation: 1},
			Spec:       api.TokenPolicySpec{SigningKeyRef: api.SigningKeyReference{Name: names}},
		}
	}
	w.clock.SetTime(w.clock.Now().Add(2 * time.Hour)) // a look now finds a key to publish
	(<-handlers).OnUpdate(policy("1", "old"), policy("2", key.Name))
	w.states(key, api.KeyPublished, api.KeyActive)
}
