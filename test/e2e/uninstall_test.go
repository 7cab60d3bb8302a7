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
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/tokenward/tokenward/internal/testenv"
)

// TestUninstall does what docs/operations.md says, command by command. It is the last
// test of all, see lastTest: the next run installs again.
func TestUninstall(t *testing.T) {
	namespace := newTenant(t)
	shop := startApplication(t, namespace, "shop", 2)        // somebody forgets this one
	released := startApplication(t, namespace, "release", 1) // and not that one
	token := logIn(t, shop)
	// And a pod whose application can be made to end.
	mortal := probedPods(namespace)[0]
	mortal.Name, mortal.Capture = "mortal", "Port"
	applyFile(t, "probed.yaml", mortal)
	mortal.start(t)
	readyPods(t, namespace, mortal.Name)

	// Step 1, the annotation goes from the pod template.
	_, err := world.kube.AppsV1().Deployments(namespace).Patch(t.Context(), "release", types.StrategicMergePatchType,
		[]byte(`{"spec":{"template":{"metadata":{"annotations":{"tokenward.io/policy":null}}}}}`), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := rolledOut(t.Context(), namespace, "release"); err != nil {
		t.Fatal(err)
	}
	requireOpen(t, released)

	// Steps 2 to 4.
	kubectl(t, shellBlock(t, "## Uninstall", "-f dist/install.yaml"))
	_, err = world.kube.CoreV1().Namespaces().Get(t.Context(), operatorNamespace, metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("namespace %s is still there: %v", operatorNamespace, err)
	}

	// Pods of before go on as with an issuer that is down.
	for range 10 {
		requireServed(t, shop, token)
	}
	if got := world.caller.call(t, http.MethodGet, shop+"/orders", "", ""); got.reason() != "token_missing" {
		t.Errorf("no token: status %d and reason %q, want 403 and token_missing", got.status, got.reason())
	}
	login := world.caller.call(t, http.MethodPost, shop+"/auth/token", "", `{"id":"alice","phone":"0","password":"guess"}`)
	if login.status != http.StatusServiceUnavailable || login.reason() != "issuer_unavailable" {
		t.Errorf("a login without an issuer: status %d and reason %q, want 503 and issuer_unavailable", login.status, login.reason())
	}

	mortal.set(t, "live", false)
	mortal.until(t, "the application was started again in a pod of before", func(_ *corev1.Pod, app corev1.ContainerStatus) bool {
		return app.RestartCount == 1 && app.State.Running != nil
	})
	mortal.start(t)
	mortal.until(t, "the pod is ready after the restart", func(pod *corev1.Pod, _ corev1.ContainerStatus) bool { return isReady(pod) })

	// New pods start, and those that are still annotated start bare.
	createPod(t, namespace, application("plain", nil))
	readyPods(t, namespace, "plain")
	if err := rollout(t.Context(), namespace, "shop"); err != nil {
		t.Fatal(err)
	}
	if err := rolledOut(t.Context(), namespace, "shop"); err != nil {
		t.Fatalf("annotated pods do not start after the product was removed: %v", err)
	}
	pods, err := podsOf(t.Context(), namespace, "shop")
	if err != nil {
		t.Fatal(err)
	}
	for i := range pods {
		if pods[i].DeletionTimestamp.IsZero() && bare(&pods[i]) == "" {
			t.Errorf("pod %s has a sidecar, and nobody is there who could have put it in", pods[i].Name)
		}
	}
	requireOpen(t, shop)
}

// requireOpen waits until a Service leads to an application that nobody is before: it has
// pods of before for a moment.
func requireOpen(t *testing.T, url string) {
	t.Helper()
	err := until(t.Context(), func(ctx context.Context) error {
		got, err := world.caller.try(ctx, http.MethodGet, url+"/orders", "", "")
		if err == nil && got.status != http.StatusOK {
			return fmt.Errorf("%s: status %d and reason %q, want 200 of the application", url, got.status, got.reason())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// shellBlock is the first block of commands after a heading of docs/operations.md, which
// must have a line that says so much.
func shellBlock(t *testing.T, heading, line string) string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(testenv.Root(), "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(page), "\n"+heading+"\n")
	if !found {
		t.Fatalf("docs/operations.md has no heading %q", heading)
	}
	_, block, _ := strings.Cut(section, "\n```sh\n")
	block, _, _ = strings.Cut(block, "\n```")
	if !strings.Contains(block, line) {
		t.Fatalf("the first commands under %q in docs/operations.md are %q, expected %q among them", heading, block, line)
	}
	return block
}

// kubectl runs commands as they are on the page, in the folder of the project.
func kubectl(t *testing.T, commands string) {
	t.Helper()
	root := testenv.Root()
	shell := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", commands)
	shell.Dir = root
	shell.Env = append(os.Environ(), "KUBECONFIG="+kubeconfigPath(), "PATH="+filepath.Join(root, "bin", "k8s")+":"+os.Getenv("PATH"))
	if said, err := shell.CombinedOutput(); err != nil {
		t.Fatalf("the commands\n%s\nended with %v and said\n%s", commands, err, said)
	}
}
