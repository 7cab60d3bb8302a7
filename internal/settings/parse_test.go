// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func caBundle(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func sample(t *testing.T) *Settings {
	t.Helper()
	return &Settings{
		Policy:      Policy{Namespace: "shop", Name: "shop", UID: "5d4b", Generation: 3},
		Enforcement: Enforce,
		Issuer:      "https://shop.example.com",
		Audiences:   []string{"shop-api"},
		Leeway:      Duration(30 * time.Second),
		Keys:        json.RawMessage(`{"owner":"o","version":1,"keys":[]}`),
		Refresh:     Refresh{OnExpired: OnExpiredRefresh, ResponseHeader: "Authorization", Early: Duration(30 * time.Second)},
		Rules: []Rule{{
			Paths: []Path{{Type: PathExact, Value: "/admin"}}, Methods: []string{"GET"}, Access: AccessAuthenticated,
			RequireClaims: []RequiredClaim{{Claim: "role", Values: []string{"admin"}}},
		}},
		Upstream:      Upstream{ClaimHeaders: []ClaimHeader{{Claim: "sub", Header: "X-User-Id"}}, Authorization: AuthorizationForward},
		Denial:        Denial{StatusCode: 403},
		Endpoints:     Endpoints{Prefix: "/auth"},
		IssuerService: IssuerService{URL: "https://tokenward-issuer.tokenward-system.svc:443", CABundle: caBundle(t)},
	}
}

func TestMarshalThenParseIsTheSame(t *testing.T) {
	s := sample(t)
	data, err := s.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	again, err := got.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(data, again) {
		t.Fatalf("the same settings gave different bytes:\n%s", cmp.Diff(string(data), string(again)))
	}
	if s.Version != 0 {
		t.Fatal("Marshal changed its receiver")
	}
}

func TestParseIgnoresUnknownFieldsAndNewerWriters(t *testing.T) {
	data, err := sample(t).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	data = bytes.Replace(data, []byte(`"version": 1`), []byte(`"version": 7, "comesLater": {"x": [1]}`), 1)
	if _, err := Parse(data); err != nil {
		t.Fatalf("a file of a later writer that allows this reader: %v", err)
	}
}

func TestParseRefuses(t *testing.T) {
	valid, err := sample(t).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		old, new     string
		field, value string
	}{
		"a file for later readers only":       {`"minReader": 1`, `"minReader": 2`, "minReader", "2"},
		"a file without a version":            {`"version": 1,`, ``, "version", "0"},
		"a member that is there twice":        {`"enforcement": "Enforce"`, `"enforcement": "Enforce", "enforcement": "Audit"`, "enforcement", "enforcement"},
		"a member that is there in two cases": {`"issuer": "https`, `"Issuer": "x", "issuer": "https`, "issuer", "issuer"},
		"no namespace":                        {`"namespace": "shop"`, `"namespace": ""`, "policy.namespace", ""},
		"no generation":                       {`"generation": 3`, `"generation": 0`, "policy.generation", "0"},
		"an unknown enforcement":              {`"Enforce"`, `"enforce"`, "enforcement", "enforce"},
		"an issuer without TLS":               {`"https://shop.example.com"`, `"http://shop.example.com"`, "issuer", "http://shop.example.com"},
		"an empty audience":                   {`"shop-api"`, `""`, "audiences[0]", ""},
		"a leeway beyond a minute":            {`"leeway": "30s"`, `"leeway": "2m"`, "leeway", "2m0s"},
		"a negative leeway":                   {`"leeway": "30s"`, `"leeway": "-1s"`, "leeway", "-1s"},
		"a leeway that is no duration":        {`"leeway": "30s"`, `"leeway": "soon"`, "leeway", "soon"},
		"a leeway that is a number":           {`"leeway": "30s"`, `"leeway": 30`, "leeway", "30"},
		"no leeway":                           {`"leeway": "30s",`, ``, "leeway", ""},
		"no early":                            {`"early": "30s"`, `"x": 1`, "refresh.early", ""},
		"an early that is no duration":        {`"early": "30s"`, `"early": "1 hour"`, "refresh.early", "1 hour"},
		"keys that are no object":             {`"keys": {`, `"keys": [], "other": {`, "keys", "[]"},
		"an unknown answer to expiry":         {`"onExpired": "Refresh"`, `"onExpired": "Renew"`, "refresh.onExpired", "Renew"},
		"a response header that is none":      {`"responseHeader": "Authorization"`, `"responseHeader": "X Y"`, "refresh.responseHeader", "X Y"},
		"a response header with a meaning":    {`"responseHeader": "Authorization"`, `"responseHeader": "Set-Cookie"`, "refresh.responseHeader", "Set-Cookie"},
		"a path that is not canonical":        {`"/admin"`, `"/%61dmin"`, "rules[0].paths[0].value", "/%61dmin"},
		"a path with a dot segment":           {`"/admin"`, `"/a/../admin"`, "rules[0].paths[0].value", "/a/../admin"},
		"an unknown path type":                {`"type": "Exact"`, `"type": "Regex"`, "rules[0].paths[0].type", "Regex"},
		"a method in small letters":           {`"GET"`, `"get"`, "rules[0].methods[0]", "get"},
		"claims of nobody":                    {`"access": "Authenticated"`, `"access": "Anonymous"`, "rules[0].requireClaims", "there with access Anonymous"},
		"a claim without values": {`"admin"
          ]`, `]`, "rules[0].requireClaims[0].values", ""},
		"a header with an underscore":       {`"X-User-Id"`, `"X_User_Id"`, "upstream.claimHeaders[0].header", "X_User_Id"},
		"a reserved header":                 {`"X-User-Id"`, `"X-Forwarded-For"`, "upstream.claimHeaders[0].header", "X-Forwarded-For"},
		"an unknown word for authorization": {`"authorization": "Forward"`, `"authorization": "Keep"`, "upstream.authorization", "Keep"},
		"another status":                    {`403`, `418`, "denial.statusCode", "418"},
		"a prefix of everything":            {`"/auth"`, `"/"`, "endpoints.prefix", "/"},
		"an issuer service without TLS":     {`"https://tokenward-issuer.tokenward-system.svc:443"`, `"http://issuer"`, "issuerService.url", "http://issuer"},
		"an issuer service with a path":     {`svc:443"`, `svc:443/x"`, "issuerService.url", "https://tokenward-issuer.tokenward-system.svc:443/x"},
		"a CA bundle that is not PEM":       {`"caBundle": "`, `"caBundle": "x", "other": "`, "issuerService.caBundle", "not PEM"},
		"a number where a string must be":   {`"name": "shop"`, `"name": 5`, "policy.name", "JSON number"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			data := strings.Replace(string(valid), tt.old, tt.new, 1)
			if data == string(valid) {
				t.Fatalf("%q is not in the sample", tt.old)
			}
			_, err := Parse([]byte(data))
			var fieldError *FieldError
			if !errors.As(err, &fieldError) {
				t.Fatalf("error %v, want a FieldError", err)
			}
			if fieldError.Field != tt.field || fieldError.Value != tt.value || fieldError.Remedy == "" {
				t.Fatalf("error %+v, want field %q and value %q and a remedy", fieldError, tt.field, tt.value)
			}
		})
	}
}

func TestParseRefusesWhatIsNoDocument(t *testing.T) {
	valid, err := sample(t).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{
		"nothing": "", "half a file": string(valid[:len(valid)/2]), "two documents": string(valid) + "{}", "not JSON": "version: 1",
		"too much": strings.Repeat(" ", MaxSize) + string(valid),
	} {
		if _, err := Parse([]byte(data)); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestValidateNamesEverythingAtOnce(t *testing.T) {
	s := sample(t)
	s.Denial.StatusCode, s.Endpoints.Prefix = 500, "auth"
	err := s.Validate()
	for _, want := range []string{"denial.statusCode", "endpoints.prefix"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not name %s", err, want)
		}
	}
	if _, err := s.Marshal(); err == nil {
		t.Error("invalid settings were written")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"version":1,"minReader":1}`))
	f.Add([]byte(`{"a":[{"b":{}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Parse(data)
		if err != nil {
			return
		}
		if _, err := s.Marshal(); err != nil {
			t.Fatalf("parsed but cannot be written: %v", err)
		}
	})
}
