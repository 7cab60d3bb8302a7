// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package injection puts the sidecar into annotated pods (design section 6).
//
// [Decide] looks at a pod and says what is to be done, or why the pod is refused;
// [Apply] and [Plan.Patch] do it, the one to a pod, the other as a JSON patch that
// leaves fields alone which this build does not know. All three are pure. The
// webhook around them looks the policy up, logs, counts and answers.
//
// The package owns what an injected pod looks like. It leaves the settings that
// the sidecar reads to controllers/tokenpolicy and the webhook's certificate to
// controllers/certificates. A pod is only ever read when it is created.
package injection
