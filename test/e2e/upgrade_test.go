// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

// TestUpgrade finds the previous build installed, as [setUp] has left it, and upgrades it
// as docs/operations.md says, under load. It runs before all other tests, which then have
// the upgraded operator.
func TestUpgrade(t *testing.T) {
	previous, latest := imageOf(t, previousManifest()), imageOf(t, distManifest())
	namespace := startWorkloads(t, "stays", "rolled")
	noneBare(t, namespace)
	requireSidecars(t, namespace, "stays", previous)
	loads := []*offered{offer(t, namespace, "stays", 100), offer(t, namespace, "rolled", 100)}

	during(t, "the new manifest is applied", loads, func(t *testing.T) {
		t.Helper()
		whileAdmitting(t, namespace, func() {
			manifest, err := os.ReadFile(distManifest())
			if err != nil {
				t.Fatal(err)
			}
			if err := world.cluster.Apply(t.Context(), manifest, "e2e"); err != nil {
				t.Fatal(err)
			}
			settled(t, operatorNamespace, "tokenward-manager")
			settled(t, operatorNamespace, "tokenward-issuer")
		})
		for _, name := range []string{"tokenward-manager", "tokenward-issuer"} {
			d, err := world.kube.AppsV1().Deployments(operatorNamespace).Get(t.Context(), name, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if got := d.Spec.Template.Spec.Containers[0].Image; got != latest {
				t.Errorf("%s runs %s after the upgrade, want %s", name, got, latest)
			}
		}
	})
	during(t, "sidecars of before go on with the issuer of now", loads, func(t *testing.T) {
		t.Helper()
		before := loads[0].report(t).NewTokens
		err := until(t.Context(), func(context.Context) error {
			if tokens := loads[0].report(t).NewTokens - before; tokens < 100 {
				return fmt.Errorf("%d tokens were exchanged since the upgrade, expected 100, one for each session", tokens)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		requireOutdated(t, namespace, 4)
	})
	during(t, "a workload is rolled", loads, func(t *testing.T) {
		t.Helper()
		roll(t, namespace, "rolled")
		requireSidecars(t, namespace, "rolled", latest)
		requireSidecars(t, namespace, "stays", previous)
		requireOutdated(t, namespace, 2)
	})
	for _, o := range loads {
		r := o.stop(t)
		t.Logf("load on %s: %s", o.workload, describeLoad(r))
		measured("load on "+o.workload+", during an upgrade", r)
	}
}

// imageOf is the product's image in a manifest.
func imageOf(t *testing.T, manifest string) string {
	t.Helper()
	content, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`--sidecar-image=(\S+)`).FindSubmatch(content)
	if found == nil {
		t.Fatalf("%s has no --sidecar-image", manifest)
	}
	return string(found[1])
}

// requireSidecars holds that every pod of a workload has the sidecar of an image.
func requireSidecars(t *testing.T, namespace, name, image string) {
	t.Helper()
	pods, err := deploymentPods(t.Context(), namespace, name)
	if err != nil {
		t.Fatal(err)
	}
	if len(pods) == 0 {
		t.Errorf("%s has no pods", name)
	}
	for _, pod := range pods {
		if got := sidecarOf(&pod).Image; got != image {
			t.Errorf("pod %s has the sidecar of %s, want %s", pod.Name, got, image)
		}
	}
}

func sidecarOf(pod *corev1.Pod) corev1.Container {
	for _, c := range pod.Spec.InitContainers {
		if c.Name == "tokenward" {
			return c
		}
	}
	return corev1.Container{}
}

// requireOutdated waits until the policy's status counts so many pods that are to be rolled.
func requireOutdated(t *testing.T, namespace string, want int32) {
	t.Helper()
	err := until(t.Context(), func(ctx context.Context) error {
		policy := &api.TokenPolicy{}
		if err := world.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "shop"}, policy); err != nil {
			return err
		}
		if policy.Status.Pods == nil {
			return errors.New("the policy's status counts no pods")
		}
		if got := policy.Status.Pods.Outdated; got != want {
			return fmt.Errorf("the policy's status says that %d pods are outdated, expected %d: see the annotation tokenward.io/status of the pods", got, want)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
