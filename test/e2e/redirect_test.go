// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"testing"
	"text/template"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// startRedirected applies testdata/redirect.yaml beside the shops, whose policy it uses.
func startRedirected(t *testing.T) (namespace string) {
	t.Helper()
	namespace = startShops(t)
	manifest, err := template.ParseFiles(filepath.Join("testdata", "redirect.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := manifest.Execute(&text, namespace); err != nil {
		t.Fatal(err)
	}
	if err := world.cluster.Apply(t.Context(), text.Bytes(), "team"); err != nil {
		t.Fatal(err)
	}
	if err := rolledOut(t.Context(), namespace, "redirected"); err != nil {
		t.Fatal(err)
	}
	return namespace
}

// waysTo are all addresses under which another pod could look for the application.
func waysTo(t *testing.T, namespace string) map[string]string {
	t.Helper()
	ways := map[string]string{
		"Service by name":   shopURL(namespace, "redirected-by-name"),
		"Service by number": shopURL(namespace, "redirected-by-number"),
	}
	pods, err := world.kube.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app=redirected"})
	if err != nil || len(pods.Items) != 2 {
		t.Fatalf("%d pods: %v", len(pods.Items), err)
	}
	service, err := world.kube.CoreV1().Services(namespace).Get(t.Context(), "redirected-by-number", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	families := map[bool]bool{}
	for i, pod := range pods.Items {
		for _, ip := range pod.Status.PodIPs {
			families[net.ParseIP(ip.IP).To4() == nil] = true
			for _, port := range []string{"8080", "18080"} {
				ways[fmt.Sprintf("pod %d at %s port %s", i, ip.IP, port)] = "http://" + net.JoinHostPort(ip.IP, port)
			}
		}
		node := pod.Status.HostIP
		ways[fmt.Sprintf("host port of node %d", i)] = "http://" + net.JoinHostPort(node, "28080")
		ways[fmt.Sprintf("node port of node %d", i)] = "http://" + net.JoinHostPort(node, strconv.Itoa(int(service.Spec.Ports[0].NodePort)))
	}
	if len(families) != 2 {
		t.Error("the pods have addresses of one family only")
	}
	return ways
}

// TestRedirect is threat rows 15 and 16 on real nodes.
func TestRedirect(t *testing.T) {
	namespace := startRedirected(t)
	token := logIn(t, shopURL(namespace, "reject"))

	for way, url := range waysTo(t, namespace) {
		t.Run(way, func(t *testing.T) {
			// A Service and a node port are on the way a moment after the pods are ready.
			err := until(t.Context(), func(ctx context.Context) error {
				_, err := world.caller.try(ctx, http.MethodGet, url+"/healthz", "", "")
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, agent := range []string{"", "kube-probe/1.37"} {
				bare := world.caller.call(t, http.MethodGet, url+"/orders", "", "", "User-Agent", agent, "X-Probe", "yes")
				if bare.status != http.StatusForbidden || bare.reason() != "token_missing" {
					t.Errorf("no token, agent %q: status %d and reason %q, want 403 and token_missing", agent, bare.status, bare.reason())
				}
			}
			with := world.caller.call(t, http.MethodGet, url+"/orders", token, "", "X-User-Id", "root")
			if with.status != http.StatusOK {
				t.Fatalf("a valid token: status %d and reason %q", with.status, with.reason())
			}
			if users := with.seen(t).Header.Values("X-User-Id"); len(users) != 1 || users[0] != "alice" {
				t.Errorf("the application saw the users %q, want alice alone", users)
			}
		})
	}

	t.Run("the probes pass, and lead nowhere else", func(t *testing.T) {
		pods, err := world.kube.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app=redirected"})
		if err != nil {
			t.Fatal(err)
		}
		for _, pod := range pods.Items {
			requireNoRestart(t, &pod)
			admin := "http://" + net.JoinHostPort(pod.Status.PodIP, "18081")
			for path, want := range map[string]int{
				"/probes/app/readiness":           http.StatusOK,
				"/probes/app/liveness":            http.StatusOK,
				"/probes/app/startup":             http.StatusOK,
				"/probes/app/readiness/../orders": http.StatusMovedPermanently, // to where there is nothing
				"/probes/app/orders":              http.StatusNotFound,
				"/probes/":                        http.StatusNotFound,
				"/orders":                         http.StatusNotFound,
			} {
				got := world.caller.call(t, http.MethodGet, admin+path, token, "")
				if got.status != want && (want != http.StatusMovedPermanently || got.status/100 != 3) {
					t.Errorf("%s: status %d, want %d", path, got.status, want)
				}
				if bytes.Contains(got.body, []byte(`"pod"`)) {
					t.Errorf("%s: the answer has what the application said: %s", path, got.body)
				}
			}
		}
	})
}

// requireNoRestart also holds that the init container has done its work at once.
func requireNoRestart(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	for _, c := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
		if c.RestartCount != 0 {
			t.Errorf("container %s of pod %s was started %d times more", c.Name, pod.Name, c.RestartCount)
		}
	}
}
