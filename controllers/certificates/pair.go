// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package certificates

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"time"
)

// pair is a certificate and its key, ECDSA P-256.
type pair struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// String keeps the key out of whatever prints a pair.
func (p pair) String() string {
	if p.cert == nil {
		return "no certificate"
	}
	return fmt.Sprintf("certificate of %q until %s", p.cert.Subject.CommonName, p.cert.NotAfter.Format(time.RFC3339))
}

// newAuthority makes a self-signed authority. Its name has the time in it: no two
// in a bundle are called the same.
func newAuthority(now time.Time) (pair, error) {
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "Tokenward CA " + now.UTC().Format(time.RFC3339)},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(authorityLife),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	return issue(template, nil)
}

// newServing makes a certificate for a TLS server under each of hosts.
func newServing(ca pair, hosts []string, now time.Time) (pair, error) {
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "Tokenward"},
		NotBefore:             now.Add(-backdate),
		NotAfter:              earlier(now.Add(servingLife), ca.cert.NotAfter),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	for _, host := range sortedHosts(hosts) {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	return issue(template, &ca)
}

// issue makes a key and a certificate for it, signed by parent or, without one, by itself.
func issue(template *x509.Certificate, parent *pair) (pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair{}, fmt.Errorf("generate a key: %w", err)
	}
	signer := pair{cert: template, key: key}
	if parent != nil {
		signer = *parent
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer.cert, &key.PublicKey, signer.key)
	if err != nil {
		return pair{}, fmt.Errorf("sign the certificate of %q: %w", template.Subject.CommonName, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return pair{}, fmt.Errorf("read the certificate just signed: %w", err)
	}
	return pair{cert: cert, key: key}, nil
}

var errForeignKey = errors.New("the key is not an ECDSA key")

// parsePair reads a certificate and its key, and checks that they belong together.
func parsePair(certPEM, keyPEM []byte) (pair, error) {
	both, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return pair{}, err
	}
	key, ok := both.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return pair{}, errForeignKey
	}
	cert, err := x509.ParseCertificate(both.Certificate[0])
	if err != nil {
		return pair{}, err
	}
	return pair{cert: cert, key: key}, nil
}

// parseCertificates reads what can be read.
func parseCertificates(bundle []byte) []*x509.Certificate {
	var found []*x509.Certificate
	for {
		var block *pem.Block
		if block, bundle = pem.Decode(bundle); block == nil {
			return found
		}
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
			found = append(found, cert)
		}
	}
}

func encodeCertificate(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
}

func (p pair) encodeKey() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		return nil, fmt.Errorf("marshal a private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
