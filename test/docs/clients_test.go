// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/internal/settings"
	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/sidecar/decide"
)

// only is the one example of docs/clients.md in a language.
func only(t *testing.T, lang string) string {
	t.Helper()
	found := blocks(t, "docs/clients.md", lang)
	if len(found) != 1 {
		t.Fatalf("docs/clients.md has %d examples in %s, want 1", len(found), lang)
	}
	return found[0].text
}

func TestTheGoClientIsTheOneThatIsTested(t *testing.T) {
	if !strings.HasSuffix(read(t, "test/docs/keeper_test.go"), "\n"+only(t, "go")) {
		t.Error("the Go example of docs/clients.md differs from test/docs/keeper_test.go")
	}
}

func get(t *testing.T, client *http.Client, url string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
}

func TestTheGoClientKeepsTheNewestToken(t *testing.T) {
	w := newWorkload(t)
	keeper := &Keeper{Base: http.DefaultTransport}
	keeper.Set("token-1")
	client := &http.Client{Transport: keeper}
	for range 3 {
		get(t, client, w.URL+"/orders")
	}
	w.took(t, "GET /orders token-1", "GET /orders token-2", "GET /orders token-3")
}

// roundTrip is a transport made of a function.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestTheGoClientIgnoresALateAnswer: the first rule of docs/clients.md.
func TestTheGoClientIgnoresALateAnswer(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	answers := map[string]string{"Bearer token-1": "Bearer token-2", "Bearer token-2": "Bearer token-3", "Bearer token-3": ""}
	var last string
	keeper := &Keeper{Base: roundTrip(func(r *http.Request) (*http.Response, error) {
		if r.URL.Path == "/slow" {
			close(arrived)
			<-release
		}
		last = r.Header.Get("Authorization")
		return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: r, Header: http.Header{"Authorization": {answers[last]}}}, nil
	})}
	keeper.Set("token-1")
	client := &http.Client{Transport: keeper}
	done := make(chan struct{})
	go func() {
		defer close(done)
		get(t, client, "http://shop/slow")
	}()
	<-arrived
	get(t, client, "http://shop/orders")
	get(t, client, "http://shop/orders")
	close(release)
	<-done
	if get(t, client, "http://shop/orders"); last != "Bearer token-3" {
		t.Errorf("after a late answer the client sends %q", last)
	}
}

// nodeDriver calls the example, and then lets a late answer come after a newer one.
const nodeDriver = `
const base = process.env.BASE, real = globalThis.fetch;
globalThis.fetch = (path, options) => real(new URL(path, base), options);
const client = await import(process.env.EXAMPLE);
await client.login(JSON.parse(process.env.LOGIN));
for (let i = 0; i < 3; i++) await (await client.call("/orders")).text();

const sent = [];
let release;
const answers = { "Bearer token-4": "Bearer token-5", "Bearer token-5": "Bearer token-6" };
globalThis.fetch = async (path, { headers }) => {
  const token = headers.get("Authorization");
  sent.push(token);
  if (path === "/slow") await new Promise((resolve) => { release = resolve; });
  return new Response("", { headers: answers[token] ? { Authorization: answers[token] } : {} });
};
const slow = client.call("/slow");
await client.call("/orders");
await client.call("/orders");
release();
await slow;
await client.call("/orders");
console.log(sent.join(","));
`

// TestTheJavaScriptClientKeepsTheNewestToken runs the example where there is a Node.js.
// Elsewhere it can only look for the two lines that matter.
func TestTheJavaScriptClientKeepsTheNewestToken(t *testing.T) {
	example := only(t, "js")
	for _, line := range []string{
		`headers.set("Authorization", ` + "`Bearer ${sent}`);",
		`if (returned && token === sent) token = returned.replace(/^Bearer /, "");`,
	} {
		if !strings.Contains(example, line) {
			t.Errorf("the example lacks the line %s", line)
		}
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Log("there is no Node.js here: the example was read and not run")
		return
	}
	w := newWorkload(t)
	dir := t.TempDir()
	for name, content := range map[string]string{"client.mjs": example, "driver.mjs": nodeDriver} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	command := exec.CommandContext(t.Context(), node, filepath.Join(dir, "driver.mjs"))
	command.Env = append(os.Environ(), "BASE="+w.URL, "LOGIN="+loginBody, "EXAMPLE="+filepath.Join(dir, "client.mjs"))
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	w.took(t, "GET /orders token-1", "GET /orders token-2", "GET /orders token-3")
	if want := "Bearer token-4,Bearer token-4,Bearer token-5,Bearer token-6"; strings.TrimSpace(string(out)) != want {
		t.Errorf("with a late answer the client sent %s, want %s", out, want)
	}
}

// nobody is revoked.
type nobody struct{}

func (nobody) Revoked(string) bool { return false }

// TestTheTableOfReasonsIsWhatTheSidecarAnswers compares the status of every reason.
func TestTheTableOfReasonsIsWhatTheSidecarAnswers(t *testing.T) {
	rows := map[string]string{}
	for line := range strings.Lines(section(t, read(t, "docs/clients.md"), "## Answers")) {
		if cells := strings.Split(line, "|"); len(cells) == 5 && strings.Contains(cells[1], "`") {
			rows[strings.Trim(cells[1], " `")] = strings.TrimSpace(cells[2])
		}
	}
	if len(rows) != len(token.Reasons()) {
		t.Errorf("%d reasons in the table, %d in the code", len(rows), len(token.Reasons()))
	}
	keys, err := token.NewKeySet("owner", 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	statuses := map[token.Reason]map[int]bool{}
	for _, denial := range []int{401, 403} {
		policy, err := decide.Compile(&settings.Settings{
			Enforcement: settings.Enforce, Issuer: "https://i", Audiences: []string{"a"},
			Refresh: settings.Refresh{OnExpired: settings.OnExpiredRefresh, ResponseHeader: "Authorization"},
			Denial:  settings.Denial{StatusCode: denial}, Endpoints: settings.Endpoints{Prefix: "/auth"},
		}, keys, nobody{}, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, reason := range token.Reasons() {
			if statuses[reason] == nil {
				statuses[reason] = map[int]bool{}
			}
			statuses[reason][policy.Denial(reason).Status] = true
		}
	}
	for reason, seen := range statuses {
		want := "denial"
		if len(seen) == 1 {
			for status := range seen {
				want = fmt.Sprint(status)
			}
		}
		if rows[string(reason)] != want {
			t.Errorf("%s is answered with %s, the table says %q", reason, want, rows[string(reason)])
		}
	}
}

// TestJSONExamplesParse, and those that are problems are what the code writes.
func TestJSONExamplesParse(t *testing.T) {
	seen := 0
	for _, name := range documents(t) {
		for _, example := range blocks(t, name, "json") {
			seen++
			var problem protocol.Problem
			if !json.Valid([]byte(example.text)) {
				t.Errorf("%s is not JSON", example)
			} else if json.Unmarshal([]byte(example.text), &problem) == nil && problem.Type != "" {
				if want, _ := json.Marshal(protocol.NewProblem(problem.Status, problem.Reason, problem.Detail)); string(want) != strings.TrimSpace(example.text) {
					t.Errorf("%s is\n%sand the code writes\n%s", example, example.text, want)
				}
			}
		}
	}
	if seen == 0 {
		t.Error("no example found: the test looks in the wrong place")
	}
}
