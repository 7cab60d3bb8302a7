// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tokenward/tokenward/internal/testenv"
)

// site is where examples of a shell are run: a folder that looks like the repository,
// with stand-ins for the commands.
type site struct {
	dir, record string
	workload    *workload
}

// newSite makes one. The commands named in own are the machine's own.
func newSite(t *testing.T, own ...string) *site {
	t.Helper()
	s := &site{dir: t.TempDir(), workload: newWorkload(t)}
	s.record = filepath.Join(s.dir, "record")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	links := map[string]string{"dist": filepath.Join(testenv.Root(), "dist"), "config": filepath.Join(testenv.Root(), "config")}
	for name := range standIns {
		if !slices.Contains(own, name) {
			links[filepath.Join("bin", name)] = self
		}
	}
	if err := os.Mkdir(filepath.Join(s.dir, "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, script := range scripts {
		if err := os.WriteFile(filepath.Join(s.dir, "bin", name), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s.write(t, "ca.crt", []byte("a certificate\n"))
	for name, target := range links {
		if err := os.Symlink(target, filepath.Join(s.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// write makes a file that examples name.
func (s *site) write(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// run runs an example and gives the commands that it called.
func (s *site) run(t *testing.T, what block, text string) []invocation {
	t.Helper()
	if err := os.WriteFile(s.record, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	text = strings.ReplaceAll(text, "https://shop.example.com", s.workload.URL)
	command := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", text)
	command.Dir = s.dir
	command.Env = append(os.Environ(), "PATH="+filepath.Join(s.dir, "bin")+":"+os.Getenv("PATH"), recordVariable+"="+s.record, "TOKEN=token-1")
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", what, err, out)
	}
	content, err := os.ReadFile(s.record)
	if err != nil {
		t.Fatal(err)
	}
	calls, err := recorded(string(content))
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	return calls
}

// TestShellExamplesWork runs every one of them, the README's first: the others go on
// from there, but for those of pages that stand alone.
func TestShellExamplesWork(t *testing.T) {
	shop := newTenant(t)
	shop.apply(t, "README.md")
	makefile := targets(t)
	kubectl := newKubectl(t)
	ran := map[string]int{}
	for _, name := range documents(t) {
		n := shop
		if isPage(name) {
			n = newTenant(t)
			n.apply(t, name)
		}
		for _, example := range blocks(t, name, "sh") {
			s := newSite(t)
			for _, call := range s.run(t, example, n.commands(example.text)) {
				ran[call.Name]++
				switch call.Name {
				case "kubectl":
					kubectl.run(t, example, s.dir, call.Args)
				case "go":
					benchmarkIsThere(t, example, call.Args)
				case "make":
					for _, arg := range call.Args {
						if !strings.Contains(arg, "=") && !slices.Contains(makefile, arg) {
							t.Errorf("%s: there is no target %s", example, arg)
						}
					}
				}
			}
			if len(s.workload.refused) > 0 {
				t.Errorf("%s: the workload refuses: %v", example, s.workload.refused)
			}
		}
	}
	for _, name := range []string{"curl", "go", "kubectl", "make", "tokenward"} {
		if ran[name] == 0 {
			t.Errorf("no example called %s: the test looks in the wrong place", name)
		}
	}
}

// TestTheShellClientKeepsTheNewestToken runs it with our stand-in for curl, and with curl
// itself where there is one.
func TestTheShellClientKeepsTheNewestToken(t *testing.T) {
	example := blocks(t, "docs/clients.md", "sh")
	if len(example) != 1 {
		t.Fatalf("%d examples, want 1", len(example))
	}
	sites := map[string]*site{"stand-in": newSite(t)}
	if _, err := exec.LookPath("curl"); err == nil {
		sites["curl"] = newSite(t, "curl")
	} else {
		t.Log("there is no curl here: the example was run with a stand-in alone")
	}
	for name, s := range sites {
		t.Run(name, func(t *testing.T) {
			s.run(t, example[0], example[0].text)
			s.workload.took(t, "GET /orders token-1", "GET /orders token-2", "POST /auth/logout token-3")
			if s.workload.logins != 1 {
				t.Errorf("%d logins", s.workload.logins)
			}
		})
	}
}
