// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tokenward/tokenward/internal/testenv"
)

// block is a fenced example.
type block struct {
	file, lang, text string
	line             int
}

func (b block) String() string { return fmt.Sprintf("%s:%d (%s)", b.file, b.line, b.lang) }

// documents are those for users: README.md and docs/, but for the decisions, which show
// what was thought of and not what there is.
func documents(t *testing.T) []string {
	t.Helper()
	names := []string{"README.md"}
	err := filepath.WalkDir(filepath.Join(testenv.Root(), "docs"), func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && entry.Name() == "adr":
			return filepath.SkipDir
		case filepath.Ext(path) == ".md":
			name, err := filepath.Rel(testenv.Root(), path)
			names = append(names, filepath.ToSlash(name))
			return err
		}
		return nil
	})
	if err != nil || len(names) < 10 {
		t.Fatalf("documents: %v, %v", names, err)
	}
	return names
}

// isPage says whether a document is about one store or source: its examples stand alone,
// while those of the others go on from the README.
func isPage(name string) bool { return strings.Count(name, "/") > 1 }

func read(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(testenv.Root(), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// fence finds examples, and nothing within a line: a fence ends its line.
var fence = regexp.MustCompile("(?s)(?:^|\n)```([a-z]*)\n(.*?\n)```(?:\n|$)")

// allBlocks are the examples of one document.
func allBlocks(t *testing.T, name string) []block {
	t.Helper()
	content := read(t, name)
	var found []block
	for _, at := range fence.FindAllStringSubmatchIndex(content, -1) {
		line := 1 + strings.Count(content[:at[2]], "\n")
		found = append(found, block{file: name, lang: content[at[2]:at[3]], text: content[at[4]:at[5]], line: line})
	}
	return found
}

// blocks are the examples in a language, of one document.
func blocks(t *testing.T, name, lang string) []block {
	t.Helper()
	return slices.DeleteFunc(allBlocks(t, name), func(b block) bool { return b.lang != lang })
}

// TestExamplesAreOfKnownLanguages keeps an example from being overlooked by all tests.
func TestExamplesAreOfKnownLanguages(t *testing.T) {
	known := []string{
		"",     // a drawing
		"diff", // checked by TestNamesOfOursAreKnown
		"go", "js", "json", "sh", "yaml",
	}
	ofPages := map[string][]string{
		"docs/users/sql.md": {"sql"}, "docs/users/http.md": {"http", "python"},
		"docs/stores/redis.md": {"conf"}, "docs/stores/postgres.md": {"sql"},
	}
	for _, name := range documents(t) {
		for _, found := range allBlocks(t, name) {
			if !slices.Contains(known, found.lang) && !slices.Contains(ofPages[name], found.lang) {
				t.Errorf("no test looks at %s", found)
			}
		}
	}
}

var (
	anchored = regexp.MustCompile(`\]\(([^)\s#]*)#([^)\s]+)\)`)
	heading  = regexp.MustCompile(`(?m)^#{1,6} (.+)$`)
	dropped  = regexp.MustCompile(`[^a-z0-9 _-]`)
)

// TestLinksLeadToHeadings: that the files exist is tested in test/repository.
func TestLinksLeadToHeadings(t *testing.T) {
	for _, name := range documents(t) {
		if name == "docs/reference.md" {
			continue // generated
		}
		for _, link := range anchored.FindAllStringSubmatch(read(t, name), -1) {
			if strings.Contains(link[1], "://") {
				continue
			}
			target := name
			if link[1] != "" {
				target = filepath.Join(filepath.Dir(name), link[1])
			}
			if !slices.Contains(anchors(read(t, target)), link[2]) {
				t.Errorf("%s links to %s#%s, and there is no such heading", name, link[1], link[2])
			}
		}
	}
}

// anchors are what links to a page may name.
func anchors(page string) []string {
	var found []string
	for _, match := range heading.FindAllStringSubmatch(page, -1) {
		found = append(found, strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(match[1]), ""), " ", "-"))
	}
	return found
}

// sources calls visit with every Go file of the repository that is no test.
func sources(t *testing.T, visit func(path, content string), folders ...string) {
	t.Helper()
	if len(folders) == 0 {
		folders = []string{"api", "controllers", "internal", "issuer", "sidecar", "main.go"}
	}
	for _, folder := range folders {
		err := filepath.WalkDir(filepath.Join(testenv.Root(), folder), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			content, err := os.ReadFile(path)
			visit(path, string(content))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// column gives the code spans of one column of every table in a document, numbered from 0.
func column(content string, number int) []string {
	var found []string
	for line := range strings.Lines(content) {
		cells := strings.Split(line, "|")
		if strings.HasPrefix(line, "|") && len(cells) > number+2 {
			found = append(found, spans(cells[number+1])...)
		}
	}
	return found
}

var span = regexp.MustCompile("`([^`\n]+)`")

// spans are the code spans of a text.
func spans(text string) []string {
	var found []string
	for _, match := range span.FindAllStringSubmatch(text, -1) {
		found = append(found, match[1])
	}
	return found
}

// section is what stands below a heading, down to the next one of its level or above.
func section(t *testing.T, content, heading string) string {
	t.Helper()
	_, rest, ok := strings.Cut(content, "\n"+heading+"\n")
	if !ok {
		t.Fatalf("there is no heading %q", heading)
	}
	level := strings.Count(strings.SplitN(heading, " ", 2)[0], "#")
	if end := regexp.MustCompile(fmt.Sprintf(`(?m)^#{1,%d} `, level)).FindStringIndex(rest); end != nil {
		rest = rest[:end[0]]
	}
	return rest
}
