// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/tokenward/tokenward/sidecar/admin"
)

const (
	// startTimeout bounds the wait for a process that starts on a node without free CPU.
	startTimeout = time.Minute
	// readyWait is how long a process that serves is waited for to be ready. It is below
	// the kubelet's own next look; without settings or an issuer it may take much longer.
	readyWait = time.Second
	// startPoll is how often it is asked. Nothing else is asked on that port yet.
	startPoll = 5 * time.Millisecond
	// leaveTimeout bounds the word that the pod ends.
	leaveTimeout = 5 * time.Second
)

// hook is what the kubelet runs in the sidecar's container, beside the process that
// serves on that admin port.
type hook func(ctx context.Context, adminPort string) error

// hooks by the name of the field of the container's lifecycle.
func hooks() map[string]hook {
	return map[string]hook{"postStart": waitUntilServing, "preStop": tellToLeave}
}

// waitUntilServing ends when requests are checked and, if that takes no more than a
// second, the sidecar is ready. The kubelet starts the application then, and not with the
// next tick of a probe; ADR 0024.
func waitUntilServing(ctx context.Context, adminPort string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	ticker := time.NewTicker(startPoll)
	defer ticker.Stop()
	var served time.Time
	for {
		status, err := ask(ctx, adminPort, http.MethodGet, admin.ReadyPath)
		if err == nil && served.IsZero() {
			served = time.Now()
		}
		if err == nil && (status == http.StatusOK || time.Since(served) >= readyWait) {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("the sidecar does not serve: %w", errors.Join(ctx.Err(), err))
		}
	}
}

// tellToLeave is for when the pod begins to end; ADR 0022.
func tellToLeave(ctx context.Context, adminPort string) error {
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	status, err := ask(ctx, adminPort, http.MethodPost, admin.LeavePath)
	if err == nil && status != http.StatusNoContent {
		err = fmt.Errorf("the sidecar answered with status %d", status)
	}
	return err
}

// ask makes one request at the admin port of this pod.
func ask(ctx context.Context, adminPort, method, path string) (status int, err error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+net.JoinHostPort("127.0.0.1", adminPort)+path, nil)
	if err != nil {
		return 0, err
	}
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}
