// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"context"
	"errors"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/users"
	"github.com/tokenward/tokenward/internal/users/http"
	"github.com/tokenward/tokenward/internal/users/sql"
	"github.com/tokenward/tokenward/issuer/granted"
)

// Keys of the Secrets of user sources.
const (
	dsnKey   = "dsn"
	tokenKey = "token"
	caKey    = "ca.crt"
)

// grantedUsers are in a database or behind a service that a Secret opens.
type grantedUsers struct {
	keeper *granted.Keeper[users.Source]
}

var _ Users = grantedUsers{}

// Authenticate implements [users.Source].
func (u grantedUsers) Authenticate(ctx context.Context, fields map[string]string) (user users.User, _ error) {
	err := u.keeper.Use(ctx, func(source users.Source) (err error) {
		user, err = source.Authenticate(ctx, fields)
		return err
	})
	return user, err
}

// Lookup implements [users.Source].
func (u grantedUsers) Lookup(ctx context.Context, subject string) (user users.User, _ error) {
	err := u.keeper.Use(ctx, func(source users.Source) (err error) {
		user, err = source.Lookup(ctx, subject)
		return err
	})
	return user, err
}

// Look implements [Users].
func (u grantedUsers) Look(ctx context.Context) UsersLook {
	look, err := u.keeper.Look(ctx)
	if err != nil {
		return UsersLook{Err: err}
	}
	found := UsersLook{Err: look.Err, Former: look.Former}
	u.keeper.Peek(func(source users.Source) {
		if database, ok := source.(*sql.Source); ok {
			found.SQL = database.Report()
		}
	})
	return found
}

// Close implements [Users].
func (u grantedUsers) Close() error {
	u.keeper.Close()
	return nil
}

// usersServe: an answer that is wrong for one user says nothing about the others.
func usersServe(err error) bool { return faultOf(err) == users.FaultAnswer }

// usersRefused are what another Secret may help against.
func usersRefused(err error) bool {
	fault := faultOf(err)
	return fault == users.FaultCredentials || fault == users.FaultTLS
}

func faultOf(err error) users.Fault {
	if unavailable, ok := errors.AsType[*users.UnavailableError](err); ok {
		return unavailable.Fault
	}
	return ""
}

func (s *sources) fromSQL(namespace string, spec *api.SQLUsers) Users {
	return grantedUsers{keep(s.Live, namespace, spec.SecretRef.Name, s.Now, granted.Options[users.Source]{
		Serves: usersServe, Refused: usersRefused,
		Open: func(data map[string][]byte) (granted.Opened[users.Source], error) {
			if err := onlyKeys(data, dsnKey, caKey); err != nil {
				return granted.Opened[users.Source]{}, err
			}
			if len(data[dsnKey]) == 0 {
				return granted.Opened[users.Source]{}, &InvalidError{InSecret: true, Text: dsnKey + ": is missing: it says where the database is and who we are there"}
			}
			way := &way{guard: s.Guard}
			options := sql.Options{
				Driver: sql.Driver(spec.Driver), DSN: users.NewCredential(string(data[dsnKey])), CA: data[caKey],
				Authenticate: sql.Authenticate{Query: spec.Authenticate.Query, Parameters: spec.Authenticate.Parameters},
				Lookup:       sql.Lookup{Query: spec.Lookup.Query},
				Subject:      spec.SubjectColumn, MaxConnections: int(spec.MaxConnections),
				Hasher: s.Hasher, Dial: way.DialContext, Now: s.Now,
			}
			if p := spec.Authenticate.Password; p != nil {
				options.Authenticate.Password = &sql.Password{Column: p.Column, Field: p.Field}
			}
			source, err := sql.New(options)
			if err != nil {
				return granted.Opened[users.Source]{}, invalid(err)
			}
			return granted.Opened[users.Source]{Value: source, Check: way.check(source.Check), Close: source.Close}, nil
		},
	})}
}

func (s *sources) fromHTTP(namespace string, spec *api.HTTPUsers) Users {
	name := ""
	if spec.SecretRef != nil {
		name = spec.SecretRef.Name
	}
	return grantedUsers{keep(s.Live, namespace, name, s.Now, granted.Options[users.Source]{
		Serves: usersServe, Refused: usersRefused,
		Open: func(data map[string][]byte) (granted.Opened[users.Source], error) {
			if err := onlyKeys(data, tokenKey, caKey); err != nil {
				return granted.Opened[users.Source]{}, err
			}
			way := &way{guard: s.Guard}
			source, err := http.New(http.Options{
				URL: spec.URL, Fields: spec.Fields,
				Token: users.NewCredential(string(data[tokenKey])), CA: data[caKey],
				Dial: way.DialContext, Now: s.Now,
			})
			if err != nil {
				return granted.Opened[users.Source]{}, invalid(err)
			}
			return granted.Opened[users.Source]{Value: source, Check: way.check(source.Check), Close: source.Close}, nil
		},
	})}
}

// invalid is a mistake that opening a user source has shown.
func invalid(err error) *InvalidError {
	_, inSecret := errors.AsType[*users.CredentialError](err)
	return &InvalidError{InSecret: inSecret, Text: err.Error()}
}
