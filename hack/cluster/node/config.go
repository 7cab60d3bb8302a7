// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"text/template"
)

//go:embed config
var configFiles embed.FS

// render fills in one file of config/.
func render(name string, values any) ([]byte, error) {
	parsed, err := template.New(name).Option("missingkey=error").ParseFS(configFiles, "config/"+name)
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	err = parsed.ExecuteTemplate(&text, name, values)
	return text.Bytes(), err
}

// writeConfig writes what the programs of a node read.
func (n node) writeConfig(snapshotter string) error {
	values := struct {
		node
		Snapshotter string
	}{n, snapshotter}
	for name, path := range map[string]string{
		"containerd.toml": "containerd.toml",
		"kubelet.yaml":    "kubelet.yaml",
		"kube-proxy.yaml": "kube-proxy.yaml",
		"cni.json":        "cni/10-pods.conflist",
		"hosts.toml":      "registries/_default/hosts.toml",
	} {
		text, err := render(name, values)
		if err != nil {
			return err
		}
		path = filepath.Join(n.State, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return fmt.Errorf("write a configuration file: %w", err)
		}
	}
	// Pods with the DNS policy Default get this one: no server at all.
	return os.WriteFile(filepath.Join(n.State, "resolv.conf"), nil, 0o644)
}
