// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package docs has no code: its tests hold README.md and docs/ to what the code does.
// Every example in them is run or given to a real API server, and every name in them
// (tests, reasons, metrics, flags, targets, log lines) is looked up in the source.
// Links and the list of dependencies are the business of test/repository.
package docs
