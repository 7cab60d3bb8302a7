// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package probe_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenward/tokenward/internal/probe"
)

func TestWhatIsWrittenIsRead(t *testing.T) {
	want := map[string]probe.Probe{
		"app/readiness": {TimeoutSeconds: 3, HTTP: &probe.HTTP{
			TLS: true, Path: "/$(HOME)/<$$>?a=b&c=\"d\"",
			Headers: []probe.Header{{Name: "X-A", Value: "$(SECRET)"}, {Name: "X-A", Value: "é"}, {Name: "User-Agent"}},
		}},
		"app/liveness": {TimeoutSeconds: 1, TCP: &probe.TCP{}},
		"app/startup":  {TimeoutSeconds: 1, GRPC: &probe.GRPC{Service: "shop"}},
	}
	value, err := probe.Encode(want)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(value, "$") {
		t.Errorf("Kubernetes would expand %s", value)
	}
	got, err := probe.Parse(value)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestListsThatAreRefused(t *testing.T) {
	for name, test := range map[string]struct{ value, message string }{
		"no JSON":               {"", "read the list of probes"},
		"of another version":    {`{"version":2,"novel":true}`, "has version 2, and this release reads version 1"},
		"of no version":         {`{"probes":{}}`, "has version 0"},
		"with an unknown field": {`{"version":1,"probes":{"a/liveness":{"tcp":{"host":"b"},"timeoutSeconds":1}}}`, `unknown field "host"`},
		"of no kind":            {`{"version":1,"probes":{"a/liveness":{"timeoutSeconds":1}}}`, "it has 0 of http, tcp and grpc"},
		"of two kinds":          {`{"version":1,"probes":{"a/liveness":{"tcp":{},"grpc":{},"timeoutSeconds":1}}}`, "it has 2 of http, tcp and grpc"},
		"without a timeout":     {`{"version":1,"probes":{"a/liveness":{"tcp":{}}}}`, "its timeout is less than a second"},
		"too long":              {strings.Repeat(" ", probe.MaxBytes+1), "32768 is the limit"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := probe.Parse(test.value); err == nil || !strings.Contains(err.Error(), test.message) {
				t.Errorf("got %v, want %q", err, test.message)
			}
		})
	}
	long := map[string]probe.Probe{"a/liveness": {TimeoutSeconds: 1, HTTP: &probe.HTTP{Path: strings.Repeat("a", probe.MaxBytes)}}}
	if _, err := probe.Encode(long); err == nil || !strings.Contains(err.Error(), "32768 is the limit") {
		t.Errorf("a list that is too long: %v", err)
	}
}
