// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// caller makes requests from a pod, over the cluster's DNS, Services and network. The
// way to that pod is the API server's proxy, so a test needs nothing but a kubeconfig.
type caller struct {
	kube      kubernetes.Interface
	namespace string
}

func startCaller(ctx context.Context, kube kubernetes.Interface) (*caller, error) {
	return startCallerAwayFrom(ctx, kube, "")
}

// startCallerAwayFrom starts one on any node but that one.
func startCallerAwayFrom(ctx context.Context, kube kubernetes.Interface, node string) (*caller, error) {
	namespace, err := kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-caller-"}}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	c := &caller{kube: kube, namespace: namespace.Name}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "caller"},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name:  "caller",
			Image: "cluster.local/workload:1",
			Args:  []string{"call"},
		}}},
	}
	if node != "" {
		pod.Spec.Affinity = awayFrom(node)
	}
	err = until(ctx, func(ctx context.Context) error { // the ServiceAccount of a new namespace comes a moment later
		_, err := kube.CoreV1().Pods(c.namespace).Create(ctx, pod, metav1.CreateOptions{})
		return err
	})
	if err == nil {
		err = c.answers(ctx)
	}
	if err != nil {
		c.remove(ctx)
		return nil, fmt.Errorf("start the pod that calls: %w", err)
	}
	return c, nil
}

// awayFrom keeps a pod from a node.
func awayFrom(node string) *corev1.Affinity {
	return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpNotIn, Values: []string{node}}},
		}},
	}}}
}

// answers waits until the caller does.
func (c *caller) answers(ctx context.Context) error {
	return until(ctx, func(ctx context.Context) error {
		_, err := c.kube.CoreV1().RESTClient().Get().Namespace(c.namespace).Resource("pods").Name("caller:8080").SubResource("proxy").Suffix("healthz").DoRaw(ctx)
		return err
	})
}

func (c *caller) remove(ctx context.Context) {
	_ = c.kube.CoreV1().Namespaces().Delete(ctx, c.namespace, metav1.DeleteOptions{})
}

// RoundTrip implements [http.RoundTripper].
func (c *caller) RoundTrip(r *http.Request) (*http.Response, error) {
	raw, err := httputil.DumpRequestOut(r, true)
	if err != nil {
		return nil, err
	}
	answer, err := c.kube.CoreV1().RESTClient().Post().
		Namespace(c.namespace).Resource("pods").Name("caller:8080").SubResource("proxy").
		Param("to", r.URL.Scheme+"://"+r.URL.Host).
		SetHeader("Content-Type", "application/octet-stream").
		Body(raw).DoRaw(r.Context())
	if err != nil {
		return nil, err
	}
	return http.ReadResponse(bufio.NewReader(bytes.NewReader(answer)), r)
}

// answer is what a client gets.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// reason is why the sidecar refused, "" when it did not.
func (a answer) reason() string {
	var problem struct{ Reason string }
	_ = json.Unmarshal(a.body, &problem)
	return problem.Reason
}

// newToken is the token in the response header, or "".
func (a answer) newToken() string {
	token, _ := strings.CutPrefix(a.header.Get("Authorization"), "Bearer ")
	return token
}

// seen is what reached the application.
func (a answer) seen(t *testing.T) (s struct {
	Pod, Path string
	Header    http.Header
},
) {
	t.Helper()
	if err := json.Unmarshal(a.body, &s); err != nil {
		t.Fatalf("read the application's answer %q: %v", a.body, err)
	}
	return s
}

// call sends one request to a URL of the cluster, with token when it is not empty. No
// answer at all is the end of the test.
func (c *caller) call(t *testing.T, method, url, token, body string, headers ...string) answer {
	t.Helper()
	got, err := c.try(t.Context(), method, url, token, body, headers...)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// try is call for those who expect that no answer may come.
func (c *caller) try(ctx context.Context, method, url, token, body string, headers ...string) (answer, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := c.RoundTrip(request)
	if err != nil {
		return answer{}, fmt.Errorf("%s %s: %w", method, url, err)
	}
	defer response.Body.Close() //nolint:errcheck // read to its end
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return answer{}, fmt.Errorf("%s %s: read the answer: %w", method, url, err)
	}
	return answer{status: response.StatusCode, header: response.Header, body: content}, nil
}
