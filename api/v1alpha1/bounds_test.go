// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
)

const durationPattern = `^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`

const addressPattern = `^([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]):[1-9][0-9]{0,4}$`

// mismatches are, for each pattern of the API, values that users might try and that
// it keeps out. The full objects have a value for each that it lets in.
var mismatches = map[string][]string{
	durationPattern: {"5", "5 m", "-5m", "5d", "PT5M", "m", "5m "},
	`^[A-Za-z0-9_-]+$`: {
		"cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn+s", "a=", "a b",
	},
	`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`:                {"Shop", "shop_users", "-shop", "shop-", "a/b"},
	`^[-._a-zA-Z0-9]+$`:                               {"a/b", "tls key", "ключ"},
	`^[A-Za-z][A-Za-z0-9_.:/-]*$`:                     {"1role", "_role", "ro le", "rôle"},
	`^[A-Za-z_][A-Za-z0-9_.-]*$`:                      {"1role", "ro le", "a:b"},
	`^[A-Za-z][A-Za-z0-9-]*$`:                         {"X_User_Id", "X User", "1X", "X-User:", "X-User\r\nX-Admin"},
	`^[A-Z]+$`:                                        {"get", "Get", "GET POST", "M-SEARCH", "*"},
	`^/([A-Za-z0-9._~!$&'()*+,=:@/-]|%[0-9A-F]{2})*$`: {"healthz", "/a?b", "/a#b", "/a;b", `/a\b`, "/a b", "/caf%c3%a9", "/%zz", "/%", "/caf\u00e9", "/*/{id}"},
	addressPattern:                                    {"redis", "redis:", ":6379", "redis:06379", "redis://redis:6379", "user@redis:6379", "re dis:6379", "[::1:6379", "redis:123456"},
	`^[A-Za-z0-9_.-]+$`:                               {"my master", "shop:1", "shop/1", "마스터"},
	`^[A-Za-z0-9_.:/-]+$`:                             {"shop {1}:", "{shop}:", "shop*", "ключ:"},
	`^(/[A-Za-z0-9_~-]+)+$`:                           {"auth", "/auth/", "//auth", "/au.th", "/a%20b", "/a/../b"},
}

// adjustments keep the rest of an object right when a value at the path is at its bound.
var adjustments = map[string]string{
	"spec.algorithm":                   "spec: {rsaKeyBits: null}",
	"spec.rules[].access":              "spec: {rules: [{paths: [{type: Exact, value: /}], access: Denied}]}",
	"spec.store.configMap.shards":      "spec: {store: {configMap: {maxSessions: 1000}}}",
	"spec.store.configMap.maxSessions": "spec: {store: {configMap: {shards: 64}}}",

	"spec.users.sql.authenticate.parameters[]": "spec: {users: {sql: {authenticate: {parameters: [phone, id]}}}}",

	"spec.store.redis.mode Single":   "spec: {store: {redis: {masterName: null}}}",
	"spec.store.redis.mode Cluster":  "spec: {store: {redis: {masterName: null, database: 0}}}",
	"spec.users.sql.driver mysql":    "spec: {}",
	"spec.store.redis.mode Sentinel": "spec: {}",
}

func adjustment(key string) string {
	if change, ok := adjustments[key]; ok {
		return change
	}
	return "{}"
}

// TestBounds breaks every constraint of the CRDs that is not CEL, and takes each
// value that is just within it. The list comes from the CRDs, so it is complete.
func TestBounds(t *testing.T) {
	for _, resource := range []string{"signingkeys", "tokenpolicies"} {
		for _, c := range constraints(t, resource) {
			if c.kind == "cel" || c.path == "" && c.detail != "spec" {
				continue // cel_test.go, and what every Kubernetes object has
			}
			t.Run(strings.Join([]string{resource, c.path, c.kind, c.detail}, " "), func(t *testing.T) { testBound(t, c) })
		}
	}
}

func testBound(t *testing.T, c constraint) {
	t.Helper()
	full := base(t, c.resource, variant(c.path))
	full = merge(full, parse(t, adjustment(c.path)))
	current := get(t, full, c.path)
	field := strings.ReplaceAll(c.path, "[]", "[0]")
	refuse := func(value any, says string) {
		t.Helper()
		mustRefuse(t, c.resource, with(t, full, c.path, value), field, says)
	}
	accept := func(value any) {
		t.Helper()
		mustAccept(t, c.resource, with(t, full, c.path, value))
	}
	switch s := c.schema; c.kind {
	case "pattern":
		if len(mismatches[s.Pattern]) == 0 {
			t.Errorf("no mismatches in this file for the pattern %s", s.Pattern)
		}
		for _, value := range mismatches[s.Pattern] {
			refuse(value, "should match '"+s.Pattern+"'")
		}
	case "enum":
		for _, encoded := range s.Enum {
			var value any
			if err := json.Unmarshal(encoded.Raw, &value); err != nil {
				t.Fatal(err)
			}
			if number, ok := value.(float64); ok {
				value = int64(number)
			}
			mustAccept(t, c.resource, with(t, merge(full, parse(t, adjustment(fmt.Sprintf("%s %v", c.path, value)))), c.path, value))
			refuse(map[bool]any{true: int64(402), false: "Nonsense"}[s.Type == "integer"], fmt.Sprintf("%q", strings.Trim(string(encoded.Raw), `"`)))
		}
	case "minLength":
		refuse(fill(t, c, current, *s.MinLength-1), "should be at least")
		if shortest := fill(t, c, current, *s.MinLength); shortest != "" { // a URL is longer in any case
			accept(shortest)
		}
	case "maxLength":
		refuse(fill(t, c, current, *s.MaxLength+1), fmt.Sprintf("may not be more than %d", *s.MaxLength))
		accept(fill(t, c, current, *s.MaxLength))
	case "minItems":
		refuse(items(t, c, current, *s.MinItems-1), "should have at least")
		accept(items(t, c, current, *s.MinItems))
	case "maxItems":
		refuse(items(t, c, current, *s.MaxItems+1), fmt.Sprintf("must have at most %d items", *s.MaxItems))
		accept(items(t, c, current, *s.MaxItems))
	case "minimum":
		refuse(int64(*s.Minimum)-1, "should be greater than or equal to")
		accept(int64(*s.Minimum))
	case "maximum":
		refuse(int64(*s.Maximum)+1, "should be less than or equal to")
		accept(int64(*s.Maximum))
	case "unique":
		item := current.([]any)[0]
		mustRefuse(t, c.resource, with(t, full, c.path, []any{item, item}), field+"[1]", "Duplicate value")
	case "minProperties":
		refuse(object{}, "should have at least")
	case "maxProperties":
		// Every pair of members.
		members := current.(object)
		for prefix, change := range variants {
			if !strings.HasPrefix(prefix, c.path+".") {
				continue
			}
			both := maps.Clone(members)
			maps.Copy(both, get(t, base(t, c.resource, change), c.path).(object))
			if len(both) != 2 {
				t.Errorf("%s adds nothing to %v", prefix, slices.Collect(maps.Keys(members)))
			}
			refuse(both, "must have at most 1")
		}
	case "required":
		if c.path != "" {
			container := runtime.DeepCopyJSON(current.(object))
			delete(container, c.detail)
			mustRefuse(t, c.resource, with(t, full, c.path, container), join(field, c.detail), "Required value")
			return
		}
		delete(full, c.detail)
		mustRefuse(t, c.resource, full, c.detail, "Required value")
	default:
		t.Errorf("this test does not know the constraint %q", c.kind)
	}
}

// fill makes a string of n bytes that is right otherwise.
func fill(t *testing.T, c constraint, current any, n int64) string {
	t.Helper()
	now, ok := current.(string)
	if !ok {
		t.Fatalf("%s is not a string: %v", c.path, current)
	}
	prefix, letter := "", "a"
	switch {
	case c.schema.Pattern == durationPattern:
		return strings.Repeat("0", int(n)-len(now)) + now
	case c.schema.Pattern == addressPattern:
		return strings.Repeat("a", max(int(n)-2, 0)) + ":1"
	case strings.HasPrefix(now, "https://"):
		prefix = "https://"
	case strings.HasPrefix(now, "/"):
		prefix = "/"
	case c.schema.Pattern == `^[A-Z]+$`:
		letter = "A"
	}
	if int(n) < len(prefix) {
		return ""
	}
	return prefix + strings.Repeat(letter, int(n)-len(prefix))
}

// items makes a list of n items that differ where they must.
func items(t *testing.T, c constraint, current any, n int64) []any {
	t.Helper()
	first := current.([]any)[0]
	list := []any{}
	for i := range n {
		suffix := string([]byte{byte('A' + i/26), byte('A' + i%26)})
		if i == 0 {
			suffix = "" // it may be one that must be there
		}
		switch item := runtime.DeepCopyJSONValue(first).(type) {
		case string:
			if strings.Contains(item, ":") { // an address
				item, suffix = suffix, item
			}
			list = append(list, item+suffix)
		case object:
			for _, key := range c.schema.XListMapKeys {
				item[key] = item[key].(string) + suffix
			}
			list = append(list, item)
		}
	}
	return list
}

// get returns what is at path, in the first item of each list on the way.
func get(t *testing.T, content object, path string) any {
	t.Helper()
	if path == "" {
		return content
	}
	var at any = content
	for name := range strings.SplitSeq(path, ".") {
		field := strings.TrimRight(name, "[]")
		next, ok := at.(object)
		if !ok || next[field] == nil {
			t.Fatalf("the full object has no %s", path)
		}
		at = next[field]
		for range strings.Count(name, "[]") {
			at = at.([]any)[0]
		}
	}
	return at
}

// with returns a copy of content with value at path.
func with(t *testing.T, content object, path string, value any) object {
	t.Helper()
	changed := runtime.DeepCopyJSON(content)
	if list, ok := strings.CutSuffix(path, "[]"); ok {
		get(t, changed, list).([]any)[0] = value
		return changed
	}
	parent, name, found := cutLast(path)
	if !found {
		changed[path] = value
		return changed
	}
	container, ok := get(t, changed, parent).(object)
	if !ok {
		t.Fatalf("%s is not an object", parent)
	}
	container[name] = value
	return changed
}

func cutLast(path string) (parent, name string, found bool) {
	i := strings.LastIndexByte(path, '.')
	if i < 0 {
		return "", path, false
	}
	return path[:i], path[i+1:], true
}
