// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/session/configmap"
	"github.com/tokenward/tokenward/internal/testenv"
)

// kubectl checks what examples do with it against the API server. Each command is
// understood here; where there is a real kubectl it is called as well, as a dry run.
type kubectl struct {
	binary string
	kinds  map[string]schema.GroupVersionKind // by every name of a resource
	names  map[string]bool                    // below tokenward.io/
	// conditions of our kinds, by type.
	conditions map[string]bool
}

func newKubectl(t *testing.T) *kubectl {
	t.Helper()
	k := &kubectl{binary: findKubectl(), kinds: map[string]schema.GroupVersionKind{}, names: namesOfOurs(t), conditions: conditionTypes(t)}
	if k.binary == "" {
		t.Log("there is no kubectl here: the examples' commands were understood by this test alone")
	}
	lists, err := discovery.NewDiscoveryClientForConfigOrDie(shared.env.Config).ServerPreferredResources()
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		group, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		for _, resource := range list.APIResources {
			for _, name := range append([]string{resource.Name, resource.SingularName}, resource.ShortNames...) {
				if have, ok := k.kinds[name]; !ok || have.Group == "events.k8s.io" {
					k.kinds[name] = group.WithKind(resource.Kind)
				}
			}
		}
	}
	return k
}

// findKubectl looks beside the API server first.
func findKubectl() string {
	path := filepath.Join(cmp.Or(os.Getenv("KUBEBUILDER_ASSETS"), filepath.Join(testenv.Root(), "bin", "k8s")), "kubectl")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	path, err := exec.LookPath("kubectl")
	if err != nil {
		return ""
	}
	return path
}

// command is a call of kubectl, taken apart.
type command struct {
	words []string
	flags map[string][]string
}

// flag is the value of one that is there once.
func (c command) flag(name string) string {
	if values := c.flags[name]; len(values) > 0 {
		return values[len(values)-1]
	}
	return ""
}

// withValue are the flags whose value is the next word, when there is no "=".
var withValue = map[string]string{"-n": "namespace", "--namespace": "namespace", "-f": "filename", "-k": "kustomize", "-l": "selector", "-o": "output", "-p": "patch"}

// flagsOf are those that a verb may have here, besides the namespace.
var flagsOf = map[string][]string{
	"create": {"from-literal", "from-file", "verb", "resource", "resource-name", "role", "clusterrole", "serviceaccount"}, "apply": {"server-side", "filename", "kustomize"},
	"get": {"output", "all-namespaces", "selector"}, "describe": nil, "annotate": {"overwrite"}, "patch": {"type", "patch"},
	"delete": {"all", "all-namespaces", "filename", "ignore-not-found", "selector"}, "rollout": nil, "wait": {"for", "timeout"},
}

func takeApart(args []string) (command, error) {
	c := command{flags: map[string][]string{}}
	for i := 0; i < len(args); i++ {
		name, value, hasValue := strings.Cut(args[i], "=")
		long, takesNext := withValue[name]
		switch {
		case !strings.HasPrefix(args[i], "-"):
			c.words = append(c.words, args[i])
			continue
		case takesNext && !hasValue && i+1 < len(args):
			i++
			value, name = args[i], long
		default:
			name = cmp.Or(long, strings.TrimLeft(name, "-"))
		}
		c.flags[name] = append(c.flags[name], value)
	}
	if len(c.words) == 0 {
		return c, fmt.Errorf("kubectl %q has no verb", args)
	}
	allowed, known := flagsOf[c.words[0]]
	for name := range c.flags {
		if name != "namespace" && !slices.Contains(allowed, name) {
			known = false
		}
	}
	if !known {
		return c, fmt.Errorf("this test does not understand kubectl %q: teach it", args)
	}
	return c, nil
}

// run checks a command that was called in the folder.
func (k *kubectl) run(t *testing.T, what block, folder string, args []string) {
	t.Helper()
	c, err := takeApart(args)
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	// The real one first: what it would create is not there yet.
	if k.binary != "" && c.words[0] != "rollout" && c.words[0] != "wait" {
		if !slices.Contains([]string{"get", "describe"}, c.words[0]) {
			args = append(slices.Clone(args), "--dry-run=server")
		}
		called := exec.CommandContext(t.Context(), k.binary, args...)
		called.Dir, called.Env = folder, append(os.Environ(), "KUBECONFIG="+shared.kubeconfig)
		if out, err := called.CombinedOutput(); err != nil {
			t.Errorf("%s: kubectl %q: %v\n%s", what, args, err, out)
		}
	}
	if err := k.understand(t, folder, c); err != nil {
		t.Errorf("%s: kubectl %q: %v", what, args, err)
	}
}

// understand does what a command says: creation for real, everything else as a dry run.
func (k *kubectl) understand(t *testing.T, folder string, c command) error {
	t.Helper()
	if path := c.flag("filename") + c.flag("kustomize"); path != "" {
		_, err := os.Stat(filepath.Join(folder, path))
		return err
	}
	if c.words[0] == "create" {
		object, err := created(c, folder)
		if err != nil {
			return err
		}
		if binding, ok := object.(*rbacv1.ClusterRoleBinding); ok {
			// It could name a role that there is not.
			if err := shared.Get(t.Context(), client.ObjectKey{Name: binding.RoleRef.Name}, &rbacv1.ClusterRole{}); err != nil {
				return err
			}
		}
		return shared.Create(t.Context(), object)
	}
	rest := c.words[1:]
	if c.words[0] == "rollout" {
		rest = rest[1:]
	}
	resource, name, _ := strings.Cut(rest[0], "/")
	kind, ok := k.kinds[resource]
	if !ok {
		return fmt.Errorf("there is no resource %q", resource)
	}
	if name == "" && len(rest) > 1 {
		name = rest[1]
	}
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(kind)
	object.SetNamespace(c.flag("namespace"))
	object.SetName(name)
	switch {
	case name == "":
		return nil
	case c.words[0] == "wait":
		if path, ok := strings.CutPrefix(c.flag("for"), "jsonpath="); ok {
			return k.awaited(path)
		}
		condition, ok := strings.CutPrefix(c.flag("for"), "condition=")
		if !ok || !k.conditions[condition] {
			return fmt.Errorf("there is no condition %q to wait for", c.flag("for"))
		}
	case c.words[0] == "patch":
		return patched(t, object, c)
	case c.words[0] == "annotate":
		for _, pair := range rest[2:] {
			key, value, ok := strings.Cut(pair, "=")
			if removed, removes := strings.CutSuffix(pair, "-"); !ok && removes {
				key, value, ok = removed, "nothing", true
			}
			if short, ours := strings.CutPrefix(key, "tokenward.io/"); !ok || value == "" || ours && !k.names[short] {
				return fmt.Errorf("%q is not a known annotation with a value", pair)
			}
		}
	case kind.Kind == "Deployment" && name == "shop":
		return nil // of config/samples
	}
	return shared.Get(t.Context(), client.ObjectKeyFromObject(object), object)
}

var ofAnOrder = regexp.MustCompile(`^\{\.status\.revocations\[\?\(@\.order=="(\w+)"\)\]\.(\w+)\}=([\w:-]+)$`)

// awaited checks what is waited for in the report on an order.
func (k *kubectl) awaited(path string) error {
	parts := ofAnOrder.FindStringSubmatch(path)
	if parts == nil {
		return fmt.Errorf("this test does not understand what %q waits for: teach it", path)
	}
	orders := []api.RevocationOrder{api.RevokeSubject, api.RevokeAll}
	states := []api.RevocationState{api.RevocationInProgress, api.RevocationCompleted, api.RevocationRefused}
	known := parts[2] == "value" || parts[2] == "state" && slices.Contains(states, api.RevocationState(parts[3]))
	if !known || !slices.Contains(orders, api.RevocationOrder(parts[1])) {
		return fmt.Errorf("%q never comes true", path)
	}
	return nil
}

// created is the object that `kubectl create` makes, called in a folder.
func created(c command, folder string) (client.Object, error) {
	at := metav1.ObjectMeta{Namespace: c.flag("namespace"), Name: c.words[len(c.words)-1]}
	switch strings.Join(c.words[1:len(c.words)-1], " ") {
	case "secret generic":
		secret := &corev1.Secret{ObjectMeta: at, Data: map[string][]byte{}}
		for _, literal := range c.flags["from-literal"] {
			key, value, _ := strings.Cut(literal, "=")
			secret.Data[key] = []byte(value)
		}
		for _, file := range c.flags["from-file"] {
			key, path, ok := strings.Cut(file, "=")
			if !ok {
				key, path = filepath.Base(file), file
			}
			content, err := os.ReadFile(filepath.Join(folder, path))
			if err != nil {
				return nil, err
			}
			secret.Data[key] = content
		}
		return secret, nil
	case "role":
		return &rbacv1.Role{ObjectMeta: at, Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{""}, Verbs: []string{c.flag("verb")},
			Resources: []string{c.flag("resource")}, ResourceNames: []string{c.flag("resource-name")},
		}}}, nil
	case "rolebinding":
		namespace, name, _ := strings.Cut(c.flag("serviceaccount"), ":")
		return &rbacv1.RoleBinding{
			ObjectMeta: at, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: c.flag("role")},
			Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: namespace, Name: name}},
		}, nil
	case "clusterrolebinding":
		namespace, name, _ := strings.Cut(c.flag("serviceaccount"), ":")
		return &rbacv1.ClusterRoleBinding{
			ObjectMeta: at, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: c.flag("clusterrole")},
			Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: namespace, Name: name}},
		}, nil
	}
	return nil, fmt.Errorf("this test does not know how to create %q: teach it", c.words)
}

func patched(t *testing.T, object *unstructured.Unstructured, c command) error {
	t.Helper()
	kind := map[string]types.PatchType{"merge": types.MergePatchType, "json": types.JSONPatchType}[c.flag("type")]
	options := &client.PatchOptions{DryRun: []string{metav1.DryRunAll}, FieldValidation: metav1.FieldValidationStrict}
	if err := shared.Patch(t.Context(), object, client.RawPatch(kind, []byte(c.flag("patch"))), options); err != nil {
		return err
	}
	if object.GetName() != configmap.SecretName {
		return nil
	}
	// What comes out must be what the issuer can use, with the keys from before.
	result := &corev1.Secret{}
	if err := shared.Get(t.Context(), client.ObjectKeyFromObject(object), result); err != nil {
		return err
	}
	before := len(result.Data)
	if err := shared.Patch(t.Context(), result, client.RawPatch(kind, []byte(c.flag("patch"))), options); err != nil {
		return err
	}
	if len(result.Data) != before+1 {
		return fmt.Errorf("%d data keys became %d", before, len(result.Data))
	}
	_, err := configmap.NewSealer(result.Data)
	return err
}
