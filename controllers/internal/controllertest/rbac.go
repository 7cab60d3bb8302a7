// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package controllertest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tokenward/tokenward/controllers/internal/owned"
	"github.com/tokenward/tokenward/internal/testenv"
)

// marker starts the comments that controller-gen makes Roles of.
const marker = "// +kubebuilder:rbac:"

// grants reads the markers of the packages: rules per namespace, "" for the cluster.
func grants(packages ...string) (map[string][]rbacv1.PolicyRule, error) {
	rules := make(map[string][]rbacv1.PolicyRule)
	for _, pkg := range packages {
		files, err := filepath.Glob(filepath.Join(testenv.Root(), pkg, "*.go"))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			source, err := os.ReadFile(file) //nolint:gosec // our own sources
			if err != nil {
				return nil, err
			}
			for lines := bufio.NewScanner(bytes.NewReader(source)); lines.Scan(); {
				if text, ok := strings.CutPrefix(strings.TrimSpace(lines.Text()), marker); ok {
					namespace, rule := grantOf(text)
					rules[namespace] = append(rules[namespace], rule)
				}
			}
		}
	}
	if len(rules) == 0 {
		return nil, fmt.Errorf("no RBAC markers in %v", packages)
	}
	return rules, nil
}

func grantOf(text string) (namespace string, rule rbacv1.PolicyRule) {
	for pair := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(pair, "=")
		values := strings.Split(strings.Trim(value, `"`), ";")
		switch name {
		case "groups":
			rule.APIGroups = values
		case "resources":
			rule.Resources = values
		case "verbs":
			rule.Verbs = values
		case "resourceNames":
			rule.ResourceNames = values
		case "namespace":
			namespace = value
		}
	}
	return namespace, rule
}

// grant gives the manager's service account what the markers ask for, and no more.
func grant(ctx context.Context, admin client.Client, rules map[string][]rbacv1.PolicyRule) error {
	meta := metav1.ObjectMeta{Name: owned.ServiceAccount}
	subjects := []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: Namespace, Name: owned.ServiceAccount}}
	var objects []client.Object
	for namespace, rules := range rules {
		meta := *meta.DeepCopy()
		meta.Namespace = namespace
		if namespace == "" {
			objects = append(objects,
				&rbacv1.ClusterRole{ObjectMeta: meta, Rules: rules},
				&rbacv1.ClusterRoleBinding{ObjectMeta: meta, Subjects: subjects, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: meta.Name}})
			continue
		}
		objects = append(objects,
			&rbacv1.Role{ObjectMeta: meta, Rules: rules},
			&rbacv1.RoleBinding{ObjectMeta: meta, Subjects: subjects, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name}})
	}
	for _, object := range objects {
		if err := admin.Create(ctx, object); err != nil {
			return err
		}
	}
	return nil
}
