// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"context"
	"errors"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/session/postgres"
	"github.com/tokenward/tokenward/issuer/granted"
)

// urlKey of the Secret of a store in PostgreSQL.
const urlKey = "url"

func (s *stores) fromPostgres(policy *api.TokenPolicy, spec *api.PostgresStore) Store {
	id := session.PolicyID(policy.UID)
	log := s.Log.WithValues("namespace", policy.Namespace, "policy", policy.Name)
	return grantedStore{keep(s.Live, policy.Namespace, spec.SecretRef.Name, s.Now, granted.Options[Sessions]{
		Serves:  func(err error) bool { return postgres.KindOf(err) == postgres.Busy || errors.Is(err, session.ErrFull) },
		Refused: postgresRefused,
		Open: func(data map[string][]byte) (granted.Opened[Sessions], error) {
			if err := onlyKeys(data, urlKey, caKey); err != nil {
				return granted.Opened[Sessions]{}, err
			}
			if len(data[urlKey]) == 0 {
				return granted.Opened[Sessions]{}, &InvalidError{InSecret: true, Text: urlKey + ": is missing: it says where the database is and who we are there"}
			}
			way := &way{guard: s.Guard}
			database, err := postgres.Open(postgres.Config{
				URL: postgres.Secret(trimLine(data[urlKey])), CA: data[caKey], MaxConns: spec.MaxConnections,
				Dial: way.DialContext, Log: log, Now: s.Now,
			})
			if err != nil {
				return granted.Opened[Sessions]{}, &InvalidError{InSecret: true, Text: err.Error()}
			}
			store := &postgresStore{Store: database.Store(id, postgres.StoreOptions{MaxSessions: int(spec.MaxSessions)}), database: database}
			return granted.Opened[Sessions]{Value: store, Check: way.check(store.check), Close: store.close}, nil
		},
	})}
}

func postgresRefused(err error) bool {
	kind := postgres.KindOf(err)
	return kind == postgres.CredentialsRefused || kind == postgres.TLSNotTrusted
}

// postgresStore is a store with a database of its own.
type postgresStore struct {
	*postgres.Store
	database *postgres.Database
}

func (s *postgresStore) check(ctx context.Context) error {
	if err := s.database.Check(ctx); err != nil {
		return err
	}
	return s.Room(ctx)
}

func (s *postgresStore) close() {
	_ = s.Store.Close() // neither fails
	_ = s.database.Close()
}

func (s *postgresStore) pool() PoolStats {
	stats := s.database.Stats()
	return PoolStats{Connections: int(stats.Connections), Limit: int(stats.Max), Waits: stats.Waits}
}

// trimLine takes off the end of a line, which editors and echo leave behind.
func trimLine(text []byte) []byte {
	for len(text) > 0 && (text[len(text)-1] == '\n' || text[len(text)-1] == '\r') {
		text = text[:len(text)-1]
	}
	return text
}
