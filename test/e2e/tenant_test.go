// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"text/template"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tokenward/tokenward/internal/users/password"
)

// newTenant makes a namespace with a policy "shop" and the user alice, and no workload.
func newTenant(t *testing.T, labels ...string) (namespace string) {
	t.Helper()
	namespace = newNamespace(t)
	label(t, namespace, labels...)
	createUsers(t, namespace)
	applyFile(t, "tenant.yaml", map[string]any{"Namespace": namespace})
	return namespace
}

// createUsers makes the Secret that the policies of these tests name.
func createUsers(t *testing.T, namespace string) {
	t.Helper()
	entry, err := json.Marshal(map[string]string{"phone": alicePhone, "password": password.Hash(alicePassword)})
	if err != nil {
		t.Fatal(err)
	}
	users := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "shop-users"}, Data: map[string][]byte{"alice": entry}}
	if _, err := world.kube.CoreV1().Secrets(namespace).Create(t.Context(), users, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// applyFile applies a template of testdata as a team would.
func applyFile(t *testing.T, name string, data any) {
	t.Helper()
	manifest, err := template.New(name).Option("missingkey=error").ParseFiles(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := manifest.Execute(&text, data); err != nil {
		t.Fatal(err)
	}
	if err := world.cluster.Apply(t.Context(), text.Bytes(), "team"); err != nil {
		t.Fatal(err)
	}
}

// label puts key=value pairs on a namespace.
func label(t *testing.T, namespace string, labels ...string) {
	t.Helper()
	if len(labels) == 0 {
		return
	}
	found, err := world.kube.CoreV1().Namespaces().Get(t.Context(), namespace, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range labels {
		key, value, _ := strings.Cut(l, "=")
		found.Labels[key] = value
	}
	if _, err := world.kube.CoreV1().Namespaces().Update(t.Context(), found, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// attempt is what the caller's loop says of requests that ended alike; see first.go of
// the workload.
type attempt struct {
	Status  int
	Failure string
	Body    string
	Count   int
}

func (a attempt) String() string {
	if a.Status == 0 {
		return fmt.Sprintf("%d x no answer (%s)", a.Count, a.Failure)
	}
	return fmt.Sprintf("%d x status %d %s", a.Count, a.Status, a.Body)
}

// watchFirst has the caller ask url from now on, until it has had so many answers, and
// returns a function that waits for them.
func watchFirst(t *testing.T, url string, answers int) func() ([]attempt, error) {
	t.Helper()
	type result struct {
		attempts []attempt
		err      error
	}
	came := make(chan result, 1)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	go func() {
		defer cancel()
		body, err := world.kube.CoreV1().RESTClient().Get().
			Namespace(world.caller.namespace).Resource("pods").Name("caller:8080").SubResource("proxy").Suffix("first").
			Param("to", url).Param("answers", fmt.Sprint(answers)).DoRaw(ctx)
		var attempts []attempt
		if err == nil {
			err = json.Unmarshal(body, &attempts)
		}
		came <- result{attempts, err}
	}()
	return func() ([]attempt, error) {
		r := <-came
		return r.attempts, r.err
	}
}

// checkedFromTheFirst waits for what [watchFirst] began, and holds that no answer of the
// pod, from the first one on, came to a request that was not checked.
func checkedFromTheFirst(t *testing.T, what string, wait func() ([]attempt, error)) {
	t.Helper()
	attempts, err := wait()
	if err != nil {
		t.Errorf("%s: nobody answered: %v", what, err)
		return
	}
	for _, a := range attempts {
		got := answer{status: a.Status, body: []byte(a.Body)}
		if a.Status != 0 && (a.Status != http.StatusForbidden || got.reason() != "token_missing") {
			t.Errorf("%s: a request without a token was answered with %s, want 403 token_missing from the first answer on; all that came: %v", what, a, attempts)
		}
	}
}
