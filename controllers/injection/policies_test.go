// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package injection_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers"
)

// Without any webhook configuration, as after somebody has deleted it.
func TestBarePodsAreDenied(t *testing.T) {
	_, admin := controlPlane(t)
	namespace := tenant(t, nil)
	sidecar := corev1.Container{Name: "tokenward", Image: "example.com/x:1"}
	native := sidecar
	native.RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
	injected := map[string]string{api.InjectedLabel: "true"}
	tests := map[string]struct {
		change func(*corev1.Pod)
		denied string
	}{
		"bare":                             {func(*corev1.Pod) {}, "the pod is annotated with tokenward.io/policy but has no sidecar, because the webhook did not see it: install or repair the MutatingWebhookConfiguration tokenward-injector, or remove the annotation"},
		"labelled only":                    {func(p *corev1.Pod) { p.Labels = injected }, "has no sidecar"},
		"with an init container that ends": {func(p *corev1.Pod) { p.Labels = injected; p.Spec.InitContainers = []corev1.Container{sidecar} }, "has no sidecar"},
		"with the sidecar but no label":    {func(p *corev1.Pod) { p.Spec.InitContainers = []corev1.Container{native} }, "lacks the label tokenward.io/injected=true"},
		"with another label": {func(p *corev1.Pod) {
			p.Labels = map[string]string{api.InjectedLabel: "false"}
			p.Spec.InitContainers = []corev1.Container{native}
		}, "lacks the label"},
		"injected": {func(p *corev1.Pod) { p.Labels = injected; p.Spec.InitContainers = []corev1.Container{native} }, ""},
		"for Redirect, with the sidecar alone": {func(p *corev1.Pod) {
			p.Annotations[api.CaptureAnnotation] = "Redirect"
			p.Labels, p.Spec.InitContainers = injected, []corev1.Container{native}
		}, "has no init container tokenward-redirect with the capability NET_ADMIN, so its port would be open"},
		"for Redirect, with an init container that lost its capability": {func(p *corev1.Pod) {
			p.Annotations[api.CaptureAnnotation] = "Redirect"
			p.Labels, p.Spec.InitContainers = injected, []corev1.Container{{Name: "tokenward-redirect", Image: "example.com/x:1"}, native}
		}, "has no init container tokenward-redirect with the capability NET_ADMIN"},
		"injected for Redirect": {func(p *corev1.Pod) {
			p.Annotations[api.CaptureAnnotation] = "Redirect"
			p.Labels, p.Spec.InitContainers = injected, []corev1.Container{{
				Name: "tokenward-redirect", Image: "example.com/x:1",
				SecurityContext: &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"NET_ADMIN"}}},
			}, native}
		}, ""},
		"injected for Port": {func(p *corev1.Pod) {
			p.Annotations[api.CaptureAnnotation] = "Port"
			p.Labels, p.Spec.InitContainers = injected, []corev1.Container{native}
		}, ""},
		"not annotated": {func(p *corev1.Pod) { p.Annotations = nil }, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			// The API server takes a moment to notice a policy; a pod that ought to be
			// admitted always is.
			eventually(t, "the policy decides", func(ctx context.Context) error {
				err := admin.Create(ctx, pod(namespace, tt.change), client.DryRunAll)
				switch {
				case tt.denied == "" && err != nil:
					t.Fatal(err)
				case tt.denied != "" && err == nil:
					return errors.New("admitted")
				case tt.denied != "" && !strings.Contains(err.Error(), tt.denied):
					t.Fatal(err)
				}
				return nil
			})
		})
	}
	t.Run("in the cluster's own namespace", func(t *testing.T) {
		serviceAccount(t, metav1.NamespaceSystem)
		if err := admin.Create(t.Context(), pod(metav1.NamespaceSystem), client.DryRunAll); err != nil {
			t.Error(err)
		}
	})
}

// warnings are what a client such as kubectl would print.
type warnings struct {
	mu   sync.Mutex
	seen []string
}

func (w *warnings) HandleWarningHeader(_ int, _, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, text)
}

func (w *warnings) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := w.seen
	w.seen = nil
	return seen
}

func TestMisplacedAnnotationWarns(t *testing.T) {
	env, _ := controlPlane(t)
	namespace := tenant(t, nil)
	seen := &warnings{}
	as := rest.CopyConfig(env.Config)
	as.WarningHandler = seen
	user, err := client.New(as, client.Options{Scheme: controllers.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	asked := map[string]string{api.PolicyAnnotation: "shop"}
	meta := metav1.ObjectMeta{Namespace: namespace, Name: "shop", Annotations: asked}
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{"app": "shop"}}
	template := func(annotations map[string]string) corev1.PodTemplateSpec {
		return corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: selector.MatchLabels, Annotations: maps.Clone(annotations)},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "example.com/shop:1"}}},
		}
	}
	job := func(annotations map[string]string) batchv1.JobSpec {
		t := template(annotations)
		t.Spec.RestartPolicy = corev1.RestartPolicyNever
		return batchv1.JobSpec{Template: t}
	}
	kinds := map[string]func(pods map[string]string) client.Object{
		"Deployment": func(p map[string]string) client.Object {
			return &appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{Selector: selector, Template: template(p)}}
		},
		"StatefulSet": func(p map[string]string) client.Object {
			return &appsv1.StatefulSet{ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{Selector: selector, Template: template(p)}}
		},
		"DaemonSet": func(p map[string]string) client.Object {
			return &appsv1.DaemonSet{ObjectMeta: meta, Spec: appsv1.DaemonSetSpec{Selector: selector, Template: template(p)}}
		},
		"ReplicaSet": func(p map[string]string) client.Object {
			return &appsv1.ReplicaSet{ObjectMeta: meta, Spec: appsv1.ReplicaSetSpec{Selector: selector, Template: template(p)}}
		},
		"Job": func(p map[string]string) client.Object {
			return &batchv1.Job{ObjectMeta: meta, Spec: job(p)}
		},
		"CronJob": func(p map[string]string) client.Object {
			return &batchv1.CronJob{ObjectMeta: meta, Spec: batchv1.CronJobSpec{Schedule: "* * * * *", JobTemplate: batchv1.JobTemplateSpec{Spec: job(p)}}}
		},
		"CronJob with the annotation on its job template": func(p map[string]string) client.Object {
			m := metav1.ObjectMeta{Namespace: namespace, Name: "shop"}
			return &batchv1.CronJob{ObjectMeta: m, Spec: batchv1.CronJobSpec{Schedule: "* * * * *", JobTemplate: batchv1.JobTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Annotations: asked}, Spec: job(p),
			}}}
		},
	}
	for name, object := range kinds {
		t.Run(name, func(t *testing.T) {
			where := "put it under spec.template.metadata.annotations"
			if strings.HasPrefix(name, "CronJob") {
				where = "put it under spec.jobTemplate.spec.template.metadata.annotations"
			}
			eventually(t, "there is a warning", func(ctx context.Context) error {
				seen.take()
				if err := user.Create(ctx, object(nil), client.DryRunAll); err != nil {
					t.Fatal(err)
				}
				if all := seen.take(); len(all) != 1 || !strings.Contains(all[0], where) {
					return fmt.Errorf("warnings: %q", all)
				}
				return nil
			})
			for what, o := range map[string]client.Object{
				"in both places": object(asked),
				"in the right place alone": func() client.Object {
					o := object(asked)
					o.SetAnnotations(nil)
					return o
				}(),
			} {
				if err := user.Create(t.Context(), o, client.DryRunAll); err != nil {
					t.Fatal(err)
				}
				if all := seen.take(); len(all) != 0 {
					t.Errorf("%s: warnings %q", what, all)
				}
			}
		})
	}
}
