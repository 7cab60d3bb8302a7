// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/attempts"
	"github.com/tokenward/tokenward/internal/keyring"
	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/issuer/exchange"
	"github.com/tokenward/tokenward/issuer/refusal"
)

func d(text string) *metav1.Duration {
	parsed, err := time.ParseDuration(text)
	if err != nil {
		panic(err)
	}
	return &metav1.Duration{Duration: parsed}
}

func TestASnapshotHasEveryFieldOfTheSpec(t *testing.T) {
	got := snapshot(&api.TokenPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "u-1", Generation: 7},
		Spec: api.TokenPolicySpec{
			Issuer: "https://shop.example.com", Audiences: []string{"a", "b"}, Leeway: d("10s"),
			AccessToken: api.AccessToken{TTL: d("1m"), Claims: []api.ClaimMapping{{Claim: "role", Attribute: "r"}}},
			Refresh: api.Refresh{
				OnExpired: api.OnExpiredReject, ReuseGrace: d("5s"), OnReuse: api.OnReuseDeny, IdleTimeout: d("1h"), AbsoluteTimeout: d("2h"),
			},
			Login: api.Login{
				PerAccount: api.AttemptLimit{Burst: 3, Interval: d("2m")},
				PerAddress: api.AttemptLimit{Burst: 7, Interval: d("500ms")},
			},
			Denial: api.Denial{StatusCode: 401},
		},
	})
	want := &exchange.Policy{
		UID: "u-1", Namespace: "shop", Name: "web", Generation: 7,
		Issuer: "https://shop.example.com", Audiences: []string{"a", "b"}, RefuseExpired: true, DenialStatus: 401,
		Claims: []exchange.ClaimMapping{{Claim: "role", Attribute: "r"}},
		Session: session.Policy{
			TTL: time.Minute, IdleTimeout: time.Hour, AbsoluteTimeout: 2 * time.Hour, ReuseGrace: 5 * time.Second,
			Leeway: 10 * time.Second, OnReuse: session.OnReuseDeny,
		},
		PerAccount: attempts.Limit{Burst: 3, Interval: 2 * time.Minute},
		PerAddress: attempts.Limit{Burst: 7, Interval: 500 * time.Millisecond},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(exchange.Policy{}, "Keys")); diff != "" {
		t.Error(diff)
	}
	if got.ClientID() != "shop/web" {
		t.Errorf("client id %q", got.ClientID())
	}
}

// A policy without limits has those that the field has by default, and not none.
func TestAPolicyThatAnOlderAPIServerStoredIsLimited(t *testing.T) {
	got := snapshot(&api.TokenPolicy{})
	if got.PerAccount != (attempts.Limit{Burst: 10, Interval: time.Minute}) || got.PerAddress != (attempts.Limit{Burst: 100, Interval: time.Second}) {
		t.Errorf("limits %v and %v", got.PerAccount, got.PerAddress)
	}
}

func TestTheWordsForReuseAreThoseOfTheAPI(t *testing.T) {
	if string(api.OnReuseRevokeSession) != string(session.OnReuseRevoke) || string(api.OnReuseDeny) != string(session.OnReuseDeny) {
		t.Error("session.OnReuse and the API's OnReuse have come apart")
	}
}

func newKey(t *testing.T, state keyring.State) keyring.Key {
	t.Helper()
	private, err := token.GenerateKey(token.EdDSA, 0)
	if err != nil {
		t.Fatal(err)
	}
	key := keyring.Key{Public: private.Public(), Private: private, State: state}
	if state == keyring.Retired {
		key.Private = nil
	}
	return key
}

func TestKeysOfARing(t *testing.T) {
	published, active, retired := newKey(t, keyring.Published), newKey(t, keyring.Active), newKey(t, keyring.Retired)
	got, err := keysOf(&keyring.Ring{Owner: "o", Version: 3, Keys: []keyring.Key{published, active, retired}})
	if err != nil {
		t.Fatal(err)
	}
	if got.Active.Public().ID != active.Public.ID || len(got.Set.Keys()) != 3 || len(got.Private) != 2 {
		t.Errorf("active %s, %d public, %d private", got.Active.Public().ID, len(got.Set.Keys()), len(got.Private))
	}
	public := active
	public.Private = nil
	for name, ring := range map[string]*keyring.Ring{
		"only published and retired keys": {Owner: "o", Keys: []keyring.Key{published, retired}},
		"the public record":               {Owner: "o", Keys: []keyring.Key{public}},
		"no keys":                         {Owner: "o"},
	} {
		if _, err := keysOf(ring); !errors.Is(err, errNoActiveKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnOlderKeySetNeverReplacesANewerOne(t *testing.T) {
	keys := func(owner string, version int64) exchange.Keys {
		set, err := token.NewKeySet(owner, version, nil)
		if err != nil {
			t.Fatal(err)
		}
		return exchange.Keys{Set: set}
	}
	tests := map[string]struct {
		next, old exchange.Keys
		want      bool
	}{
		"the first":              {keys("a", 1), exchange.Keys{}, true},
		"a newer one":            {keys("a", 2), keys("a", 1), true},
		"the same, states apart": {keys("a", 2), keys("a", 2), true},
		"an older one":           {keys("a", 1), keys("a", 2), false},
		"of another SigningKey":  {keys("b", 1), keys("a", 2), true},
	}
	for name, test := range tests {
		if got := newer(test.next, test.old); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// The key ring is lost for a while, and comes back from a backup.
func TestKeysInForceAreRememberedWhileThePolicyIsRefused(t *testing.T) {
	set, err := token.NewKeySet("a", 3, nil)
	if err != nil {
		t.Fatal(err)
	}
	key := types.NamespacedName{Namespace: "shop", Name: "web"}
	r := &Registry{}
	r.set(key, entry{policy: &exchange.Policy{Keys: exchange.Keys{Set: set}}})
	r.set(key, entry{refused: refusal.Unavailable("there is no key", nil)})
	r.set(key, entry{refused: refusal.Unavailable("there is still no key", nil)})
	if got := r.keys(key); got.Set != set {
		t.Errorf("an older key set would be taken: %+v", got)
	}
	if r.remove(key); r.keys(key).Set != nil {
		t.Error("a policy that is gone leaves its keys behind")
	}
}
