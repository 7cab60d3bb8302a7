// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// annotationName is where containerd, buildah and skopeo look for an image's name.
const annotationName = "org.opencontainers.image.ref.name"

// Layout is a folder in the OCI image layout. One writer at a time; readers see the
// images before a Write or those after it.
type Layout string

// Write adds image under its name, replacing an older one of this name.
func (l Layout) Write(image Image) error {
	if err := os.MkdirAll(filepath.Join(string(l), "blobs", "sha256"), 0o755); err != nil {
		return err
	}
	if err := l.replace("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	variants := index{SchemaVersion: 2, MediaType: mediaIndex}
	for _, p := range image.Platforms {
		d, err := l.writePlatform(image, p)
		if err != nil {
			return fmt.Errorf("write image %s for %s/%s: %w", image.Name, p.OS, p.Architecture, err)
		}
		variants.Manifests = append(variants.Manifests, d)
	}
	named, err := l.storeJSON(mediaIndex, variants)
	if err != nil {
		return fmt.Errorf("write image %s: %w", image.Name, err)
	}
	named.Annotations = map[string]string{annotationName: image.Name}
	all, err := l.index()
	if err != nil {
		return err
	}
	all.Manifests = append(slices.DeleteFunc(all.Manifests, func(d descriptor) bool { return d.Annotations[annotationName] == image.Name }), named)
	content, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	return l.replace("index.json", content)
}

// Digest is that of the image of this name, "" when there is none.
func (l Layout) Digest(name string) (string, error) {
	all, err := l.index()
	for _, d := range all.Manifests {
		if d.Annotations[annotationName] == name {
			return d.Digest, nil
		}
	}
	return "", err
}

// Prune removes the blobs that no image needs any more.
func (l Layout) Prune() error {
	all, err := l.index()
	if err != nil {
		return err
	}
	needed := map[string]bool{}
	for _, d := range all.Manifests {
		if err := l.mark(d, needed); err != nil {
			return err
		}
	}
	blobs, err := os.ReadDir(filepath.Join(string(l), "blobs", "sha256"))
	for _, blob := range blobs {
		if !needed["sha256:"+blob.Name()] {
			err = errors.Join(err, os.Remove(filepath.Join(string(l), "blobs", "sha256", blob.Name())))
		}
	}
	return err
}

// mark notes the blob of d and all that it refers to.
func (l Layout) mark(d descriptor, needed map[string]bool) error {
	needed[d.Digest] = true
	if d.MediaType != mediaIndex && d.MediaType != mediaManifest {
		return nil
	}
	content, err := os.ReadFile(l.blob(d.Digest))
	if err != nil {
		return err
	}
	var refers struct {
		Manifests, Layers []descriptor
		Config            *descriptor
	}
	if err := json.Unmarshal(content, &refers); err != nil {
		return fmt.Errorf("read blob %s: %w", d.Digest, err)
	}
	next := slices.Concat(refers.Manifests, refers.Layers)
	if refers.Config != nil {
		next = append(next, *refers.Config)
	}
	for _, d := range next {
		if err := l.mark(d, needed); err != nil {
			return err
		}
	}
	return nil
}

func (l Layout) index() (index, error) {
	all := index{SchemaVersion: 2, MediaType: mediaIndex}
	content, err := os.ReadFile(filepath.Join(string(l), "index.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return all, err
	}
	if err := json.Unmarshal(content, &all); err != nil {
		return all, fmt.Errorf("read the index of %s: %w", string(l), err)
	}
	return all, nil
}

// store writes a blob under its digest.
func (l Layout) store(mediaType string, content []byte) (descriptor, error) {
	d := descriptor{MediaType: mediaType, Digest: digest(content), Size: int64(len(content))}
	return d, l.replace(filepath.Join("blobs", "sha256", strings.TrimPrefix(d.Digest, "sha256:")), content)
}

// replace writes a file so that a reader sees the old or the new one, never half of it.
func (l Layout) replace(name string, content []byte) error {
	path := filepath.Join(string(l), name)
	if err := os.WriteFile(path+".new", content, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// blob is the path of a digest.
func (l Layout) blob(digest string) string {
	return filepath.Join(string(l), "blobs", "sha256", strings.TrimPrefix(digest, "sha256:"))
}

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}
