// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package injection_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/certificates"
	"github.com/tokenward/tokenward/controllers/injection"
)

const apiToken = "/var/run/secrets/kubernetes.io/serviceaccount"

func TestAdmittedPod(t *testing.T) {
	_, admin := controlPlane(t)
	o := startOperator(t, time.Now())
	// The standard is enforced by the API server's own admission.
	namespace := tenant(t, map[string]string{
		"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/enforce-version": "latest",
	})
	o.serving(t, namespace)
	created := pod(namespace)
	if err := admin.Create(t.Context(), created); err != nil {
		t.Fatal(err)
	}
	sidecar := created.Spec.InitContainers[0]
	if sidecar.Name != injection.ContainerName || *sidecar.RestartPolicy != corev1.ContainerRestartPolicyAlways {
		t.Errorf("first init container: %+v", sidecar)
	}
	if created.Labels[api.InjectedLabel] != "true" {
		t.Errorf("labels: %v", created.Labels)
	}
	status, err := injection.ParseStatus(created.Annotations[api.StatusAnnotation])
	if err != nil || status.Policy != "shop" || status.Port != 8080 || status.Container != "app" || status.Generation != 1 || status.PolicyUID == "" {
		t.Errorf("status %+v: %v", status, err)
	}
	// The application has its API token as ever; the sidecar has only the one for the issuer.
	if source := tokenSource(created, &created.Spec.Containers[0]); source == nil || source.Audience != "" {
		t.Errorf("the application's token: %+v", source)
	}
	if source := tokenSource(created, &sidecar); source == nil || source.Audience != "tokenward" {
		t.Errorf("the sidecar's token: %+v", source)
	}
	if len(sidecar.VolumeMounts) != 2 {
		t.Errorf("the sidecar's mounts: %+v", sidecar.VolumeMounts)
	}

	t.Run("a copy of the running pod is admitted as it is", func(t *testing.T) {
		again := created.DeepCopy()
		again.ObjectMeta = metav1.ObjectMeta{Namespace: namespace, GenerateName: "copy-", Labels: created.Labels, Annotations: created.Annotations}
		if err := admin.Create(t.Context(), again); err != nil {
			t.Fatal(err)
		}
		if n := len(again.Spec.InitContainers); n != 1 {
			t.Errorf("%d init containers", n)
		}
	})
	t.Run("a dry run answers alike and leaves nothing", func(t *testing.T) {
		before := counted(t)
		dry := pod(namespace, func(p *corev1.Pod) { p.GenerateName, p.Name = "", "dry" })
		if err := admin.Create(t.Context(), dry, client.DryRunAll); err != nil {
			t.Fatal(err)
		}
		if len(dry.Spec.InitContainers) != 1 {
			t.Error("not injected")
		}
		if err := admin.Get(t.Context(), client.ObjectKeyFromObject(dry), dry); !apierrors.IsNotFound(err) {
			t.Errorf("the pod is there: %v", err)
		}
		if after := counted(t); after[injection.Injected] != before[injection.Injected] {
			t.Errorf("counted: %v, then %v", before, after)
		}
	})
	t.Run("a refusal reaches the user whole, and is counted", func(t *testing.T) {
		before := counted(t)
		err := admin.Create(t.Context(), pod(namespace, func(p *corev1.Pod) { p.Annotations[api.PolicyAnnotation] = "shpo" }))
		want := `admission webhook "inject.tokenward.io" denied the request: annotation tokenward.io/policy="shpo": there is no TokenPolicy of that name in the pod's namespace: did you mean "shop"?`
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v", err)
		}
		if after := counted(t); after[injection.PolicyNotFound] != before[injection.PolicyNotFound]+1 {
			t.Errorf("counted: %v, then %v", before, after)
		}
	})
	t.Run("a name that no policy can have is refused like any other", func(t *testing.T) {
		err := admin.Create(t.Context(), pod(namespace, func(p *corev1.Pod) { p.Annotations[api.PolicyAnnotation] = "../shop" }))
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "there is no TokenPolicy of that name") {
			t.Errorf("%v", err)
		}
	})
	t.Run("a policy applied in the same breath is found", func(t *testing.T) {
		for i := range 50 {
			name := fmt.Sprint("breath-", i)
			if err := admin.Create(t.Context(), policy(namespace, name)); err != nil {
				t.Fatal(err)
			}
			if err := admin.Create(t.Context(), pod(namespace, func(p *corev1.Pod) { p.Annotations[api.PolicyAnnotation] = name })); err != nil {
				t.Fatalf("pod %d: %v", i, err)
			}
		}
	})
	t.Run("the policy of another namespace is not found", func(t *testing.T) {
		other := tenant(t, nil)
		if err := admin.Create(t.Context(), policy(other, "theirs")); err != nil {
			t.Fatal(err)
		}
		err := admin.Create(t.Context(), pod(namespace, func(p *corev1.Pod) { p.Annotations[api.PolicyAnnotation] = "theirs" }))
		if err == nil || strings.Contains(err.Error(), `name "theirs"`) {
			t.Errorf("%v", err)
		}
	})
	t.Run("the cluster's own namespace is left alone", func(t *testing.T) {
		serviceAccount(t, metav1.NamespaceSystem)
		bare := pod(metav1.NamespaceSystem)
		if err := admin.Create(t.Context(), bare); err != nil || len(bare.Spec.InitContainers) != 0 {
			t.Errorf("%v, %v", err, bare.Spec.InitContainers)
		}
	})
}

// tokenSource is the token that a container finds where Kubernetes puts API tokens.
func tokenSource(pod *corev1.Pod, c *corev1.Container) *corev1.ServiceAccountTokenProjection {
	for _, mount := range c.VolumeMounts {
		if mount.MountPath != apiToken {
			continue
		}
		for _, v := range pod.Spec.Volumes {
			if v.Name == mount.Name && v.Projected != nil {
				return v.Projected.Sources[0].ServiceAccountToken
			}
		}
	}
	return nil
}

// counted reads the metric.
func counted(t *testing.T) map[injection.Verdict]float64 {
	t.Helper()
	families, err := metrics.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counts := map[injection.Verdict]float64{}
	for _, family := range families {
		if family.GetName() == "tokenward_injections_total" {
			for _, m := range family.GetMetric() {
				counts[injection.Verdict(m.GetLabel()[0].GetValue())] = m.GetCounter().GetValue()
			}
		}
	}
	return counts
}

// meddler is another webhook: it changes our container and adds one of its own, once.
func meddler() *webhook.Admission {
	return &webhook.Admission{Handler: admission.HandlerFunc(func(_ context.Context, req admission.Request) admission.Response {
		p := &corev1.Pod{}
		if err := json.Unmarshal(req.Object.Raw, p); err != nil {
			return admission.Errored(http.StatusBadRequest, err)
		}
		if slices.ContainsFunc(p.Spec.Containers, func(c corev1.Container) bool { return c.Name == "proxy" }) || len(p.Spec.InitContainers) == 0 {
			return admission.Allowed("")
		}
		p.Spec.InitContainers[0].Image = "mirror.example.com/tokenward:v0.1.0"
		p.Spec.InitContainers = append([]corev1.Container{{Name: "early", Image: "example.com/early:1"}}, p.Spec.InitContainers...)
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{
			Name: "proxy", Image: "example.com/proxy:1", Ports: []corev1.ContainerPort{{Name: "proxy", ContainerPort: 15090}},
		})
		changed, err := json.Marshal(p)
		if err != nil {
			return admission.Errored(http.StatusInternalServerError, err)
		}
		return admission.PatchResponseFromRaw(req.Object.Raw, changed)
	})}
}

func TestAnotherWebhookMeddles(t *testing.T) {
	_, admin := controlPlane(t)
	o := startOperator(t, time.Now())
	namespace := tenant(t, nil)
	o.serving(t, namespace)
	ours := &admissionregistrationv1.MutatingWebhookConfiguration{}
	if err := admin.Get(t.Context(), client.ObjectKey{Name: certificates.WebhookConfiguration}, ours); err != nil {
		t.Fatal(err)
	}
	// Later in the alphabet, so asked after ours: ours is asked once more.
	other := &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "zz-meddler"}}
	hook := ours.Webhooks[0].DeepCopy()
	hook.Name, hook.ClientConfig.URL = "meddle.example.com", new(o.url("/meddle"))
	other.Webhooks = []admissionregistrationv1.MutatingWebhook{*hook}
	if err := admin.Create(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := admin.Delete(context.WithoutCancel(t.Context()), other); err != nil {
			t.Error(err)
		}
	})
	before := counted(t)
	eventually(t, "the other webhook is asked", func(ctx context.Context) error {
		created := pod(namespace)
		if err := admin.Create(ctx, created); err != nil {
			return err
		}
		if len(created.Spec.Containers) != 2 {
			return fmt.Errorf("%d containers", len(created.Spec.Containers))
		}
		var sidecars []corev1.Container
		for _, c := range created.Spec.InitContainers {
			if c.Name == injection.ContainerName {
				sidecars = append(sidecars, c)
			}
		}
		if len(sidecars) != 1 || sidecars[0].Image != "mirror.example.com/tokenward:v0.1.0" || len(created.Spec.InitContainers) != 2 {
			t.Errorf("the sidecar: %+v", created.Spec.InitContainers)
		}
		return nil
	})
	if after := counted(t); after[injection.AlreadyInjected] != before[injection.AlreadyInjected]+1 {
		t.Errorf("not asked again: %v, then %v", before, after)
	}
}

func TestWebhookStopped(t *testing.T) {
	_, admin := controlPlane(t)
	o := startOperator(t, time.Now())
	namespace := tenant(t, nil)
	o.serving(t, namespace)
	o.stop()
	err := admin.Create(t.Context(), pod(namespace))
	if err == nil || !strings.Contains(err.Error(), `failed calling webhook "inject.tokenward.io"`) {
		t.Errorf("an annotated pod: %v", err)
	}
	for name, annotations := range map[string]map[string]string{
		"no annotations":           nil,
		"other annotations":        {"example.com/policy": "shop"},
		"an annotation but not it": {api.PortAnnotation: "8080"},
	} {
		bare := pod(namespace, func(p *corev1.Pod) { p.Annotations = annotations })
		if err := admin.Create(t.Context(), bare); err != nil {
			t.Errorf("a pod with %s: %v", name, err)
		}
	}
	// An injected pod that runs can still be changed and deleted: only creation asks us.
	var running corev1.PodList
	if err := admin.List(t.Context(), &running, client.InNamespace(namespace)); err != nil {
		t.Fatal(err)
	}
	for i := range running.Items {
		if err := admin.Delete(t.Context(), &running.Items[i]); err != nil {
			t.Error(err)
		}
	}
}
