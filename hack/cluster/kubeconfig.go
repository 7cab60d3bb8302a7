// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"os"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/utils/ptr"
)

// tokenSeconds is how long the token in a ServiceAccount's kubeconfig is valid: a
// day, longer than any demo or test.
const tokenSeconds = 24 * 60 * 60

// Kubeconfig writes the administrator's kubeconfig to path, readable by the owner only.
func (c *Cluster) Kubeconfig(path string) error {
	if err := os.WriteFile(path, c.environment.KubeConfig, 0o600); err != nil {
		return fmt.Errorf("write the administrator's kubeconfig: %w", err)
	}
	return nil
}

// ServiceAccountKubeconfig writes a kubeconfig to path that acts as the ServiceAccount,
// with a token from the TokenRequest API: a program that uses it has exactly the
// permissions that its role bindings give. The ServiceAccount must exist.
func (c *Cluster) ServiceAccountKubeconfig(ctx context.Context, namespace, name, path string) error {
	request := &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To[int64](tokenSeconds)},
	}
	answer, err := c.kube.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name, request, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("request a token for ServiceAccount %s/%s: %w", namespace, name, err)
	}
	const entry = "tokenward"
	config := clientcmdapi.NewConfig()
	config.Clusters[entry] = &clientcmdapi.Cluster{Server: c.config.Host, CertificateAuthorityData: c.config.CAData}
	config.AuthInfos[entry] = &clientcmdapi.AuthInfo{Token: answer.Status.Token}
	config.Contexts[entry] = &clientcmdapi.Context{Cluster: entry, AuthInfo: entry, Namespace: namespace}
	config.CurrentContext = entry
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		return fmt.Errorf("write the kubeconfig of ServiceAccount %s/%s: %w", namespace, name, err)
	}
	return nil
}

// ensureDefaultServiceAccount does what the controller manager does for a new
// namespace: without it no pod of the namespace is admitted.
func (c *Cluster) ensureDefaultServiceAccount(ctx context.Context, namespace string) error {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "default"}}
	_, err := c.kube.CoreV1().ServiceAccounts(namespace).Create(ctx, account, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create ServiceAccount %s/default: %w", namespace, err)
	}
	return nil
}
