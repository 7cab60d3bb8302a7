// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	application "github.com/tokenward/tokenward/hack/demo/shop"
)

// caller calls the workload as its users do, prints each call as the curl line
// that repeats it, and compares the answer with what is expected.
type caller struct {
	base    string
	http    *http.Client
	out     io.Writer
	answers int // that were as expected
}

// call is one request. Token is sent as the bearer token when it is not empty;
// TokenName is what the printed line says instead of it.
type call struct {
	method, path string
	token        string
	tokenName    string
	body         string
	// header is one more header, as "Name: value".
	header string
}

// answerOf is what came back.
type answerOf struct {
	status int
	header http.Header
	body   []byte
}

// expectation is what the answer must be; empty fields are not compared.
type expectation struct {
	status int
	reason string
	// newToken: a token must be in the response header.
	newToken bool
	// check looks at the rest.
	check func(answerOf) error
}

// do makes the call, prints it and fails when the answer is not as expected.
func (c *caller) do(ctx context.Context, k call, want expectation) (answerOf, error) {
	fmt.Fprintf(c.out, "    $ %s\n", c.curl(k))
	request, err := http.NewRequestWithContext(ctx, k.method, c.base+k.path, strings.NewReader(k.body))
	if err != nil {
		return answerOf{}, err
	}
	if k.token != "" {
		request.Header.Set("Authorization", "Bearer "+k.token)
	}
	if k.body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	if name, value, ok := strings.Cut(k.header, ": "); ok {
		request.Header[name] = []string{value} // as it is written, not in canonical case
	}
	response, err := c.http.Do(request)
	if err != nil {
		return answerOf{}, fmt.Errorf("%s %s: %w", k.method, k.path, err)
	}
	defer response.Body.Close() //nolint:errcheck // read to its end below
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return answerOf{}, fmt.Errorf("%s %s: read the answer: %w", k.method, k.path, err)
	}
	got := answerOf{status: response.StatusCode, header: response.Header, body: body}
	c.print(got)
	if err := want.compare(got); err != nil {
		return got, fmt.Errorf("%s %s: %w", k.method, k.path, err)
	}
	c.answers++
	return got, nil
}

// get reads a page without printing it.
func (c *caller) get(ctx context.Context, path string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close() //nolint:errcheck // read to its end
	return io.ReadAll(io.LimitReader(response.Body, 1<<20))
}

// curl is the line for a shell, broken where it would be too wide to read.
func (c *caller) curl(k call) string {
	var line strings.Builder
	line.WriteString("curl -i")
	if k.method != http.MethodGet {
		line.WriteString(" -X " + k.method)
	}
	line.WriteString(" " + c.base + k.path)
	if k.token != "" {
		line.WriteString(` -H "Authorization: Bearer $` + k.tokenName + `"`)
	}
	if k.header != "" {
		line.WriteString(" -H '" + k.header + "'")
	}
	if k.body != "" {
		line.WriteString(" -H 'Content-Type: application/json' \\\n        -d '" + k.body + "'")
	}
	return line.String()
}

// print shows status, the headers that matter here, and the body; tokens shortened.
func (c *caller) print(a answerOf) {
	fmt.Fprintf(c.out, "    < %d %s\n", a.status, http.StatusText(a.status))
	for _, name := range []string{"Authorization", "Www-Authenticate", "Cache-Control", "Vary", "Retry-After"} {
		if value := a.header.Get(name); value != "" {
			fmt.Fprintln(c.out, wrap("    < "+name+": "+shorten(value)))
		}
	}
	if body := strings.TrimSpace(string(a.body)); body != "" {
		fmt.Fprintln(c.out, wrap("    "+shorten(body)))
	}
}

func (want expectation) compare(got answerOf) error {
	if got.status != want.status {
		return fmt.Errorf("answered %d, expected %d", got.status, want.status)
	}
	if want.reason != "" && got.reason() != want.reason {
		return fmt.Errorf("refused for the reason %q, expected %q", got.reason(), want.reason)
	}
	if fresh := got.newToken() != ""; fresh != want.newToken {
		return fmt.Errorf("a new token in the response header: %t, expected %t", fresh, want.newToken)
	}
	if want.check != nil {
		return want.check(got)
	}
	return nil
}

func (a answerOf) reason() string {
	var problem struct {
		Reason string `json:"reason"`
	}
	_ = json.Unmarshal(a.body, &problem)
	return problem.Reason
}

// newToken is the token in the response header, or "".
func (a answerOf) newToken() string {
	token, _ := strings.CutPrefix(a.header.Get("Authorization"), "Bearer ")
	return token
}

// loginToken is the token in the body of a login.
func (a answerOf) loginToken() (string, error) {
	var body struct {
		AccessToken  string `json:"access_token"`
		RefreshToken string `json:"refresh_token"`
	}
	if err := json.NewDecoder(bytes.NewReader(a.body)).Decode(&body); err != nil {
		return "", fmt.Errorf("read the answer to the login: %w", err)
	}
	if body.AccessToken == "" || body.RefreshToken != "" {
		return "", fmt.Errorf("a login must answer an access token and nothing else")
	}
	return body.AccessToken, nil
}

// sawUser expects the application to have seen user and a token of that generation.
func sawUser(user string, generation int64) func(answerOf) error {
	return func(a answerOf) error {
		var got application.Seen
		if err := json.Unmarshal(a.body, &got); err != nil {
			return fmt.Errorf("read the application's answer: %w", err)
		}
		if got.User != user || got.Generation == nil || *got.Generation != generation {
			return fmt.Errorf("the application saw %s, expected user %q and token generation %d", a.body, user, generation)
		}
		return nil
	}
}

// wrap breaks a line after commas and spaces, so that a terminal need not.
func wrap(line string) string {
	const width, indent = 98, "      "
	for from := 0; len(line)-from > width; {
		at := strings.LastIndexAny(line[from+len(indent):from+width], ", ")
		if at < 0 {
			break // one long word
		}
		from += len(indent) + at + 1
		line = line[:from] + "\n" + indent + strings.TrimLeft(line[from:], " ")
		from++
	}
	return line
}

// shorten cuts every token in s down to its ends.
func shorten(s string) string {
	words := strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune("\" ,:{}\n", r) })
	slices.SortFunc(words, func(a, b string) int { return len(b) - len(a) })
	for _, word := range words {
		if strings.HasPrefix(word, "eyJ") && len(word) > 40 {
			s = strings.ReplaceAll(s, word, word[:12]+"…"+word[len(word)-6:])
		}
	}
	return s
}

func newCaller(base string, out io.Writer) *caller {
	// A connection for each request, as with curl: a Service spreads them over its pods.
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true
	return &caller{base: base, out: out, http: &http.Client{Timeout: 30 * time.Second, Transport: transport}}
}
