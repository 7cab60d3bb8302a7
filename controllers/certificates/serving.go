// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package certificates

import (
	"crypto/x509"
	"net"
	"slices"
	"time"
)

// nextServing works out what a serving certificate's Secret is to hold at now, and
// when to look again. What is held stays as long as it serves.
func nextServing(held content, a *authority, hosts []string, now time.Time) (content, time.Time, error) {
	serving, err := parsePair(held[certKey], held[keyKey])
	if err != nil || !serves(serving.cert, a, hosts) || !now.Before(renewAt(serving.cert)) {
		if serving, err = newServing(a.current, hosts, now); err != nil {
			return nil, time.Time{}, err
		}
	}
	key, err := serving.encodeKey()
	if err != nil {
		return nil, time.Time{}, err
	}
	return content{certKey: encodeCertificate(serving.cert), keyKey: key, caKey: a.bundle()}, renewAt(serving.cert), nil
}

// renewAt is when a third of a certificate's life is left.
func renewAt(cert *x509.Certificate) time.Time {
	return cert.NotAfter.Add(-cert.NotAfter.Sub(cert.NotBefore) / 3)
}

// serves says whether the authority that signs now has signed cert for exactly hosts.
func serves(cert *x509.Certificate, a *authority, hosts []string) bool {
	if cert.CheckSignatureFrom(a.current.cert) != nil {
		return false
	}
	names := slices.Clone(cert.DNSNames)
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	return slices.Equal(sortedHosts(names), sortedHosts(hosts))
}

// sortedHosts puts hosts into one form: sorted, once each, addresses as Go writes them.
func sortedHosts(hosts []string) []string {
	out := make([]string, 0, len(hosts))
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			host = ip.String()
		}
		out = append(out, host)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
