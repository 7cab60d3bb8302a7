// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package installer_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"

	"github.com/tokenward/tokenward/hack/cluster"
	"github.com/tokenward/tokenward/internal/testenv"
	"github.com/tokenward/tokenward/internal/users/password"
)

const namespace = "tokenward-system"

// installed is a control plane with dist/install.yaml applied twice, all tests share it.
var installed *cluster.Cluster

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	assets := cmp.Or(os.Getenv("KUBEBUILDER_ASSETS"), filepath.Join(testenv.Root(), "bin", "k8s"))
	c, err := cluster.Start(ctx, cluster.Options{Assets: assets})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := c.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	manifest, err := os.ReadFile(filepath.Join(testenv.Root(), "dist", "install.yaml"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for range 2 { // the second time is an upgrade to the same release
		if err := c.Apply(ctx, manifest, "test"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	installed = c
	return m.Run()
}

func TestPodsOfTheDeploymentsPassTheRestrictedStandard(t *testing.T) {
	kube := kubernetes.NewForConfigOrDie(installed.Config())
	for _, name := range []string{"tokenward-manager", "tokenward-issuer"} {
		deployment, err := kube.AppsV1().Deployments(namespace).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if *deployment.Spec.Replicas < 2 {
			t.Errorf("%s: %d replicas", name, *deployment.Spec.Replicas)
		}
		// The namespace enforces the standard, so the server refuses a pod that does not pass.
		pod := &corev1.Pod{ObjectMeta: deployment.Spec.Template.ObjectMeta, Spec: deployment.Spec.Template.Spec}
		pod.Name = name
		pod, err = kube.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		container := pod.Spec.Containers[0]
		if !*container.SecurityContext.ReadOnlyRootFilesystem {
			t.Errorf("%s: the root file system is writable", name)
		}
		if container.Resources.Limits.Memory().IsZero() || container.Resources.Requests.Cpu().IsZero() {
			t.Errorf("%s: no memory limit or CPU request", name)
		}
		for what, probe := range map[string]*corev1.Probe{"startup": container.StartupProbe, "liveness": container.LivenessProbe, "readiness": container.ReadinessProbe} {
			if probe == nil {
				t.Errorf("%s: no %s probe", name, what)
			}
		}
	}
}

// TestServicesReachTheirPods compares labels and ports, which the API server does not.
func TestServicesReachTheirPods(t *testing.T) {
	kube := kubernetes.NewForConfigOrDie(installed.Config())
	for name, want := range map[string]string{ // Service → Deployment:port
		"tokenward-webhook":         "tokenward-manager:9443",
		"tokenward-manager-metrics": "tokenward-manager:8443",
		"tokenward-issuer":          "tokenward-issuer:8443",
		"tokenward-issuer-metrics":  "tokenward-issuer:8444",
	} {
		service, err := kube.CoreV1().Services(namespace).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Error(err)
			continue
		}
		deployments, err := kube.AppsV1().Deployments(namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var reached []string
		for _, deployment := range deployments.Items {
			template := deployment.Spec.Template
			if !labels.SelectorFromSet(service.Spec.Selector).Matches(labels.Set(template.Labels)) {
				continue
			}
			for _, port := range template.Spec.Containers[0].Ports {
				if target := service.Spec.Ports[0].TargetPort; target.StrVal == port.Name || target.IntVal == port.ContainerPort {
					reached = append(reached, fmt.Sprintf("%s:%d", deployment.Name, port.ContainerPort))
				}
			}
		}
		if !slices.Equal(reached, []string{want}) {
			t.Errorf("Service %s reaches %v, want %s", name, reached, want)
		}
	}
}

// TestSamplesAreValid has the server take the samples as they are, twice.
func TestSamplesAreValid(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(testenv.Root(), "config", "samples", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var stream []byte
	for _, file := range files {
		if filepath.Base(file) == "kustomization.yaml" {
			continue
		}
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		stream = append(append(stream, "\n---\n"...), content...)
	}
	for range 2 {
		if err := installed.Apply(t.Context(), stream, "test"); err != nil {
			t.Fatal(err)
		}
	}
	kube := kubernetes.NewForConfigOrDie(installed.Config())
	secret, err := kube.CoreV1().Secrets("shop").Get(t.Context(), "shop-users", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for id, entry := range secret.Data {
		var attributes map[string]any
		if err := json.Unmarshal(entry, &attributes); err != nil {
			t.Errorf("user %s: %v", id, err)
		}
		hash, ok := attributes["password"].(string)
		if _, err := password.Parse(hash); !ok || err != nil {
			t.Errorf("user %s: the password is not a hash: %v", id, err)
		}
	}
}

func TestTheInjectedImageIsTheManagersOwn(t *testing.T) {
	kube := kubernetes.NewForConfigOrDie(installed.Config())
	deployment, err := kube.AppsV1().Deployments(namespace).Get(t.Context(), "tokenward-manager", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	container := deployment.Spec.Template.Spec.Containers[0]
	want := "--sidecar-image=" + container.Image
	if !slices.Contains(container.Args, want) {
		t.Errorf("arguments %q, want one %q", container.Args, want)
	}
}
