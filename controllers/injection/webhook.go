// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	"cmp"
	"context"
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

// Path is where the webhook is served; config/webhook names it too.
const Path = "/mutate--v1-pod"

// +kubebuilder:rbac:groups=tokenward.io,resources=tokenpolicies,verbs=get;list;watch

// RefuseRedirectPath answers pods that ask for Redirect capture in a namespace whose Pod
// Security Standard forbids it. The API server finds these by the namespace's labels, so
// that the manager needs no right to read namespaces.
const RefuseRedirectPath = "/refuse-redirect"

// podHandler answers the API server.
type podHandler struct {
	decoder admission.Decoder
	// cached answers almost always; live is asked when a policy is not there yet,
	// because it may have been applied in the same breath as the pod.
	cached, live client.Reader
	options      Options
	counter      *prometheus.CounterVec
}

// SetupWithManager serves the webhook on the manager's webhook server, on every replica.
func SetupWithManager(mgr ctrl.Manager, o Options) error {
	if err := o.validate(); err != nil {
		return err
	}
	counter, err := newCounter(metrics.Registry)
	if err != nil {
		return err
	}
	mgr.GetWebhookServer().Register(RefuseRedirectPath, &webhook.Admission{Handler: admission.HandlerFunc(
		func(ctx context.Context, req admission.Request) admission.Response {
			refusal := redirectForbidden()
			logf.FromContext(ctx).Info("pod refused", "namespace", req.Namespace, "pod", req.Name, "verdict", refusal.Verdict, "reason", refusal.Message)
			if req.DryRun == nil || !*req.DryRun {
				counter.WithLabelValues(string(refusal.Verdict)).Inc()
			}
			return admission.Denied(refusal.Message)
		},
	)})
	mgr.GetWebhookServer().Register(Path, &webhook.Admission{Handler: &podHandler{
		decoder: admission.NewDecoder(mgr.GetScheme()),
		cached:  mgr.GetClient(),
		live:    mgr.GetAPIReader(),
		options: o,
		counter: counter,
	}})
	return nil
}

// Handle decides about one pod. It has no side effect, so a dry run needs no care.
func (h *podHandler) Handle(ctx context.Context, req admission.Request) admission.Response {
	verdict, response := h.answer(ctx, req)
	if req.DryRun == nil || !*req.DryRun {
		h.counter.WithLabelValues(string(verdict)).Inc()
	}
	return response
}

func (h *podHandler) answer(ctx context.Context, req admission.Request) (Verdict, admission.Response) {
	if req.Operation != admissionv1.Create || req.SubResource != "" || req.Namespace == h.options.Namespace {
		return NotRequested, admission.Allowed("")
	}
	pod := &corev1.Pod{}
	if err := h.decoder.Decode(req, pod); err != nil {
		return Failed, admission.Errored(http.StatusBadRequest, fmt.Errorf("decode the pod: %w", err))
	}
	log := logf.FromContext(ctx).WithValues("namespace", req.Namespace, "pod", cmp.Or(pod.Name, pod.GenerateName),
		"policy", pod.Annotations[api.PolicyAnnotation])
	policies, err := h.policies(ctx, req.Namespace, pod)
	if err != nil {
		log.Error(err, "pod not decided on", "verdict", Failed)
		return Failed, admission.Errored(http.StatusInternalServerError, err)
	}
	plan, refusal := Decide(pod, policies, h.options)
	if refusal != nil {
		log.Info("pod refused", "verdict", refusal.Verdict, "reason", refusal.Message)
		return refusal.Verdict, admission.Denied(refusal.Message)
	}
	patch, err := plan.Patch(pod)
	if err != nil {
		log.Error(err, "pod not decided on", "verdict", Failed)
		return Failed, admission.Errored(http.StatusInternalServerError, err)
	}
	log.V(1).Info("pod admitted", "verdict", plan.Verdict, "port", plan.Status.Port)
	response := admission.Allowed("")
	if patch != nil {
		kind := admissionv1.PatchTypeJSONPatch
		response.Patch, response.PatchType = patch, &kind
	}
	return plan.Verdict, response
}

// policies looks up what [Decide] needs. The pod's own namespace field may still be
// empty; the request's is the truth.
func (h *podHandler) policies(ctx context.Context, namespace string, pod *corev1.Pod) (Policies, error) {
	name, asked := pod.Annotations[api.PolicyAnnotation]
	if !asked {
		return Policies{}, nil
	}
	if len(validation.IsDNS1123Subdomain(name)) > 0 {
		return h.known(ctx, namespace) // no object can have this name, and a client would not ask for it
	}
	policy := &api.TokenPolicy{}
	key := types.NamespacedName{Namespace: namespace, Name: name}
	err := h.cached.Get(ctx, key, policy)
	if apierrors.IsNotFound(err) {
		err = h.live.Get(ctx, key, policy)
	}
	switch {
	case apierrors.IsNotFound(err):
		return h.known(ctx, namespace)
	case err != nil:
		return Policies{}, fmt.Errorf("get TokenPolicy %s: %w", key, err)
	}
	return Policies{Found: &Policy{
		UID: policy.UID, Generation: policy.Generation, Deleting: !policy.DeletionTimestamp.IsZero(),
	}}, nil
}

// known lists the namespace's policies, to suggest one of them.
func (h *podHandler) known(ctx context.Context, namespace string) (Policies, error) {
	all := &api.TokenPolicyList{}
	if err := h.cached.List(ctx, all, client.InNamespace(namespace)); err != nil {
		return Policies{}, fmt.Errorf("list TokenPolicies of namespace %s: %w", namespace, err)
	}
	var found Policies
	for i := range all.Items {
		found.Known = append(found.Known, all.Items[i].Name)
	}
	return found, nil
}
