// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package issuer_test

import (
	"encoding/json"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/token"
)

// grant lets the issuer read the tenant's users, and nothing else.
func (n *tenant) grant() {
	n.t.Helper()
	create(n.t,
		&rbacv1.Role{
			ObjectMeta: metav1.ObjectMeta{Namespace: n.namespace, Name: "users"},
			Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{"shop-users"}, Verbs: []string{"get"}}},
		},
		&rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: n.namespace, Name: "users"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "users"},
			Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: operator, Name: "tokenward-issuer"}},
		})
}

// pasted does what the two kubectl lines of a condition do.
func (n *tenant) pasted(message string) {
	n.t.Helper()
	_, lines, found := strings.Cut(message, "\n")
	if !found {
		n.t.Fatalf("no lines to paste in %q", message)
	}
	for line := range strings.SplitSeq(lines, " && ") {
		words := strings.Fields(line)
		if len(words) < 5 || words[0] != "kubectl" || words[1] != "create" {
			n.t.Fatalf("not a line for kubectl: %q", line)
		}
		flags := map[string]string{}
		for _, word := range words[4:] {
			name, value, ok := strings.Cut(word, "=")
			if !ok || !strings.HasPrefix(name, "--") {
				n.t.Fatalf("%q is no flag", word)
			}
			flags[name] = value
		}
		about := metav1.ObjectMeta{Namespace: flags["--namespace"], Name: words[3]}
		switch words[2] {
		case "role":
			create(n.t, &rbacv1.Role{ObjectMeta: about, Rules: []rbacv1.PolicyRule{{
				APIGroups: []string{""}, Verbs: []string{flags["--verb"]}, Resources: []string{flags["--resource"]}, ResourceNames: []string{flags["--resource-name"]},
			}}})
		case "rolebinding":
			namespace, name, _ := strings.Cut(flags["--serviceaccount"], ":")
			create(n.t, &rbacv1.RoleBinding{
				ObjectMeta: about, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: flags["--role"]},
				Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: namespace, Name: name}},
			})
		default:
			n.t.Fatalf("kubectl creates a %q", words[2])
		}
	}
}

func (n *tenant) usersReady() *metav1.Condition {
	n.t.Helper()
	policy := &api.TokenPolicy{}
	if err := shared.admin.Get(n.t.Context(), client.ObjectKeyFromObject(n.policy), policy); err != nil {
		n.t.Fatal(err)
	}
	return meta.FindStatusCondition(policy.Status.Conditions, api.ConditionUsersReady)
}

func (n *tenant) awaitUsers(reason string) *metav1.Condition {
	n.t.Helper()
	var found *metav1.Condition
	eventually(n.t, "UsersReady says "+reason, func() (bool, string) {
		found = n.usersReady()
		if found == nil {
			return false, "nothing"
		}
		return found.Reason == reason, found.Reason + ": " + found.Message
	})
	return found
}

func TestATenantGrantsItsUsersWithTheLinesOfTheCondition(t *testing.T) {
	n := newTenant(t)
	i := startIssuer(t, n.clock)
	n.serving(i)
	want(t, n.login(i, "alice", rightPassword), 503, token.IssuerUnavailable)
	denied := n.awaitUsers(api.ReasonSecretAccessDenied)
	if denied.Status != metav1.ConditionFalse || denied.ObservedGeneration != n.policy.Generation {
		t.Errorf("condition %+v", denied)
	}
	n.pasted(denied.Message)
	ready := n.awaitUsers(api.ReasonUsersReady)
	if ready.Status != metav1.ConditionTrue {
		t.Errorf("condition %+v", ready)
	}
	eventually(t, "the login works", func() (bool, string) {
		got := n.login(i, "alice", rightPassword)
		return got.status == 200, got.String()
	})
	policy := &api.TokenPolicy{}
	if err := shared.admin.Get(t.Context(), client.ObjectKeyFromObject(n.policy), policy); err != nil {
		t.Fatal(err)
	}
	for _, owner := range policy.ManagedFields {
		if owner.Manager != "tokenward-issuer" {
			continue
		}
		var fields map[string]map[string]map[string]any
		if err := json.Unmarshal(owner.FieldsV1.GetRawBytes(), &fields); err != nil {
			t.Fatal(err)
		}
		conditions := fields["f:status"]["f:conditions"]
		if owner.Subresource != "status" || len(fields["f:status"]) != 1 || len(conditions) != 1 || conditions[`k:{"type":"UsersReady"}`] == nil {
			t.Errorf("the issuer owns more than its condition: %s", owner.FieldsV1.GetRawString())
		}
	}
}

func TestASecretThatIsMissingOrPartlyBrokenIsReported(t *testing.T) {
	n := newTenant(t)
	n.grant()
	n.users(func(data map[string][]byte) {
		data["carol"] = []byte(`{"password": "c4n4ry-plain"}`)
		data["dave"] = []byte(`c4n4ry-junk`)
	})
	i := startIssuer(t, n.clock)
	n.serving(i)
	partly := n.awaitUsers(api.ReasonUsersPartlyInvalid)
	if partly.Status != metav1.ConditionTrue || !strings.Contains(partly.Message, "carol: ") || !strings.Contains(partly.Message, "dave: ") {
		t.Errorf("condition %+v", partly)
	}
	if strings.Contains(partly.Message, "c4n4ry") {
		t.Errorf("the message quotes an entry: %s", partly.Message)
	}
	if got := n.login(i, "alice", rightPassword); got.status != 200 {
		t.Errorf("alice, whose entry is fine: %s", got)
	}
	want(t, n.login(i, "carol", "c4n4ry-plain"), 403, token.CredentialsInvalid)

	other := newTenant(t)
	other.grant()
	if err := shared.admin.Delete(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: other.namespace, Name: "shop-users"}}); err != nil {
		t.Fatal(err)
	}
	missing := other.awaitUsers(api.ReasonSecretNotFound)
	if missing.Status != metav1.ConditionFalse || !strings.Contains(missing.Message, `"shop-users"`) {
		t.Errorf("condition %+v", missing)
	}
	other.serving(i)
	want(t, other.login(i, "alice", rightPassword), 503, token.IssuerUnavailable)
}
