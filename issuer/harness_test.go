// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package issuer_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/keyring"
	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/internal/servingcert"
	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/internal/users/password"
	"github.com/tokenward/tokenward/issuer"
)

func splitYAML(data []byte) [][]byte { return bytes.Split(data, []byte("\n---\n")) }

// skipClock is the real one, and may skip ahead.
type skipClock struct{ skipped atomic.Int64 }

func (c *skipClock) Now() time.Time { return time.Now().Add(time.Duration(c.skipped.Load())) }

func (c *skipClock) Since(t time.Time) time.Duration { return c.Now().Sub(t) }

// instance is one running issuer.
type instance struct {
	url      string
	client   *http.Client
	registry *prometheus.Registry
	stop     func()
	done     <-chan struct{}

	mu  sync.Mutex
	log strings.Builder
}

func (i *instance) write(prefix, args string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.log.WriteString(prefix + args + "\n")
}

func (i *instance) logged() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.log.String()
}

// asIssuer is who the issuer is to the API server.
var asIssuer = rest.ImpersonationConfig{
	UserName: "system:serviceaccount:" + operator + ":" + issuer.ServiceAccount,
	Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:" + operator, "system:authenticated"},
}

// startIssuer runs an issuer as its own service account until the test ends.
func startIssuer(t *testing.T, clock *skipClock, change ...func(*issuer.Options)) *instance {
	t.Helper()
	as := rest.CopyConfig(shared.config)
	as.Impersonate = asIssuer
	return startIssuerAs(t, as, clock, change...)
}

func startIssuerAs(t *testing.T, as *rest.Config, clock *skipClock, change ...func(*issuer.Options)) *instance {
	t.Helper()
	i := &instance{registry: prometheus.NewRegistry()}
	log := funcr.NewJSON(func(line string) { i.write("", line) }, funcr.Options{Verbosity: 1})
	mgr, err := ctrl.NewManager(as, ctrl.Options{
		Scheme: issuer.Scheme(), Cache: issuer.CacheOptions(operator), Logger: log,
		Metrics:    metricsserver.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: new(true)},
	})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	options := issuer.Options{Namespace: operator, Listener: listener, Clock: clock, Log: log, Metrics: i.registry}
	for _, f := range change {
		f(&options)
	}
	if err := issuer.SetupWithManager(mgr, options); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context())) // ended by stop, in order
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := mgr.Start(ctx); err != nil {
			t.Errorf("the issuer ended with: %v", err)
		}
	}()
	i.done = done
	i.stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(func() {
		i.client.CloseIdleConnections()
		i.stop()
		if t.Failed() {
			t.Log(i.logged())
		}
	})
	i.url = "https://" + listener.Addr().String()
	i.client = &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: certificate(t), MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2: true,
	}}
	return i
}

var authority struct {
	sync.Mutex
	pool *x509.CertPool
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// certificate puts the serving certificate in place, once, and returns what to trust.
func certificate(t *testing.T) *x509.CertPool {
	t.Helper()
	authority.Lock()
	defer authority.Unlock()
	if authority.pool != nil {
		return authority.pool
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	authority.cert, err = x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	authority.key, authority.pool = key, x509.NewCertPool()
	authority.pool.AddCert(authority.cert)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: operator, Name: servingcert.IssuerSecret}, Type: corev1.SecretTypeTLS}
	issued, _ := reissue(t, secret)
	create(t, issued)
	return authority.pool
}

// reissue puts another certificate of the authority into the Secret.
func reissue(t *testing.T, secret *corev1.Secret) (renewed *corev1.Secret, serial string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, authority.cert, key.Public(), authority.key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	secret.Data = map[string][]byte{
		corev1.TLSCertKey:       pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		corev1.TLSPrivateKeyKey: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	}
	return secret, template.SerialNumber.String()
}

// servedSerial is the serial number of the certificate that an issuer shows.
func servedSerial(t *testing.T, i *instance) string {
	t.Helper()
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: certificate(t), MinVersion: tls.VersionTLS12}}
	connection, err := dialer.DialContext(t.Context(), "tcp", strings.TrimPrefix(i.url, "https://"))
	if err != nil {
		return err.Error()
	}
	defer func() { _ = connection.Close() }()
	return connection.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String()
}

func create(t *testing.T, objects ...client.Object) {
	t.Helper()
	for _, object := range objects {
		if err := shared.admin.Create(t.Context(), object); err != nil {
			t.Fatalf("create %T %s: %v", object, object.GetName(), err)
		}
	}
}

// tenant is a namespace with a policy that is ready to serve, but for the grant.
type tenant struct {
	t         *testing.T
	namespace string
	policy    *api.TokenPolicy
	key       *api.SigningKey
	ring      *keyring.Ring
	clock     *skipClock
	podToken  string
}

const (
	rightPassword = "c4n4ry-right-password"
	wrongPassword = "c4n4ry-wrong-password"
)

// passwordHash is made once: hashing is slow under the race detector.
var passwordHash = sync.OnceValue(func() string { return password.Hash(rightPassword) })

func entry(attributes string) []byte {
	return []byte(`{"password": "` + passwordHash() + `"` + attributes + `}`)
}

func newTenant(t *testing.T, change ...func(*api.TokenPolicySpec)) *tenant {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "shop-"}}
	create(t, namespace)
	n := &tenant{t: t, namespace: namespace.Name, clock: &skipClock{}}
	n.key = &api.SigningKey{ObjectMeta: metav1.ObjectMeta{Namespace: n.namespace, Name: "shop"}, Spec: api.SigningKeySpec{Algorithm: "ES256"}}
	n.policy = &api.TokenPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: n.namespace, Name: "web"},
		Spec: api.TokenPolicySpec{
			SigningKeyRef: api.SigningKeyReference{Name: "shop"},
			Issuer:        "https://shop.example.com", Audiences: []string{"shop-api"},
			AccessToken: api.AccessToken{Claims: []api.ClaimMapping{{Claim: "role", Attribute: "role"}}},
			Users:       api.Users{Secret: &api.SecretUsers{Name: "shop-users"}},
			Store:       api.Store{ConfigMap: &api.ConfigMapStore{Shards: 2, MaxSessions: 100}},
		},
	}
	for _, f := range change {
		f(&n.policy.Spec)
	}
	create(t, n.key, n.policy,
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: n.namespace, Name: "default"}},
		&corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: n.namespace, Name: "shop-users"},
			Data:       map[string][]byte{"alice": entry(`, "role": "admin"`), "bob": entry(`, "disabled": true`)},
		})
	n.ring = keyring.New(string(n.key.UID))
	n.advance(keyring.Plan{})
	n.podToken = n.requestToken("pod-1", protocol.Audience)
	return n
}

// advance takes the keys a step on, as the manager's controller does.
func (n *tenant) advance(plan keyring.Plan) {
	n.t.Helper()
	plan.Algorithm, plan.Interval, plan.PublishBefore, plan.Retention = token.ES256, 720*time.Hour, 5*time.Minute, time.Hour
	plan.Now = n.clock.Now()
	plan.Generate = token.GenerateKey
	next, _, _, err := keyring.Advance(n.ring, plan)
	if err != nil {
		n.t.Fatal(err)
	}
	n.ring = next
	document, err := next.Marshal()
	if err != nil {
		n.t.Fatal(err)
	}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: operator, Name: "skey-" + string(n.key.UID), Labels: map[string]string{"tokenward.io/component": "signing-key"},
		},
		Data: map[string][]byte{"keyring.json": document},
	}
	if err := shared.admin.Create(n.t.Context(), secret); apierrors.IsAlreadyExists(err) {
		err = shared.admin.Update(n.t.Context(), secret)
		if err != nil {
			n.t.Fatal(err)
		}
	} else if err != nil {
		n.t.Fatal(err)
	}
}

// requestToken gets a real service account token, bound to a pod unless its name is empty.
func (n *tenant) requestToken(pod string, audiences ...string) string {
	n.t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: n.namespace, Name: "default"}}
	return requestToken(n.t, account, pod, audiences...)
}

func requestToken(t *testing.T, account *corev1.ServiceAccount, pod string, audiences ...string) string {
	t.Helper()
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: audiences}}
	if pod != "" {
		object := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: account.Namespace, Name: pod},
			Spec: corev1.PodSpec{
				ServiceAccountName: account.Name, Containers: []corev1.Container{{Name: "app", Image: "app"}},
			},
		}
		if err := shared.admin.Create(t.Context(), object); client.IgnoreAlreadyExists(err) != nil {
			t.Fatal(err)
		}
		if err := shared.admin.Get(t.Context(), client.ObjectKeyFromObject(object), object); err != nil {
			t.Fatal(err)
		}
		request.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod, UID: object.UID}
	}
	if err := shared.admin.SubResource("token").Create(t.Context(), account, request); err != nil {
		t.Fatal(err)
	}
	return request.Status.Token
}

// users changes the Secret, and lets the issuers notice.
func (n *tenant) users(change func(data map[string][]byte)) {
	n.t.Helper()
	secret := &corev1.Secret{}
	if err := shared.admin.Get(n.t.Context(), client.ObjectKey{Namespace: n.namespace, Name: "shop-users"}, secret); err != nil {
		n.t.Fatal(err)
	}
	change(secret.Data)
	if err := shared.admin.Update(n.t.Context(), secret); err != nil {
		n.t.Fatal(err)
	}
	n.pass(2 * time.Second)
}

func (n *tenant) pass(d time.Duration) { n.clock.skipped.Add(int64(d)) }

// answer of an issuer.
type answer struct {
	status  int
	header  http.Header
	body    string
	token   string
	problem protocol.Problem
}

func (a answer) String() string { return fmt.Sprintf("%d %s", a.status, a.body) }

// call makes a request as the tenant's pod.
func (n *tenant) call(i *instance, method string, call protocol.Call, body string) answer {
	got, err := n.try(i, n.podToken, method, protocol.Path(n.namespace, "web", call), body)
	if err != nil {
		n.t.Helper()
		n.t.Fatal(err)
	}
	return got
}

func (n *tenant) try(i *instance, podToken, method, path, body string) (answer, error) {
	r, err := http.NewRequestWithContext(n.t.Context(), method, i.url+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	r.Header.Set("Authorization", "Bearer "+podToken)
	r.Header.Set("Content-Type", "application/json")
	response, err := i.client.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = response.Body.Close() }()
	read, err := io.ReadAll(response.Body)
	if err != nil {
		return answer{}, err
	}
	got := answer{status: response.StatusCode, header: response.Header, body: string(read)}
	var granted protocol.TokenResponse
	if json.Unmarshal(read, &granted) == nil {
		got.token = granted.AccessToken
	}
	_ = json.Unmarshal(read, &got.problem) // an answer may be no problem
	return got, nil
}

func (n *tenant) login(i *instance, id, secret string) answer {
	n.t.Helper()
	return n.call(i, http.MethodPost, protocol.CallLogin, `{"id": "`+id+`", "password": "`+secret+`"}`)
}

func (n *tenant) exchange(i *instance, call protocol.Call, raw string) answer {
	n.t.Helper()
	return n.call(i, http.MethodPost, call, `{"access_token": "`+raw+`"}`)
}

// serving waits until an issuer serves the tenant's policy with its keys of now.
func (n *tenant) serving(issuers ...*instance) {
	n.t.Helper()
	for _, i := range issuers {
		eventually(n.t, "the policy is served", func() (bool, string) {
			got, err := n.try(i, n.podToken, http.MethodGet, protocol.Path(n.namespace, "web", protocol.CallKeys), "")
			if err != nil {
				return false, err.Error()
			}
			set, err := token.ParseKeySet([]byte(got.body))
			return err == nil && set.Version() == n.ring.Version, got.String()
		})
	}
}

func eventually(t *testing.T, what string, is func() (bool, string)) {
	t.Helper()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(patience)
	for {
		ok, last := is()
		if ok {
			return
		}
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("waited in vain until %s; last: %s", what, last)
		}
	}
}

func want(t *testing.T, got answer, status int, reason token.Reason) {
	t.Helper()
	if got.status != status || got.problem.Reason != reason {
		t.Fatalf("got %s, want %d %s", got, status, reason)
	}
}
