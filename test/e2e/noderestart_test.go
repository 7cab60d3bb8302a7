// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/tokenward/tokenward/internal/testenv"
)

// TestNodeRestarted cuts the power of a node. Its pods come back injected; tokens and
// revocations of before still count.
func TestNodeRestarted(t *testing.T) {
	namespace := newTenant(t)
	shop := startApplication(t, namespace, "shop", 2)
	good, revoked := logIn(t, shop), logIn(t, shop)
	if got := world.caller.call(t, http.MethodPost, shop+"/auth/logout", revoked, ""); got.status/100 != 2 {
		t.Fatalf("a logout was answered with status %d, reason %q", got.status, got.reason())
	}
	node, before := podOnAWorker(t, namespace)

	// Somebody on another node goes on calling with the revoked token.
	witness, err := startCallerAwayFrom(t.Context(), world.kube, node)
	if err != nil {
		t.Fatal(err)
	}
	defer witness.remove(context.WithoutCancel(t.Context()))
	waitUntilRevoked(t, witness, shop, revoked)
	ctx, enough := context.WithCancel(t.Context())
	var calling sync.WaitGroup
	answers := map[string]int{}
	calling.Go(func() {
		for ctx.Err() == nil {
			got, err := witness.try(ctx, http.MethodGet, shop+"/orders", revoked, "")
			if err == nil { // while a node is gone, some requests meet it
				answers[fmt.Sprintf("%d %s", got.status, got.reason())]++
			}
		}
	})

	began := time.Now()
	how := restartNode(t, node)
	err = until(t.Context(), func(ctx context.Context) error {
		pods, err := podsOf(ctx, namespace, "shop")
		if err != nil {
			return err
		}
		if len(pods) != 2 {
			return fmt.Errorf("there are %d pods, expected 2", len(pods))
		}
		for i := range pods {
			if !isReady(&pods[i]) {
				return fmt.Errorf("pod %s is not ready", pods[i].Name)
			}
			if problem := bare(&pods[i]); problem != "" {
				t.Fatalf("pod %s %s", pods[i].Name, problem)
			}
			for _, c := range pods[i].Status.InitContainerStatuses {
				if before[c.ContainerID] {
					return fmt.Errorf("pod %s has the sidecar of before", pods[i].Name)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	world.figures.add("node "+how, "its injected pod is ready again after %s", time.Since(began).Round(time.Second))
	callerBack(t)
	leadsToAll(t, shop, 2)
	for range 20 {
		requireServed(t, shop, good)
		got := world.caller.call(t, http.MethodGet, shop+"/orders", revoked, "")
		if got.status != http.StatusForbidden || got.reason() != "session_revoked" {
			t.Errorf("a session that was revoked before: status %d and reason %q, want 403 and session_revoked", got.status, got.reason())
		}
	}
	requireServed(t, shop, logIn(t, shop))
	enough()
	calling.Wait()
	for got, count := range answers {
		if got != "403 session_revoked" {
			t.Errorf("while the node was restarted, %d requests with a revoked token were answered with %q, want 403 session_revoked; all answers: %v", count, got, answers)
		}
	}
	if len(answers) == 0 {
		t.Error("nobody answered while the node was restarted")
	}
}

// podOnAWorker finds a node with a pod of the application and without the API server,
// and the containers there that must be other ones afterwards.
func podOnAWorker(t *testing.T, namespace string) (node string, containers map[string]bool) {
	t.Helper()
	pods, err := podsOf(t.Context(), namespace, "shop")
	if err != nil {
		t.Fatal(err)
	}
	for _, pod := range pods {
		if pod.Spec.NodeName == "node-1" && isOwnCluster() {
			continue // the other nodes end with it
		}
		containers = map[string]bool{}
		for _, c := range pod.Status.InitContainerStatuses {
			containers[c.ContainerID] = true
		}
		return pod.Spec.NodeName, containers
	}
	t.Fatal("no pod is on a node that can be restarted: the cluster needs two nodes")
	return "", nil
}

// waitUntilRevoked waits until both pods have heard of the logout, which they do within
// five seconds. From then on no pod may forget it.
func waitUntilRevoked(t *testing.T, from *caller, shop, token string) {
	t.Helper()
	inARow := 0
	err := until(t.Context(), func(ctx context.Context) error {
		got, err := from.try(ctx, http.MethodGet, shop+"/orders", token, "")
		if err != nil || got.reason() != "session_revoked" {
			inARow = 0
			return fmt.Errorf("after a logout: status %d, reason %q, %w", got.status, got.reason(), err)
		}
		if inARow++; inARow < 20 {
			return fmt.Errorf("only %d answers in a row say that the session is revoked", inARow)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func clusterDir() string { return filepath.Dir(kubeconfigPath()) }

// isOwnCluster says whether the nodes are those of `make cluster-up`, on this machine.
func isOwnCluster() bool {
	_, err := os.Stat(filepath.Join(clusterDir(), "node-1"))
	return err == nil
}

// restartNode ends a node as a power cut would and starts it again. Nodes of another
// cluster are out of reach: there all pods of the node are evicted, which ends the same
// containers, and new ones start.
func restartNode(t *testing.T, node string) (how string) {
	t.Helper()
	if !isOwnCluster() {
		drain(t, node)
		return "drained"
	}
	root := testenv.Root()
	program := filepath.Join(root, "bin", "cluster")
	restart := exec.CommandContext(t.Context(), program, "restart", "-dir", clusterDir(), "-bin", filepath.Join(root, "bin", "k8s"),
		"-images", filepath.Join(root, "bin", "images"), "-nodes", strconv.Itoa(nodes(t)), "-number", strings.TrimPrefix(node, "node-"))
	if said, err := restart.CombinedOutput(); err != nil {
		t.Fatalf("restart %s: %v: %s (`make cluster-up` builds the program)", node, err, said)
	}
	return "restarted, its own start included"
}

// drain does what `kubectl drain` and `kubectl uncordon` do.
func drain(t *testing.T, node string) {
	t.Helper()
	cordon := func(ctx context.Context, unschedulable bool) {
		_, err := world.kube.CoreV1().Nodes().Patch(ctx, node, types.StrategicMergePatchType, fmt.Appendf(nil, `{"spec":{"unschedulable":%t}}`, unschedulable), metav1.PatchOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	cordon(t.Context(), true)
	defer cordon(context.WithoutCancel(t.Context()), false)
	pods, err := world.kube.CoreV1().Pods(metav1.NamespaceAll).List(t.Context(), metav1.ListOptions{FieldSelector: "spec.nodeName=" + node})
	if err != nil {
		t.Fatal(err)
	}
	for _, pod := range pods.Items {
		if owner := metav1.GetControllerOf(&pod); owner == nil || owner.Kind == "DaemonSet" {
			continue
		}
		err := until(t.Context(), func(ctx context.Context) error { // a disruption budget may hold it up
			err := world.kube.PolicyV1().Evictions(pod.Namespace).Evict(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name}})
			if apierrors.IsNotFound(err) {
				return nil
			}
			return err
		})
		if err != nil {
			t.Fatalf("evict pod %s/%s: %v", pod.Namespace, pod.Name, err)
		}
	}
}

// callerBack waits until the tests' caller answers, which may have been on that node.
func callerBack(t *testing.T) {
	t.Helper()
	if err := world.caller.answers(t.Context()); err != nil {
		t.Fatal(err)
	}
}
