// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

var testOptions = Options{Namespace: "tokenward-system", SidecarImage: "example.com/tokenward:v0.1.0"}

var shop = Policies{Found: &Policy{UID: "6f1c8c6e-0000-4000-8000-000000000001", Generation: 3}}

// TestGolden shows injected pods whole: testdata/*.in.yaml and what becomes of them.
func TestGolden(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("no golden inputs: %v", err)
	}
	for _, input := range inputs {
		t.Run(strings.TrimSuffix(filepath.Base(input), ".in.yaml"), func(t *testing.T) {
			raw := readJSON(t, input)
			pod := parsePod(t, raw)
			plan, refusal := Decide(pod, shop, testOptions)
			if refusal != nil {
				t.Fatalf("refused: %v", refusal)
			}
			out := Apply(pod, plan)
			compareGolden(t, strings.TrimSuffix(input, ".in.yaml")+".out.yaml", out)
			requireSame(t, "the patch", out, parsePod(t, mustPatch(t, raw, plan, pod)))
			requireStable(t, out)
		})
	}
}

func TestUnknownFieldsSurvive(t *testing.T) {
	raw := []byte(`{"metadata":{"annotations":{"tokenward.io/policy":"shop"},"novel":{"a":[1]},"labels":{}},
		"spec":{"novel":true,"volumes":null,
		"initContainers":[{"name":"first","image":"i","novel":1},{"name":"second","image":"i","novel":2}],
		"containers":[{"name":"app","image":"i","novel":{"b":2},"ports":[{"name":"http","containerPort":8080,"novel":"c"}],
		"livenessProbe":{"novel":"d","httpGet":{"port":"http","novel":"e"}}}]}}`)
	pod := parsePod(t, raw)
	plan, refusal := Decide(pod, shop, testOptions)
	if refusal != nil {
		t.Fatal(refusal)
	}
	var got struct {
		Metadata struct{ Novel any }
		Spec     struct {
			Novel          any
			InitContainers []struct {
				Name  string
				Novel any
			}
			Containers []struct {
				Novel         any
				Ports         []map[string]any
				LivenessProbe struct {
					Novel   any
					HTTPGet map[string]any `json:"httpGet"`
				}
			}
		}
	}
	if err := json.Unmarshal(mustPatch(t, raw, plan, pod), &got); err != nil {
		t.Fatal(err)
	}
	app := got.Spec.Containers[0]
	for name, pair := range map[string][2]any{
		"metadata":       {got.Metadata.Novel, map[string]any{"a": []any{1.0}}},
		"spec":           {got.Spec.Novel, true},
		"init container": {got.Spec.InitContainers[2].Novel, 2.0},
		"container":      {app.Novel, map[string]any{"b": 2.0}},
		"port":           {app.Ports[0], map[string]any{"containerPort": 8080.0, "novel": "c"}},
		"probe":          {app.LivenessProbe.Novel, "d"},
		"probe's action": {app.LivenessProbe.HTTPGet, map[string]any{"port": 8080.0, "novel": "e"}},
	} {
		if diff := cmp.Diff(pair[1], pair[0]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// requireStable injects once more and expects nothing to change.
func requireStable(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	plan, refusal := Decide(pod, shop, testOptions)
	if refusal != nil {
		t.Fatalf("the second pass refuses: %v", refusal)
	}
	if plan.Verdict == Injected {
		t.Errorf("the second pass injects again")
	}
	if patch, err := plan.Patch(pod); err != nil || patch != nil {
		t.Errorf("the second pass patches: %s, %v", patch, err)
	}
	requireSame(t, "the second pass", pod, Apply(pod, plan))
}

func requireSame(t *testing.T, what string, want, got *corev1.Pod) {
	t.Helper()
	if !equality.Semantic.DeepEqual(want, got) {
		t.Errorf("%s gives another pod (-want +got):\n%s", what, cmp.Diff(want, got))
	}
}

func compareGolden(t *testing.T, path string, pod *corev1.Pod) {
	t.Helper()
	got, err := yaml.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs; if it is meant to, run with -update (-want +got):\n%s", path, diff)
	}
}

// mustPatch applies the plan's patch to a pod's JSON.
func mustPatch(t checker, raw []byte, plan Plan, pod *corev1.Pod) []byte {
	t.Helper()
	document, err := plan.Patch(pod)
	if err != nil {
		t.Fatalf("make the patch: %v", err)
	}
	if document == nil {
		return raw
	}
	patch, err := jsonpatch.DecodePatch(document)
	if err != nil {
		t.Fatalf("read the patch %s: %v", document, err)
	}
	out, err := patch.Apply(raw)
	if err != nil {
		t.Fatalf("apply %s: %v", document, err)
	}
	return out
}

func readJSON(tb testing.TB, path string) []byte {
	tb.Helper()
	document, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	raw, err := yaml.YAMLToJSON(document)
	if err != nil {
		tb.Fatal(err)
	}
	return raw
}

func parsePod(tb testing.TB, raw []byte) *corev1.Pod {
	tb.Helper()
	pod := &corev1.Pod{}
	if err := json.Unmarshal(raw, pod); err != nil {
		tb.Fatal(err)
	}
	return pod
}
