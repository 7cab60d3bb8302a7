// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/users/password"
	"github.com/tokenward/tokenward/issuer"
	"github.com/tokenward/tokenward/issuer/policies"
	"github.com/tokenward/tokenward/issuer/report"
)

// asIssuer acts with the permissions of the issuer's ServiceAccount.
func asIssuer(t *testing.T) client.Client {
	t.Helper()
	config := rest.CopyConfig(shared.env.Config)
	config.Impersonate.UserName = "system:serviceaccount:" + operatorNamespace + ":" + issuer.ServiceAccount
	config.Impersonate.Groups = []string{"system:serviceaccounts", "system:serviceaccounts:" + operatorNamespace, "system:authenticated"}
	acting, err := client.New(config, client.Options{Scheme: issuer.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	return acting
}

// noStore stands for the sessions.
type noStore struct{ policies.Store }

func (noStore) Look(context.Context) policies.StoreLook { return policies.StoreLook{} }

// TestTheReadmeLeadsToUsersWhoCanLogIn applies its objects, looks with the issuer's eyes,
// runs its commands, looks again, and logs in with its curl line.
func TestTheReadmeLeadsToUsersWhoCanLogIn(t *testing.T) {
	n := newTenant(t)
	n.apply(t, "README.md")
	key := client.ObjectKey{Namespace: n.namespace, Name: "shop"}
	clock := time.Now()
	reader := asIssuer(t)
	now := func() time.Time { return clock }
	parts := policies.New(reader, policies.Options{
		Namespace: operatorNamespace,
		Users:     policies.SourceOptions{Live: reader, Hasher: password.NewPool(1, 1, nil), Now: now},
		Stores: policies.StoreOptions{OpenConfigMaps: func(context.Context, *api.TokenPolicy) (policies.Store, error) {
			return noStore{}, nil // it is about users
		}},
	})
	if _, err := parts.Reconcile(t.Context(), ctrl.Request{NamespacedName: key}); err != nil {
		t.Fatal(err)
	}
	status := report.New(reader, report.Options{
		Parts: parts, Now: now, Issuer: report.ServiceAccount{Namespace: operatorNamespace, Name: issuer.ServiceAccount},
	})
	look := func(reason string) (*api.TokenPolicy, string) {
		clock = clock.Add(time.Minute)
		if _, err := status.Reconcile(t.Context(), ctrl.Request{NamespacedName: key}); err != nil {
			t.Fatal(err)
		}
		policy := &api.TokenPolicy{}
		if err := shared.Get(t.Context(), key, policy); err != nil {
			t.Fatal(err)
		}
		condition := meta.FindStatusCondition(policy.Status.Conditions, api.ConditionUsersReady)
		if condition == nil || condition.Reason != reason {
			t.Fatalf("the condition is %+v, want the reason %s", condition, reason)
		}
		return policy, condition.Message
	}

	_, message := look(api.ReasonSecretAccessDenied)
	_, lines, _ := strings.Cut(message, "\n")
	asked := grants(t, lines)
	var given []invocation
	for _, example := range blocks(t, "README.md", "sh") {
		for _, call := range newSite(t).run(t, example, n.commands(example.text)) {
			if call.Name == "kubectl" && len(call.Args) > 2 && call.Args[2] == "create" {
				given = append(given, call)
			}
		}
	}
	var granted []any
	for _, call := range given {
		object := object(t, call.Args)
		if err := shared.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
		granted = append(granted, essence(object)...)
	}
	if !reflect.DeepEqual(granted, asked) {
		t.Errorf("the README grants\n%v\nand the issuer asks for\n%v", granted, asked)
	}

	// The API server's authorizer takes a moment to notice the grant.
	deadline := time.Now().Add(30 * time.Second)
	for reader.Get(t.Context(), client.ObjectKey{Namespace: n.namespace, Name: "shop-users"}, &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}}) != nil {
		if time.Now().After(deadline) {
			t.Fatal("the README's grant does not let the issuer read the Secret")
		}
	}
	policy, _ := look(api.ReasonUsersReady)
	var fields map[string]string
	if err := json.Unmarshal([]byte(loginBody), &fields); err != nil || !strings.Contains(read(t, "README.md"), loginBody) {
		t.Fatalf("the README does not log in with %s (%v)", loginBody, err)
	}
	source, ok := parts.Users(policy)
	if !ok {
		t.Fatal("the policy is not served")
	}
	user, err := source.Authenticate(t.Context(), fields)
	if err != nil || user.Subject != "alice" || user.Attributes["role"] != "admin" {
		t.Errorf("the README's user logs in as %+v, %v", user, err)
	}
}

// TestTheSampleGrantIsWhatTheIssuerAsksFor compares the files with the README's commands.
func TestTheSampleGrantIsWhatTheIssuerAsksFor(t *testing.T) {
	objects, err := parse(read(t, "config/samples/grant.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var sample, readme []any
	for _, found := range objects {
		typed, err := shared.Scheme().New(found.GroupVersionKind())
		if err != nil {
			t.Fatal(err)
		}
		body, err := found.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(body, typed); err != nil {
			t.Fatal(err)
		}
		sample = append(sample, essence(typed.(client.Object))...) //nolint:forcetypeassert // every kind here is one
	}
	for _, example := range blocks(t, "README.md", "sh") {
		for _, call := range newSite(t).run(t, example, example.text) {
			if call.Name == "kubectl" && len(call.Args) > 2 && call.Args[2] == "create" {
				readme = append(readme, essence(object(t, call.Args))...)
			}
		}
	}
	if len(sample) == 0 || !reflect.DeepEqual(sample, readme) {
		t.Errorf("config/samples/grant.yaml grants\n%v\nand the README\n%v", sample, readme)
	}
}

// grants are the lines of a condition, as a shell would take them.
func grants(t *testing.T, lines string) []any {
	t.Helper()
	var found []any
	for _, call := range newSite(t).run(t, block{file: "the condition"}, lines) {
		found = append(found, essence(object(t, call.Args))...)
	}
	if len(found) != 2 {
		t.Fatalf("the condition's lines make %d objects:\n%s", len(found), lines)
	}
	return found
}

func object(t *testing.T, args []string) client.Object {
	t.Helper()
	c, err := takeApart(args)
	if err != nil {
		t.Fatal(err)
	}
	object, err := created(c, "")
	if err != nil {
		t.Fatal(err)
	}
	return object
}

// essence is what a grant comes to, whatever its objects are called; nothing for others.
func essence(object client.Object) []any {
	switch o := object.(type) {
	case *rbacv1.Role:
		return []any{fmt.Sprint(o.Namespace, o.Rules)}
	case *rbacv1.RoleBinding:
		return []any{fmt.Sprint(o.Namespace, o.RoleRef.Kind, o.Subjects)}
	}
	return nil
}
