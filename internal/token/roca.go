// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package token

import "math/big"

// hasROCA finds the moduli of the generator of CVE-2017-15361. Its primes are powers
// of 65537 modulo every small prime, and so is their product. That holds for a random
// modulus with a chance far below 2⁻²⁷.
func hasROCA(n *big.Int) bool {
	var rest big.Int
	for _, prime := range [...]int64{
		3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83,
		89, 97, 101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
	} {
		if !isPowerOf65537(rest.Mod(n, big.NewInt(prime)).Int64(), prime) {
			return false
		}
	}
	return true
}

func isPowerOf65537(x, modulus int64) bool {
	for power := int64(1); ; {
		if power == x {
			return true
		}
		if power = power * 65537 % modulus; power == 1 {
			return false
		}
	}
}
