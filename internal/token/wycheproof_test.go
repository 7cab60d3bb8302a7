// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package token

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"testing"

	"github.com/c2sp/wycheproof"
)

// vectors is what the files of Wycheproof have in common, as far as it is used here.
type vectors struct {
	TestGroups []struct {
		Type         string         `json:"type"`
		PublicKeyDER string         `json:"publicKeyDer"`
		PublicKeyASN string         `json:"publicKeyAsn"`
		Public       map[string]any `json:"public"`
		Private      map[string]any `json:"private"`
		Tests        []vector       `json:"tests"`
	} `json:"testGroups"`
}

type vector struct {
	ID      int    `json:"tcId"`
	Comment string `json:"comment"`
	Msg     string `json:"msg"`
	Sig     string `json:"sig"`
	JWS     any    `json:"jws"`
	Result  string `json:"result"`
}

func load(t *testing.T, name string) vectors {
	t.Helper()
	data, err := fs.ReadFile(wycheproof.TestVectors, name+"_test.json")
	if err != nil {
		t.Fatalf("read vectors: %v", err)
	}
	var out vectors
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatalf("read vectors %s: %v", name, err)
	}
	return out
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	out, err := hex.DecodeString(s)
	if err != nil {
		t.Fatalf("vector is not hexadecimal: %v", err)
	}
	return out
}

// keyOf gives a JWK of a vector what ours always have: our kid and, as the file implies
// them, alg and use. Whatever else it holds must pass our own reading.
func keyOf(members map[string]any, alg Algorithm) (PublicKey, error) {
	own := map[string]any{"alg": string(alg), "use": "sig"}
	maps.Copy(own, members)
	var bad error
	text := func(name string) string {
		value, ok := own[name].(string)
		if !ok && bad == nil {
			bad = fmt.Errorf("no %s", name)
		}
		return value
	}
	pub, err := materialOf(Algorithm(text("alg")), text, &bad)
	if err != nil {
		return PublicKey{}, err
	}
	params, err := paramsOf(Algorithm(text("alg")), pub)
	if err != nil {
		return PublicKey{}, err
	}
	own["kid"] = params.thumbprint()
	return publicKeyOf(own)
}

func TestSignaturesAreJudgedAsWycheproofDoes(t *testing.T) {
	// saltDiffers: the vectors are right for another length of the PSS salt than the
	// hash's, which RFC 7518 section 3.5 does not allow.
	const same, saltDiffers = false, true
	files := []struct {
		name   string
		alg    Algorithm
		refuse bool
	}{
		{"ed25519", EdDSA, same},
		{"ecdsa_secp256r1_sha256_p1363", ES256, same},
		{"ecdsa_secp384r1_sha384_p1363", ES384, same},
		{"ecdsa_secp521r1_sha512_p1363", ES512, same},
		{"rsa_signature_2048_sha256", RS256, same},
		{"rsa_signature_2048_sha384", RS384, same},
		{"rsa_signature_2048_sha512", RS512, same},
		{"rsa_signature_3072_sha256", RS256, same},
		{"rsa_signature_4096_sha512", RS512, same},
		{"rsa_signature_8192_sha256", RS256, same},
		{"rsa_pss_2048_sha256_mgf1_32", PS256, same},
		{"rsa_pss_3072_sha256_mgf1_32", PS256, same},
		{"rsa_pss_2048_sha384_mgf1_48", PS384, same},
		{"rsa_pss_4096_sha512_mgf1_64_params", PS512, same},
		{"rsa_pss_2048_sha256_mgf1_0", PS256, saltDiffers},
		{"rsa_pss_4096_sha512_mgf1_32", PS512, saltDiffers},
	}
	for _, file := range files {
		t.Run(file.name, func(t *testing.T) {
			accepted, refused := 0, 0
			for _, group := range load(t, file.name).TestGroups {
				pub, err := x509.ParsePKIXPublicKey(unhex(t, group.PublicKeyDER))
				if group.Type == "RsassaPssWithParametersVerify" {
					// The DER form says id-RSASSA-PSS, which crypto/x509 does not read.
					pub, err = x509.ParsePKCS1PublicKey(unhex(t, group.PublicKeyASN))
				}
				if err != nil {
					t.Fatalf("read key: %v", err)
				}
				key, err := NewPublicKey(file.alg, pub)
				if err != nil {
					t.Fatalf("read key: %v", err)
				}
				for _, v := range group.Tests {
					if file.refuse && v.Comment == "s_len changed to 32" {
						continue // for this one the salt has our length
					}
					got := key.Algorithm.verifySignature(string(unhex(t, v.Msg)), unhex(t, v.Sig), key.Key)
					want := v.Result == "valid" && !file.refuse
					if got != want && v.Result != "acceptable" {
						t.Errorf("vector %d (%s): accepted=%v, want %v", v.ID, v.Comment, got, want)
					}
					if got {
						accepted++
					} else {
						refused++
					}
				}
			}
			if refused == 0 || (accepted == 0) != file.refuse {
				t.Errorf("%d accepted and %d refused: the vectors show nothing", accepted, refused)
			}
			t.Logf("%d accepted, %d refused", accepted, refused)
		})
	}
}

// check runs one JWS through form, header, key and signature; the payloads of these
// vectors are no claims.
func (v vector) check(keys map[string]PublicKey) error {
	raw, _ := v.JWS.(string) // the JSON serialization is no token
	c, err := parse(raw)
	if err != nil {
		return err
	}
	return (&Verifier{Keys: &KeySet{byID: keys}}).authenticate(c)
}

func TestJWSVectorsOfWycheproof(t *testing.T) {
	// Vectors that say "valid" and are refused here, and why.
	stricter := func(v vector, alg Algorithm, members map[string]any) string {
		c, err := parse(fmt.Sprint(v.JWS))
		switch {
		case members["kty"] == "oct":
			return "HMAC is not supported"
		case members["key_ops"] != nil:
			return "a key set of ours has use, not key_ops"
		case slices.Contains([]int{346, 347, 350, 351}, v.ID):
			return "alg of key and header differ"
		case err != nil && v.Comment == "emptyPayload":
			return "an empty payload holds no claims"
		case err == nil && c.header.algorithm != alg:
			return "alg of key and header differ"
		default:
			return ""
		}
	}
	accepted, refused, stricterCount := 0, 0, 0
	for _, group := range load(t, "json_web_signature").TestGroups {
		members := group.Public
		if members == nil {
			members = group.Private
		}
		alg, _ := members["alg"].(string)
		keys := map[string]PublicKey{}
		// A vector must not be refused only because our key ids look different.
		if key, err := keyOf(members, ""); err == nil {
			kid, _ := members["kid"].(string)
			keys[kid] = key
		}
		for _, v := range group.Tests {
			err := v.check(keys)
			why := stricter(v, Algorithm(alg), members)
			switch {
			case v.Result == "invalid" && err == nil:
				t.Errorf("vector %d (%s) is accepted", v.ID, v.Comment)
			case v.Result == "valid" && why == "" && err != nil:
				t.Errorf("vector %d (%s) is refused: %v", v.ID, v.Comment, err)
			case v.Result == "valid" && why != "" && err == nil:
				t.Errorf("vector %d (%s) is accepted, although %s", v.ID, v.Comment, why)
			}
			switch {
			case err == nil:
				accepted++
			case v.Result == "valid":
				stricterCount++
			default:
				refused++
			}
		}
	}
	if accepted < 20 || refused < 300 {
		t.Errorf("%d accepted and %d refused: the vectors show too little", accepted, refused)
	}
	t.Logf("%d accepted, %d refused, %d valid ones refused on purpose", accepted, refused, stricterCount)
}

func TestJWKVectorsOfWycheproof(t *testing.T) {
	accepted := 0
	for _, group := range load(t, "json_web_key").TestGroups {
		set := group.Public
		if set == nil {
			set = group.Private
		}
		list, _ := set["keys"].([]any)
		keys := map[string]PublicKey{}
		for _, element := range list {
			members, _ := element.(map[string]any)
			for _, private := range []string{"d", "p", "q", "dp", "dq", "qi"} {
				delete(members, private)
			}
			key, err := keyOf(members, "")
			kid, _ := members["kid"].(string)
			if _, twice := keys[kid]; err == nil && !twice {
				keys[kid] = key
			}
		}
		for _, v := range group.Tests {
			err := v.check(keys)
			if err == nil {
				accepted++
			}
			if v.Result == "invalid" && err == nil {
				t.Errorf("vector %d (%s) is accepted", v.ID, v.Comment)
			}
		}
	}
	if accepted == 0 {
		t.Error("none is accepted: the vectors show nothing")
	}
}
