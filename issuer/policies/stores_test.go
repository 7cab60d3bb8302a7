// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/session/memory"
)

type closable struct {
	*memory.Store
	closed atomic.Int32
}

func (c *closable) Close() error { c.closed.Add(1); return c.Store.Close() }

func (*closable) Look(context.Context) StoreLook { return StoreLook{} }

func storePolicy(uid types.UID, maxSessions int32) *api.TokenPolicy {
	return &api.TokenPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: uid},
		Spec:       api.TokenPolicySpec{Store: api.Store{ConfigMap: &api.ConfigMapStore{Shards: 1, MaxSessions: maxSessions}}},
	}
}

func newTestStores(opened *[]*closable) *stores {
	return newStores(StoreOptions{OpenConfigMaps: func(_ context.Context, policy *api.TokenPolicy) (Store, error) {
		c := &closable{Store: memory.New(session.PolicyID(policy.UID), memory.Options{})}
		*opened = append(*opened, c)
		return c, nil
	}})
}

func TestAStoreLivesAsLongAsItsPolicyAndLingersForCallsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var opened []*closable
		s := newTestStores(&opened)
		key := types.NamespacedName{Namespace: "shop", Name: "web"}
		get := func(p *api.TokenPolicy) Store {
			store, err := s.of(t.Context(), p)
			if err != nil {
				t.Fatal(err)
			}
			s.leaving.settle(key)
			return store
		}
		first := get(storePolicy("1", 10))
		if get(storePolicy("1", 10)) != first || len(opened) != 1 {
			t.Fatal("the same policy got another store")
		}
		larger := get(storePolicy("1", 20))
		if larger == first {
			t.Error("a changed maxSessions was ignored")
		}
		namesake := get(storePolicy("2", 20))
		if namesake == larger {
			t.Error("a namesake got the sessions of the one before it")
		}
		time.Sleep(linger - time.Second)
		if opened[0].closed.Load()+opened[1].closed.Load() != 0 {
			t.Error("a store was closed under the calls that use it")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if opened[0].closed.Load() != 1 || opened[1].closed.Load() != 1 || opened[2].closed.Load() != 0 {
			t.Errorf("closed %d, %d, %d", opened[0].closed.Load(), opened[1].closed.Load(), opened[2].closed.Load())
		}
		s.forget(key)
		if err := s.close(); err != nil {
			t.Error(err)
		}
		time.Sleep(2 * linger)
		if opened[2].closed.Load() != 1 {
			t.Errorf("closed %d times", opened[2].closed.Load())
		}
		if _, err := s.of(t.Context(), storePolicy("3", 1)); !errors.Is(err, errClosed) {
			t.Errorf("after the end: %v", err)
		}
	})
}

// hung is one whose server does not answer.
type hung struct{ id int }

func (*hung) Close() error { time.Sleep(5 * time.Second); return nil }

func TestTheEndDoesNotWaitForOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l leaving
		for id := range 100 {
			l.retire(&hung{id})
		}
		began := time.Now()
		if err := l.close(); err != nil || time.Since(began) > 5*time.Second {
			t.Errorf("%v, after %v", err, time.Since(began))
		}
	})
}
