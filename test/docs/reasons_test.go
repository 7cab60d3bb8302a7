// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"maps"
	"regexp"
	"slices"
	"testing"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

// reasonsOfPages are the reasons of UsersReady or StoreReady that each page explains.
func reasonsOfPages() map[string][]string {
	opened := []string{
		api.ReasonSecretNotFound, api.ReasonSecretAccessDenied, api.ReasonSecretInvalid, api.ReasonSpecInvalid,
		api.ReasonAddressRefused, api.ReasonUnreachable, api.ReasonTLSNotTrusted, api.ReasonCredentialsRefused,
	}
	asked := append(slices.Clone(opened), api.ReasonUsersReady, api.ReasonAnswerInvalid, api.ReasonTimeout, api.ReasonUsersUnavailable)
	kept := append(slices.Clone(opened), api.ReasonStoreReady, api.ReasonPermissionDenied, api.ReasonReadOnly, api.ReasonNewerRelease, api.ReasonStoreUnavailable)
	return map[string][]string{
		"docs/users/secret.md": {
			api.ReasonUsersReady, api.ReasonUsersPartlyInvalid, api.ReasonSecretNotFound, api.ReasonSecretAccessDenied, api.ReasonUsersUnavailable,
		},
		"docs/users/sql.md":  append(slices.Clone(asked), api.ReasonUsersPartlyInvalid, api.ReasonSchemaMismatch),
		"docs/users/http.md": asked,
		"docs/stores/configmap.md": {
			api.ReasonStoreReady, api.ReasonStorePartlyUnreadable, api.ReasonStoreFull, api.ReasonStoreUnavailable,
		},
		"docs/stores/redis.md":    append(slices.Clone(kept), api.ReasonWrongMode, api.ReasonEvicts),
		"docs/stores/postgres.md": append(slices.Clone(kept), api.ReasonDatabaseMissing, api.ReasonStoreFull),
	}
}

var reasonConstant = regexp.MustCompile(`(?m)^\t(Reason\w+) += "(\w+)"`)

// TestEveryPageExplainsItsReasons compares the tables with the constants, and the pages
// together with what the report says.
func TestEveryPageExplainsItsReasons(t *testing.T) {
	reported, explained := inCode(t, `api\.(Reason\w+)`, "issuer/report"), map[string]bool{}
	byName := map[string]string{}
	sources(t, func(_, content string) {
		for _, match := range reasonConstant.FindAllStringSubmatch(content, -1) {
			byName[match[1]] = match[2]
		}
	}, "api/v1alpha1/conditions.go")
	for name, reasons := range reasonsOfPages() {
		code := map[string]bool{}
		for _, reason := range reasons {
			code[reason], explained[reason] = true, true
		}
		table := column(section(t, read(t, name), "## When something is wrong"), 0)
		same(t, name+": reason", code, slices.DeleteFunc(table, func(cell string) bool {
			return cell == api.ConditionUsersReady && !code[cell] || cell == api.ConditionStoreReady && !code[cell]
		}))
	}
	for _, name := range slices.Sorted(maps.Keys(reported)) {
		if !explained[byName[name]] {
			t.Errorf("the issuer reports %s, and no page explains it", name)
		}
	}
}
