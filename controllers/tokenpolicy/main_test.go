// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package tokenpolicy

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	apply "github.com/tokenward/tokenward/api/v1alpha1/applyconfiguration/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/internal/controllertest"
	"github.com/tokenward/tokenward/controllers/internal/owned"
	"github.com/tokenward/tokenward/controllers/internal/reach"
	"github.com/tokenward/tokenward/controllers/signingkey"
	"github.com/tokenward/tokenward/internal/settings"
	"github.com/tokenward/tokenward/internal/token"
)

var cluster *controllertest.Cluster

func TestMain(m *testing.M) {
	os.Exit(controllertest.Run(m, &cluster, "controllers/signingkey", "controllers/tokenpolicy"))
}

const (
	template   = "template-of-today"
	issuerURL  = "https://tokenward-issuer.tokenward-system.svc:443"
	countDelay = 200 * time.Millisecond
)

// world is one tenant and the manager that serves it, with both controllers.
type world struct {
	testing.TB
	namespace string
	clock     *clocktesting.FakePassiveClock
	requests  *controllertest.Requests
	stop      func()
	// tries is how the manager connects to pods; nil when it does not.
	tries reach.Dial
}

var epoch = time.Date(2026, time.November, 1, 0, 0, 0, 0, time.UTC)

func newWorld(tb testing.TB) *world {
	tb.Helper()
	w := &world{TB: tb, namespace: cluster.Tenant(tb), clock: clocktesting.NewFakePassiveClock(epoch)}
	tb.Cleanup(w.forget)
	w.authorities(authority(tb))
	w.start()
	return w
}

func (w *world) start() {
	w.Helper()
	options := Options{
		Namespace: controllertest.Namespace, Clock: w.clock, IssuerURL: issuerURL, Template: template, CountDelay: countDelay,
	}
	if w.tries != nil {
		options.Dial, options.TriesPerMinute, options.TrySettle = w.tries, 6000, countDelay
	}
	w.requests, w.stop = cluster.Manager(w.TB, func(mgr ctrl.Manager) error {
		return errors.Join(
			signingkey.SetupWithManager(mgr, signingkey.Options{Namespace: controllertest.Namespace, Clock: w.clock}),
			SetupWithManager(mgr, options),
		)
	})
}

// forget takes the tenant's objects away, so that the next test's manager has less to do.
func (w *world) forget() {
	ctx := context.Background()
	policies, keys := &api.TokenPolicyList{}, &api.SigningKeyList{}
	for _, list := range []client.ObjectList{policies, keys} {
		if err := cluster.Admin.List(ctx, list, client.InNamespace(w.namespace)); err != nil {
			w.Error(err)
		}
		_ = meta.EachListItem(list, func(item runtime.Object) error {
			object, ok := item.(client.Object)
			if !ok {
				return nil
			}
			object.SetFinalizers(nil)
			_ = cluster.Admin.Update(ctx, object)
			_ = cluster.Admin.Delete(ctx, object)
			return nil
		})
	}
}

// authorities writes what the certificates controller writes.
func (w *world) authorities(bundle string) {
	w.Helper()
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: controllertest.Namespace, Name: authoritiesSecret, Labels: map[string]string{api.ComponentLabel: owned.Certificates}},
		StringData: map[string]string{authoritiesKey: bundle},
	}
	err := cluster.Admin.Create(w.Context(), secret)
	if apierrors.IsAlreadyExists(err) {
		err = cluster.Admin.Update(w.Context(), secret)
	}
	if err != nil {
		w.Fatal(err)
	}
}

func authority(tb testing.TB) string {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	certificate := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "authority"}, IsCA: true}
	der, err := x509.CreateCertificate(rand.Reader, certificate, certificate, key.Public(), key)
	if err != nil {
		tb.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func (w *world) key(name string) *api.SigningKey {
	w.Helper()
	key := &api.SigningKey{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}}
	if err := cluster.Admin.Create(w.Context(), key); err != nil {
		w.Fatal(err)
	}
	return key
}

func (w *world) policy(name, key string, mutate ...func(*api.TokenPolicySpec)) *api.TokenPolicy {
	w.Helper()
	policy := &api.TokenPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name},
		Spec: api.TokenPolicySpec{
			SigningKeyRef: api.SigningKeyReference{Name: key},
			Issuer:        "https://shop.example.com",
			Audiences:     []string{"shop"},
			Users:         api.Users{Secret: &api.SecretUsers{Name: "users"}},
		},
	}
	for _, m := range mutate {
		m(&policy.Spec)
	}
	if err := cluster.Admin.Create(w.Context(), policy); err != nil {
		w.Fatal(err)
	}
	return policy
}

// change changes the object as somebody with kubectl would.
func (w *world) change(object client.Object, mutate func()) {
	w.Helper()
	before, ok := object.DeepCopyObject().(client.Object)
	if !ok {
		w.Fatalf("%T is no object", object)
	}
	mutate()
	if err := cluster.Admin.Patch(w.Context(), object, client.MergeFrom(before)); err != nil {
		w.Fatal(err)
	}
}

// changeStatus changes what the kubelet reports.
func (w *world) changeStatus(object client.Object, mutate func()) {
	w.Helper()
	before, ok := object.DeepCopyObject().(client.Object)
	if !ok {
		w.Fatalf("%T is no object", object)
	}
	mutate()
	if err := cluster.Admin.Status().Patch(w.Context(), object, client.MergeFrom(before)); err != nil {
		w.Fatal(err)
	}
}

// issuerReports does what the issuer does to the status.
func (w *world) issuerReports(policy *api.TokenPolicy, status metav1.ConditionStatus, reason, message string) {
	w.Helper()
	condition := metav1.Condition{
		Type: api.ConditionUsersReady, Status: status, Reason: reason, Message: message,
		ObservedGeneration: policy.Generation, LastTransitionTime: metav1.NewTime(epoch),
	}
	configuration := apply.TokenPolicy(policy.Name, policy.Namespace).WithStatus(
		apply.TokenPolicyStatus().WithConditions(owned.Conditions([]metav1.Condition{condition})...))
	if err := cluster.Admin.Status().Apply(w.Context(), configuration, client.FieldOwner("tokenward-issuer")); err != nil {
		w.Fatal(err)
	}
}

// condition waits for the condition to have the reason, about this generation.
func (w *world) condition(policy *api.TokenPolicy, kind, reason string) metav1.Condition {
	w.Helper()
	var found metav1.Condition
	controllertest.Eventually(w.TB, fmt.Sprintf("%s of TokenPolicy %s is %s", kind, policy.Name, reason), func(ctx context.Context) error {
		if err := cluster.Admin.Get(ctx, client.ObjectKeyFromObject(policy), policy); err != nil {
			return err
		}
		condition := meta.FindStatusCondition(policy.Status.Conditions, kind)
		if condition == nil || condition.Reason != reason || condition.ObservedGeneration != policy.Generation {
			return fmt.Errorf("it is %+v", condition)
		}
		found = *condition
		return nil
	})
	return found
}

func (w *world) published(policy *api.TokenPolicy) {
	w.Helper()
	w.condition(policy, api.ConditionSettingsPublished, api.ReasonPublished)
}

// settings reads what pods mount.
func settingsOf(ctx context.Context, policy *api.TokenPolicy) (*settings.Settings, *token.KeySet, error) {
	configMap := &corev1.ConfigMap{}
	if err := cluster.Admin.Get(ctx, client.ObjectKey{Namespace: policy.Namespace, Name: "tokenward-" + policy.Name}, configMap); err != nil {
		return nil, nil, err
	}
	parsed, err := settings.Parse([]byte(configMap.Data[settings.Key]))
	if err != nil {
		return nil, nil, err
	}
	keys, err := token.ParseKeySet(parsed.Keys)
	return parsed, keys, err
}

// settled waits until the settings are as wanted.
func (w *world) settled(policy *api.TokenPolicy, what string, wanted func(*settings.Settings, *token.KeySet) bool) {
	w.Helper()
	controllertest.Eventually(w.TB, what, func(ctx context.Context) error {
		s, keys, err := settingsOf(ctx, policy)
		if err == nil && !wanted(s, keys) {
			err = fmt.Errorf("they are %+v", s)
		}
		return err
	})
}

func newClock() *clocktesting.FakePassiveClock { return clocktesting.NewFakePassiveClock(epoch) }

func authoritiesObject() *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: controllertest.Namespace, Name: authoritiesSecret}}
}
