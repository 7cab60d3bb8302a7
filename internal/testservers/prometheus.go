// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package testservers

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// Promtool runs Prometheus' own checks, in a folder, and returns what it printed. The
// error says that something was found.
func Promtool(tb testing.TB, folder string, args ...string) (string, error) {
	tb.Helper()
	cmd := command(tb, binary(tb, "promtool", "prometheus"), args...)
	// It reads files of the repository, and of folders that are the test's alone.
	cmd.SysProcAttr, cmd.Dir = nil, folder
	output, err := cmd.CombinedOutput()
	return string(output), err
}

// Prometheus starts a Prometheus with a configuration and returns its URL. It stops when tb
// ends. files are further ones that the configuration names, which is in the same folder.
func Prometheus(tb testing.TB, configuration []byte, files map[string][]byte) string {
	tb.Helper()
	path, dir := binary(tb, "prometheus", "prometheus"), folder(tb)
	config := filepath.Join(dir, "prometheus.yaml")
	writeFor(tb, config, configuration)
	for name, content := range files {
		writeFor(tb, filepath.Join(dir, name), content)
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(freePort(tb)))
	start(tb, syscall.SIGTERM, func(ctx context.Context) error { return prometheusReady(ctx, address) }, path,
		"--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)
	return "http://" + address
}

func prometheusReady(ctx context.Context, address string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/-/ready", http.NoBody)
	if err != nil {
		return err
	}
	response, err := (&http.Client{Timeout: startPatience}).Do(request)
	if err != nil {
		return err
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %s", response.Status)
	}
	return nil
}
