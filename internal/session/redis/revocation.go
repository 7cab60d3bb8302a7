// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/token"
)

// place is the ID of a stream's entry: the server's milliseconds, and a number within.
type place struct{ ms, n uint64 }

func (p place) String() string {
	return strconv.FormatUint(p.ms, 10) + "-" + strconv.FormatUint(p.n, 10)
}

func (p place) compare(other place) int {
	return cmp.Or(cmp.Compare(p.ms, other.ms), cmp.Compare(p.n, other.n))
}

// parsePlace takes everything for the beginning that is not a place.
func parsePlace(text string) place {
	first, second, _ := strings.Cut(text, "-")
	ms, errMS := strconv.ParseUint(first, 10, 64)
	n, errN := strconv.ParseUint(second, 10, 64)
	if errMS != nil || errN != nil {
		return place{}
	}
	return place{ms: ms, n: n}
}

// revocation is an entry of the stream.
type revocation struct {
	place       place
	id          session.ID
	at          time.Time
	forgetAfter time.Time
	reason      token.Reason
}

func (r revocation) matters(now time.Time) bool { return r.forgetAfter.After(now) }

func (r revocation) event() session.Event {
	return session.Event{Cursor: session.Cursor(r.place.String()), ID: r.id, At: r.at, ForgetAfter: r.forgetAfter}
}

// parseRevocation reads an entry as Redis answers it: [place, [field, value, …]].
func parseRevocation(entry any) (revocation, error) {
	pair, _ := entry.([]any)
	if len(pair) != 2 {
		return revocation{}, errors.New("an entry of the stream of revocations is no pair")
	}
	name, _ := pair[0].(string)
	values, _ := pair[1].([]any)
	fields := map[string]string{}
	for i := 0; i+1 < len(values); i += 2 {
		field, _ := values[i].(string)
		fields[field], _ = values[i+1].(string)
	}
	at, errAt := strconv.ParseInt(fields["at"], 10, 64)
	forget, errForget := strconv.ParseInt(fields["forget"], 10, 64)
	r := revocation{
		place: parsePlace(name), id: session.ID(fields["id"]), at: fromUnix(at), forgetAfter: fromUnix(forget),
		reason: token.Reason(strings.TrimPrefix(fields["reason"], none)),
	}
	if errAt != nil || errForget != nil || r.id == "" || r.place == (place{}) {
		return revocation{}, fmt.Errorf("entry %q of the stream of revocations is not one of ours", name)
	}
	return r, nil
}
