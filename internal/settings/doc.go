// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package settings is the file between the manager, which writes it into a
// ConfigMap per TokenPolicy, and the sidecar, which reads it from a volume.
//
// It owns the format, its version and every check that the file must pass before
// a sidecar may use it. It holds nothing secret: the key set in it is public.
// Pods live longer than the operator, so the format is versioned: a reader ignores
// fields that it does not know and refuses a file whose MinReader is above its own
// version. A change that an older reader must not ignore raises MinReader.
package settings
