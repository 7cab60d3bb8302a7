// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package token

// header is what counts of a JOSE header (RFC 7515 section 4.1).
type header struct {
	algorithm Algorithm
	keyID     string
	typ       string
}

// headerLimits keep the work on an unverified header small.
var headerLimits = limits{depth: 8, values: 256}

// decodeHeader reads a header. Members that it does not know are checked for form and
// ignored (RFC 7515 section 4); so are jku, jwk, x5u, x5c and the like, which let the sender
// choose the key.
func decodeHeader(in string) (header, error) {
	var h header
	s := newScanner(in, headerLimits)
	err := s.document(func(name string) (err error) {
		switch name {
		case "alg":
			var alg string
			alg, err = s.text()
			h.algorithm = Algorithm(alg)
		case "kid":
			h.keyID, err = s.text()
		case "typ":
			h.typ, err = s.text()
		case "crit":
			// No extension is understood, so none can be critical (RFC 7515 section 4.1.11).
			err = jsonError("it has crit")
		case "b64":
			// RFC 7797 changes what is signed.
			err = jsonError("it has b64")
		default:
			_, err = s.value()
		}
		return err
	})
	if err != nil {
		return header{}, refuse(TokenMalformed, "the header is not accepted: "+err.Error())
	}
	if h.algorithm == "" {
		return header{}, refuse(TokenMalformed, "the header has no alg")
	}
	return h, nil
}

// isKeyID says whether s can be a key's id: a SHA-256 thumbprint in base64url
// (RFC 7638). What is looked up is so always a short word of plain characters.
func isKeyID(s string) bool {
	if len(s) != keyIDLength {
		return false
	}
	_, ok := decodeBase64(s)
	return ok
}

const keyIDLength = 43
