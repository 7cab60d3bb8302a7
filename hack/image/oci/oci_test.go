// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package oci_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tokenward/tokenward/hack/image/oci"
)

const name = "example.com/group/program:1"

// write stores an image of one program whose content is text, for two platforms.
func write(t *testing.T, l oci.Layout, name, text string) {
	t.Helper()
	image := oci.Image{Name: name, Entrypoint: []string{"/bin/program"}, User: "65532:65532"}
	for _, architecture := range []string{"amd64", "arm64"} {
		path := filepath.Join(t.TempDir(), "program")
		if err := os.WriteFile(path, []byte(text+architecture), 0o600); err != nil {
			t.Fatal(err)
		}
		image.Platforms = append(image.Platforms, oci.Platform{OS: "linux", Architecture: architecture, Files: map[string]string{"/bin/program": path}})
	}
	if err := l.Write(image); err != nil {
		t.Fatal(err)
	}
}

// registry pulls as a client of the distribution specification does.
type registry struct {
	t      *testing.T
	url    string
	client *http.Client
}

func serve(t *testing.T, l oci.Layout) registry {
	t.Helper()
	server := httptest.NewServer(l)
	t.Cleanup(server.Close)
	return registry{t: t, url: server.URL, client: server.Client()}
}

func (r registry) status(method, path string) int {
	r.t.Helper()
	request, err := http.NewRequest(method, r.url+path, http.NoBody)
	if err != nil {
		r.t.Fatal(err)
	}
	response, err := r.client.Do(request)
	if err != nil {
		r.t.Fatal(err)
	}
	defer response.Body.Close() //nolint:errcheck // read to its end
	return response.StatusCode
}

// get reads a path, compares its content with the digest that the header says, and
// with want when that is not empty.
func (r registry) get(path, want, mediaType string) []byte {
	r.t.Helper()
	response, err := r.client.Get(r.url + path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer response.Body.Close() //nolint:errcheck // read to its end
	content, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		r.t.Fatalf("GET %s: %s, %v", path, response.Status, err)
	}
	sum := sha256.Sum256(content)
	is := "sha256:" + hex.EncodeToString(sum[:])
	if said := response.Header.Get("Docker-Content-Digest"); said != is || want != "" && want != is {
		r.t.Errorf("GET %s has the digest %s, said to be %s, wanted %q", path, is, said, want)
	}
	if got := response.Header.Get("Content-Type"); mediaType != "" && got != mediaType {
		r.t.Errorf("GET %s has the type %s, want %s", path, got, mediaType)
	}
	return content
}

type descriptor struct {
	MediaType, Digest string
	Platform          struct{ Architecture, OS string }
}

func TestAnImageIsPulledByItsName(t *testing.T) {
	layout := oci.Layout(t.TempDir())
	write(t, layout, name, "text of ")
	r := serve(t, layout)
	if got := r.status(http.MethodGet, "/v2/"); got != http.StatusOK {
		t.Errorf("GET /v2/ answers %d", got)
	}
	if got := r.status(http.MethodHead, "/v2/group/program/manifests/1?ns=example.com"); got != http.StatusOK {
		t.Errorf("HEAD of a manifest answers %d", got)
	}

	var variants struct{ Manifests []descriptor }
	decode(t, r.get("/v2/group/program/manifests/1?ns=example.com", "", "application/vnd.oci.image.index.v1+json"), &variants)
	if len(variants.Manifests) != 2 {
		t.Fatalf("the index has %d manifests, want one per platform", len(variants.Manifests))
	}
	for _, v := range variants.Manifests {
		var manifest struct {
			Config descriptor
			Layers []descriptor
		}
		decode(t, r.get("/v2/group/program/manifests/"+v.Digest+"?ns=example.com", v.Digest, v.MediaType), &manifest)
		var config struct {
			Architecture, OS string
			Config           struct {
				User       string
				Entrypoint []string
			}
			RootFS struct {
				DiffIDs []string `json:"diff_ids"`
			}
		}
		decode(t, r.get("/v2/group/program/blobs/"+manifest.Config.Digest, manifest.Config.Digest, ""), &config)
		if config.Architecture != v.Platform.Architecture || config.OS != "linux" || config.Config.User != "65532:65532" || !slices.Equal(config.Config.Entrypoint, []string{"/bin/program"}) {
			t.Errorf("configuration %+v of platform %+v", config, v.Platform)
		}
		layer := unpack(t, r.get("/v2/group/program/blobs/"+manifest.Layers[0].Digest, manifest.Layers[0].Digest, ""))
		sum := sha256.Sum256(layer)
		if want := "sha256:" + hex.EncodeToString(sum[:]); !slices.Equal(config.RootFS.DiffIDs, []string{want}) {
			t.Errorf("diff_ids are %v, want %s", config.RootFS.DiffIDs, want)
		}
		if got := fileIn(t, layer, "bin/program"); got != "text of "+v.Platform.Architecture {
			t.Errorf("the program for %s is %q", v.Platform.Architecture, got)
		}
	}
}

func decode(t *testing.T, content []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(content, into); err != nil {
		t.Fatalf("%v in %s", err, content)
	}
}

func unpack(t *testing.T, layer []byte) []byte {
	t.Helper()
	reader, err := gzip.NewReader(bytes.NewReader(layer))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

// fileIn reads a file that everybody may run.
func fileIn(t *testing.T, layer []byte, path string) string {
	t.Helper()
	for reader := tar.NewReader(bytes.NewReader(layer)); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			t.Fatalf("no %s in the layer", path)
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Name == path {
			if header.Mode != 0o555 || header.Uid != 0 {
				t.Errorf("%s has mode %o and owner %d", path, header.Mode, header.Uid)
			}
			content, err := io.ReadAll(reader)
			if err != nil {
				t.Fatal(err)
			}
			return string(content)
		}
	}
}

func TestANameIsReplacedAndOthersStay(t *testing.T) {
	layout := oci.Layout(t.TempDir())
	digest := func(name string) string {
		t.Helper()
		d, err := layout.Digest(name)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	write(t, layout, name, "one")
	write(t, layout, "example.com/other:1", "other")
	one, other := digest(name), digest("example.com/other:1")
	write(t, layout, name, "one")
	if again := digest(name); again != one {
		t.Errorf("equal files make the images %s and %s", one, again)
	}
	write(t, layout, name, "two")
	if digest(name) == one || digest("example.com/other:1") != other {
		t.Error("a new image under a name must replace that one and no other")
	}
	r := serve(t, layout)
	if got := r.status(http.MethodGet, "/v2/group/program/manifests/"+one); got != http.StatusOK {
		t.Errorf("a pull that is under way lost its image: %d", got)
	}
	if err := layout.Prune(); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{
		"/v2/group/program/manifests/" + one:          http.StatusNotFound,
		"/v2/group/program/manifests/" + digest(name): http.StatusOK,
		"/v2/other/manifests/1?ns=example.com":        http.StatusOK,
	} {
		if got := r.status(http.MethodGet, path); got != want {
			t.Errorf("after Prune GET %s answers %d, want %d", path, got, want)
		}
	}
	blobs, err := os.ReadDir(filepath.Join(string(layout), "blobs", "sha256"))
	if err != nil || len(blobs) != 2*(1+2*3) { // an index, and per platform manifest, configuration and layer
		t.Errorf("%d blobs are left of two images: %v", len(blobs), err)
	}
}

func TestTheRegistryGivesImagesOnly(t *testing.T) {
	dir := t.TempDir()
	layout := oci.Layout(filepath.Join(dir, "layout"))
	write(t, layout, name, "text")
	if err := os.WriteFile(filepath.Join(dir, "secret"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := serve(t, layout)
	for _, path := range []string{
		"/v2/group/program/manifests/2?ns=example.com",
		"/v2/group/program/manifests/1?ns=other.example.com",
		"/v2/group/program/manifests/1",
		"/v2/group/program/blobs/sha256:" + strings.Repeat("0", 64),
		"/v2/group/program/blobs/index.json",
		"/v2/group/program/blobs/sha256:..%2f..%2f..%2fsecret",
		"/index.json",
	} {
		if got := r.status(http.MethodGet, path); got != http.StatusNotFound {
			t.Errorf("GET %s answers %d, want 404", path, got)
		}
	}
	if got := r.status(http.MethodPost, "/v2/group/program/blobs/uploads/"); got != http.StatusMethodNotAllowed {
		t.Errorf("a push answers %d, want 405", got)
	}
}
