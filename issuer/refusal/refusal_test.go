// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package refusal_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/issuer/refusal"
)

func TestTheLogGetsTheCauseAndTheCallerDoesNot(t *testing.T) {
	cause := errors.New("dial tcp 10.0.0.1: refused")
	e := refusal.Unavailable("the session store does not answer", cause)
	if !strings.Contains(e.Error(), "refused") || strings.Contains(e.Detail, "refused") || !errors.Is(e, cause) {
		t.Errorf("%v; detail %q", e, e.Detail)
	}
	fault := refusal.Of(cause)
	if fault.Status != 500 || strings.Contains(fault.Detail, "refused") || !errors.Is(fault, cause) {
		t.Errorf("%v; detail %q", fault, fault.Detail)
	}
}

func TestWhatTheCallerCallsItsFieldsIsNotLogged(t *testing.T) {
	e := refusal.Invalid(400, "%s is there twice", refusal.Field("hunter2"))
	if strings.Contains(e.Error(), "hunter2") || !strings.Contains(e.Detail, `"hunter2"`) {
		t.Errorf("%v; detail %q", e, e.Detail)
	}
}

func TestAnErrorIsFoundInAChain(t *testing.T) {
	e := refusal.Denied(token.TokenReused, "no")
	if got := refusal.Of(fmt.Errorf("a: %w", fmt.Errorf("b: %w", e))); got != e {
		t.Errorf("got %v", got)
	}
}

func TestOnlyPlainNamesAreRepeated(t *testing.T) {
	for _, name := range []string{"password", "phone_number", "a.b-c"} {
		if refusal.Field(name) != `"`+name+`"` {
			t.Errorf("%s", refusal.Field(name))
		}
	}
	for _, name := range []string{"", "1", "my password is x", "<script>", "a\n", strings.Repeat("a", 33), "ä"} {
		if strings.Contains(refusal.Field(name), `"`) {
			t.Errorf("%q: %s", name, refusal.Field(name))
		}
	}
}
