// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package configmap

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tokenward/tokenward/internal/session"
)

// The issuer reads and writes the shards of all policies; they can be named by no
// rule, as their names hold the policies' UIDs.
//
// +kubebuilder:rbac:groups="",namespace=tokenward-system,resources=configmaps,verbs=get;list;watch;create;update

// Config of one policy's store.
type Config struct {
	// Client is one of [NewClient]; the stores of all policies may share it. One that
	// reads from a cache would break the store's promises.
	Client client.WithWatch
	// Namespace is the operator's.
	Namespace string
	// Policy whose sessions these are, and its namespace and name, which are only
	// labels for people.
	Policy                    session.PolicyID
	OwnerNamespace, OwnerName string
	// Shards is the number of ConfigMaps, 1 to 64. It must never change for a policy.
	Shards int
	// MaxSessions is how many live sessions there may be; Create returns
	// [session.ErrFull] beyond it.
	MaxSessions int
	Sealer      *Sealer
	// Permit is asked before a shard is made that does not exist. It returns
	// [ErrPolicyGone] when the policy is being deleted: the manager has removed its
	// shards, or is about to, and nobody would remove one that comes after. Any other
	// error is an outage. Nil permits everything.
	Permit func(context.Context) error
	// Log gets what an operator must know of: records that cannot be read, writes
	// that fail. The zero value discards.
	Log logr.Logger

	// Now is time.Now when nil. It decides what is forgotten.
	Now func() time.Time
	// WritesPerSecond to the API server, of all instances together: those that see
	// each other writing share it. 50 when 0.
	WritesPerSecond float64
	// Gather is how long a write waits for company. 2 ms when 0, none when negative.
	Gather time.Duration
	// SweepInterval is how often dead sessions of shards that nobody writes are
	// removed. 10 minutes when 0, never when negative.
	SweepInterval time.Duration
}

// ErrPolicyGone is for [Config.Permit].
var ErrPolicyGone = errors.New("the policy is gone, it gets no new sessions")

const (
	defaultWritesPerSecond = 50
	defaultGather          = 2 * time.Millisecond
	defaultSweepInterval   = 10 * time.Minute
	maxShards              = 64
)

func (c Config) complete() (Config, error) {
	switch {
	case c.Client == nil || c.Sealer == nil:
		return c, errors.New("open the session store: client and sealer must be set")
	case c.Namespace == "" || c.Policy == "":
		return c, errors.New("open the session store: namespace and policy must be set")
	case c.Shards < 1 || c.Shards > maxShards:
		return c, fmt.Errorf("open the session store: %d shards, there must be 1 to %d", c.Shards, maxShards)
	case c.MaxSessions < 1:
		return c, fmt.Errorf("open the session store: at most %d sessions, it must be 1 or more", c.MaxSessions)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Permit == nil {
		c.Permit = func(context.Context) error { return nil }
	}
	if c.WritesPerSecond == 0 {
		c.WritesPerSecond = defaultWritesPerSecond
	}
	if c.Gather == 0 {
		c.Gather = defaultGather
	}
	if c.SweepInterval == 0 {
		c.SweepInterval = defaultSweepInterval
	}
	if c.Log.GetSink() == nil {
		c.Log = logr.Discard()
	}
	return c, nil
}

// NewClient returns a client that fits: it reads from the API server itself, has no
// rate limit of its own, because the store keeps its writes bounded, and asks for
// no compression. Sealed records do not compress, and trying costs the API
// server more than all else in a read.
func NewClient(config *rest.Config) (client.WithWatch, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1
	config.DisableCompression = true
	c, err := client.NewWithWatch(config, client.Options{})
	if err != nil {
		return nil, fmt.Errorf("make the client of the session store: %w", err)
	}
	return c, nil
}
