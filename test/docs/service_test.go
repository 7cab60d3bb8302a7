// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"bufio"
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/users"
	usershttp "github.com/tokenward/tokenward/internal/users/http"
)

const httpPage = "docs/users/http.md"

// message is an example of HTTP: its first line, its header, and its body.
type message struct {
	first  string
	header textproto.MIMEHeader
	body   string
}

func messages(t *testing.T) (found []message) {
	t.Helper()
	for _, example := range blocks(t, httpPage, "http") {
		reader := textproto.NewReader(bufio.NewReader(strings.NewReader(example.text)))
		first, err := reader.ReadLine()
		if err != nil {
			t.Fatalf("%s: %v", example, err)
		}
		header, err := reader.ReadMIMEHeader()
		if err != nil {
			t.Fatalf("%s: %v", example, err)
		}
		body, err := io.ReadAll(reader.R)
		if err != nil {
			t.Fatalf("%s: %v", example, err)
		}
		found = append(found, message{first, header, string(body)})
	}
	return found
}

// service opens the source of the page's policy, at another address.
func (p *page) service(t *testing.T, host string) *usershttp.Source {
	t.Helper()
	spec := p.policies[0].Spec.Users.HTTP
	data := p.secrets[spec.SecretRef.Name]
	source, err := usershttp.New(usershttp.Options{
		URL:   moved(t, []byte(spec.URL), map[string]string{"users.shop.svc:8443": host}),
		Token: users.NewCredential(string(data["token"])), CA: data["ca.crt"], Fields: spec.Fields,
		Dial: local().DialContext, Timeout: 20 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(source.Close)
	return source
}

// TestTheExchangesOfTheServicesPageAreThoseOfTheCode has the code ask its two questions
// and gives it the page's answer.
func TestTheExchangesOfTheServicesPageAreThoseOfTheCode(t *testing.T) {
	shown := messages(t)
	if len(shown) != 3 {
		t.Fatalf("%d examples of HTTP, want two questions and an answer", len(shown))
	}
	answer := shown[2]
	asked := make(chan message, 2)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked <- message{r.Method + " " + r.URL.Path + " HTTP/1.1", textproto.MIMEHeader(r.Header), string(body)}
		for name := range answer.header {
			w.Header().Set(name, answer.header.Get(name))
		}
		_, _ = io.WriteString(w, answer.body)
	}))
	defer server.Close()
	p := follow(t, httpPage, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	source := p.service(t, server.Listener.Addr().String())
	user, err := source.Authenticate(t.Context(), p.logins[0])
	if err != nil {
		t.Fatalf("the page's answer: %v", err)
	}
	again, err := source.Lookup(t.Context(), user.Subject)
	if err != nil || !reflect.DeepEqual(user, again) {
		t.Errorf("the page's answer at a refresh is %+v, %v", again, err)
	}
	for i := range 2 {
		question := <-asked
		if question.first != shown[i].first || !sameJSON(t, question.body, shown[i].body) {
			t.Errorf("the code asks\n%s\n%s\nand the page shows\n%s\n%s", question.first, question.body, shown[i].first, shown[i].body)
		}
		for _, name := range slices.Sorted(maps.Keys(shown[i].header)) {
			if want := shown[i].header.Get(name); name == "Host" {
				if !strings.Contains(p.policies[0].Spec.Users.HTTP.URL, "//"+want+"/") {
					t.Errorf("the page's policy does not ask %s", want)
				}
			} else if got := question.header.Get(name); got != want {
				t.Errorf("the code sends %s: %q, the page shows %q", name, got, want)
			}
		}
	}
	var said struct{ Attributes map[string]any }
	if err := json.Unmarshal([]byte(answer.body), &said); err != nil || answer.first != "HTTP/1.1 200 OK" || !reflect.DeepEqual(said.Attributes, user.Attributes) {
		t.Errorf("the code understands %v, the page shows %s %s (%v)", user.Attributes, answer.first, answer.body, err)
	}
}

func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	var left, right any
	if err := json.Unmarshal([]byte(a), &left); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(b), &right); err != nil {
		t.Fatal(err)
	}
	return reflect.DeepEqual(left, right)
}

// TestTheServiceOfThePageLetsItsUserIn runs it where there is a Python. Elsewhere only
// its exchanges are checked, by the test above.
func TestTheServiceOfThePageLetsItsUserIn(t *testing.T) {
	examples := blocks(t, httpPage, "python")
	if len(examples) != 1 {
		t.Fatalf("%d examples in Python, want 1", len(examples))
	}
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Log("there is no Python here: the page's service was not run")
		return
	}
	// The certificate of a test server of Go, which is its own CA.
	certified := httptest.NewTLSServer(nil)
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certified.Certificate().Raw})
	key, err := x509.MarshalPKCS8PrivateKey(certified.TLS.Certificates[0].PrivateKey)
	address := certified.Listener.Addr().String()
	certified.Close() // and its port is free
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t)
	s.write(t, "tls.crt", certificate)
	s.write(t, "tls.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	s.write(t, "service.py", []byte(moved(t, []byte(examples[0].text), map[string]string{`("", 8443)`: `("` + host + `", ` + port + `)`})))
	var output bytes.Buffer
	service := exec.CommandContext(t.Context(), python, filepath.Join(s.dir, "service.py"))
	service.Dir, service.Stdout, service.Stderr = s.dir, &output, &output
	if err := service.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	go func() { _ = service.Wait(); close(stopped) }()
	defer func() { _ = service.Process.Kill(); <-stopped }()

	p := follow(t, httpPage, certificate)
	source := p.service(t, address)
	deadline := time.Now().Add(30 * time.Second)
	for err = source.Check(t.Context()); err != nil; err = source.Check(t.Context()) {
		select {
		case <-stopped:
			t.Fatalf("the service ended:\n%s", output.String())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("the service does not answer: %v", err)
		}
	}
	p.eachLogin(t, func(t *testing.T, policy *api.TokenPolicy, login map[string]string) {
		t.Helper()
		letsIn(t, source, policy, login)
	})
}
