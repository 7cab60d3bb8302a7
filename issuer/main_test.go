// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package issuer_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/yaml"

	"github.com/tokenward/tokenward/internal/session/configmap"
	"github.com/tokenward/tokenward/internal/testenv"
	"github.com/tokenward/tokenward/issuer"
)

// operator is the operator's namespace.
const operator = "tokenward-system"

// patience is how long the API server and the controllers get for what usually takes
// milliseconds; the machine may be busy.
const patience = time.Minute

// cluster is a real API server in which the issuer may do what its generated role says.
type cluster struct {
	config *rest.Config
	// admin may do everything and reads past every cache.
	admin client.WithWatch
}

var shared cluster

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	log.SetLogger(logr.Discard()) // each issuer logs for itself
	env, err := testenv.New(testenv.Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := 1
	if err := prepare(env.Config); err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = m.Run()
	}
	if err := env.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return max(code, 1)
	}
	return code
}

func prepare(config *rest.Config) error {
	admin, err := client.NewWithWatch(config, client.Options{Scheme: issuer.Scheme()})
	if err != nil {
		return err
	}
	shared = cluster{config: config, admin: admin}
	ctx := context.Background()
	for _, object := range []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: operator}},
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: operator, Name: issuer.ServiceAccount}},
		&corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: operator, Name: configmap.SecretName,
				Labels: map[string]string{"tokenward.io/component": "sessions"},
			},
			Data: configmap.AddSealingKey(nil),
		},
	} {
		if err := admin.Create(ctx, object); err != nil {
			return err
		}
	}
	for _, file := range []string{"issuer_role.yaml", "issuer_role_binding.yaml"} {
		if err := apply(ctx, filepath.Join(testenv.Root(), "config", "rbac", file)); err != nil {
			return err
		}
	}
	return nil
}

// apply creates the objects of a YAML file.
func apply(ctx context.Context, file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	for _, document := range splitYAML(data) {
		object := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(document, &object.Object); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if len(object.Object) == 0 {
			continue
		}
		if err := shared.admin.Create(ctx, object); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return nil
}
