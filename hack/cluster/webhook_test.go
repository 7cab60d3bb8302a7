// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"github.com/tokenward/tokenward/hack/cluster"
)

// testWebhook proves the way from the API server through a Service object to a
// webhook of this process, and what is said when there is no such way.
func testWebhook(t *testing.T, c *cluster.Cluster, kube kubernetes.Interface) {
	t.Helper()
	const name = "labeller.example.com"
	server := httptest.NewUnstartedServer(http.HandlerFunc(label))
	server.StartTLS()
	t.Cleanup(server.Close)

	certificate := server.Certificate() // self-signed, valid for example.com
	webhook := admissionregistrationv1.MutatingWebhook{
		Name:                    name,
		AdmissionReviewVersions: []string{"v1"},
		SideEffects:             ptr.To(admissionregistrationv1.SideEffectClassNone),
		FailurePolicy:           ptr.To(admissionregistrationv1.Fail),
		TimeoutSeconds:          ptr.To[int32](5),
		ObjectSelector:          &metav1.LabelSelector{MatchLabels: map[string]string{"hook": "yes"}},
		Rules: []admissionregistrationv1.RuleWithOperations{{
			Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
			Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
		}},
		ClientConfig: admissionregistrationv1.WebhookClientConfig{
			Service:  &admissionregistrationv1.ServiceReference{Namespace: "shop", Name: "hook", Path: new("/label"), Port: ptr.To[int32](443)},
			CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw}),
		},
	}
	configuration := &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Webhooks:   []admissionregistrationv1.MutatingWebhook{webhook},
	}
	if _, err := kube.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(t.Context(), configuration, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}

	t.Run("without a route is reported by the name of its Service", func(t *testing.T) {
		waitForRefusal(t, kube, "no route for Service shop/hook:443")
	})
	t.Run("behind a route is called at the Service's own name", func(t *testing.T) {
		c.Route("shop", "hook", 443, server.Listener.Addr().String())
		// The certificate is for example.com, so the handshake can only fail with the
		// Service's name: proof that the API server asked for it, over the route.
		waitForRefusal(t, kube, "hook.shop.svc")
	})
	t.Run("with a fitting certificate changes the pod", func(t *testing.T) {
		fitting := newServingCertificate(t, "hook.shop.svc")
		good := httptest.NewUnstartedServer(http.HandlerFunc(label))
		good.TLS = fitting.config
		good.StartTLS()
		t.Cleanup(good.Close)
		current, err := kube.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		current.Webhooks[0].ClientConfig.CABundle = fitting.pem
		if _, err := kube.AdmissionregistrationV1().MutatingWebhookConfigurations().Update(t.Context(), current, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		c.Route("shop", "hook", 443, good.Listener.Addr().String())
		var last error
		err = wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
			pod, err := kube.CoreV1().Pods("default").Create(ctx, plainPod(map[string]string{"hook": "yes"}), metav1.CreateOptions{})
			if last = err; err != nil {
				return false, nil //nolint:nilerr // retried until the API server has the new configuration
			}
			if pod.Labels["hook"] != "done" {
				t.Errorf("labels %v", pod.Labels)
			}
			return true, nil
		})
		if err != nil {
			t.Fatalf("no pod was admitted: %v", last)
		}
	})
}

// waitForRefusal waits until the creation of a pod fails with text in the message:
// the API server learns of webhooks and Services with a delay.
func waitForRefusal(t *testing.T, kube kubernetes.Interface, text string) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
		_, last = kube.CoreV1().Pods("default").Create(ctx, plainPod(map[string]string{"hook": "yes"}), metav1.CreateOptions{})
		return last != nil && strings.Contains(last.Error(), text), nil
	})
	if err != nil {
		t.Fatalf("want a refusal with %q, last answer: %v", text, last)
	}
}

// label answers every review with a patch that sets the label hook to done.
func label(w http.ResponseWriter, r *http.Request) {
	review := &admissionv1.AdmissionReview{}
	if err := json.NewDecoder(r.Body).Decode(review); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	review.Response = &admissionv1.AdmissionResponse{
		UID:       review.Request.UID,
		Allowed:   true,
		PatchType: ptr.To(admissionv1.PatchTypeJSONPatch),
		Patch:     []byte(`[{"op": "replace", "path": "/metadata/labels/hook", "value": "done"}]`),
	}
	_ = json.NewEncoder(w).Encode(review) // the client may have gone
}
