// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/tokenward/tokenward/redirect/rules"
)

func TestArguments(t *testing.T) {
	for name, test := range map[string]struct {
		args    string
		message string
		want    rules.Redirect
	}{
		"as the webhook writes them": {args: "--port=8080 --to=18080", want: rules.Redirect{Port: 8080, To: 18080}},
		"the sidecar's usual port":   {args: "--port=8080", want: rules.Redirect{Port: 8080, To: 18080}},
		"no port":                    {args: "", message: "--port is 0: write a port number, 1 to 65535"},
		"a port that is none":        {args: "--port=65536", message: "--port is 65536: write a port number, 1 to 65535"},
		"a loop":                     {args: "--port=18080", message: "--port and --to are both 18080: write two ports"},
		"a word too many":            {args: "--port=8080 now", message: `argument "now" is not expected: use flags only`},
	} {
		t.Run(name, func(t *testing.T) {
			var got rules.Redirect
			err := run(strings.Fields(test.args), io.Discard, func(r rules.Redirect) error {
				got = r
				return nil
			})
			if message := ""; err != nil {
				message = err.Error()
				if message != test.message {
					t.Errorf("got %q, want %q", message, test.message)
				}
			} else if test.message != "" || got != test.want {
				t.Errorf("got %+v without an error, want %+v and %q", got, test.want, test.message)
			}
		})
	}
}

// TestTheInitContainerStaysSmall: it has a capability that nothing else of ours has.
func TestTheInitContainerStaysSmall(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	allowed := []string{"github.com/tokenward/tokenward/redirect", "github.com/google/nftables", "github.com/mdlayher/", "golang.org/x/", "vendor/"}
	for dep := range strings.FieldsSeq(string(out)) {
		if first, _, _ := strings.Cut(dep, "/"); !strings.Contains(first, ".") {
			if dep == "net/http" {
				t.Error("it links net/http")
			}
			continue
		}
		known := false
		for _, prefix := range allowed {
			known = known || strings.HasPrefix(dep, prefix)
		}
		if !known {
			t.Errorf("it links %s", dep)
		}
	}
}
