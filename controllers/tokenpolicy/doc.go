// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package tokenpolicy makes a TokenPolicy true: it renders the settings and the
// public key set of the policy's sidecars into the ConfigMap that pods mount,
// counts the pods, looks for Services that lead past their sidecars, makes the
// NetworkPolicy that closes the other ports where one is asked for, and reports in conditions.
//
// What decides is pure: which rules can never match (reachability.go), what the
// settings are (render.go), which Services lead past (ways.go), what the conditions say
// (conditions.go, bypass.go). The reconciler is a list of phases over a scope around it.
//
// It reads of a key only the public record, never the Secret. It does not look at user
// sources and session stores: the issuer does, and reports in the conditions UsersReady
// and StoreReady, which this package sums up in Ready and never writes.
package tokenpolicy
