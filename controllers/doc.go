// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package controllers holds what all controllers of the manager share: the scheme
// and what the manager's cache may hold.
//
// The cache is the manager's memory and its load on the API server, so it is
// limited here, in one place, to what some controller really watches. What the
// controllers do is owned by the packages below this one.
package controllers
