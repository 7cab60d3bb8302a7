// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package granted keeps open what is opened with a tenant's Secret: a database of
// users, a store of sessions. It owns the question which content of the Secret is in
// use, and when another one takes its place:
//
//   - The Secret cannot be watched, because the issuer may read single Secrets only. It
//     is read at every look, and looks come from a clock, and from calls whose
//     credentials are refused.
//   - Other content is opened beside the one in use, and looked at. It takes over when it
//     works, or when the one in use does not work either. So a slip in the Secret harms
//     nobody, and neither does the moment between a changed password at the server and
//     in the Secret.
//   - What was in use is closed when the last call has left it. Streams on it end at
//     once; they resume on its successor.
//   - A Secret that is gone, or a grant that was withdrawn, closes it. An API server that
//     does not answer closes nothing.
//
// What is opened, what works and what to tell people is up to its callers.
package granted
