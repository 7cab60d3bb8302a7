// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/tokenward/tokenward/test/e2e/workload/load"
)

// startWorkloads applies testdata/load.yaml with these workloads, and waits until all run.
func startWorkloads(t *testing.T, names ...string) (namespace string) {
	t.Helper()
	return startWorkloadsOf(t, map[string]any{"SharedProcesses": false}, names...)
}

func startWorkloadsOf(t *testing.T, data map[string]any, names ...string) (namespace string) {
	t.Helper()
	namespace = newNamespace(t)
	createUsers(t, namespace)
	data["Namespace"], data["Workloads"] = namespace, names
	applyFile(t, "load.yaml", data)
	for _, name := range names {
		if err := rolledOut(t.Context(), namespace, name); err != nil {
			t.Fatal(err)
		}
		leadsToAll(t, shopURL(namespace, name), 2)
	}
	return namespace
}

// offered is a load that a pod offers to a workload.
type offered struct {
	namespace, pod, workload string
	sessions                 int
	before                   load.Report // at the beginning of a disturbance
	ended                    bool
}

// offer has a pod of its own offer so many requests a second to a workload, over
// connections that are kept and, one in ten, new ones, with 100 sessions. Some requests
// more must be refused.
func offer(t *testing.T, namespace, workload string, perSecond int) *offered {
	t.Helper()
	o := &offered{namespace: namespace, workload: workload, pod: "load-" + workload, sessions: 100}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: o.pod},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "load", Image: "cluster.local/workload:1", Args: []string{"load"},
		}}},
	}
	if _, err := world.kube.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	err := until(t.Context(), func(ctx context.Context) error {
		return o.request(world.kube.CoreV1().RESTClient().Get(), "healthz").Do(ctx).Error()
	})
	if err != nil {
		t.Fatalf("start the pod %s: %v", o.pod, err)
	}
	plan, err := json.Marshal(load.Plan{
		URL: shopURL(namespace, workload), User: "alice", Sessions: o.sessions, JoinSeconds: 30, PerSecond: perSecond, BadPerSecond: max(perSecond/50, 2), NewConnectionEvery: 10,
		Login: fmt.Sprintf(`{"id":"alice","phone":%q,"password":%q}`, alicePhone, alicePassword),
	})
	if err != nil {
		t.Fatal(err)
	}
	if answer, err := o.request(world.kube.CoreV1().RESTClient().Post(), "start").Body(plan).DoRaw(t.Context()); err != nil {
		t.Fatalf("start the load on %s: %v: %s", workload, err, answer)
	}
	t.Cleanup(func() {
		if !o.ended { // the test has failed before it stopped the load
			t.Logf("load on %s: %s", workload, describeLoad(o.ask(context.WithoutCancel(t.Context()), t, "report")))
		}
	})
	return o
}

func (o *offered) request(verb *rest.Request, path string) *rest.Request {
	return verb.Namespace(o.namespace).Resource("pods").Name(o.pod + ":8080").SubResource("proxy").Suffix(path)
}

func (o *offered) ask(ctx context.Context, t *testing.T, path string) (r load.Report) {
	t.Helper()
	verb := world.kube.CoreV1().RESTClient().Get()
	if path == "stop" {
		verb = world.kube.CoreV1().RESTClient().Post()
	}
	answer, err := o.request(verb, path).DoRaw(ctx)
	if err == nil {
		err = json.Unmarshal(answer, &r)
	}
	if err != nil {
		t.Errorf("ask %s for its %s: %v: %s", o.pod, path, err, answer)
	}
	return r
}

func (o *offered) report(t *testing.T) load.Report {
	t.Helper()
	return o.ask(t.Context(), t, "report")
}

// stop ends the load.
func (o *offered) stop(t *testing.T) load.Report {
	t.Helper()
	o.ended = true
	return o.ask(t.Context(), t, "stop")
}

// undisturbed holds that nothing has failed since the beginning of what the reports are
// about: no request of a client that never tries again, and nothing that was let in.
func undisturbed(t *testing.T, workload string, before, after load.Report) {
	t.Helper()
	if after.Failures() != before.Failures() || after.LetIn != before.LetIn || after.Unguarded != before.Unguarded {
		t.Errorf("load on %s: %d requests failed, %d were let in by mistake and %d reached an application that nobody guards; expected none. All so far: %s",
			workload, after.Failures()-before.Failures(), after.LetIn-before.LetIn, after.Unguarded-before.Unguarded, describeLoad(after))
	}
	if after.OK == before.OK {
		t.Errorf("load on %s: nothing was answered meanwhile, so nothing was tested: %s", workload, describeLoad(after))
	}
}

// during makes a disturbance a test of its own, in which no load may suffer.
func during(t *testing.T, what string, loads []*offered, disturb func(t *testing.T)) {
	t.Helper()
	t.Run(what, func(t *testing.T) {
		for _, o := range loads {
			o.before = o.report(t)
		}
		disturb(t)
		for _, o := range loads {
			undisturbed(t, o.workload, o.before, o.report(t))
		}
	})
}

// measured adds what came of a load to the figures.
func measured(what string, r load.Report) {
	world.figures.add(what, "%d of %d requests failed, %d of %d let in by mistake, %d new tokens, p50 %.1f ms, p99 %.1f ms, most %.0f ms",
		r.Failures(), r.Sent, r.LetIn+r.Unguarded, r.Refused+r.LetIn, r.NewTokens, r.Latency.P50, r.Latency.P99, r.Latency.Max)
}

// describeLoad is a report in words, for people.
func describeLoad(r load.Report) string {
	text := fmt.Sprintf("%d sent with a token by %d sessions, %d ok, %d refused as they had to be, %d new tokens, %d connections, pods %v, p50 %.1f ms, p99 %.1f ms, p99.9 %.1f ms, at most %.1f ms; schedule missed by %.1f ms at most, load average %s",
		r.Sent, r.Sessions, r.OK, r.Refused, r.NewTokens, r.Connections, r.Pods, r.Latency.P50, r.Latency.P99, r.Latency.P999, r.Latency.Max, r.Late, loadAverage())
	for what, count := range r.Failed {
		text += fmt.Sprintf("\n  %d x %s, the last one at %s", count, what, r.LastFailed[what])
	}
	for _, e := range r.Examples {
		text += fmt.Sprintf("\n  at %s, after %.1f ms, pod %q, connection %s: %s %s", e.Time, e.After, e.Pod, e.Connection, e.What, e.Answer)
	}
	return text
}
