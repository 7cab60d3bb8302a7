// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"

	"github.com/tokenward/tokenward/internal/testenv"
)

// constraint is one thing that the schema of a kind forbids.
type constraint struct {
	resource string // signingkeys or tokenpolicies
	path     string // "spec.rules[].paths[].value"
	kind     string // the schema's word: pattern, enum, maxLength, …, "unique" for lists, "cel"
	detail   string // of required: the field; of cel: the message
	schema   *apiextensionsv1.JSONSchemaProps
}

// constraints reads everything that the generated CRD of a resource checks in
// metadata and spec.
func constraints(t *testing.T, resource string) []constraint {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(testenv.Root(), "config", "crd", "bases", "tokenward.io_"+resource+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.UnmarshalStrict(content, crd); err != nil {
		t.Fatal(err)
	}
	root := crd.Spec.Versions[0].Schema.OpenAPIV3Schema
	delete(root.Properties, "status") // ours alone to write
	var found []constraint
	walk(root, "", func(path, kind, detail string, schema *apiextensionsv1.JSONSchemaProps) {
		found = append(found, constraint{resource, path, kind, detail, schema})
	})
	if len(found) == 0 {
		t.Fatalf("no constraint in the CRD of %s", resource)
	}
	return found
}

func walk(s *apiextensionsv1.JSONSchemaProps, path string, report func(path, kind, detail string, s *apiextensionsv1.JSONSchemaProps)) {
	for kind, present := range map[string]bool{
		"pattern": s.Pattern != "", "enum": len(s.Enum) > 0,
		"minLength": s.MinLength != nil, "maxLength": s.MaxLength != nil,
		"minItems": s.MinItems != nil, "maxItems": s.MaxItems != nil,
		"minimum": s.Minimum != nil, "maximum": s.Maximum != nil,
		"minProperties": s.MinProperties != nil, "maxProperties": s.MaxProperties != nil,
		"unique": s.XListType != nil && *s.XListType != "atomic",
	} {
		if present {
			report(path, kind, "", s)
		}
	}
	for _, field := range s.Required {
		report(path, "required", field, s)
	}
	for _, rule := range s.XValidations {
		report(path, "cel", rule.Message, s)
	}
	for name, child := range s.Properties {
		walk(&child, join(path, name), report)
	}
	if s.Items != nil {
		walk(s.Items.Schema, path+"[]", report)
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// TestEveryStringAndListIsBounded: what a user may make arbitrarily long fills etcd
// and makes CEL rules too expensive.
func TestEveryStringAndListIsBounded(t *testing.T) {
	for _, resource := range []string{"signingkeys", "tokenpolicies"} {
		bounded := map[string][]string{}
		for _, c := range constraints(t, resource) {
			bounded[c.path] = append(bounded[c.path], c.kind)
		}
		var visit func(s *apiextensionsv1.JSONSchemaProps, path string)
		visit = func(s *apiextensionsv1.JSONSchemaProps, path string) {
			switch {
			case s.Type == "string" && len(s.Enum) == 0 && !slices.Contains(bounded[path], "maxLength"):
				t.Errorf("%s: string %s has no maxLength", resource, path)
			case s.Type == "array" && !slices.Contains(bounded[path], "maxItems"):
				t.Errorf("%s: list %s has no maxItems", resource, path)
			case s.Type == "integer" && len(s.Enum) == 0 && (!slices.Contains(bounded[path], "minimum") || !slices.Contains(bounded[path], "maximum")):
				t.Errorf("%s: number %s has no minimum or maximum", resource, path)
			}
			for name, child := range s.Properties {
				visit(&child, join(path, name))
			}
			if s.Items != nil {
				visit(s.Items.Schema, path+"[]")
			}
		}
		visit(specSchema(t, resource), "spec")
	}
}

func specSchema(t *testing.T, resource string) *apiextensionsv1.JSONSchemaProps {
	t.Helper()
	for _, c := range constraints(t, resource) {
		if c.path == "" { // the rule on metadata.name sits on the root
			spec := c.schema.Properties["spec"]
			return &spec
		}
	}
	t.Fatalf("the CRD of %s has no rule on its root", resource)
	return nil
}
