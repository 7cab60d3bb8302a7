// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"
)

// lockHolder is the environment variable that makes this test a process that holds a lock.
const lockHolder = "TOKENWARD_HOLD_LOCK"

func TestMain(m *testing.M) {
	if path := os.Getenv(lockHolder); path != "" {
		if err := holdLock(path); err != nil {
			_, _ = os.Stdout.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		_, _ = os.Stdout.WriteString("held\n")
		_, _ = bufio.NewReader(os.Stdin).ReadByte() // until its end
		return
	}
	os.Exit(m.Run())
}

func hold(t *testing.T, path string) (command *exec.Cmd, said string) {
	t.Helper()
	command = exec.Command(os.Args[0])
	command.Env = append(os.Environ(), lockHolder+"="+path)
	if _, err := command.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = command.Process.Kill() })
	said, err = bufio.NewReader(output).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return command, strings.TrimSpace(said)
}

func TestANodeIsFoundByTheLockOfItsProcess(t *testing.T) {
	m := machine{node: node{Number: 1, State: t.TempDir()}}
	if pid := m.pid(); pid != 0 {
		t.Errorf("a node that never ran has process %d", pid)
	}
	path := filepath.Join(m.State, "lock")
	first, said := hold(t, path)
	if said != "held" || m.pid() != first.Process.Pid {
		t.Fatalf("the holder is process %d and says %q; found was %d", first.Process.Pid, said, m.pid())
	}
	if _, said := hold(t, path); !strings.HasPrefix(said, "the node runs already") {
		t.Errorf("a second process 1 says %q", said)
	}
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.Wait()
	if pid := m.pid(); pid != 0 {
		t.Errorf("after the end the node has process %d", pid)
	}
	if _, said := hold(t, path); said != "held" {
		t.Errorf("after a crash the next process 1 says %q", said)
	}
}

func TestCertificatesAreMadeOnceAndFitTheirUse(t *testing.T) {
	dir := t.TempDir()
	read := func(name string) []byte {
		t.Helper()
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	if err := ensurePKI(dir, 2); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(read("ca.crt"))
	verify := func(content []byte, usage x509.ExtKeyUsage) *x509.Certificate {
		t.Helper()
		block, _ := pem.Decode(content)
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := certificate.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
			t.Errorf("%s: %v", certificate.Subject, err)
		}
		return certificate
	}
	server := verify(read("kube-apiserver.crt"), x509.ExtKeyUsageServerAuth)
	for _, name := range []string{"127.0.0.1", "10.96.0.1", "198.51.100.1", "kubernetes.default.svc"} {
		if err := server.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	for client, want := range map[string]string{"admin": "system:masters", "node-2": "system:nodes", "kube-scheduler": ""} {
		config, err := clientcmd.LoadFromFile(filepath.Join(dir, client+".kubeconfig"))
		if err != nil {
			t.Fatal(err)
		}
		certificate := verify(config.AuthInfos["tokenward"].ClientCertificateData, x509.ExtKeyUsageClientAuth)
		if got := strings.Join(certificate.Subject.Organization, ","); got != want {
			t.Errorf("%s is of the groups %q, want %q", client, got, want)
		}
	}

	before, accounts := read("kube-apiserver.crt"), read("service-accounts.key")
	if err := ensurePKI(dir, 2); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(before, read("kube-apiserver.crt")) {
		t.Error("a second start made new certificates")
	}
	if err := ensurePKI(dir, 3); err != nil {
		t.Fatal(err)
	}
	verify(read("node-3.crt"), x509.ExtKeyUsageClientAuth) // by the same authority
	if !slices.Equal(accounts, read("service-accounts.key")) {
		t.Error("one more node made the tokens of all ServiceAccounts invalid")
	}
}

func TestConfigurationsAreComplete(t *testing.T) {
	n := node{Number: 2, State: t.TempDir()}
	if err := n.writeConfig("overlayfs"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kubelet.yaml", "kube-proxy.yaml", "cni/10-pods.conflist"} {
		content, err := os.ReadFile(filepath.Join(n.State, name))
		if err != nil {
			t.Fatal(err)
		}
		var object map[string]any
		if err := yaml.UnmarshalStrict(content, &object); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if strings.Contains(string(content), "<no value>") {
			t.Errorf("%s is not filled in: %s", name, content)
		}
	}
	if _, err := render("dns.yaml", n); err != nil {
		t.Error(err)
	}
}

func TestAMissingCapabilityIsNamed(t *testing.T) {
	for name, c := range map[string]struct {
		mask string
		want []string
	}{
		"all":                          {"000001ffffffffff", nil},
		"all but CAP_SYS_RESOURCE":     {"000001fffeffffff", nil},
		"those of a plain container":   {"00000000a80425fb", []string{"CAP_NET_ADMIN", "CAP_SYS_ADMIN"}},
		"what cannot be read has none": {"?", []string{"CAP_AUDIT_WRITE"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := missingCapabilities([]byte("Name:\tx\nCapEff:\t" + c.mask + "\nSeccomp:\t0\n"))
			if c.mask == "?" {
				got = got[:1]
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("missing are %v, want %v", got, c.want)
			}
		})
	}
}

func TestANodeIsReadyByWhatKubeletSaidSinceItsStart(t *testing.T) {
	started := time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.UTC)
	at := func(status corev1.ConditionStatus, heartbeat time.Time) *corev1.Node {
		return &corev1.Node{Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status, LastHeartbeatTime: metav1.NewTime(heartbeat)}}}}
	}
	for name, c := range map[string]struct {
		node *corev1.Node
		want bool
	}{
		"ready":                            {at(corev1.ConditionTrue, started.Add(time.Minute)), true},
		"in the second of the start":       {at(corev1.ConditionTrue, started.Truncate(time.Second)), true},
		"ready before the node was ended":  {at(corev1.ConditionTrue, started.Add(-time.Minute)), false},
		"not ready":                        {at(corev1.ConditionFalse, started.Add(time.Minute)), false},
		"lost by the controller":           {at(corev1.ConditionUnknown, started.Add(time.Minute)), false},
		"registered, and nothing said yet": {&corev1.Node{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if err := nodeReady(c.node, started); (err == nil) != c.want {
				t.Errorf("ready is %v, want %t", err, c.want)
			}
		})
	}
}
