// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// backend is where users and sessions live.
type backend interface {
	// prepare starts what is needed beside the cluster, before the platform is there.
	prepare(ctx context.Context) error
	// issuerFlags are what whoever runs the issuer has to allow.
	issuerFlags() []string
	// apply creates the users and everything that the policy names, and the policy.
	apply(ctx context.Context, p *platform) error
	// remove removes a user, and prints the line that does the same. When it returns,
	// the issuer knows.
	remove(ctx context.Context, s *story, id string) error
	// hint is how a person looks at what is stored.
	hint() string
	// stop ends what prepare has started.
	stop() error
}

// newBackend finds a backend by the name that the flag gives.
func newBackend(name string, where paths, say func(string, ...any), out io.Writer) (backend, error) {
	switch name {
	case "embedded":
		return &embedded{paths: where}, nil
	case "postgres":
		return &postgres{paths: where, say: say, out: out}, nil
	}
	return nil, fmt.Errorf("-backend=%s: there is none of that name: use embedded or postgres", name)
}

// embedded is a Secret with the users, and sessions in ConfigMaps.
type embedded struct{ paths paths }

//go:embed manifests/embedded.yaml
var embeddedManifest []byte

func (*embedded) prepare(context.Context) error { return nil }

func (*embedded) stop() error { return nil }

func (*embedded) issuerFlags() []string { return nil }

func (*embedded) hint() string { return "kubectl -n tokenward-system get configmaps" }

func (e *embedded) apply(ctx context.Context, p *platform) error {
	entries := map[string]string{}
	for _, u := range []user{alice, bob} {
		hash, err := hashPassword(ctx, e.paths, u.Password)
		if err != nil {
			return err
		}
		entry, err := json.Marshal(map[string]string{"phone": u.Phone, "password": hash, "role": u.Role})
		if err != nil {
			return err
		}
		entries[u.ID] = string(entry)
	}
	if err := createSecret(ctx, p, "shop-users", entries); err != nil {
		return err
	}
	return p.apply(ctx, embeddedManifest)
}

func (*embedded) remove(ctx context.Context, s *story, id string) error {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: shop.Namespace, Name: "shop-users"}}
	if err := s.patch(ctx, "secret", secret, `{"data":{"`+id+`":null}}`); err != nil {
		return err
	}
	return pause(ctx, issuerMemory)
}

// hashPassword hashes with our own command.
func hashPassword(ctx context.Context, where paths, password string) (string, error) {
	command := exec.CommandContext(ctx, where.binary("tokenward"), "hash-password") //nolint:gosec // our own binary
	command.Stdin, command.Stderr = strings.NewReader(password+"\n"), os.Stderr
	hash, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("hash a password: %w", err)
	}
	return string(bytes.TrimSpace(hash)), nil
}

func createSecret(ctx context.Context, p *platform, name string, data map[string]string) error {
	secret := &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Namespace: shop.Namespace, Name: name},
		StringData: data,
	}
	return client.IgnoreAlreadyExists(p.Create(ctx, secret))
}
