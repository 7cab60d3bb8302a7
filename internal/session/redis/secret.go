// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// The data keys of a Secret with what a store needs to connect. All are optional.
const (
	SecretUsername         = "username"
	SecretPassword         = "password"
	SecretSentinelUsername = "sentinel-username"
	SecretSentinelPassword = "sentinel-password"
	// SecretCA is one or more PEM certificates that vouch for the servers, instead of
	// the system's.
	SecretCA = "ca.crt"
	// SecretCertificate and SecretKey are the client's, for servers that ask for one.
	SecretCertificate = "tls.crt"
	SecretKey         = "tls.key"
)

// UseSecret sets credentials and TLS from the data of a Secret. It leaves TLS nil when
// withTLS is not set. An error names the data key, and no value.
func (o *Options) UseSecret(data map[string][]byte, withTLS bool) error {
	known := []string{SecretUsername, SecretPassword, SecretSentinelUsername, SecretSentinelPassword, SecretCA, SecretCertificate, SecretKey}
	for _, key := range slices.Sorted(maps.Keys(data)) {
		if !slices.Contains(known, key) {
			return fmt.Errorf("redis store: the Secret has the data key %q; known are %s", key, strings.Join(known, ", "))
		}
	}
	// Editors and echo leave a newline behind, which no password of a person has.
	value := func(key string) string { return strings.TrimRight(string(data[key]), "\r\n") }
	credentials := Credentials{Username: value(SecretUsername), Password: NewPassword(value(SecretPassword))}
	sentinel := Credentials{Username: value(SecretSentinelUsername), Password: NewPassword(value(SecretSentinelPassword))}
	config, err := tlsConfig(data)
	if err != nil {
		return err
	}
	if !withTLS {
		if len(data[SecretCA])+len(data[SecretCertificate])+len(data[SecretKey]) > 0 {
			return fmt.Errorf("redis store: the Secret has %s, %s or %s, but TLS is off", SecretCA, SecretCertificate, SecretKey)
		}
		config = nil
	}
	o.Credentials, o.SentinelCredentials, o.TLS = credentials, sentinel, config
	return nil
}

func tlsConfig(data map[string][]byte) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca := data[SecretCA]; len(ca) > 0 {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(ca) {
			return nil, fmt.Errorf("redis store: the Secret's %s has no PEM certificate", SecretCA)
		}
	}
	certificate, key := data[SecretCertificate], data[SecretKey]
	if len(certificate)+len(key) == 0 {
		return config, nil
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		// The cause may quote what it could not read.
		return nil, errors.New("redis store: the Secret's " + SecretCertificate + " and " + SecretKey + " are not a PEM certificate and its key")
	}
	config.Certificates = []tls.Certificate{pair}
	return config, nil
}
