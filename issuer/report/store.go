// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package report

import (
	"context"
	"errors"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/session/postgres"
	"github.com/tokenward/tokenward/internal/session/redis"
	"github.com/tokenward/tokenward/issuer/policies"
	"github.com/tokenward/tokenward/issuer/refusal"
)

// storeCondition says what a look at the session store of a policy has shown. It is a
// pure function, and equal looks give equal conditions.
func storeCondition(policy *api.TokenPolicy, look policies.StoreLook, issuer ServiceAccount) metav1.Condition {
	p, _ := storePart(policy)
	says := func(reason, format string, args ...any) metav1.Condition {
		return p.says(policy, metav1.ConditionFalse, reason, "%s: "+format, append([]any{p.field}, args...)...)
	}
	inRedis, _ := errors.AsType[*redis.Error](look.Err)
	inPostgres, _ := errors.AsType[*postgres.Error](look.Err)
	waits, isRefusal := errors.AsType[*refusal.Error](look.Err)
	wrong, common := p.wrong(policy, look.Err, look.Former, issuer)
	switch {
	case common:
		return wrong
	case look.Full, errors.Is(look.Err, session.ErrFull):
		kind := "configMap"
		if policy.Spec.Store.Postgres != nil {
			kind = "postgres"
		}
		return says(api.ReasonStoreFull, "there are as many sessions as spec.store.%s.maxSessions allows: raise it, or shorten spec.refresh.idleTimeout. "+
			"Logins have to wait; refreshes go on.", kind)
	case inRedis != nil:
		reason, text := p.redisReason(inRedis)
		return says(reason, "%s %s", sentence(text), p.redisConsequence(inRedis.Problem, look.Former))
	case inPostgres != nil:
		return says(postgresReason(inPostgres.Kind), "%s %s", sentence(inPostgres.Error()), p.consequence(look.Former))
	case isRefusal:
		return says(api.ReasonStoreUnavailable, "%s %s", sentence(waits.Detail), p.consequence(look.Former))
	case errors.Is(look.Err, context.DeadlineExceeded):
		return says(api.ReasonUnreachable, "the server does not answer in time. %s", p.consequence(look.Former))
	case look.Err != nil:
		// The error itself differs from one try to the next; it is in the log.
		return says(api.ReasonStoreUnavailable, "the sessions cannot be read for now. %s", p.consequence(look.Former))
	case look.Unreadable:
		return p.says(policy, metav1.ConditionTrue, api.ReasonStorePartlyUnreadable,
			"some records do not open, because they were changed by hand or the key that sealed them is not in the Secret tokenward-sessions: put it back. "+
				"Whose sessions these are cannot refresh; all others can.")
	}
	return p.says(policy, metav1.ConditionTrue, api.ReasonStoreReady, "the session store can be used.")
}

// redisReason says it in words of our own where those of the error differ from one try
// to the next, as they hold ports and times. They are in the log of the calls.
func (p part) redisReason(err *redis.Error) (reason, text string) {
	switch err.Problem {
	case redis.ProblemUnreachable:
		return api.ReasonUnreachable, "no server answers, or it hangs up: check addresses, whether it wants TLS, and what the network lets through"
	case redis.ProblemUnresolved:
		return api.ReasonUnreachable, "a host name does not resolve: check addresses, or the names that Sentinels or the Cluster's nodes give each other"
	case redis.ProblemCredentials:
		return api.ReasonCredentialsRefused, "user or password is refused: mend username and password in " + p.holder() + ", or the user at the server"
	case redis.ProblemTLS:
		return api.ReasonTLSNotTrusted, "the server speaks no TLS, or its certificate is not trusted: " +
			"the key ca.crt of " + p.holder() + " holds the CA to trust, and tls: Disable does without TLS"
	case redis.ProblemRights:
		return api.ReasonPermissionDenied, err.Error()
	case redis.ProblemMode:
		return api.ReasonWrongMode, err.Advice()
	case redis.ProblemReadOnly:
		return api.ReasonReadOnly, err.Advice()
	case redis.ProblemEviction:
		return api.ReasonEvicts, err.Error()
	case redis.ProblemNewerRecord:
		return api.ReasonNewerRelease, err.Error()
	case redis.ProblemBusy:
		return api.ReasonStoreUnavailable, "no connection is free: raise maxConnections, or the server's maxclients"
	case redis.ProblemFull:
		return api.ReasonStoreUnavailable, "the server's memory is full: raise its maxmemory, or shorten spec.refresh.idleTimeout"
	case redis.ProblemOther:
	}
	return api.ReasonStoreUnavailable, "the server fails; the log says how"
}

// redisConsequence differs for a server that answers some calls.
func (p part) redisConsequence(problem redis.Problem, former bool) string {
	switch {
	case former:
	case problem == redis.ProblemEviction:
		return "Until then logins have to wait, and so has whoever's session is not found; other sessions go on."
	case problem == redis.ProblemFull:
		return "Logins have to wait; refreshes go on."
	}
	return p.consequence(former)
}

func postgresReason(kind postgres.Kind) string {
	switch kind {
	case postgres.Misconfigured:
		return api.ReasonSecretInvalid
	case postgres.Unreachable:
		return api.ReasonUnreachable
	case postgres.CredentialsRefused:
		return api.ReasonCredentialsRefused
	case postgres.TLSNotTrusted:
		return api.ReasonTLSNotTrusted
	case postgres.DatabaseMissing:
		return api.ReasonDatabaseMissing
	case postgres.PermissionDenied:
		return api.ReasonPermissionDenied
	case postgres.SchemaNewer:
		return api.ReasonNewerRelease
	case postgres.ReadOnly:
		return api.ReasonReadOnly
	case postgres.Busy, postgres.SchemaDamaged, postgres.Unavailable: // the message says which
	}
	return api.ReasonStoreUnavailable
}
