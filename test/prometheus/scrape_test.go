// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package prometheus_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/tokenward/tokenward/internal/testservers"
)

const (
	accountToken = "/var/run/secrets/kubernetes.io/serviceaccount/token"
	password     = "the-token-of-prometheus"
	patience     = 2 * time.Minute
)

// port is a port of a container, as kubernetes_sd_configs finds it.
type port struct{ address, namespace, pod, name, phase string }

// group is a port as the role pod gives it to relabel_configs.
func (p port) group() map[string]any {
	return map[string]any{"targets": []string{p.address}, "labels": map[string]string{
		"__meta_kubernetes_namespace":               p.namespace,
		"__meta_kubernetes_pod_name":                p.pod,
		"__meta_kubernetes_pod_container_port_name": p.name,
		"__meta_kubernetes_pod_phase":               p.phase,
	}}
}

// configuration is scrape.yaml for a machine without a cluster: each job finds the ports
// that it would find there, in its namespaces. Everything else stays as it is.
func configuration(t *testing.T, ports []port) []byte {
	t.Helper()
	var config map[string]any
	if err := yaml.UnmarshalStrict(read(t, "config/prometheus/scrape.yaml"), &config); err != nil {
		t.Fatal(err)
	}
	config["global"] = map[string]any{"scrape_interval": "1s", "evaluation_interval": "1s"}
	for _, one := range config["scrape_configs"].([]any) {
		job := one.(map[string]any)
		var found []any
		for _, discovery := range job["kubernetes_sd_configs"].([]any) {
			// Debian's Prometheus has no discovery in Kubernetes, so what it is told is compared.
			switch fmt.Sprint(discovery) {
			case "map[role:pod]":
				for _, p := range ports {
					found = append(found, p.group())
				}
			case "map[namespaces:map[names:[tokenward-system]] role:pod]":
				for _, p := range ports {
					if p.namespace == "tokenward-system" {
						found = append(found, p.group())
					}
				}
			default:
				t.Fatalf("this test does not know what is found by %v", discovery)
			}
		}
		delete(job, "kubernetes_sd_configs")
		job["static_configs"] = found
	}
	content, err := yaml.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(content), accountToken) {
		t.Errorf("scrape.yaml does not use the token %s", accountToken)
	}
	return []byte(strings.ReplaceAll(string(content), accountToken, "token"))
}

// TestPrometheusScrapesAndAlerts has a real Prometheus scrape a real issuer and the admin
// port of a sidecar, and evaluate the rules.
func TestPrometheusScrapesAndAlerts(t *testing.T) {
	issuerMetrics := startIssuer(t)
	issuer := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+password {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		issuerMetrics.ServeHTTP(w, r)
	}))
	t.Cleanup(issuer.Close)
	sidecar := httptest.NewServer(brokenSidecar(t))
	t.Cleanup(sidecar.Close)
	const nobody = "127.0.0.1:1"
	of := func(server *httptest.Server) string { return server.Listener.Addr().String() }
	prometheus := testservers.Prometheus(t, configuration(t, []port{
		{of(issuer), "tokenward-system", "tokenward-issuer-a", "metrics", "Running"},
		{nobody, "tokenward-system", "tokenward-issuer-a", "https", "Running"},
		{nobody, "tokenward-system", "tokenward-issuer-evicted", "metrics", "Failed"},
		{nobody, "another", "app", "metrics", "Running"},
		{of(sidecar), "shop", "web-1", "tokenward-admin", "Running"},
		{nobody, "shop", "web-1", "http", "Running"},
		{nobody, "shop", "job-1", "tokenward-admin", "Succeeded"},
	}), map[string][]byte{"token": []byte(password + "\n"), "alerts.yaml": read(t, alertsPath)})

	eventually(t, "the targets are those that serve Tokenward's metrics, and answer", func() error {
		var answer struct {
			ActiveTargets []struct {
				Labels    map[string]string `json:"labels"`
				Health    string            `json:"health"`
				LastError string            `json:"lastError"`
			} `json:"activeTargets"`
		}
		ask(t, prometheus+"/api/v1/targets", &answer)
		got := []string{}
		for _, target := range answer.ActiveTargets {
			got = append(got, fmt.Sprint(target.Labels["job"], " ", target.Labels["namespace"], "/", target.Labels["pod"], " ", target.Health, target.LastError))
		}
		slices.Sort(got)
		return differ(got, []string{"tokenward tokenward-system/tokenward-issuer-a up", "tokenward-sidecar shop/web-1 up"})
	})

	eventually(t, "an alert's expression has the policy's labels", func() error {
		for _, r := range rules(t) {
			if r.Alert == "TokenwardSessionsUnreadable" {
				return differ(series(t, prometheus, r.Expr), []string{"map[namespace:shop policy:web] 1"})
			}
		}
		return fmt.Errorf("there is no such alert")
	})
	eventually(t, "metrics of the issuer that are of no policy have its own namespace", func() error {
		return differ(series(t, prometheus, `sum by (namespace, pod) (tokenward_issuer_revocation_streams)`),
			[]string{"map[namespace:tokenward-system pod:tokenward-issuer-a] 0"})
	})

	// Nothing else is wrong: no rule fails, and no other one is on its way.
	eventually(t, "the alerts of what is wrong are pending", func() error {
		var answer struct {
			Alerts []struct {
				Labels map[string]string `json:"labels"`
				State  string            `json:"state"`
			} `json:"alerts"`
		}
		ask(t, prometheus+"/api/v1/alerts", &answer)
		got := []string{}
		for _, alert := range answer.Alerts {
			name := alert.Labels["alertname"]
			delete(alert.Labels, "alertname")
			got = append(got, fmt.Sprint(name, " ", alert.Labels, " ", alert.State))
		}
		slices.Sort(got)
		return differ(got, []string{
			"TokenwardManagerDown map[severity:critical] pending",
			"TokenwardRevocationsStale map[namespace:shop severity:critical] pending",
			"TokenwardSessionsUnreadable map[namespace:shop policy:web severity:warning] pending",
			"TokenwardSettingsBroken map[namespace:shop severity:warning] pending",
			"TokenwardSidecarNotReady map[namespace:shop pod:web-1 severity:warning] pending",
		})
	})
	var loaded struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError string } `json:"rules"`
		} `json:"groups"`
	}
	ask(t, prometheus+"/api/v1/rules", &loaded)
	for _, group := range loaded.Groups {
		for _, r := range group.Rules {
			if r.Health != "ok" {
				t.Errorf("rule %s is %s: %s", r.Name, r.Health, r.LastError)
			}
		}
	}
}

// series are the results of an expression.
func series(t *testing.T, prometheus, expression string) []string {
	t.Helper()
	var answer struct {
		Result []struct {
			Metric map[string]string `json:"metric"`
			Value  [2]any            `json:"value"`
		} `json:"result"`
	}
	ask(t, prometheus+"/api/v1/query?query="+url.QueryEscape(expression), &answer)
	got := []string{}
	for _, one := range answer.Result {
		got = append(got, fmt.Sprint(one.Metric, " ", one.Value[1]))
	}
	slices.Sort(got)
	return got
}

func differ(got, want []string) error {
	if diff := cmp.Diff(want, got); diff != "" {
		return fmt.Errorf("want and got (-want +got):\n%s", diff)
	}
	return nil
}

// ask calls Prometheus' API.
func ask(t *testing.T, address string, into any) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := (&http.Client{Timeout: 30 * time.Second}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	answer := struct {
		Status, Error string
		Data          any
	}{Data: into}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil || answer.Status != "success" {
		t.Fatalf("%s: %s %s %v", address, answer.Status, answer.Error, err)
	}
}

func eventually(t *testing.T, what string, is func() error) {
	t.Helper()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(patience)
	for {
		err := is()
		if err == nil {
			return
		}
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("waited in vain until %s: %v", what, err)
		}
	}
}
