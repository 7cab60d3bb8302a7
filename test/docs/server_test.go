// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tokenward/tokenward/controllers"
	"github.com/tokenward/tokenward/internal/session/configmap"
	"github.com/tokenward/tokenward/internal/testenv"
)

// apiServer is a real API server, and the ways to ask it.
type apiServer struct {
	client.Client

	env        *testenv.Env
	dir        string
	kubeconfig string
}

func startServer() (*apiServer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	env, err := testenv.New(testenv.Options{})
	if err != nil {
		return nil, err
	}
	s := &apiServer{env: env}
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

func (s *apiServer) prepare(ctx context.Context) error {
	var err error
	if s.dir, err = os.MkdirTemp("", "docs"); err != nil {
		return err
	}
	s.kubeconfig = filepath.Join(s.dir, "kubeconfig")
	if err := os.WriteFile(s.kubeconfig, s.env.KubeConfig, 0o600); err != nil {
		return err
	}
	if s.Client, err = client.New(s.env.Config, client.Options{Scheme: controllers.Scheme()}); err != nil {
		return err
	}
	manifest, err := os.ReadFile(filepath.Join(testenv.Root(), "dist", "install.yaml"))
	if err != nil {
		return err
	}
	if err := s.apply(ctx, string(manifest), ""); err != nil {
		return err
	}
	// What the manager and the issuer would make: the record is that of the page of operations.
	return errors.Join(s.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: configmap.SecretName}, Data: configmap.AddSealingKey(nil),
	}), s.Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: "sessions-7c1f0a52-9f7e-4b11-8a65-0d5c1e3f2b44-3"},
		BinaryData: map[string][]byte{"Zm9yIGV4YW1wbGUgb25seQ": []byte("sealed")},
	}))
}

func (s *apiServer) stop() error {
	return errors.Join(s.env.Stop(), os.RemoveAll(s.dir))
}

const operatorNamespace = "tokenward-system"

// apply is `kubectl apply --server-side` of a stream, with strict validation. A dry run
// with the argument metav1.DryRunAll.
func (s *apiServer) apply(ctx context.Context, stream, dryRun string) error {
	objects, err := parse(stream)
	if err != nil {
		return err
	}
	for _, object := range objects {
		body, err := object.MarshalJSON()
		if err != nil {
			return err
		}
		options := &client.PatchOptions{FieldManager: "kubectl", Force: new(true), FieldValidation: metav1.FieldValidationStrict}
		if dryRun != "" {
			options.DryRun = []string{dryRun}
		}
		if err := s.Patch(ctx, object, client.RawPatch(types.ApplyPatchType, body), options); err != nil {
			return fmt.Errorf("apply %s %q: %w", object.GetKind(), object.GetName(), err)
		}
	}
	return nil
}

// parse splits a stream of YAML documents.
func parse(stream string) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	decoder := utilyaml.NewYAMLOrJSONDecoder(strings.NewReader(stream), 4096)
	for {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(&object.Object)
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, err
		}
		if len(object.Object) > 0 {
			objects = append(objects, object)
		}
	}
}
