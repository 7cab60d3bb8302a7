// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// Media types of the OCI image specification 1.1.
const (
	mediaIndex    = "application/vnd.oci.image.index.v1+json"
	mediaManifest = "application/vnd.oci.image.manifest.v1+json"
	mediaConfig   = "application/vnd.oci.image.config.v1+json"
	mediaLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// Image is what one name stands for: the same files on each platform.
type Image struct {
	// Name is complete, with host and tag: "example.com/group/name:tag".
	Name      string
	Platforms []Platform
	// Entrypoint is run when a pod names no command.
	Entrypoint []string
	// User is "uid:gid", numbers, because there is no /etc/passwd.
	User   string
	Labels map[string]string
}

// Platform is one variant of an image.
type Platform struct {
	OS, Architecture string
	// Files are absolute paths in the image, and where the files are now. All become
	// readable and executable by everyone, and belong to root.
	Files map[string]string
}

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Manifests     []descriptor `json:"manifests"`
}

type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

type config struct {
	Created time.Time `json:"created"`
	platform
	Config execution `json:"config"`
	RootFS rootFS    `json:"rootfs"`
}

type execution struct {
	User       string            `json:"User,omitempty"`
	Entrypoint []string          `json:"Entrypoint,omitempty"`
	Env        []string          `json:"Env"`
	Labels     map[string]string `json:"Labels,omitempty"`
}

type rootFS struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

// writePlatform stores layer, configuration and manifest of one variant.
func (l Layout) writePlatform(image Image, p Platform) (descriptor, error) {
	layer, diffID, err := packLayer(p.Files)
	if err != nil {
		return descriptor{}, err
	}
	stored := manifest{SchemaVersion: 2, MediaType: mediaManifest, Layers: make([]descriptor, 1)}
	if stored.Layers[0], err = l.store(mediaLayer, layer); err != nil {
		return descriptor{}, err
	}
	what := platform{Architecture: p.Architecture, OS: p.OS}
	stored.Config, err = l.storeJSON(mediaConfig, config{
		Created:  epoch,
		platform: what,
		Config:   execution{User: image.User, Entrypoint: image.Entrypoint, Env: []string{"PATH=/"}, Labels: image.Labels},
		RootFS:   rootFS{Type: "layers", DiffIDs: []string{diffID}},
	})
	if err != nil {
		return descriptor{}, err
	}
	d, err := l.storeJSON(mediaManifest, stored)
	d.Platform = &what
	return d, err
}

// epoch is every time in an image, so that equal files make an equal image.
var epoch = time.Unix(0, 0).UTC()

// packLayer packs files, and returns the digest of the unpacked layer beside it.
func packLayer(files map[string]string) (packed []byte, diffID string, err error) {
	var plain, small bytes.Buffer
	archive := tar.NewWriter(&plain)
	// Programs write there; kubelet makes mount points itself, but not this one.
	if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777, ModTime: epoch}); err != nil {
		return nil, "", err
	}
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := packFile(archive, strings.TrimPrefix(path.Clean(name), "/"), files[name]); err != nil {
			return nil, "", fmt.Errorf("pack %s: %w", name, err)
		}
	}
	if err := archive.Close(); err != nil {
		return nil, "", err
	}
	compressor, err := gzip.NewWriterLevel(&small, gzip.BestSpeed)
	if err != nil {
		return nil, "", err
	}
	if _, err := compressor.Write(plain.Bytes()); err != nil {
		return nil, "", err
	}
	if err := compressor.Close(); err != nil {
		return nil, "", err
	}
	return small.Bytes(), digest(plain.Bytes()), nil
}

func packFile(archive *tar.Writer, name, from string) error {
	file, err := os.Open(from)
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // only read
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o555, Size: info.Size(), ModTime: epoch}); err != nil {
		return err
	}
	_, err = io.Copy(archive, file)
	return err
}

func (l Layout) storeJSON(mediaType string, value any) (descriptor, error) {
	content, err := json.Marshal(value)
	if err != nil {
		return descriptor{}, err
	}
	return l.store(mediaType, content)
}
