// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package testservers starts real servers for tests, databases and Prometheus: each on a free
// loopback port, with its data in a temporary folder, stopped when the test ends, on Linux
// also when its process is killed. The
// binaries are those of the machine (Debian's packages); nothing that runs already
// is touched.
//
// Where a binary is missing the test is skipped and says which package to install,
// unless the environment variable TOKENWARD_REQUIRE_SERVERS is set: then it fails,
// so that a machine that ought to test everything cannot skip anything unseen.
//
// It is for tests only.
package testservers
