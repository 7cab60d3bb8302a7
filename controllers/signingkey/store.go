// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package signingkey

import (
	"bytes"
	"context"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/internal/owned"
)

// recoveredAnnotation on the Secret holds the id of the key that was made because
// the Secret before it was lost. The condition says so while that key signs.
const recoveredAnnotation = api.AnnotationPrefix + "recovered-key"

// readStored finds the Secret and the public record with the reader.
func (r *reconciler) readStored(ctx context.Context, s *scope, reader client.Reader) error {
	name := client.ObjectKey{Namespace: r.options.Namespace, Name: owned.KeyringName(s.key.UID)}
	secret, record := &corev1.Secret{}, &corev1.ConfigMap{}
	s.secret, s.record = nil, nil
	for _, object := range []client.Object{secret, record} {
		err := reader.Get(ctx, name, object)
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			return fmt.Errorf("get %T %q: %w", object, name.Name, err)
		case object == client.Object(secret):
			s.secret = secret
		default:
			s.record = record
		}
	}
	return nil
}

// writeSecret stores the ring. It succeeds only if the Secret is still what was
// read: of two managers that both add a key one is refused, and reads again.
func (r *reconciler) writeSecret(ctx context.Context, s *scope) error {
	if s.empty() {
		return nil
	}
	content, err := s.ring.Marshal()
	if err != nil {
		return fmt.Errorf("marshal the key ring: %w", err)
	}
	secret := s.secret.DeepCopy()
	if secret == nil {
		secret = &corev1.Secret{ObjectMeta: r.meta(s.key), Type: corev1.SecretTypeOpaque}
	}
	changed := label(secret, s.key)
	if active, ok := s.ring.Active(); ok && s.lost() {
		metav1.SetMetaDataAnnotation(&secret.ObjectMeta, recoveredAnnotation, active.Public.ID)
	}
	if !bytes.Equal(secret.Data[owned.KeyringKey], content) {
		secret.Data, changed = map[string][]byte{owned.KeyringKey: content}, true
	}
	if err := r.write(ctx, secret, changed); err != nil {
		return err
	}
	s.secret = secret
	return nil
}

// writeRecord stores the public record, under the same condition.
func (r *reconciler) writeRecord(ctx context.Context, s *scope) error {
	if s.empty() {
		return nil
	}
	content, err := s.ring.MarshalPublic()
	if err != nil {
		return fmt.Errorf("marshal the public record: %w", err)
	}
	record := s.record.DeepCopy()
	if record == nil {
		record = &corev1.ConfigMap{ObjectMeta: r.meta(s.key)}
	}
	changed := label(record, s.key)
	if record.Data[owned.KeyringKey] != string(content) {
		record.Data, changed = map[string]string{owned.KeyringKey: string(content)}, true
	}
	return r.write(ctx, record, changed)
}

// empty says that there is nothing to store and never was: a key to import that could
// not be had yet.
func (s *scope) empty() bool {
	return s.ring.Version == 0 && s.secret == nil && s.record == nil
}

func (r *reconciler) write(ctx context.Context, object client.Object, changed bool) error {
	var err error
	switch {
	case object.GetResourceVersion() == "":
		err = r.client.Create(ctx, object, owned.FieldOwner)
	case changed:
		err = r.client.Update(ctx, object, owned.FieldOwner)
	}
	if err != nil {
		return fmt.Errorf("write %T %q: %w", object, object.GetName(), err)
	}
	return nil
}

func (r *reconciler) meta(key *api.SigningKey) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: r.options.Namespace, Name: owned.KeyringName(key.UID)}
}

// label gives the object the labels by which watches and people find it, and says
// whether it lacked one.
func label(object client.Object, key *api.SigningKey) (changed bool) {
	wanted := owned.Labels(owned.SigningKey, key)
	if owned.Carries(object, wanted) {
		return false
	}
	labels := maps.Clone(object.GetLabels())
	if labels == nil {
		labels = wanted
	}
	maps.Copy(labels, wanted)
	object.SetLabels(labels)
	return true
}
