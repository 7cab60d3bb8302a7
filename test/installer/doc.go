// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package installer has no code: its tests apply dist/install.yaml and the samples
// to a real API server and pin what the two ServiceAccounts may do.
package installer
