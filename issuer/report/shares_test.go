// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package report

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/issuer/policies"
)

// everyPolicy is an API server that has every policy, and takes every status.
type everyPolicy struct{ client.Client }

func (everyPolicy) Get(_ context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	*into.(*api.TokenPolicy) = api.TokenPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name, UID: types.UID(key.Name)},
		Spec:       api.TokenPolicySpec{Users: api.Users{HTTP: &api.HTTPUsers{}}, Store: api.Store{ConfigMap: &api.ConfigMapStore{}}},
	}
	return nil
}

func (everyPolicy) Status() client.SubResourceWriter { return everyStatus{} }

type everyStatus struct{ client.SubResourceWriter }

func (everyStatus) Apply(context.Context, runtime.ApplyConfiguration, ...client.SubResourceApplyOption) error {
	return nil
}

// hanging are users in one namespace whose servers do not answer for a while.
type hanging struct {
	policies.Users
	takes   time.Duration
	looking *atomic.Int32
}

func (h hanging) Look(context.Context) policies.UsersLook {
	h.looking.Add(1)
	time.Sleep(h.takes)
	return policies.UsersLook{}
}

type partsOf func(policy *api.TokenPolicy) policies.Users

func (p partsOf) Users(policy *api.TokenPolicy) (policies.Users, bool) { return p(policy), true }

func (partsOf) LookAtStore(context.Context, *api.TokenPolicy) (policies.StoreLook, bool) {
	return policies.StoreLook{}, true
}

func TestATenantWithManyServersThatHangDelaysNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slow, quick atomic.Int32
		c := New(everyPolicy{}, Options{Now: time.Now, Parts: partsOf(func(policy *api.TokenPolicy) policies.Users {
			if policy.Namespace == "slow" {
				return hanging{takes: 10 * time.Second, looking: &slow}
			}
			return hanging{looking: &quick}
		})})
		reconcile := func(namespace, name string) ctrl.Result {
			result, err := c.Reconcile(t.Context(), ctrl.Request{NamespacedName: types.NamespacedName{Namespace: namespace, Name: name}})
			if err != nil || result.RequeueAfter == 0 || result.Priority == nil || *result.Priority != 0 {
				t.Errorf("%+v, %v", result, err)
			}
			return result
		}
		for i := range atOnce { // as many as there are workers
			go reconcile("slow", string(rune('a'+i)))
		}
		synctest.Wait()
		if n := slow.Load(); n != ofNamespace {
			t.Errorf("%d of one namespace are looked at at one time, want %d", n, ofNamespace)
		}
		began := time.Now()
		if reconcile("quick", "web"); quick.Load() != 1 || time.Since(began) > 0 {
			t.Errorf("another tenant's was looked at %d times in %v", quick.Load(), time.Since(began))
		}
		if again := reconcile("slow", "last").RequeueAfter; again < turn || again > 2*turn {
			t.Errorf("one that has to wait for its turn comes again after %v", again)
		}
		time.Sleep(time.Minute)
		if reconcile("slow", "last"); slow.Load() != ofNamespace+1 {
			t.Errorf("%d looks: a share was not given back", slow.Load())
		}
	})
}
