// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package tokenpolicy

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1apply "k8s.io/client-go/applyconfigurations/core/v1"
	metav1apply "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/internal/owned"
	"github.com/tokenward/tokenward/internal/settings"
)

// installationField starts the fields of the settings that no policy decides: what
// is wrong there is not the user's mistake.
const installationField = "issuerService."

// readPublished finds the ConfigMap and the settings in it.
func (r *reconciler) readPublished(ctx context.Context, s *scope) error {
	name := client.ObjectKey{Namespace: s.policy.Namespace, Name: owned.SettingsName(s.policy.Name)}
	configMap := &corev1.ConfigMap{}
	err := r.client.Get(ctx, name, configMap)
	if apierrors.IsNotFound(err) {
		// The cache holds only what has our label. Somebody else's is found past it.
		err = r.live.Get(ctx, name, configMap)
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("get ConfigMap %q: %w", name.Name, err)
	}
	s.configMap = configMap
	if !ours(configMap, s.policy, settingsLabels()) {
		s.refuse(api.ReasonConfigMapConflict, "ConfigMap %q of namespace %q was not made by Tokenward for this policy, and it is in the place of the settings: delete or rename it, or give the policy another name.", name.Name, name.Namespace)
		return nil
	}
	if published, err := settings.Parse([]byte(configMap.Data[settings.Key])); err == nil {
		s.published = published
	}
	return nil
}

// ours says whether the policy may write the object: it controls it, or a namesake did
// that was deleted a moment ago and left it, with the labels that such objects have.
func ours(object client.Object, policy *api.TokenPolicy, labels map[string]string) bool {
	controller := metav1.GetControllerOf(object)
	if controller == nil {
		return false
	}
	namesake := controller.Kind == "TokenPolicy" && controller.APIVersion == api.GroupVersion.String() && controller.Name == policy.Name
	return controller.UID == policy.UID || namesake && owned.Carries(object, labels)
}

func settingsLabels() map[string]string {
	return map[string]string{api.ComponentLabel: owned.Settings}
}

// renderSpec makes the settings of this generation, or refuses it.
func (r *reconciler) renderSpec(_ context.Context, s *scope) error {
	if s.refused != nil {
		return nil
	}
	rendered, err := render(s.policy, s.keys, s.where)
	if err != nil {
		return err
	}
	s.content, err = rendered.Marshal()
	var invalid *settings.FieldError
	if errors.As(err, &invalid) && !strings.HasPrefix(invalid.Field, installationField) {
		s.refuse(api.ReasonSpecInvalid, "%s", sayInvalid(err))
		return nil
	}
	if err != nil {
		return fmt.Errorf("marshal the settings: %w", err)
	}
	return nil
}

// sayInvalid is the first of what is wrong, and how much more there is: every path of
// every rule can be.
func sayInvalid(err error) string {
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	sentences := make([]string, 0, maxReported+1)
	for _, one := range all[:min(len(all), maxReported)] {
		sentences = append(sentences, owned.Note(one.Error()))
	}
	if more := len(all) - maxReported; more > 0 {
		sentences = append(sentences, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(sentences, "\n")
}

// renewLastGood keeps the last good settings in force while the spec is refused, but
// with the newest keys: a revoked key must stop verifying whatever else is wrong.
func (r *reconciler) renewLastGood(_ context.Context, s *scope) error {
	if s.refused == nil || s.published == nil || s.keys == nil || s.where.authorities == "" {
		return nil
	}
	renewed, err := renew(*s.published, s.keys, s.where)
	if err != nil {
		return err
	}
	if s.content, err = renewed.Marshal(); err != nil {
		return fmt.Errorf("marshal the last good settings: %w", err)
	}
	return nil
}

// publish writes the settings when they differ from what is there.
func (r *reconciler) publish(ctx context.Context, s *scope) error {
	if s.content == nil || s.configMap != nil && inPlace(s.configMap, s.policy, string(s.content)) {
		return nil
	}
	if s.configMap != nil && ptr.Deref(s.configMap.Immutable, false) {
		s.refuse(api.ReasonConfigMapConflict, "ConfigMap %q of namespace %q was made immutable, its settings can no longer be changed: delete it, it is then made again.", s.configMap.Name, s.configMap.Namespace)
		return nil
	}
	return r.apply(ctx, s)
}

func inPlace(configMap *corev1.ConfigMap, policy *api.TokenPolicy, content string) bool {
	return configMap.Data[settings.Key] == content &&
		owned.Carries(configMap, settingsLabels()) &&
		metav1.IsControlledBy(configMap, policy)
}

func (r *reconciler) apply(ctx context.Context, s *scope) error {
	name := owned.SettingsName(s.policy.Name)
	configuration := corev1apply.ConfigMap(name, s.policy.Namespace).
		WithLabels(settingsLabels()).
		WithOwnerReferences(metav1apply.OwnerReference().
			WithAPIVersion(api.GroupVersion.String()).WithKind("TokenPolicy").
			WithName(s.policy.Name).WithUID(s.policy.UID).WithController(true)).
		WithData(map[string]string{settings.Key: string(s.content)})
	options := []client.ApplyOption{owned.FieldOwner}
	if s.configMap != nil {
		// Ours: take back what others changed, but only if it is still what was read,
		// so that a manager that lags behind never undoes a newer key set. A new one is
		// applied without force, which cannot change anybody's fields.
		configuration.WithResourceVersion(s.configMap.ResourceVersion)
		options = append(options, client.ForceOwnership)
	}
	if err := r.client.Apply(ctx, configuration, options...); err != nil {
		return fmt.Errorf("apply ConfigMap %q: %w", name, err)
	}
	return nil
}
