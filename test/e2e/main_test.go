// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/hack/cluster"
	"github.com/tokenward/tokenward/internal/testenv"
)

const (
	operatorNamespace = "tokenward-system"
	// ownCluster is where `make cluster-up` leaves its kubeconfig.
	ownCluster = "/var/lib/tokenward-cluster/kubeconfig"
	// patience is how long anything may take that the nodes do.
	patience = 3 * time.Minute
)

// world is the cluster with the product installed, for all tests.
var world struct {
	kube    kubernetes.Interface
	client  client.Client // of our kinds
	cluster *cluster.Cluster
	caller  *caller
	figures figures
}

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	ctx := context.Background()
	if err := setUp(ctx); err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "e2e: %v\n", err)
		return 1
	}
	defer world.caller.remove(ctx)
	code := stages(m)
	world.figures.writeTo(os.Stdout)
	return code
}

// firstTest upgrades what is installed at the beginning, when that is a previous build.
const firstTest = "^TestUpgrade$"

// previousManifest is a file that [setUp] installs instead of dist/install.yaml, or "".
func previousManifest() string { return os.Getenv("TOKENWARD_PREVIOUS") }

// lastTest leaves nothing for others to test: what is installed is uninstalled.
const lastTest = "^TestUninstall$"

// stages runs all tests and then the last one. Parallel tests end after all others of
// their run, so the order in the source would not do.
func stages(m *testing.M) int {
	flag.Parse() // or what is set here would be overwritten
	wanted, skipped := flag.Lookup("test.run").Value.String(), flag.Lookup("test.skip").Value.String()
	set := func(name, pattern string) {
		if err := flag.Set(name, pattern); err != nil {
			panic(err) // the testing package has these flags
		}
	}
	asked := func(test string) bool {
		matches, err := regexp.MatchString(wanted, strings.Trim(test, "^$"))
		return err == nil && matches
	}
	if previousManifest() != "" && asked(firstTest) {
		set("test.run", firstTest)
		if code := m.Run(); code != 0 {
			return code
		}
		set("test.run", wanted)
	}
	if skipped == "" {
		set("test.skip", lastTest+"|"+firstTest)
	} else {
		set("test.skip", skipped+"|"+firstTest)
	}
	code := m.Run()
	if code != 0 || skipped != "" {
		return code // what failed is left as it is, to be looked at
	}
	if !asked(lastTest) {
		return code
	}
	set("test.skip", "")
	set("test.run", lastTest)
	return m.Run()
}

func setUp(ctx context.Context) error {
	config, err := kubeconfig()
	if err != nil {
		return err
	}
	if world.kube, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	scheme := runtime.NewScheme()
	if err := api.AddToScheme(scheme); err != nil {
		return err
	}
	if world.client, err = client.New(config, client.Options{Scheme: scheme}); err != nil {
		return err
	}
	if world.cluster, err = cluster.Connect(config); err != nil {
		return err
	}
	if err := install(ctx, cmp.Or(previousManifest(), distManifest())); err != nil {
		return fmt.Errorf("install Tokenward: %w", err)
	}
	world.caller, err = startCaller(ctx, world.kube)
	return err
}

func kubeconfigPath() string {
	if path := os.Getenv("KUBECONFIG"); path != "" {
		return path
	}
	return ownCluster
}

func kubeconfig() (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfigPath())
	if err != nil {
		return nil, fmt.Errorf("%w: run `make cluster-up`, or set KUBECONFIG", err)
	}
	config.QPS = -1 // the tests' own limit would only hide how fast things are
	return config, nil
}

func distManifest() string { return filepath.Join(testenv.Root(), "dist", "install.yaml") }

// install applies a manifest as it is, and waits until all of it runs.
func install(ctx context.Context, path string) error {
	manifest, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	deployments := []string{"tokenward-manager", "tokenward-issuer"}
	_, err = world.kube.AppsV1().Deployments(operatorNamespace).Get(ctx, deployments[0], metav1.GetOptions{})
	installed := err == nil
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	if err := world.cluster.Apply(ctx, manifest, "e2e"); err != nil {
		return err
	}
	for _, name := range deployments {
		if installed { // the image may be a new one of the same name
			if err := rollout(ctx, operatorNamespace, name); err != nil {
				return err
			}
		}
	}
	for _, name := range deployments {
		if err := rolledOut(ctx, operatorNamespace, name); err != nil {
			return err
		}
	}
	return nil
}

// rollout does what `kubectl rollout restart` does.
func rollout(ctx context.Context, namespace, name string) error {
	patch := fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":%q}}}}}`, time.Now().UTC().Format(time.RFC3339Nano))
	_, err := world.kube.AppsV1().Deployments(namespace).Patch(ctx, name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
	return err
}

// rolledOut waits until all pods of a Deployment are those of its template, and ready.
func rolledOut(ctx context.Context, namespace, name string) error {
	return until(ctx, func(ctx context.Context) error {
		d, err := world.kube.AppsV1().Deployments(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if !isRolledOut(d) {
			return fmt.Errorf("deployment %s/%s: %d of %d pods are up to date and ready", namespace, name, min(d.Status.UpdatedReplicas, d.Status.AvailableReplicas), *d.Spec.Replicas)
		}
		return nil
	})
}

func isRolledOut(d *appsv1.Deployment) bool {
	s, wanted := d.Status, *d.Spec.Replicas
	return s.ObservedGeneration >= d.Generation && s.Replicas == wanted && s.UpdatedReplicas == wanted && s.AvailableReplicas == wanted
}

// until asks again and again, and gives up with the last error. It is for what the
// cluster does in its own time, never for an answer that must be right the first time.
func until(ctx context.Context, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	ticker := time.NewTicker(250 * time.Millisecond)
	defer ticker.Stop()
	var last error
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (gave up after %s)", last, patience)
		case <-ticker.C:
		}
	}
}

// newNamespace makes one for a test, and removes it afterwards.
func newNamespace(t *testing.T) string {
	t.Helper()
	namespaces := world.kube.CoreV1().Namespaces()
	made, err := namespaces.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context()) // that one has ended by now
		if t.Failed() {
			t.Log(describe(ctx, made.Name))
		}
		if err := namespaces.Delete(ctx, made.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Errorf("delete namespace %s: %v", made.Name, err)
		}
	})
	return made.Name
}

// describe is what somebody who looks for the cause of a failure asks first.
func describe(ctx context.Context, namespace string) string {
	text := "namespace " + namespace + ":\n"
	if pods, err := world.kube.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{}); err == nil {
		for _, p := range pods.Items {
			text += fmt.Sprintf("  pod %s on %s: %s\n", p.Name, p.Spec.NodeName, p.Status.Phase)
			for _, c := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
				text += fmt.Sprintf("    container %s: ready %t, %d restarts, waiting %v, terminated %v\n", c.Name, c.Ready, c.RestartCount, c.State.Waiting, c.State.Terminated)
			}
		}
	}
	if events, err := world.kube.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{}); err == nil {
		for _, e := range events.Items {
			if e.Type != corev1.EventTypeNormal {
				text += fmt.Sprintf("  event %s %s %s: %s\n", e.InvolvedObject.Kind, e.InvolvedObject.Name, e.Reason, e.Message)
			}
		}
	}
	return text + lastWords(ctx, namespace, "tokenward") + lastWords(ctx, operatorNamespace, "")
}

// lastWords are the ends of the logs of one container of each pod that has it; "" is
// the only one.
func lastWords(ctx context.Context, namespace, container string) (text string) {
	pods, err := world.kube.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Sprintf("  no logs of %s: %v\n", namespace, err)
	}
	for _, p := range pods.Items {
		if container != "" && len(p.Spec.InitContainers) == 0 {
			continue
		}
		options := &corev1.PodLogOptions{Container: container, TailLines: new(int64(30))}
		logs, err := world.kube.CoreV1().Pods(namespace).GetLogs(p.Name, options).DoRaw(ctx)
		if err != nil {
			logs = []byte(err.Error())
		}
		text += fmt.Sprintf("  log of pod %s/%s:\n    %s\n", namespace, p.Name, strings.ReplaceAll(strings.TrimSpace(string(logs)), "\n", "\n    "))
	}
	return text
}
