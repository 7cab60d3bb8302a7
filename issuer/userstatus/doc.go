// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package userstatus reports on the user source of each TokenPolicy, in the condition
// UsersReady of its status (ADR 0008). It owns that one condition and nothing else of
// the status.
//
// A tenant's Secret cannot be watched, because the issuer may read only the single
// Secrets that tenants have granted. So each source is looked at again and again;
// nothing is written while nothing changes.
package userstatus
