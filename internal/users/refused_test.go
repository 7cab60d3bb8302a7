// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package users_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tokenward/tokenward/internal/users"
)

func TestWhomAFailedLoginWasAboutShowsNowhere(t *testing.T) {
	const subject = "c4n4ry-subject"
	err := fmt.Errorf("log in: %w", users.NoUser(subject))
	if !errors.Is(err, users.ErrNoUser) || users.SubjectOf(err) != subject {
		t.Errorf("%v is about %q", err, users.SubjectOf(err))
	}
	encoded, failed := json.Marshal(users.NoUser(subject))
	if failed != nil {
		t.Fatal(failed)
	}
	for _, shown := range []string{
		err.Error(), fmt.Sprintf("%v %+v %#v %s %q", err, err, err, err, err), fmt.Sprintf("%#v %+v", users.NoUser(subject), users.NoUser(subject)), string(encoded),
	} {
		if strings.Contains(shown, subject) {
			t.Errorf("it shows in %s", shown)
		}
	}
	if users.NoUser(subject).Error() != users.ErrNoUser.Error() {
		t.Error("the errors differ")
	}
}

func TestALoginMayBeAboutNobody(t *testing.T) {
	for _, err := range []error{users.NoUser(""), users.ErrNoUser, users.ErrBusy, nil} {
		if got := users.SubjectOf(err); got != "" {
			t.Errorf("%v is about %q", err, got)
		}
	}
}
