// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

const (
	establishTimeout = 30 * time.Second
	pollInterval     = 50 * time.Millisecond
)

// Apply applies every object of a YAML stream by server-side apply, as fieldOwner,
// taking over fields that others own: what `kubectl apply --server-side
// --force-conflicts` does. CustomResourceDefinitions come first and are waited for,
// then Namespaces, then the rest in the order of the stream.
func (c *Cluster) Apply(ctx context.Context, manifest []byte, fieldOwner string) error {
	objects, err := parse(manifest)
	if err != nil {
		return err
	}
	slices.SortStableFunc(objects, func(a, b *unstructured.Unstructured) int { return rank(a) - rank(b) })
	for _, object := range objects {
		if err := c.applyOne(ctx, object, fieldOwner); err != nil {
			return fmt.Errorf("apply %s: %w", describe(object), err)
		}
	}
	return nil
}

// rank orders objects so that what others need is there first.
func rank(object *unstructured.Unstructured) int {
	switch object.GetKind() {
	case "CustomResourceDefinition":
		return 0
	case "Namespace":
		return 1
	default:
		return 2
	}
}

func (c *Cluster) applyOne(ctx context.Context, object *unstructured.Unstructured, fieldOwner string) error {
	// The server answers "no such kind" for a moment after a definition is established.
	err := poll(ctx, func() (bool, error) {
		err := c.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(object.DeepCopy()), client.FieldOwner(fieldOwner), client.ForceOwnership)
		return !meta.IsNoMatchError(err) && !isUnknownKind(err), err
	})
	if err != nil {
		return err
	}
	switch object.GetKind() {
	case "CustomResourceDefinition":
		return c.waitEstablished(ctx, object.GetName())
	case "Namespace":
		return c.ensureDefaultServiceAccount(ctx, object.GetName())
	}
	return nil
}

// isUnknownKind tells a 404 for the path from one for an object or its namespace.
func isUnknownKind(err error) bool {
	status := apierrors.APIStatus(nil)
	return apierrors.IsNotFound(err) && errors.As(err, &status) && status.Status().Details != nil && status.Status().Details.Name == ""
}

func (c *Cluster) waitEstablished(ctx context.Context, name string) error {
	return poll(ctx, func() (bool, error) {
		found := &unstructured.Unstructured{}
		found.SetGroupVersionKind(apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition"))
		if err := c.client.Get(ctx, client.ObjectKey{Name: name}, found); err != nil {
			return true, err
		}
		crd := &apiextensionsv1.CustomResourceDefinition{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(found.Object, crd); err != nil {
			return true, err
		}
		for _, condition := range crd.Status.Conditions {
			if condition.Type == apiextensionsv1.Established && condition.Status == apiextensionsv1.ConditionTrue {
				return true, nil
			}
		}
		return false, errors.New("not established in time")
	})
}

// poll calls try until it is done or the time is over, and returns its last error.
func poll(ctx context.Context, try func() (done bool, err error)) error {
	ctx, cancel := context.WithTimeout(ctx, establishTimeout)
	defer cancel()
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		done, err := try()
		if done {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-ticker.C:
		}
	}
}

// parse splits a YAML stream into objects; empty documents are skipped.
func parse(manifest []byte) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(manifest)))
	for number := 1; ; number++ {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read YAML document %d: %w", number, err)
		}
		object := &unstructured.Unstructured{}
		if err := yaml.UnmarshalStrict(document, &object.Object); err != nil {
			return nil, fmt.Errorf("read YAML document %d: %w", number, err)
		}
		if len(object.Object) == 0 {
			continue
		}
		if object.GetKind() == "" || object.GetAPIVersion() == "" || object.GetName() == "" {
			return nil, fmt.Errorf("read YAML document %d: apiVersion, kind and metadata.name are needed", number)
		}
		objects = append(objects, object)
	}
}

func describe(object *unstructured.Unstructured) string {
	if object.GetNamespace() == "" {
		return fmt.Sprintf("%s %q", object.GetKind(), object.GetName())
	}
	return fmt.Sprintf("%s \"%s/%s\"", object.GetKind(), object.GetNamespace(), object.GetName())
}
