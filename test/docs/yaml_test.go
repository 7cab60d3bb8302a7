// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tokenward/tokenward/internal/testenv"
)

// tenant is a namespace in which the examples' namespace "shop" is played.
type tenant struct{ namespace string }

func newTenant(t *testing.T) *tenant {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "shop-"}}
	if err := shared.Create(t.Context(), namespace); err != nil {
		t.Fatal(err)
	}
	return &tenant{namespace: namespace.Name}
}

var (
	inManifest = regexp.MustCompile(`\bnamespace: shop\b`)
	inCommand  = regexp.MustCompile(`-n shop\b`)
)

// manifest is an example of YAML in the tenant's namespace.
func (n *tenant) manifest(example string) string {
	return inManifest.ReplaceAllString(example, "namespace: "+n.namespace)
}

// commands are an example of a shell in the tenant's namespace.
func (n *tenant) commands(example string) string {
	return inCommand.ReplaceAllString(example, "-n "+n.namespace)
}

// apply makes the objects of a document.
func (n *tenant) apply(t *testing.T, name string) {
	t.Helper()
	for _, example := range blocks(t, name, "yaml") {
		if err := shared.apply(t.Context(), n.manifest(example.text), ""); err != nil {
			t.Fatalf("%s: %v", example, err)
		}
	}
}

// TestYAMLExamplesAreAccepted has the API server validate every example that is a
// Kubernetes object, in a document or as a file.
func TestYAMLExamplesAreAccepted(t *testing.T) {
	n := newTenant(t)
	examples := map[string]string{}
	for _, name := range documents(t) {
		for _, example := range blocks(t, name, "yaml") {
			if strings.Contains(example.text, "apiVersion:") {
				examples[example.String()] = example.text
			} else {
				t.Errorf("%s is no whole object, and nothing checks it", example)
			}
		}
	}
	files, err := filepath.Glob(filepath.Join(testenv.Root(), "config", "samples", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if name := filepath.Join("config", "samples", filepath.Base(file)); filepath.Base(file) != "kustomization.yaml" {
			examples[name] = read(t, name)
		}
	}
	if len(examples) < 7 {
		t.Errorf("only %d examples found", len(examples))
	}
	for name, text := range examples {
		if err := shared.apply(t.Context(), n.manifest(text), metav1.DryRunAll); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The server does refuse what it does not know.
	wrong := strings.Replace(examples["config/samples/tokenpolicy.yaml"], "audiences:", "audience:", 1)
	if err := shared.apply(t.Context(), n.manifest(wrong), metav1.DryRunAll); err == nil {
		t.Error("a field that there is not was accepted: the examples were not validated")
	}
}
