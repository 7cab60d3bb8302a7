// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/selection"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/outbound"
	"github.com/tokenward/tokenward/internal/servingcert"
	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/session/configmap"
	"github.com/tokenward/tokenward/internal/users/password"
	"github.com/tokenward/tokenward/issuer/caller"
	"github.com/tokenward/tokenward/issuer/exchange"
	"github.com/tokenward/tokenward/issuer/orders"
	"github.com/tokenward/tokenward/issuer/policies"
	"github.com/tokenward/tokenward/issuer/refusal"
	"github.com/tokenward/tokenward/issuer/report"
	"github.com/tokenward/tokenward/issuer/sealing"
)

// ServiceAccount is the name of the issuer's account in the operator's namespace.
const ServiceAccount = "tokenward-issuer"

// DefaultListen is where the issuer serves.
const DefaultListen = ":8443"

// Callers are authenticated by TokenReview.
//
// +kubebuilder:rbac:groups=authentication.k8s.io,resources=tokenreviews,verbs=create

// Options of the issuer.
type Options struct {
	// Namespace of the operator. Required.
	Namespace string
	// Listen is the address to serve on; [DefaultListen] when empty.
	Listen string
	// Listener is served instead of Listen when it is set; the issuer closes it.
	Listener net.Listener
	// AllowOutbound are ranges of addresses that policies may name although the issuer
	// would not connect there: its own machine, its node, metadata services.
	AllowOutbound []netip.Prefix
	// Clock is the real one when nil.
	Clock clock.PassiveClock
	// Log is the manager's logger when it is the zero value.
	Log logr.Logger
	// Metrics go to controller-runtime's registry when it is nil.
	Metrics prometheus.Registerer
}

// Scheme knows the kinds that the issuer reads. It panics when they contradict each
// other, which only a programming error can cause.
func Scheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, api.AddToScheme} {
		if err := add(scheme); err != nil {
			panic(fmt.Sprintf("build the scheme: %v", err))
		}
	}
	return scheme
}

// CacheOptions limits the manager's cache: our kinds in all namespaces, and of the
// Secrets those of the operator's namespace with key rings and sealing keys. Session
// ConfigMaps are followed by their stores, one policy at a time.
func CacheOptions(namespace string) cache.Options {
	component, err := labels.NewRequirement(api.ComponentLabel, selection.In, []string{"signing-key", "sessions"})
	if err != nil {
		panic(err) // the values are constants
	}
	return cache.Options{
		DefaultTransform: cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Secret{}: {
				Namespaces: map[string]cache.Config{namespace: {LabelSelector: labels.NewSelector().Add(*component)}},
			},
		},
	}
}

// SetupWithManager adds the issuer to a manager that was made with [Scheme] and
// [CacheOptions]: the server, the controllers behind it, and the checks for
// readiness. None of it waits for leader election.
func SetupWithManager(mgr ctrl.Manager, options Options) error {
	options = options.complete(mgr)
	if options.Namespace == "" {
		return errors.New("set up the issuer: the operator's namespace must be set")
	}
	m, err := newMetrics(options.Metrics)
	if err != nil {
		return fmt.Errorf("register the issuer's metrics: %w", err)
	}
	certificate, err := servingcert.New(mgr.GetConfig(), options.Namespace, servingcert.IssuerSecret)
	if err != nil {
		return err
	}
	keys := sealing.New(mgr.GetClient(), options.Namespace)
	openStore, err := configMapStores(mgr, keys, options, m.stores)
	if err != nil {
		return err
	}
	now, guard := options.Clock.Now, outbound.Guard{Allowed: options.AllowOutbound}
	registry := policies.New(mgr.GetClient(), policies.Options{
		Namespace: options.Namespace,
		Users: policies.SourceOptions{
			Live: mgr.GetAPIReader(), Hasher: password.NewPool(0, 0, m), Guard: guard, Now: now,
		},
		Stores: policies.StoreOptions{
			OpenConfigMaps: openStore, Live: mgr.GetAPIReader(), Guard: guard, Log: options.Log.WithName("sessions"), Now: now,
		},
	})
	m.stores.observe(registry.Pools)
	status := report.New(mgr.GetClient(), report.Options{
		Parts: registry, Now: now,
		Issuer: report.ServiceAccount{Namespace: options.Namespace, Name: ServiceAccount},
	})
	ordered := orders.New(mgr.GetClient(), mgr.GetAPIReader(), orders.Options{
		Policies: registry, Recorder: mgr.GetEventRecorder("tokenward.io/orders"), Now: now,
	})
	serving := &server{
		options:  options,
		tls:      certificate.Configure,
		callers:  caller.New(reviewer{mgr.GetClient()}, now, m.CallerDone),
		policies: registry,
		exchange: exchange.NewService(now, session.NewTokenID, m),
		metrics:  m,
	}
	for _, part := range []interface{ SetupWithManager(ctrl.Manager) error }{keys, registry, status, ordered} {
		if err := part.SetupWithManager(mgr); err != nil {
			return fmt.Errorf("set up the issuer: %w", err)
		}
	}
	return errors.Join(
		mgr.Add(certificate),
		mgr.Add(serving),
		mgr.AddReadyzCheck("certificate", certificate.Check),
		mgr.AddReadyzCheck("sealing-keys", keys.Ready),
		mgr.AddReadyzCheck("policies", registry.Ready()),
	)
}

func (o Options) complete(mgr ctrl.Manager) Options {
	if o.Listen == "" {
		o.Listen = DefaultListen
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Log.GetSink() == nil {
		o.Log = mgr.GetLogger().WithName("issuer")
	}
	if o.Metrics == nil {
		o.Metrics = metrics.Registry
	}
	return o
}

// configMapStores opens stores in ConfigMaps of the operator's namespace. They read
// the API server itself: a cache could hide that another issuer has rotated a session.
func configMapStores(mgr ctrl.Manager, keys *sealing.Keys, options Options, figures *storeMetrics) (policies.OpenStore, error) {
	live, err := configmap.NewClient(mgr.GetConfig())
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, policy *api.TokenPolicy) (policies.Store, error) {
		sealer, err := keys.Sealer(ctx)
		if err != nil {
			return nil, refusal.Unavailable("the keys that seal sessions cannot be read yet", err)
		}
		store, err := configmap.New(configmap.Config{
			Client: live, Namespace: options.Namespace,
			Policy: session.PolicyID(policy.UID), OwnerNamespace: policy.Namespace, OwnerName: policy.Name,
			Shards: int(policy.Spec.Store.ConfigMap.Shards), MaxSessions: int(policy.Spec.Store.ConfigMap.MaxSessions),
			Sealer: sealer, Now: options.Clock.Now,
			Permit: permit(mgr.GetAPIReader(), policy),
			Log:    options.Log.WithName("sessions").WithValues("namespace", policy.Namespace, "policy", policy.Name),
		})
		if err != nil {
			return nil, err
		}
		return figures.follow(client.ObjectKeyFromObject(policy), policies.ConfigMaps{Store: store, Limit: int(policy.Spec.Store.ConfigMap.MaxSessions)}), nil
	}, nil
}

// permit asks the API server itself whether the policy is still there to be given
// session shards: the cache may not have heard yet that it is being deleted.
func permit(live client.Reader, policy *api.TokenPolicy) func(context.Context) error {
	key, uid := client.ObjectKeyFromObject(policy), policy.UID
	return func(ctx context.Context) error {
		var found api.TokenPolicy
		err := live.Get(ctx, key, &found)
		switch {
		case apierrors.IsNotFound(err), err == nil && (found.UID != uid || !found.DeletionTimestamp.IsZero()):
			return fmt.Errorf("TokenPolicy %s: %w", key, configmap.ErrPolicyGone)
		case err != nil:
			return fmt.Errorf("get TokenPolicy %s: %w", key, err)
		}
		return nil
	}
}

// reviewer asks the API server about tokens.
type reviewer struct{ client client.Client }

// ReviewToken implements [caller.Reviewer].
func (r reviewer) ReviewToken(ctx context.Context, token, audience string) (authenticationv1.TokenReviewStatus, error) {
	review := &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{audience}},
	}
	if err := r.client.Create(ctx, review); err != nil {
		return authenticationv1.TokenReviewStatus{}, fmt.Errorf("create a TokenReview: %w", err)
	}
	return review.Status, nil
}
