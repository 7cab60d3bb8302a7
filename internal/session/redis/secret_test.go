// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"crypto/tls"
	"fmt"
	"strings"
	"testing"

	"github.com/tokenward/tokenward/internal/testservers"
)

func TestSecretOpensTheStore(t *testing.T) {
	server := testservers.Redis(t, testservers.RedisOptions{TLS: true, Config: []string{aclUser, "user default off"}})
	options := Options{Addresses: []string{server.TLSAddr}}
	data := map[string][]byte{SecretUsername: []byte("tokenward\n"), SecretPassword: []byte(canary + "\n"), SecretCA: server.CA}
	if err := options.UseSecret(data, true); err != nil {
		t.Fatal(err)
	}
	if err := open(t, options).Check(t.Context()); err != nil {
		t.Error(err)
	}
	if options.TLS.MinVersion != tls.VersionTLS12 || options.TLS.InsecureSkipVerify {
		t.Errorf("%+v", options.TLS)
	}
}

func TestSecretThatCannotWork(t *testing.T) {
	for name, test := range map[string]struct {
		data map[string][]byte
		tls  bool
		says string
	}{
		"unknown data key":             {map[string][]byte{"passwd": []byte(canary)}, true, `"passwd"`},
		"a CA that is none":            {map[string][]byte{SecretCA: []byte(canary)}, true, "ca.crt has no PEM certificate"},
		"a certificate without key":    {map[string][]byte{SecretCertificate: []byte(canary)}, true, "tls.crt and tls.key"},
		"a key that is none":           {map[string][]byte{SecretCertificate: []byte("x"), SecretKey: []byte(canary)}, true, "tls.crt and tls.key"},
		"certificates, but TLS is off": {map[string][]byte{SecretCA: []byte(canary)}, false, "ca.crt"},
	} {
		t.Run(name, func(t *testing.T) {
			var options Options
			err := options.UseSecret(test.data, test.tls)
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Fatalf("got %v, want %q", err, test.says)
			}
			withoutSecret(t, fmt.Sprintf("%v %+v", err, options))
		})
	}
}
