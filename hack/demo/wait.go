// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

// patience is how long anything here may take before the demo gives up.
const patience = 60 * time.Second

// until asks again and again, and gives up with the last error.
func until(ctx context.Context, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("gave up after %s", patience))
	defer cancel()
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	var last error
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err // what is wrong, rather than that time is up
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (%w)", last, context.Cause(ctx))
		case <-ticker.C:
		}
	}
}

// waitReady waits until url answers 200.
func waitReady(ctx context.Context, url string) error {
	client := &http.Client{Timeout: 5 * time.Second}
	return until(ctx, func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close() //nolint:errcheck // read to its end below
		body, _ := io.ReadAll(io.LimitReader(response.Body, 4<<10))
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answers %d: %s", url, response.StatusCode, body)
		}
		return nil
	})
}

// conditioned is an object of ours.
type conditioned interface {
	client.Object
	*api.SigningKey | *api.TokenPolicy
}

// waitCondition waits until the object is Ready for its current generation.
func waitCondition[T conditioned](ctx context.Context, c client.Client, object T, conditions func(T) []metav1.Condition) error {
	key := client.ObjectKeyFromObject(object)
	return until(ctx, func(ctx context.Context) error {
		if err := c.Get(ctx, key, object); err != nil {
			return err
		}
		ready := meta.FindStatusCondition(conditions(object), api.ConditionReady)
		switch {
		case ready == nil:
			return fmt.Errorf("%T %s has no Ready condition yet", object, key)
		case ready.Status != metav1.ConditionTrue || ready.ObservedGeneration != object.GetGeneration():
			return fmt.Errorf("%T %s is not ready: %s: %s", object, key, ready.Reason, ready.Message)
		}
		return nil
	})
}
