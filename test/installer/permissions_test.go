// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package installer_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

var update = flag.Bool("update", false, "write the golden files of permissions anew")

var serviceAccounts = []string{"tokenward-manager", "tokenward-issuer"}

// TestPermissionsAreAsWrittenDown asks the API server what each ServiceAccount may
// do, so that a new permission is seen in a review. `go test ./test/installer -update`
// writes the files anew.
func TestPermissionsAreAsWrittenDown(t *testing.T) {
	for _, account := range serviceAccounts {
		t.Run(account, func(t *testing.T) {
			got := "In any namespace:\n" + rules(t, account, "default") + "\nIn " + namespace + ":\n" + rules(t, account, namespace)
			golden := filepath.Join("testdata", account+".txt")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("permissions differ from %s (-want +got):\n%s", golden, diff)
			}
		})
	}
}

// actingAs is a client with the identity that a token of the ServiceAccount carries.
func actingAs(account string) kubernetes.Interface {
	config := installed.Config()
	config.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + namespace + ":" + account,
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"},
	}
	return kubernetes.NewForConfigOrDie(config)
}

// rules lists what the API server lets a ServiceAccount do in a namespace, one line
// per rule, without what every ServiceAccount may do.
func rules(t *testing.T, account, namespace string) string {
	t.Helper()
	everyone := rulesOf(t, actingAs("default"), namespace)
	own := slices.DeleteFunc(rulesOf(t, actingAs(account), namespace), func(line string) bool { return slices.Contains(everyone, line) })
	return strings.Join(own, "")
}

func rulesOf(t *testing.T, kube kubernetes.Interface, namespace string) []string {
	t.Helper()
	review := &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: namespace}}
	review, err := kube.AuthorizationV1().SelfSubjectRulesReviews().Create(t.Context(), review, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, rule := range review.Status.ResourceRules {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				name := strings.TrimSuffix(resource+"."+group, ".")
				if len(rule.ResourceNames) > 0 {
					name += " " + strings.Join(rule.ResourceNames, ",")
				}
				slices.Sort(rule.Verbs)
				lines = append(lines, fmt.Sprintf("  %s: %s\n", name, strings.Join(rule.Verbs, " ")))
			}
		}
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}

// TestNoPermissionThatLeadsToMore asks for what would give an intruder in one of our
// processes the cluster, or a tenant's secrets.
func TestNoPermissionThatLeadsToMore(t *testing.T) {
	attributes := func(verb, group, resource string) authorizationv1.ResourceAttributes {
		resource, subresource, _ := strings.Cut(resource, "/")
		return authorizationv1.ResourceAttributes{Verb: verb, Group: group, Resource: resource, Subresource: subresource}
	}
	const rbac, admission = "rbac.authorization.k8s.io", "admissionregistration.k8s.io"
	forbidden := []authorizationv1.ResourceAttributes{
		attributes("escalate", rbac, "roles"), attributes("bind", rbac, "roles"), attributes("create", rbac, "rolebindings"),
		attributes("escalate", rbac, "clusterroles"), attributes("bind", rbac, "clusterroles"), attributes("create", rbac, "clusterrolebindings"),
		attributes("update", rbac, "clusterroles"), attributes("patch", rbac, "roles"),
		attributes("impersonate", "", "users"), attributes("impersonate", "", "groups"), attributes("impersonate", "", "serviceaccounts"),
		attributes("create", "", "serviceaccounts/token"), attributes("approve", "certificates.k8s.io", "signers"),
		attributes("create", "", "pods/exec"), attributes("create", "", "pods/attach"), attributes("create", "", "pods/portforward"),
		attributes("patch", "", "pods/ephemeralcontainers"), attributes("get", "", "nodes/proxy"),
		attributes("create", "", "pods"), attributes("patch", "", "pods"), attributes("delete", "", "pods"),
		attributes("create", "apps", "deployments"), attributes("patch", "apps", "deployments"), attributes("create", "batch", "jobs"),
		attributes("create", admission, "mutatingwebhookconfigurations"), attributes("delete", admission, "mutatingwebhookconfigurations"),
		attributes("patch", admission, "mutatingwebhookconfigurations"), attributes("patch", admission, "validatingadmissionpolicies"),
		attributes("patch", "apiextensions.k8s.io", "customresourcedefinitions"), attributes("patch", "", "namespaces"),
		attributes("*", "*", "*"),
	}
	secrets := []authorizationv1.ResourceAttributes{ // anywhere but at home
		attributes("get", "", "secrets"), attributes("list", "", "secrets"), attributes("watch", "", "secrets"),
		attributes("create", "", "secrets"), attributes("update", "", "secrets"), attributes("patch", "", "secrets"), attributes("delete", "", "secrets"),
	}
	for _, account := range serviceAccounts {
		t.Run(account, func(t *testing.T) {
			kube := actingAs(account)
			for _, where := range []string{"", "default", "kube-system", namespace} {
				list := forbidden
				if where != namespace {
					list = append(slices.Clone(list), secrets...)
				}
				for _, asked := range list {
					asked.Namespace = where
					if allowed(t, kube, asked) {
						t.Errorf("may %s %s.%s/%s in namespace %q", asked.Verb, asked.Resource, asked.Group, asked.Subresource, where)
					}
				}
			}
		})
	}
	t.Run("the manager may mend the CA bundle of our own webhook", func(t *testing.T) {
		own := attributes("patch", admission, "mutatingwebhookconfigurations")
		own.Name = "tokenward-injector"
		if !allowed(t, actingAs("tokenward-manager"), own) {
			t.Error("may not patch tokenward-injector, or this test asks wrongly")
		}
	})
}

func allowed(t *testing.T, kube kubernetes.Interface, asked authorizationv1.ResourceAttributes) bool {
	t.Helper()
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &asked}}
	review, err := kube.AuthorizationV1().SelfSubjectAccessReviews().Create(t.Context(), review, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return review.Status.Allowed
}
