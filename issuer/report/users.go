// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package report

import (
	"errors"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/users"
	"github.com/tokenward/tokenward/internal/users/secret"
	"github.com/tokenward/tokenward/issuer/policies"
)

const (
	// maxNamed bounds how many broken users a condition names.
	maxNamed = 10
	// maxReason bounds what is said about one of them, in bytes.
	maxReason = 200
)

// usersCondition says what a look at the user source of a policy has shown. It is a pure
// function, and equal looks give equal conditions.
func usersCondition(policy *api.TokenPolicy, look policies.UsersLook, issuer ServiceAccount) metav1.Condition {
	p, _ := usersPart(policy)
	unavailable, _ := errors.AsType[*users.UnavailableError](look.Err)
	wrong, common := p.wrong(policy, look.Err, look.Former, issuer)
	switch {
	case common:
		return wrong
	case unavailable != nil:
		return p.unavailableUsers(policy, unavailable, look.Former)
	case look.Err != nil:
		return p.says(policy, metav1.ConditionFalse, p.unavailable(), "%s: the users cannot be read for now. %s", p.field, p.consequence(look.Former))
	case len(look.Secret.Broken) > 0:
		return p.says(policy, metav1.ConditionTrue, api.ReasonUsersPartlyInvalid,
			"%d of the users in Secret %q cannot log in until their entries are mended, %d can: %s",
			len(look.Secret.Broken), p.secret, look.Secret.Users-look.Secret.Disabled, describe(look.Secret.Broken))
	case look.SQL.Unusable > 0:
		// Not how many: each issuer has seen others.
		return p.says(policy, metav1.ConditionTrue, api.ReasonUsersPartlyInvalid,
			"spec.users.sql.authenticate.password.column: some users who tried cannot log in until the hash in their row is mended, for example: %s.",
			shorten(look.SQL.Reason, maxReason))
	case policy.Spec.Users.Secret != nil:
		return p.says(policy, metav1.ConditionTrue, api.ReasonUsersReady, "Secret %q has %d users.", p.secret, look.Secret.Users)
	case policy.Spec.Users.SQL != nil:
		return p.says(policy, metav1.ConditionTrue, api.ReasonUsersReady, "the database answers both queries.")
	}
	return p.says(policy, metav1.ConditionTrue, api.ReasonUsersReady, "the user service answers.")
}

// unavailableUsers is a source that cannot answer, or, where an answer was wrong, not
// about some users. Its detail says what to mend.
func (p part) unavailableUsers(policy *api.TokenPolicy, err *users.UnavailableError, former bool) metav1.Condition {
	reason, remedy := api.ReasonUsersUnavailable, ""
	switch err.Fault {
	case users.FaultAddress:
		reason, remedy = api.ReasonUnreachable, " Check host and port, and what the network lets through."
	case users.FaultTLS:
		reason, remedy = api.ReasonTLSNotTrusted, fmt.Sprintf(" The key ca.crt of %s holds the CA to trust.", p.holder())
	case users.FaultCredentials:
		reason, remedy = api.ReasonCredentialsRefused, fmt.Sprintf(" Mend %s, or the account that it is for.", p.holder())
	case users.FaultSchema:
		reason = api.ReasonSchemaMismatch
	case users.FaultAnswer:
		reason = api.ReasonAnswerInvalid
	case users.FaultTimeout:
		reason, remedy = api.ReasonTimeout, " It passes when the server has less to do."
		if policy.Spec.Users.SQL != nil {
			remedy = " It passes when the server has less to do, or the query an index."
		}
	case users.FaultUnavailable:
		remedy = " It is asked again and again."
	}
	consequence := p.consequence(former)
	if err.Fault == users.FaultAnswer && !former {
		consequence = "Whom such an answer is about cannot log in or refresh; nobody is logged out."
	}
	return p.says(policy, metav1.ConditionFalse, reason, "%s: %s%s %s", p.field, sentence(err.Detail), remedy, consequence)
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
