// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package oci writes images of static programs into a folder in the OCI image
// layout, and serves that folder as a registry that one can pull from.
//
//	Layout.Write ──▶ oci-layout, index.json, blobs/sha256/… ──▶ Layout.ServeHTTP ──▶ containerd
//
// An image here is files and what runs them, without a base: all that a static
// program needs. It owns neither the compiling of programs nor pushing; other tools
// read the folder as well (`buildah pull oci:…`, `skopeo copy oci:…`).
package oci
