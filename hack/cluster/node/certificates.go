// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// lifetime of all certificates: longer than a development cluster.
const lifetime = 10 * 365 * 24 * time.Hour

// authority issues the certificates of one cluster into a folder.
type authority struct {
	dir         string
	certificate *x509.Certificate
	key         crypto.Signer
}

// ensurePKI makes all keys and certificates for nodes nodes, unless they are there.
// The one for the administrator says where the API server is from outside.
func ensurePKI(dir string, nodes int) error {
	complete := filepath.Join(dir, fmt.Sprintf("complete-%d", nodes))
	if _, err := os.Stat(complete); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	ca, err := loadAuthority(dir)
	if err != nil {
		return err
	}
	if err := ca.issueAll(nodes); err != nil {
		return err
	}
	return os.WriteFile(complete, nil, 0o600)
}

func (a *authority) issueAll(nodes int) error {
	server := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(10, 96, 0, 1), net.ParseIP(node{Number: 1}.Address4())},
	}
	errs := []error{a.issue("kube-apiserver", server)}
	if _, err := os.Stat(filepath.Join(a.dir, "service-accounts.key")); err != nil { // its tokens outlive a restart
		_, err := newKey(filepath.Join(a.dir, "service-accounts.key"))
		errs = append(errs, err)
	}
	// Name of the files, user, group: https://kubernetes.io/docs/setup/best-practices/certificates/
	clients := [][3]string{
		{"admin", "admin", "system:masters"},
		{"kubelet-client", "kube-apiserver", "system:masters"},
		{"kube-controller-manager", "system:kube-controller-manager", ""},
		{"kube-scheduler", "system:kube-scheduler", ""},
		{"kube-proxy", "system:kube-proxy", ""},
		{enforcer, enforcer, ""},
	}
	for number := range nodes {
		name := node{Number: number + 1}.Name()
		clients = append(clients, [3]string{name, "system:node:" + name, "system:nodes"})
	}
	for _, c := range clients {
		subject := pkix.Name{CommonName: c[1]}
		if c[2] != "" {
			subject.Organization = []string{c[2]}
		}
		errs = append(errs,
			a.issue(c[0], &x509.Certificate{Subject: subject, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}),
			a.kubeconfig(c[0], apiServer(), filepath.Join(a.dir, c[0]+".kubeconfig")))
	}
	return errors.Join(errs...)
}

// kubeconfig writes the one of a client for an API server at the URL server.
func (a *authority) kubeconfig(client, server, path string) error {
	read := func(name string) []byte {
		content, _ := os.ReadFile(filepath.Join(a.dir, name)) // the writer below finds what is missing
		return content
	}
	const entry = "tokenward"
	config := clientcmdapi.NewConfig()
	config.Clusters[entry] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: read("ca.crt")}
	config.AuthInfos[entry] = &clientcmdapi.AuthInfo{ClientCertificateData: read(client + ".crt"), ClientKeyData: read(client + ".key")}
	config.Contexts[entry] = &clientcmdapi.Context{Cluster: entry, AuthInfo: entry}
	config.CurrentContext = entry
	if err := clientcmd.Validate(*config); err != nil {
		return fmt.Errorf("write the kubeconfig of %s: %w", client, err)
	}
	return clientcmd.WriteToFile(*config, path)
}

// loadAuthority reads the authority of dir, or makes it.
func loadAuthority(dir string) (*authority, error) {
	a := &authority{dir: dir}
	certificate, err := readPEM(filepath.Join(dir, "ca.crt"))
	if errors.Is(err, fs.ErrNotExist) {
		err := a.create()
		return a, err
	}
	if err != nil {
		return nil, err
	}
	key, err := readPEM(filepath.Join(dir, "ca.key"))
	if err != nil {
		return nil, err
	}
	if a.certificate, err = x509.ParseCertificate(certificate); err != nil {
		return nil, err
	}
	a.key, err = x509.ParseECPrivateKey(key)
	return a, err
}

func (a *authority) create() (err error) {
	if a.key, err = newKey(filepath.Join(a.dir, "ca.key")); err != nil {
		return err
	}
	a.certificate = &x509.Certificate{
		Subject:               pkix.Name{CommonName: "tokenward-cluster"},
		KeyUsage:              x509.KeyUsageCertSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	return a.sign("ca", a.certificate, a.key.Public())
}

func (a *authority) issue(name string, template *x509.Certificate) error {
	key, err := newKey(filepath.Join(a.dir, name+".key"))
	if err != nil {
		return err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	return a.sign(name, template, key.Public())
}

func (a *authority) sign(name string, template *x509.Certificate, public crypto.PublicKey) error {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return err
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().Add(lifetime)
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, public, a.key)
	if err != nil {
		return fmt.Errorf("sign the certificate %s: %w", name, err)
	}
	return writePEM(filepath.Join(a.dir, name+".crt"), "CERTIFICATE", der)
}

func newKey(path string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, writePEM(path, "EC PRIVATE KEY", der)
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

func readPEM(path string) ([]byte, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(content)
	if block == nil {
		return nil, fmt.Errorf("read %s: it is not PEM", path)
	}
	return block.Bytes, nil
}
