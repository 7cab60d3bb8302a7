// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"encoding/json"
	"net/http"
	"os"
	"regexp"
	"strings"
)

var (
	// The paths of the OCI distribution specification 1.1 that a pull needs.
	pathOfPull = regexp.MustCompile(`^/v2/(.+)/(manifests|blobs)/([^/]+)$`)
	isDigest   = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

// ServeHTTP answers as a registry that everybody may pull from. As the mirror of
// other registries it is told the host that an image's name begins with in the
// parameter ns, as containerd does; images of that host are then found by it.
func (l Layout) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.Error(w, "read only", http.StatusMethodNotAllowed)
		return
	}
	if r.URL.Path == "/v2/" || r.URL.Path == "/v2" {
		return
	}
	parts := pathOfPull.FindStringSubmatch(r.URL.Path)
	if parts == nil {
		http.NotFound(w, r)
		return
	}
	reference := parts[3]
	if parts[2] == "manifests" && !isDigest.MatchString(reference) {
		name := parts[1] + ":" + reference
		if host := r.URL.Query().Get("ns"); host != "" {
			name = host + "/" + name
		}
		found, err := l.Digest(name)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		reference = found
	}
	if !isDigest.MatchString(reference) {
		http.NotFound(w, r)
		return
	}
	l.serveBlob(w, r, reference)
}

func (l Layout) serveBlob(w http.ResponseWriter, r *http.Request, digest string) {
	file, err := os.Open(l.blob(digest))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	defer file.Close() //nolint:errcheck // only read
	info, err := file.Stat()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	mediaType := "application/octet-stream"
	if strings.Contains(r.URL.Path, "/manifests/") {
		var says struct{ MediaType string }
		if err := json.NewDecoder(file).Decode(&says); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		mediaType = says.MediaType
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Docker-Content-Digest", digest)
	http.ServeContent(w, r, "", info.ModTime(), file)
}
