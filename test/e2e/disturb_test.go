// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// roll restarts a Deployment and waits until the last of its old pods is gone.
func roll(t *testing.T, namespace, name string) {
	t.Helper()
	if err := rollout(t.Context(), namespace, name); err != nil {
		t.Fatal(err)
	}
	settled(t, namespace, name)
}

// settled waits until a Deployment has its pods, ready and of its template, and no others
// any more: those that are ending still serve.
func settled(t *testing.T, namespace, name string) {
	t.Helper()
	if err := isSettled(t.Context(), namespace, name); err != nil {
		t.Fatal(err)
	}
}

func isSettled(ctx context.Context, namespace, name string) error {
	if err := rolledOut(ctx, namespace, name); err != nil {
		return err
	}
	return until(ctx, func(ctx context.Context) error {
		d, err := world.kube.AppsV1().Deployments(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		pods, err := deploymentPods(ctx, namespace, name)
		if err != nil {
			return err
		}
		ready := 0
		for i := range pods {
			if pods[i].DeletionTimestamp == nil && isReady(&pods[i]) {
				ready++
			}
		}
		if ready != int(*d.Spec.Replicas) || ready != len(pods) {
			return fmt.Errorf("deployment %s/%s has %d pods, %d of them to stay and ready, expected %d", namespace, name, len(pods), ready, *d.Spec.Replicas)
		}
		return nil
	})
}

// deploymentPods are all pods of a Deployment, those included that are ending.
func deploymentPods(ctx context.Context, namespace, name string) ([]corev1.Pod, error) {
	d, err := world.kube.AppsV1().Deployments(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	pods, err := world.kube.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(d.Spec.Selector)})
	if err != nil {
		return nil, err
	}
	return pods.Items, nil
}

// scale changes how many pods a Deployment has, and waits until they are so many.
func scale(t *testing.T, namespace, name string, replicas int32) {
	t.Helper()
	deployments := world.kube.AppsV1().Deployments(namespace)
	current, err := deployments.GetScale(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	current.Spec.Replicas = replicas
	if _, err := deployments.UpdateScale(t.Context(), name, current, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	settled(t, namespace, name)
}

// end kills a pod as a crash of its machine would, with no time to finish anything.
func end(t *testing.T, namespace, pod string) {
	t.Helper()
	if err := world.kube.CoreV1().Pods(namespace).Delete(t.Context(), pod, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}); err != nil {
		t.Fatal(err)
	}
}

// freeze has a process of a pod do nothing for a while, not even die: whoever waits for it
// waits.
func freeze(t *testing.T, pod *corev1.Pod, program string, lasting time.Duration) {
	t.Helper()
	freezer := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "freeze-"},
		Spec: corev1.PodSpec{
			NodeName: pod.Spec.NodeName, HostPID: true, RestartPolicy: corev1.RestartPolicyNever,
			Containers: []corev1.Container{{
				Name: "freeze", Image: "cluster.local/workload:1",
				Args:            []string{"freeze", "-pod", string(pod.UID), "-for", lasting.String(), program},
				SecurityContext: &corev1.SecurityContext{RunAsUser: new(int64(0)), RunAsNonRoot: new(false)},
			}},
		},
	}
	pods := world.kube.CoreV1().Pods(newNamespace(t))
	created, err := pods.Create(t.Context(), freezer, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	err = until(t.Context(), func(ctx context.Context) error {
		now, err := pods.Get(ctx, created.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if now.Status.Phase == corev1.PodSucceeded {
			return nil
		}
		if now.Status.Phase == corev1.PodFailed {
			log, err := pods.GetLogs(created.Name, &corev1.PodLogOptions{}).DoRaw(ctx)
			t.Fatalf("freeze %s of pod %s: %s %v", program, pod.Name, log, err)
		}
		return fmt.Errorf("the pod %s is %s", created.Name, now.Status.Phase)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// leader is the pod of the manager that reconciles.
func leader(ctx context.Context) (string, error) {
	lease, err := world.kube.CoordinationV1().Leases(operatorNamespace).Get(ctx, "tokenward-manager", metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	if lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == "" {
		return "", errors.New("the Lease tokenward-manager has no holder")
	}
	pod, _, _ := strings.Cut(*lease.Spec.HolderIdentity, "_")
	return pod, nil
}

// killLeader ends the leading manager at once, and waits until another one leads and all
// of them are back.
func killLeader(t *testing.T) {
	t.Helper()
	old, err := leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	end(t, operatorNamespace, old)
	err = until(t.Context(), func(ctx context.Context) error {
		now, err := leader(ctx)
		if err == nil && now == old {
			err = fmt.Errorf("the pod %s, which is gone, still leads", old)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	settled(t, operatorNamespace, "tokenward-manager")
}

// forgetCertificates deletes the certificates of webhook and issuer, and waits until the
// manager has made others.
func forgetCertificates(t *testing.T) {
	t.Helper()
	secrets := world.kube.CoreV1().Secrets(operatorNamespace)
	for _, name := range []string{"tokenward-webhook-tls", "tokenward-issuer-tls"} {
		old, err := secrets.Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := secrets.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		err = until(t.Context(), func(ctx context.Context) error {
			made, err := secrets.Get(ctx, name, metav1.GetOptions{})
			if err == nil && bytes.Equal(made.Data[corev1.TLSCertKey], old.Data[corev1.TLSCertKey]) {
				err = fmt.Errorf("the Secret %s has the certificate of before", name)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
