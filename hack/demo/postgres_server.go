// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	osuser "os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// find finds a program of PostgreSQL, also where Debian keeps it.
func find(program string) (string, error) {
	if path, err := exec.LookPath(program); err == nil {
		return path, nil
	}
	if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + program); len(found) > 0 {
		return slices.Max(found), nil
	}
	return "", fmt.Errorf("there is no %s on this machine: install PostgreSQL (Debian: apt-get install postgresql)", program)
}

// serverAccount is whom the server runs as: not root, which it refuses; nil for
// ourselves.
func serverAccount() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil //nolint:nilnil // what exec takes for "as we are"
	}
	nobody, err := osuser.Lookup("nobody")
	if err != nil {
		return nil, fmt.Errorf("find a user to run PostgreSQL as: %w", err)
	}
	uid, errUID := strconv.ParseUint(nobody.Uid, 10, 32)
	gid, errGID := strconv.ParseUint(nobody.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(errUID, errGID)
}

// own makes the server's folder, which it can reach whoever it runs as.
func (b *postgres) own(folder string) error {
	var err error
	if b.account, err = serverAccount(); err != nil {
		return err
	}
	if err := os.Mkdir(folder, 0o700); err != nil {
		return err
	}
	if b.account == nil {
		return nil
	}
	// The folder above is ours alone; to pass through it is all that is allowed.
	return errors.Join(os.Chmod(b.paths.dir, 0o711), os.Chown(folder, int(b.account.Uid), int(b.account.Gid))) //nolint:gosec // G302: see above
}

// write writes a file for the server.
func (b *postgres) write(path string, content []byte) error {
	if err := os.WriteFile(path, content, 0o600); err != nil || b.account == nil {
		return err
	}
	return os.Chown(path, int(b.account.Uid), int(b.account.Gid))
}

func (b *postgres) command(ctx context.Context, path string, args ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, path, args...) //nolint:gosec // a program of PostgreSQL
	command.Dir = "/"
	command.Env = append(os.Environ(), "LC_ALL=C")
	command.SysProcAttr = attributes()
	command.SysProcAttr.Credential = b.account
	return command
}

// selfSigned makes a certificate for the loopback address that is its own CA, and its
// key, in PEM.
func selfSigned() (certificate, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "PostgreSQL of the demo"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), nil
}
