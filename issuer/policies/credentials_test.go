// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"context"
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

// oneSecret is an API server with nothing else.
type oneSecret struct {
	client.Reader
	data map[string][]byte
}

func (s oneSecret) Get(_ context.Context, _ client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	into.(*corev1.Secret).Data = s.data
	return nil
}

func TestASecretWithAKeyThatNobodyReadsIsRefusedByName(t *testing.T) {
	ref := api.SecretReference{Name: "shop"}
	live := oneSecret{data: map[string][]byte{"tokn": []byte("c4n4ry"), "ca.crt": nil}}
	from := &sources{SourceOptions: SourceOptions{Live: live, Now: time.Now}}
	into := &stores{StoreOptions: StoreOptions{Live: live, Now: time.Now}}
	look := func(users Users) error {
		t.Cleanup(func() { _ = users.Close() })
		return users.Look(t.Context()).Err
	}
	store := into.fromPostgres(&api.TokenPolicy{}, &api.PostgresStore{SecretRef: ref})
	t.Cleanup(func() { _ = store.Close() })
	for known, err := range map[string]error{
		"token, ca.crt": look(from.fromHTTP("shop", &api.HTTPUsers{URL: "https://users.example", SecretRef: &ref})),
		"dsn, ca.crt":   look(from.fromSQL("shop", &api.SQLUsers{SecretRef: ref})),
		"url, ca.crt":   store.Look(t.Context()).Err,
	} {
		invalid, _ := errors.AsType[*InvalidError](err)
		if invalid == nil || !invalid.InSecret || invalid.Text != `the Secret has the key "tokn"; known are `+known {
			t.Errorf("%s: %v", known, err)
		}
	}
}
