// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package testservers

import "syscall"

// endWithThread: there is no such thing here, and a server outlives a test that is killed.
func endWithThread(*syscall.SysProcAttr, syscall.Signal) {}
