// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/issuer"
)

// page is what somebody has who did all that the page of a store or source says.
type page struct {
	name string
	// policies in the order of the page, with the API server's defaults.
	policies []*api.TokenPolicy
	// logins are bodies of one, by the place in policies of the policy before them.
	logins  map[int]map[string]string
	secrets map[string]map[string][]byte
	// grants are roles and their bindings.
	grants map[string][]any
}

// follow does what a page says, with ca as the file ca.crt. Nothing is made.
func follow(t *testing.T, name string, ca []byte) *page {
	t.Helper()
	p := &page{name: name, logins: map[int]map[string]string{}, secrets: map[string]map[string][]byte{}, grants: map[string][]any{}}
	n := newTenant(t)
	for _, example := range allBlocks(t, name) {
		switch example.lang {
		case "yaml":
			p.manifest(t, n, example)
		case "json":
			var fields map[string]string
			if json.Unmarshal([]byte(example.text), &fields) == nil && fields["id"] != "" {
				p.logins[len(p.policies)-1] = fields
			}
		case "sh":
			p.commands(t, example, ca)
		}
	}
	if len(p.policies) == 0 {
		t.Fatalf("%s has no policy", name)
	}
	return p
}

func (p *page) manifest(t *testing.T, n *tenant, example block) {
	t.Helper()
	objects, err := parse(n.manifest(example.text))
	if err != nil {
		t.Fatalf("%s: %v", example, err)
	}
	for _, object := range objects {
		body, err := object.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		options := &client.PatchOptions{FieldManager: "kubectl", FieldValidation: metav1.FieldValidationStrict, DryRun: []string{metav1.DryRunAll}}
		if err := shared.Patch(t.Context(), object, client.RawPatch(types.ApplyPatchType, body), options); err != nil {
			t.Fatalf("%s: %v", example, err)
		}
		if object.GetKind() != "TokenPolicy" {
			continue
		}
		policy := &api.TokenPolicy{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, policy); err != nil {
			t.Fatal(err)
		}
		p.policies = append(p.policies, policy)
	}
}

func (p *page) commands(t *testing.T, example block, ca []byte) {
	t.Helper()
	s := newSite(t)
	s.write(t, "ca.crt", ca)
	for _, call := range s.run(t, example, example.text) {
		c, err := takeApart(call.Args)
		if call.Name != "kubectl" || err != nil || c.words[0] != "create" {
			continue
		}
		object, err := created(c, s.dir)
		if err != nil {
			t.Fatalf("%s: %v", example, err)
		}
		switch o := object.(type) {
		case *corev1.Secret:
			p.secrets[o.Name] = o.Data
		case *rbacv1.Role, *rbacv1.RoleBinding:
			p.grants[o.GetName()] = append(p.grants[o.GetName()], grant(o))
		}
	}
}

// grant is what a role or a binding says, with its name.
func grant(object client.Object) any {
	switch o := object.(type) {
	case *rbacv1.Role:
		return fmt.Sprint(o.Name, o.Rules)
	case *rbacv1.RoleBinding:
		return fmt.Sprint(o.Name, o.RoleRef, o.Subjects)
	}
	return nil
}

// grantsWhatIsRead checks that the page grants every Secret that its policies name as the issuer
// asks for it, under the names of its conditions, and nothing else.
func (p *page) grantsWhatIsRead(t *testing.T, role string, secretOf func(*api.TokenPolicySpec) string) {
	t.Helper()
	want := map[string][]any{}
	for _, policy := range p.policies {
		secret := secretOf(&policy.Spec)
		if secret == "" {
			continue
		}
		if p.secrets[secret] == nil {
			t.Errorf("%s makes no Secret %q", p.name, secret)
		}
		at := metav1.ObjectMeta{Name: role + policy.Name}
		want[at.Name] = []any{
			grant(&rbacv1.Role{ObjectMeta: at, Rules: []rbacv1.PolicyRule{{
				APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{secret}, Verbs: []string{"get"},
			}}}),
			grant(&rbacv1.RoleBinding{
				ObjectMeta: at, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: at.Name},
				Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: operatorNamespace, Name: issuer.ServiceAccount}},
			}),
		}
	}
	if !reflect.DeepEqual(p.grants, want) {
		t.Errorf("%s grants\n%v\nand its policies need\n%v", p.name, p.grants, want)
	}
}

// statements are those of the page's examples of SQL that begin with a comment.
func (p *page) statements(t *testing.T, comment string) []string {
	t.Helper()
	var found []string
	for _, example := range blocks(t, p.name, "sql") {
		rest, ok := strings.CutPrefix(example.text, "-- "+comment+"\n")
		if !ok {
			continue
		}
		for statement := range strings.SplitSeq(rest, ";\n") {
			if statement = strings.TrimSpace(statement); statement != "" {
				found = append(found, statement)
			}
		}
	}
	if len(found) == 0 {
		t.Fatalf("%s has no SQL for %s", p.name, comment)
	}
	return found
}

// moved is a text with addresses of the page replaced by those of a test's servers.
func moved(t *testing.T, text []byte, to map[string]string) string {
	t.Helper()
	result := string(text)
	for _, from := range slices.Sorted(maps.Keys(to)) {
		result = strings.ReplaceAll(result, from, to[from])
	}
	if result == string(text) {
		t.Fatalf("the example names none of %v", slices.Sorted(maps.Keys(to)))
	}
	return result
}
