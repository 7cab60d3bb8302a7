// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package sessionkeys makes sure that the key exists with which sessions are sealed.
//
// It owns the first content of one Secret: a random key, made once. It never
// changes a Secret that exists, because what an old key has sealed would be lost
// with it; a new key is added by hand, under another id, and made current. The
// issuer seals and opens with the keys.
package sessionkeys

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/internal/owned"
)

// The Secret, in the operator's namespace.
const (
	SecretName = "tokenward-sessions"
	// CurrentKey holds the id of the key that seals; all keys open.
	CurrentKey = "current"
	// KeyPrefix and an id are where a key is: [KeySize] random bytes.
	KeyPrefix = "key-"
	// KeySize in bytes.
	KeySize = 32
)

// Options say where the Secret goes.
type Options struct {
	// Namespace is the operator's own.
	Namespace string
}

// +kubebuilder:rbac:groups="",namespace=tokenward-system,resources=secrets,verbs=get;list;watch;create

// SetupWithManager makes the Secret when it is missing, on the leader.
func SetupWithManager(mgr ctrl.Manager, o Options) error {
	if o.Namespace == "" {
		return errors.New("sessionkeys: no namespace is set")
	}
	secret := &metav1.PartialObjectMetadata{}
	secret.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	// Metadata of one Secret: the keys themselves are none of the manager's business.
	watched, err := cache.New(mgr.GetConfig(), cache.Options{
		HTTPClient: mgr.GetHTTPClient(), Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(),
		ByObject: map[client.Object]cache.ByObject{secret: {
			Namespaces: map[string]cache.Config{o.Namespace: {}},
			Field:      fields.OneTermEqualSelector("metadata.name", SecretName),
		}},
	})
	if err != nil {
		return fmt.Errorf("make the cache of Secret %q: %w", SecretName, err)
	}
	if err := mgr.Add(watched); err != nil {
		return fmt.Errorf("add the cache of Secret %q: %w", SecretName, err)
	}
	request := reconcile.Request{NamespacedName: types.NamespacedName{Namespace: o.Namespace, Name: SecretName}}
	atStart := source.Func(func(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		queue.Add(request) // a Secret that was never there has no event
		return nil
	})
	return ctrl.NewControllerManagedBy(mgr).
		Named("sessionkeys").
		WatchesRawSource(source.Kind(watched, secret, &handler.TypedEnqueueRequestForObject[*metav1.PartialObjectMetadata]{})).
		WatchesRawSource(atStart).
		Complete(&reconciler{client: mgr.GetClient(), reader: mgr.GetAPIReader()})
}

type reconciler struct {
	client client.Writer
	reader client.Reader
}

// Reconcile creates the Secret. It reads from the API server: a stale cache must not
// be taken for a missing Secret, although creation would then fail and do no harm.
func (r *reconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	err := r.reader.Get(ctx, req.NamespacedName, &corev1.Secret{})
	if err == nil {
		return reconcile.Result{}, nil
	}
	if !apierrors.IsNotFound(err) {
		return reconcile.Result{}, fmt.Errorf("get Secret %q: %w", req.Name, err)
	}
	secret, err := newSecret(req.NamespacedName)
	if err != nil {
		return reconcile.Result{}, err
	}
	if err := r.client.Create(ctx, secret); err != nil && !apierrors.IsAlreadyExists(err) {
		return reconcile.Result{}, fmt.Errorf("create Secret %q: %w", req.Name, err)
	} else if err == nil {
		logf.FromContext(ctx).Info("made a new sealing key: sessions sealed with a lost one answer 503 until the Secret is restored", "secret", req.Name)
	}
	return reconcile.Result{}, nil
}

// newSecret holds one fresh key.
func newSecret(name types.NamespacedName) (*corev1.Secret, error) {
	random := make([]byte, 4+KeySize)
	if _, err := rand.Read(random); err != nil {
		return nil, fmt.Errorf("make a sealing key: %w", err)
	}
	id := hex.EncodeToString(random[:4])
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: name.Namespace, Name: name.Name,
			Labels: map[string]string{api.ComponentLabel: owned.Sessions},
		},
		Data: map[string][]byte{CurrentKey: []byte(id), KeyPrefix + id: random[4:]},
	}, nil
}
