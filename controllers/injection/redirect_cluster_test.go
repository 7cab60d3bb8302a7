// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package injection_test

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/injection"
)

func forRedirect(p *corev1.Pod) {
	p.Annotations[api.CaptureAnnotation] = string(api.CaptureRedirect)
	p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{
		ProbeHandler:   corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromString("http")}},
		TimeoutSeconds: 3,
	}
}

// The API server's own validation, its policies and its Pod Security decide with us.
func TestRedirectOnTheAPIServer(t *testing.T) {
	_, admin := controlPlane(t)
	o := startOperator(t, time.Now())
	open := tenant(t, map[string]string{"pod-security.kubernetes.io/enforce": "privileged"})
	o.serving(t, open)

	created := pod(open, forRedirect)
	if err := admin.Create(t.Context(), created); err != nil {
		t.Fatal(err)
	}
	if first, second := created.Spec.InitContainers[0], created.Spec.InitContainers[1]; first.Name != injection.RedirectContainerName || second.Name != injection.ContainerName {
		t.Errorf("init containers %q and %q", first.Name, second.Name)
	}
	for i := range created.Spec.InitContainers {
		c := &created.Spec.InitContainers[i]
		if source := tokenSource(created, c); source == nil || source.Audience != "tokenward" {
			t.Errorf("the token of %s: %+v", c.Name, source)
		}
	}
	if is := created.Spec.Containers[0].ReadinessProbe; is.TCPSocket != nil || is.HTTPGet.Path != "/probes/app/readiness" || is.TimeoutSeconds != 3 {
		t.Errorf("the kubelet is told %+v", is)
	}
	if name := created.Spec.Containers[0].Ports[0].Name; name != "http" {
		t.Errorf("the application's port is called %q", name)
	}
	again := created.DeepCopy()
	again.ObjectMeta = metav1.ObjectMeta{Namespace: open, GenerateName: "copy-", Labels: created.Labels, Annotations: created.Annotations}
	if err := admin.Create(t.Context(), again); err != nil {
		t.Errorf("a copy of the running pod: %v", err)
	} else if len(again.Spec.InitContainers) != 2 {
		t.Errorf("%d init containers in a copy", len(again.Spec.InitContainers))
	}

	for _, standard := range []string{"baseline", "restricted"} {
		t.Run("a namespace that enforces "+standard, func(t *testing.T) {
			namespace := tenant(t, map[string]string{"pod-security.kubernetes.io/enforce": standard})
			before := counted(t)
			err := admin.Create(t.Context(), pod(namespace, forRedirect))
			want := `admission webhook "redirect.tokenward.io" denied the request: annotation tokenward.io/capture="Redirect": the namespace enforces the Pod Security Standard baseline or restricted (label pod-security.kubernetes.io/enforce), which forbids the capability NET_ADMIN that the init container tokenward-redirect needs: use "Port", or move the workload to a namespace that enforces no more than privileged`
			if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), want) {
				t.Errorf("%v", err)
			}
			if after := counted(t); after[injection.CaptureForbidden] != before[injection.CaptureForbidden]+1 {
				t.Errorf("counted: %v, then %v", before, after)
			}
			if err := admin.Create(t.Context(), pod(namespace)); err != nil {
				t.Errorf("Port capture: %v", err)
			}
		})
	}
}
