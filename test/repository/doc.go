// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package repository has no code: its tests hold the documents of the repository
// to what the repository has.
package repository
