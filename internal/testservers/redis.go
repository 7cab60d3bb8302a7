// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package testservers

import (
	"context"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// RedisOptions say how a Redis server differs from one without persistence that lets
// everybody in.
type RedisOptions struct {
	// Config are lines of redis.conf.
	Config []string
	// TLS makes the server listen with TLS besides; clients need no certificate.
	TLS bool
	// Cluster makes it a Redis Cluster of one node that has all slots.
	Cluster bool
	// Sentinel makes it a Sentinel instead, see [RedisServer.Sentinel].
	Sentinel bool
}

// RedisServer is a running Redis.
type RedisServer struct {
	// Addr takes connections without TLS, TLSAddr with it (only if asked for).
	Addr, TLSAddr string
	// CA is the PEM certificate that vouches for TLSAddr.
	CA []byte

	process *process
	probe   func(context.Context) error
	path    string
	config  string
}

// Redis starts a Redis server that stops when tb ends.
func Redis(tb testing.TB, options RedisOptions) *RedisServer {
	tb.Helper()
	path := binary(tb, "redis-server", "redis-server")
	dir := folder(tb)
	port := freePort(tb)
	s := &RedisServer{Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), path: path, config: filepath.Join(dir, "redis.conf")}
	lines := []string{"bind 127.0.0.1", "port " + strconv.Itoa(port), "dir " + dir, "daemonize no", "save \"\""}
	if options.TLS {
		tlsPort := freePort(tb)
		s.TLSAddr = net.JoinHostPort("127.0.0.1", strconv.Itoa(tlsPort))
		cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
		ca, certificate, private := selfSigned(tb, "localhost")
		s.CA = ca
		writeFor(tb, cert, certificate)
		writeFor(tb, key, private)
		lines = append(lines, "tls-port "+strconv.Itoa(tlsPort), "tls-cert-file "+cert, "tls-key-file "+key, "tls-ca-cert-file "+cert, "tls-auth-clients no")
	}
	if options.Cluster {
		lines = append(lines, "cluster-enabled yes", "cluster-config-file nodes.conf", "cluster-require-full-coverage yes", "cluster-port "+strconv.Itoa(freePort(tb)))
	}
	lines = append(lines, options.Config...)
	var args []string
	if options.Sentinel {
		args = []string{"--sentinel"}
		lines = append(append(lines[:2:2], "dir "+dir), options.Config...)
	}
	writeFor(tb, s.config, []byte(strings.Join(lines, "\n")+"\n"))

	client := redis.NewClient(&redis.Options{Addr: s.Addr, MaxRetries: -1, DialerRetries: 1, DisableIdentity: true})
	tb.Cleanup(func() { _ = client.Close() })
	s.probe = func(ctx context.Context) error {
		err := client.Ping(ctx).Err()
		if err != nil && (redis.HasErrorPrefix(err, "NOAUTH") || redis.HasErrorPrefix(err, "NOPERM")) {
			return nil // it answers
		}
		return err
	}
	s.process = start(tb, syscall.SIGTERM, s.probe, path, append([]string{s.config}, args...)...)
	if options.Cluster {
		s.takeAllSlots(tb, client)
	}
	return s
}

// Sentinel starts a Sentinel that watches s under the name; config are lines of its
// configuration.
func (s *RedisServer) Sentinel(tb testing.TB, name string, config ...string) *RedisServer {
	tb.Helper()
	host, port, _ := net.SplitHostPort(s.Addr)
	return Redis(tb, RedisOptions{Sentinel: true, Config: append([]string{
		"sentinel monitor " + name + " " + host + " " + port + " 1",
		"sentinel down-after-milliseconds " + name + " 500",
		"sentinel failover-timeout " + name + " 2000",
	}, config...)})
}

func (s *RedisServer) takeAllSlots(tb testing.TB, client *redis.Client) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startPatience) //nolint:usetesting // may be called from TestMain
	defer cancel()
	if err := client.ClusterAddSlotsRange(ctx, 0, 16383).Err(); err != nil {
		tb.Fatalf("give the node all slots: %v", err)
	}
	ticker := time.NewTicker(probeEvery)
	defer ticker.Stop()
	for {
		info, err := client.ClusterInfo(ctx).Result()
		if err == nil && strings.Contains(info, "cluster_state:ok") {
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			tb.Fatalf("the cluster of one node does not come up: %v\n%s", err, info)
		}
	}
}

// Stop ends the server as an administrator does, with what it has to save saved.
func (s *RedisServer) Stop() { s.process.stop() }

// Kill ends the server as a crash does.
func (s *RedisServer) Kill() { s.process.kill() }

// Start starts the server again where it was, with the data it has saved.
func (s *RedisServer) Start(tb testing.TB) {
	tb.Helper()
	s.process = start(tb, syscall.SIGTERM, s.probe, s.path, s.config)
}

// Client is an administrator's connection, without TLS and user.
func (s *RedisServer) Client(tb testing.TB) *redis.Client {
	tb.Helper()
	client := redis.NewClient(&redis.Options{Addr: s.Addr, DisableIdentity: true})
	tb.Cleanup(func() { _ = client.Close() })
	return client
}
