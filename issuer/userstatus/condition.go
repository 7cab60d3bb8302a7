// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package userstatus

import (
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/users/secret"
)

const (
	// maxNamed bounds how many broken users a condition names.
	maxNamed = 10
	// maxReason bounds what is said about one of them, in bytes.
	maxReason = 200
)

// condition says what a look at the user source of a policy has shown. It is a pure
// function, and equal looks give equal conditions.
func condition(policy *api.TokenPolicy, report secret.Report, err error, issuer ServiceAccount) metav1.Condition {
	c := metav1.Condition{Type: api.ConditionUsersReady, ObservedGeneration: policy.Generation}
	name := policy.Spec.Users.Secret.Name
	switch {
	case apierrors.IsForbidden(err):
		c.Status, c.Reason = metav1.ConditionFalse, api.ReasonSecretAccessDenied
		c.Message = fmt.Sprintf("spec.users.secret.name: the issuer may not read Secret %q. Grant it with:\n%s", name, grant(policy, issuer))
	case apierrors.IsNotFound(err):
		c.Status, c.Reason = metav1.ConditionFalse, api.ReasonSecretNotFound
		c.Message = fmt.Sprintf("spec.users.secret.name: there is no Secret %q in namespace %q: create it with one key per user, or name one that exists.", name, policy.Namespace)
	case err != nil:
		c.Status, c.Reason = metav1.ConditionFalse, api.ReasonUsersUnavailable
		// The error itself differs from one try to the next; it is in the log.
		c.Message = fmt.Sprintf("Secret %q cannot be read for now: the API server does not answer as it should. Sessions stay as they are, logins and refreshes have to wait.", name)
	case len(report.Broken) > 0:
		c.Status, c.Reason = metav1.ConditionTrue, api.ReasonUsersPartlyInvalid
		c.Message = fmt.Sprintf("%d of the users in Secret %q cannot log in until their entries are mended, %d can: %s",
			len(report.Broken), name, report.Users, describe(report.Broken))
	default:
		c.Status, c.Reason = metav1.ConditionTrue, api.ReasonUsersReady
		c.Message = fmt.Sprintf("Secret %q has %d users.", name, report.Users)
	}
	return c
}

// grant is what the tenant pastes to let the issuer read this one Secret.
func grant(policy *api.TokenPolicy, issuer ServiceAccount) string {
	role := "tokenward-users-" + policy.Name
	return fmt.Sprintf("kubectl create role %[1]s --namespace=%[2]s --verb=get --resource=secrets --resource-name=%[3]s && "+
		"kubectl create rolebinding %[1]s --namespace=%[2]s --role=%[1]s --serviceaccount=%[4]s:%[5]s",
		role, policy.Namespace, policy.Spec.Users.Secret.Name, issuer.Namespace, issuer.Name)
}

func describe(broken []secret.Broken) string {
	var b strings.Builder
	for i, entry := range broken[:min(len(broken), maxNamed)] {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "%s: %s", entry.Key, shorten(entry.Reason, maxReason))
	}
	if more := len(broken) - maxNamed; more > 0 {
		fmt.Fprintf(&b, "; and %d more", more)
	}
	return b.String() + "."
}

func shorten(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}
