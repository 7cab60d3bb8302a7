// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package secret

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/tokenward/tokenward/internal/flight"
	"github.com/tokenward/tokenward/internal/users"
	"github.com/tokenward/tokenward/internal/users/password"
)

const (
	// Freshness is how long an answer of the Reader is used. A user who was removed
	// or disabled is out after this time at the latest; without it each login and
	// refresh would be a request to the API server.
	Freshness = time.Second

	readTimeout = 5 * time.Second
)

// Reader fetches the Secret.
type Reader interface {
	// ReadSecret returns the data of the Secret, which is not changed afterwards, and
	// its version. Equal versions mean equal data. An error means that nothing is known.
	ReadSecret(ctx context.Context) (data map[string][]byte, version string, err error)
}

// Hasher verifies a password against a hash. [password.Pool] is the real one.
type Hasher interface {
	Verify(ctx context.Context, hash password.Encoded, presented string) (bool, error)
}

// Options of a Source. All but Fields are required.
type Options struct {
	Reader Reader
	Hasher Hasher
	// Fields that a login presents beside id; [password] when empty.
	Fields []string
	Now    func() time.Time
}

// Source is a [users.Source] over one Secret.
type Source struct {
	reader Reader
	hasher Hasher
	fields []string
	now    func() time.Time

	last  atomic.Pointer[answer]
	reads flight.Group[struct{}, *answer]
}

var (
	_ users.Source       = (*Source)(nil)
	_ users.FieldChecker = (*Source)(nil)
)

// answer of the Reader, good or not. Failures are remembered as well, so that an
// API server in trouble is not asked more often than a healthy one.
type answer struct {
	directory *directory
	version   string
	err       error
	asked     time.Time
}

// New makes a source. It reads nothing yet.
func New(options Options) *Source {
	fields := slices.Clone(options.Fields)
	if len(fields) == 0 {
		fields = []string{passwordAttribute}
	}
	return &Source{reader: options.Reader, hasher: options.Hasher, fields: fields, now: options.Now}
}

// Authenticate implements [users.Source]. Whatever the answer, every field was
// checked against something, and as many hashes were computed as for a user of the
// most common kind.
func (s *Source) Authenticate(ctx context.Context, fields map[string]string) (users.User, error) {
	if err := s.CheckFields(fields); err != nil {
		return users.User{}, err
	}
	directory, err := s.directory(ctx)
	if err != nil {
		return users.User{}, err
	}
	subject := fields[users.IDField]
	e, ok := directory.entries[subject]
	ok = ok && e.broken() == nil
	proofs := directory.decoy
	if ok {
		proofs = e.proofs
	}
	proven := true
	for i, p := range proofs {
		matches, err := s.check(ctx, p, fields[s.fields[i]])
		if err != nil {
			return users.User{}, err
		}
		proven = proven && matches // no early end: the work must not tell which field was wrong
	}
	switch {
	case !ok:
		return users.User{}, users.ErrNoUser
	case !proven, e.disabled:
		return users.User{}, users.NoUser(subject)
	}
	return users.User{Subject: subject, Attributes: maps.Clone(e.attributes)}, nil
}

// CheckFields implements [users.FieldChecker].
func (s *Source) CheckFields(fields map[string]string) error {
	return users.CheckFields(fields, s.fields)
}

func (s *Source) check(ctx context.Context, p proof, presented string) (bool, error) {
	if !p.hashed {
		digest := sha256.Sum256([]byte(presented))
		return subtle.ConstantTimeCompare(digest[:], p.digest[:]) == 1, nil
	}
	ok, err := s.hasher.Verify(ctx, p.hash, presented)
	if errors.Is(err, password.ErrQueueFull) {
		return false, users.ErrBusy
	}
	return ok, err
}

// Lookup implements [users.Source]. An entry that is no JSON object any more says
// nothing about the user: that is an outage for this user and no removal, so that a
// slip in editing the Secret ends nobody's session.
func (s *Source) Lookup(ctx context.Context, subject string) (users.User, error) {
	directory, err := s.directory(ctx)
	if err != nil {
		return users.User{}, err
	}
	e, ok := directory.entries[subject]
	switch {
	case !ok:
		return users.User{}, users.ErrNoUser
	case e.invalid != nil:
		return users.User{}, fmt.Errorf("the user's entry is broken: %w", e.invalid)
	case e.disabled:
		return users.User{}, users.ErrDisabled
	}
	return users.User{Subject: subject, Attributes: maps.Clone(e.attributes)}, nil
}

// Report says how the Secret looks.
type Report struct {
	// Users is how many entries are as they must be, and Disabled how many of them are of
	// users who are disabled. The others can log in.
	Users, Disabled int
	// Broken entries, sorted by key. The others work.
	Broken []Broken
}

// Check reads the Secret, at most [Freshness] ago, and reports on it. The error is
// the Reader's.
func (s *Source) Check(ctx context.Context) (Report, error) {
	directory, err := s.directory(ctx)
	if err != nil {
		return Report{}, err
	}
	return Report{Users: len(directory.entries) - len(directory.broken), Disabled: directory.disabled, Broken: directory.broken}, nil
}

func (s *Source) directory(ctx context.Context) (*directory, error) {
	if last := s.last.Load(); last != nil && s.fresh(last) {
		return last.directory, last.err
	}
	got, _, err := s.reads.Do(ctx, struct{}{}, readTimeout, s.read)
	if err != nil {
		return nil, err
	}
	return got.directory, got.err
}

func (s *Source) fresh(a *answer) bool {
	age := s.now().Sub(a.asked)
	return age >= 0 && age < Freshness // a clock that was set back makes nothing fresh for long
}

func (s *Source) read(ctx context.Context) (*answer, error) {
	last := s.last.Load()
	if last != nil && s.fresh(last) {
		return last, nil // another caller has just brought it
	}
	next := &answer{asked: s.now()}
	data, version, err := s.reader.ReadSecret(ctx)
	switch {
	case err != nil:
		next.err = fmt.Errorf("read the users: %w", err)
	case last != nil && last.err == nil && last.version == version && version != "":
		next.directory, next.version = last.directory, version
	default:
		next.directory, next.version = newDirectory(data, s.fields), version
	}
	s.last.Store(next)
	return next, nil
}
