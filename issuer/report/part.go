// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package report

import (
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/outbound"
	"github.com/tokenward/tokenward/issuer/policies"
)

// part of a policy that a condition is about.
type part struct {
	condition string
	// field of the spec, such as spec.users.sql.
	field string
	// secret is the name of the Secret that opens it, if there is one, and named the field
	// that says so.
	secret, named string
	// holds is what a new Secret has to hold.
	holds string
	// grant is what the tenant's Role is called, but for the policy's name.
	grant string
	// waits is who has to wait while it does not work.
	waits string
}

// usersPart is false for a kind of a newer release.
func usersPart(policy *api.TokenPolicy) (part, bool) {
	p := part{
		condition: api.ConditionUsersReady, grant: "tokenward-users-",
		waits: "Nobody is logged out; logins and refreshes have to wait.",
	}
	switch users := policy.Spec.Users; {
	case users.Secret != nil:
		p.field, p.named, p.secret, p.holds = "spec.users.secret", "spec.users.secret.name", users.Secret.Name, "one key per user"
	case users.SQL != nil:
		p.field, p.named, p.secret, p.holds = "spec.users.sql", "spec.users.sql.secretRef.name", users.SQL.SecretRef.Name, "the key dsn"
	case users.HTTP != nil:
		p.field = "spec.users.http"
		if ref := users.HTTP.SecretRef; ref != nil {
			p.named, p.secret, p.holds = "spec.users.http.secretRef.name", ref.Name, "the key token"
		}
	default:
		return part{}, false
	}
	return p, true
}

// storePart is false for a kind of a newer release.
func storePart(policy *api.TokenPolicy) (part, bool) {
	p := part{
		condition: api.ConditionStoreReady, grant: "tokenward-store-",
		waits: "Nobody is logged out; logins, refreshes and logouts have to wait.",
	}
	switch store := policy.Spec.Store; {
	case store.ConfigMap != nil:
		p.field = "spec.store.configMap"
	case store.Redis != nil:
		p.field = "spec.store.redis"
		if ref := store.Redis.SecretRef; ref != nil {
			p.named, p.secret, p.holds = "spec.store.redis.secretRef.name", ref.Name, "the key password"
		}
	case store.Postgres != nil:
		p.field = "spec.store.postgres"
		p.named, p.secret, p.holds = "spec.store.postgres.secretRef.name", store.Postgres.SecretRef.Name, "the key url"
	default:
		return part{}, false
	}
	return p, true
}

// holder is the Secret with the credentials, and where the policy names it or may do so.
func (p part) holder() string {
	if p.secret == "" {
		return "a Secret, which " + p.field + ".secretRef has to name"
	}
	return fmt.Sprintf("Secret %q (%s)", p.secret, p.named)
}

const (
	// maxMessage bounds a condition's message, in bytes. The API server takes 32 KiB, and
	// what does not get there is tried again for ever.
	maxMessage = 8 << 10
	// maxQuoted bounds what is repeated of what others wrote, in bytes.
	maxQuoted = 500
)

// says makes the condition. Text that is not UTF-8 would come back from the API server as
// another one, and be written again and again.
func (p part) says(policy *api.TokenPolicy, status metav1.ConditionStatus, reason, format string, args ...any) metav1.Condition {
	return metav1.Condition{
		Type: p.condition, ObservedGeneration: policy.Generation,
		Status: status, Reason: reason, Message: shorten(strings.ToValidUTF8(fmt.Sprintf(format, args...), ""), maxMessage),
	}
}

// wrong is what every kind of source and store can fail with. It is false for an error
// of one kind alone.
func (p part) wrong(policy *api.TokenPolicy, err error, former bool, issuer ServiceAccount) (metav1.Condition, bool) {
	says := func(reason, format string, args ...any) (metav1.Condition, bool) {
		return p.says(policy, metav1.ConditionFalse, reason, format+" "+p.consequence(former), args...), true
	}
	invalid, _ := errors.AsType[*policies.InvalidError](err)
	refused, _ := errors.AsType[*outbound.RefusedError](err)
	var ofServer apierrors.APIStatus
	switch {
	case invalid != nil && invalid.InSecret:
		return says(api.ReasonSecretInvalid, "%s: Secret %q: %s.", p.named, p.secret, shorten(invalid.Text, maxQuoted))
	case invalid != nil:
		return says(api.ReasonSpecInvalid, "%s: %s.", p.field, shorten(invalid.Text, maxQuoted))
	case refused != nil:
		return says(api.ReasonAddressRefused,
			"%s: %s: name another host, or have the administrator of the operator allow its addresses with --allow-outbound-cidr.", p.field, refused.Error())
	case p.secret != "" && apierrors.IsForbidden(err):
		return p.says(policy, metav1.ConditionFalse, api.ReasonSecretAccessDenied,
			"%s: the issuer may not read Secret %q. %s Grant it with:\n%s", p.named, p.secret, p.waits, p.lines(policy, issuer)), true
	case p.secret != "" && apierrors.IsNotFound(err):
		return says(api.ReasonSecretNotFound, "%s: there is no Secret %q in namespace %q: create it with %s, or name one that exists.",
			p.named, p.secret, policy.Namespace, p.holds)
	case p.secret != "" && errors.As(err, &ofServer):
		// The error itself differs from one try to the next; it is in the log.
		return says(p.unavailable(), "%s: Secret %q cannot be read for now: the API server does not answer as it should.", p.named, p.secret)
	}
	return metav1.Condition{}, false
}

// unavailable is the reason for what passes by itself, or is known to the log alone.
func (p part) unavailable() string {
	if p.condition == api.ConditionUsersReady {
		return api.ReasonUsersUnavailable
	}
	return api.ReasonStoreUnavailable
}

// consequence is what it means to the clients.
func (p part) consequence(former bool) string {
	if former {
		return "The former credentials stay in use."
	}
	return p.waits
}

// lines are what the tenant pastes to let the issuer read this one Secret.
func (p part) lines(policy *api.TokenPolicy, issuer ServiceAccount) string {
	return fmt.Sprintf("kubectl create role %[1]s --namespace=%[2]s --verb=get --resource=secrets --resource-name=%[3]s && "+
		"kubectl create rolebinding %[1]s --namespace=%[2]s --role=%[1]s --serviceaccount=%[4]s:%[5]s",
		p.grant+policy.Name, policy.Namespace, p.secret, issuer.Namespace, issuer.Name)
}

// sentence ends a text that others wrote with a full stop. A server may have had a say in it.
func sentence(text string) string { return strings.TrimSuffix(shorten(text, maxQuoted), ".") + "." }
