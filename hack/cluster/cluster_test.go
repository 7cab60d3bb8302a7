// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/tokenward/tokenward/hack/cluster"
	"github.com/tokenward/tokenward/internal/testenv"
)

// The custom resource comes before its definition, its namespace last: Apply must sort.
const stream = `
apiVersion: example.com/v1
kind: Widget
metadata: {name: one, namespace: shop}
spec: {size: 3}
---
# nothing but a comment
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader, namespace: shop}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: shop}
rules: [{apiGroups: [""], resources: [configmaps], verbs: [list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: reader, namespace: shop}]
---
apiVersion: v1
kind: Service
metadata: {name: hook, namespace: shop}
spec: {ports: [{port: 443, targetPort: 9443}]}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {kind: Widget, plural: widgets}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
---
apiVersion: v1
kind: Namespace
metadata:
  name: shop
  labels: {pod-security.kubernetes.io/enforce: restricted}
`

func TestCluster(t *testing.T) {
	assets := cmp.Or(os.Getenv("KUBEBUILDER_ASSETS"), filepath.Join(testenv.Root(), "bin", "k8s"))
	c, err := cluster.Start(t.Context(), cluster.Options{Dir: t.TempDir(), Assets: assets})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	admin := kubernetes.NewForConfigOrDie(c.Config())
	if err := c.Apply(t.Context(), []byte(stream), "test"); err != nil {
		t.Fatal(err)
	}

	t.Run("a cluster that somebody else ends takes objects as well", func(t *testing.T) {
		connected, err := cluster.Connect(c.Config())
		if err != nil {
			t.Fatal(err)
		}
		if err := connected.Apply(t.Context(), []byte("{apiVersion: v1, kind: Namespace, metadata: {name: connected}}"), "test"); err != nil {
			t.Fatal(err)
		}
		if _, err := admin.CoreV1().Namespaces().Get(t.Context(), "connected", metav1.GetOptions{}); err != nil {
			t.Error(err)
		}
		if err := connected.Stop(); err != nil {
			t.Error(err)
		}
		if _, err := admin.CoreV1().Namespaces().Get(t.Context(), "connected", metav1.GetOptions{}); err != nil {
			t.Errorf("after Stop: %v", err)
		}
	})

	t.Run("applying the same stream again changes nothing", func(t *testing.T) {
		before, err := admin.CoreV1().Services("shop").Get(t.Context(), "hook", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Apply(t.Context(), []byte(stream), "test"); err != nil {
			t.Fatal(err)
		}
		after, err := admin.CoreV1().Services("shop").Get(t.Context(), "hook", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if before.ResourceVersion != after.ResourceVersion {
			t.Errorf("resource version went from %s to %s", before.ResourceVersion, after.ResourceVersion)
		}
	})

	t.Run("an object without a name is refused with its place in the stream", func(t *testing.T) {
		err := c.Apply(t.Context(), []byte("---\napiVersion: v1\nkind: ConfigMap\n"), "test")
		if err == nil || !strings.Contains(err.Error(), "metadata.name") {
			t.Errorf("Apply returned %v", err)
		}
	})

	t.Run("a program with a ServiceAccount's kubeconfig has that account's permissions only", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "reader.kubeconfig")
		if err := c.ServiceAccountKubeconfig(t.Context(), "shop", "reader", path); err != nil {
			t.Fatal(err)
		}
		reader := kubeFromFile(t, path)
		if _, err := reader.CoreV1().ConfigMaps("shop").List(t.Context(), metav1.ListOptions{}); err != nil {
			t.Errorf("what the role allows was refused: %v", err)
		}
		if _, err := reader.CoreV1().Secrets("shop").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("what the role does not allow: got %v, want Forbidden", err)
		}
	})

	t.Run("the administrator's kubeconfig is for the owner's eyes and may do everything", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "admin.kubeconfig")
		if err := c.Kubeconfig(path); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
		if _, err := kubeFromFile(t, path).CoreV1().Secrets("").List(t.Context(), metav1.ListOptions{}); err != nil {
			t.Error(err)
		}
	})

	t.Run("pods get a projected API token, as in a real cluster", func(t *testing.T) {
		pod := createPod(t.Context(), t, admin, "default", nil)
		if len(pod.Spec.Volumes) != 1 || pod.Spec.Volumes[0].Projected == nil {
			t.Errorf("volumes %+v", pod.Spec.Volumes)
		}
	})

	t.Run("Pod Security is enforced by namespace label", func(t *testing.T) {
		privileged := plainPod(nil)
		_, err := admin.CoreV1().Pods("shop").Create(t.Context(), privileged, metav1.CreateOptions{})
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "PodSecurity") {
			t.Errorf("got %v, want a refusal by PodSecurity", err)
		}
	})

	t.Run("an admission webhook", func(t *testing.T) { testWebhook(t, c, admin) })
}

func TestStartSaysWhatIsMissing(t *testing.T) {
	_, err := cluster.Start(t.Context(), cluster.Options{Assets: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "make cluster-binaries") {
		t.Errorf("Start returned %v", err)
	}
}

func kubeFromFile(t *testing.T, path string) kubernetes.Interface {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	return kubernetes.NewForConfigOrDie(config)
}

func plainPod(labels map[string]string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "pod-", Labels: labels},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}
}

func createPod(ctx context.Context, t *testing.T, kube kubernetes.Interface, namespace string, labels map[string]string) *corev1.Pod {
	t.Helper()
	pod, err := kube.CoreV1().Pods(namespace).Create(ctx, plainPod(labels), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pod
}
