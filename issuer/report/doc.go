// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package report says in the status of each TokenPolicy how its user source and its
// session store are: the conditions UsersReady and StoreReady (ADR 0008). It owns these
// two conditions and nothing else of the status.
//
// A tenant's Secret cannot be watched, because the issuer may read only the single
// Secrets that tenants have granted; and servers tell nobody that they went away. So
// each source and store is looked at again and again, which is also what takes a changed
// Secret into use. Nothing is written while nothing changes. Where issuers do not find the
// same, the worse stays, so that the status does not change with every look.
package report
