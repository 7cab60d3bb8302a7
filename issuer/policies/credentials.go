// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tokenward/tokenward/internal/outbound"
	"github.com/tokenward/tokenward/issuer/granted"
)

// keep what is opened with the Secret of that name in the policy's namespace; no name
// is no Secret.
func keep[T any](live client.Reader, namespace, name string, now func() time.Time, options granted.Options[T]) *granted.Keeper[T] {
	if name != "" {
		options.Read = func(ctx context.Context) (map[string][]byte, error) {
			data, _, err := grantedSecret{live: live, key: client.ObjectKey{Namespace: namespace, Name: name}}.ReadSecret(ctx)
			return data, err
		}
	}
	options.Gone = func(err error) bool { return apierrors.IsNotFound(err) || apierrors.IsForbidden(err) }
	options.Now = now
	return granted.New(options)
}

// onlyKeys refuses a Secret with a key that nobody reads, which is most likely one that
// was meant to be another. Its name is no secret.
func onlyKeys(data map[string][]byte, known ...string) error {
	for _, key := range slices.Sorted(maps.Keys(data)) {
		if !slices.Contains(known, key) {
			return &InvalidError{InSecret: true, Text: fmt.Sprintf("the Secret has the key %q; known are %s", key, strings.Join(known, ", "))}
		}
	}
	return nil
}

// way is the network as one that is opened reaches it. It remembers that an address was
// refused, which some of the libraries above it do not tell from a server that is away.
type way struct {
	guard   outbound.Guard
	refused atomic.Pointer[outbound.RefusedError]
}

// DialContext is like that of [outbound.Guard].
func (w *way) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := w.guard.DialContext(ctx, network, address)
	if refused, ok := errors.AsType[*outbound.RefusedError](err); ok {
		w.refused.Store(refused)
	}
	return conn, err
}

// check tells a check's error, or that the address was refused meanwhile.
func (w *way) check(of func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		w.refused.Store(nil)
		err := of(ctx)
		if refused := w.refused.Load(); err != nil && refused != nil {
			return refused
		}
		return err
	}
}
