// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package certificates

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/internal/owned"
	"github.com/tokenward/tokenward/internal/servingcert"
)

// errRaced says that somebody else has written meanwhile; the next try starts from that.
var errRaced = errors.New("the object was changed by somebody else")

// readWebhooks finds the configuration, which installation brings and we never create.
func (r *reconciler) readWebhooks(ctx context.Context, s *scope) error {
	found := &admissionregistrationv1.MutatingWebhookConfiguration{}
	err := r.reader.Get(ctx, types.NamespacedName{Name: WebhookConfiguration}, found)
	switch {
	case apierrors.IsNotFound(err):
		logf.FromContext(ctx).Info("annotated pods are not injected: there is no MutatingWebhookConfiguration", "name", WebhookConfiguration)
		return nil
	case err != nil:
		return fmt.Errorf("get MutatingWebhookConfiguration %q: %w", WebhookConfiguration, err)
	}
	s.webhooks = found
	return nil
}

// keepAuthority decides on the authority and writes it down.
func (r *reconciler) keepAuthority(ctx context.Context, s *scope) error {
	secret, err := r.secret(ctx, AuthoritySecret, corev1.SecretTypeOpaque)
	if err != nil {
		return err
	}
	if s.authority, s.recheck, err = nextAuthority(secret.Data, r.nextSeen(secret.Data[nextCertKey], s.now), s.now); err != nil {
		return fmt.Errorf("work out the certificate authority: %w", err)
	}
	data, err := s.authority.content()
	if err != nil {
		return err
	}
	return r.write(ctx, secret, data)
}

// nextSeen is since when this manager has known the next authority.
func (r *reconciler) nextSeen(cert []byte, now time.Time) time.Time {
	if !bytes.Equal(cert, r.next) || r.nextSince.IsZero() {
		r.next, r.nextSince = cert, now
	}
	return r.nextSince
}

// publishBundle tells the API server whom to trust. A JSON patch touches only
// caBundle, so it works beside whatever applies the rest of the configuration.
func (r *reconciler) publishBundle(ctx context.Context, s *scope) error {
	if s.webhooks == nil {
		return nil
	}
	bundle := s.authority.bundle()
	type operation struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value any    `json:"value"`
	}
	// With the version that was read, a changed configuration is a conflict: the
	// numbers in the paths below would otherwise be no more than a guess.
	steps := []operation{{"replace", "/metadata/resourceVersion", s.webhooks.ResourceVersion}}
	for i := range s.webhooks.Webhooks {
		if !bytes.Equal(s.webhooks.Webhooks[i].ClientConfig.CABundle, bundle) {
			steps = append(steps, operation{"add", fmt.Sprintf("/webhooks/%d/clientConfig/caBundle", i), bundle})
		}
	}
	if len(steps) == 1 {
		return nil
	}
	patch, err := json.Marshal(steps)
	if err != nil {
		return fmt.Errorf("marshal the patch of MutatingWebhookConfiguration %q: %w", WebhookConfiguration, err)
	}
	err = r.writer.Patch(ctx, s.webhooks, client.RawPatch(types.JSONPatchType, patch))
	switch {
	case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		return fmt.Errorf("patch MutatingWebhookConfiguration %q: %w", WebhookConfiguration, errRaced)
	case err != nil:
		return fmt.Errorf("patch MutatingWebhookConfiguration %q: %w", WebhookConfiguration, err)
	}
	logf.FromContext(ctx).Info("published the certificate authorities", "current", s.authority.current)
	return nil
}

// keepServing writes the certificates of webhook and issuer.
func (r *reconciler) keepServing(ctx context.Context, s *scope) error {
	for name, hosts := range map[string][]string{
		servingcert.WebhookSecret: append(r.serviceNames(webhookService), webhookHosts(s.webhooks)...),
		servingcert.IssuerSecret:  append(r.serviceNames(issuerService), r.issuerHost),
	} {
		secret, err := r.secret(ctx, name, corev1.SecretTypeTLS)
		if err != nil {
			return err
		}
		data, recheck, err := nextServing(secret.Data, s.authority, hosts, s.now)
		if err != nil {
			return fmt.Errorf("work out the certificate in Secret %q: %w", name, err)
		}
		if err := r.write(ctx, secret, data); err != nil {
			return err
		}
		s.recheck = earlier(s.recheck, recheck)
	}
	return nil
}

// serviceNames are the names that a Service is reached under.
func (r *reconciler) serviceNames(service string) []string {
	name := service + "." + r.namespace + ".svc"
	return []string{name, name + ".cluster.local"}
}

// webhookHosts are the hosts of webhooks that are reached by URL instead of through
// the Service, as when the manager runs outside the cluster.
func webhookHosts(configuration *admissionregistrationv1.MutatingWebhookConfiguration) []string {
	if configuration == nil {
		return nil
	}
	var hosts []string
	for i := range configuration.Webhooks {
		if address := configuration.Webhooks[i].ClientConfig.URL; address != nil {
			if parsed, err := url.Parse(*address); err == nil && parsed.Hostname() != "" {
				hosts = append(hosts, parsed.Hostname())
			}
		}
	}
	return hosts
}

// secret reads a Secret, or prepares one that does not exist yet.
func (r *reconciler) secret(ctx context.Context, name string, kind corev1.SecretType) (*corev1.Secret, error) {
	secret := &corev1.Secret{}
	err := r.reader.Get(ctx, r.key(name), secret)
	if apierrors.IsNotFound(err) {
		return &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: name},
			Type:       kind,
		}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("get Secret %q: %w", name, err)
	}
	return secret, nil
}

// write brings a Secret to data, if nobody has written it since it was read.
func (r *reconciler) write(ctx context.Context, secret *corev1.Secret, data content) error {
	if secret.Labels[api.ComponentLabel] == owned.Certificates && equality.Semantic.DeepEqual(secret.Data, map[string][]byte(data)) {
		return nil
	}
	out := secret.DeepCopy()
	out.Labels = maps.Clone(out.Labels)
	if out.Labels == nil {
		out.Labels = map[string]string{}
	}
	out.Labels[api.ComponentLabel] = owned.Certificates
	out.Data = data
	var err error
	if out.ResourceVersion == "" {
		err = r.writer.Create(ctx, out)
	} else {
		err = r.writer.Update(ctx, out)
	}
	switch {
	case apierrors.IsAlreadyExists(err), apierrors.IsConflict(err):
		return fmt.Errorf("write Secret %q: %w", secret.Name, errRaced)
	case err != nil:
		return fmt.Errorf("write Secret %q: %w", secret.Name, err)
	}
	logf.FromContext(ctx).Info("wrote a Secret with certificates", "secret", secret.Name)
	return nil
}
