// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/tokenward/tokenward/internal/session"
)

// Mode is how the servers at the addresses belong together.
type Mode string

// The modes.
const (
	// ModeSingle is one server; also a managed Redis behind one address.
	ModeSingle Mode = "Single"
	// ModeSentinel asks the Sentinels at the addresses who the primary is.
	ModeSentinel Mode = "Sentinel"
	// ModeCluster is a Redis Cluster; the addresses are some of its nodes.
	ModeCluster Mode = "Cluster"
)

// Defaults of [Options].
const (
	DefaultPrefix   = "tokenward:"
	DefaultTimeout  = 3 * time.Second
	DefaultPoolSize = 20
	// retries of a command after the connection broke or a failover refused it.
	retries = 3
	// feedConnections are what an instance needs besides the pool for requests: one
	// that waits at the stream, one that reads it.
	feedConnections = 2
)

// Options of a store.
type Options struct {
	// Policy is whose sessions these are.
	Policy session.PolicyID
	// Mode is ModeSingle when empty.
	Mode Mode
	// Addresses are host:port: one for ModeSingle, else one or more.
	Addresses []string
	// MasterName is the name of the group that the Sentinels watch (ModeSentinel only).
	MasterName string
	// Database is the number of the database; a Cluster only has 0.
	Database int

	// Credentials at the servers that keep the sessions.
	Credentials Credentials
	// SentinelCredentials are those at the Sentinels (ModeSentinel only).
	SentinelCredentials Credentials
	// TLS is used for every connection, Sentinels included; nil is without TLS.
	TLS *tls.Config

	// Dial opens the connections, Sentinels' included; a plain net.Dialer when nil. It is
	// where a caller that was given the addresses by somebody else can refuse some, also
	// those that Sentinels and Clusters answer with.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// Prefix begins every key, so that several users can share a Redis; DefaultPrefix
	// when empty. It must not contain braces: they would make another hash tag.
	Prefix string
	// Timeout bounds one operation with everything that belongs to it: to connect, to
	// wait for a free connection, to try again. DefaultTimeout when 0.
	Timeout time.Duration
	// PoolSize is how many connections (to each node of a Cluster) an instance has at
	// most, beside two for the revocations. DefaultPoolSize when 0.
	PoolSize int

	// Now is time.Now when nil.
	Now func() time.Time
}

// complete sets the defaults, and names what cannot work.
func (o *Options) complete() error {
	if o.Mode == "" {
		o.Mode = ModeSingle
	}
	if o.Prefix == "" {
		o.Prefix = DefaultPrefix
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.PoolSize == 0 {
		o.PoolSize = DefaultPoolSize
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{}).DialContext
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Addresses = slices.Clone(o.Addresses)
	return errors.Join(o.checkAddresses(), o.checkMode(), o.checkRest())
}

func (o *Options) checkAddresses() error {
	if len(o.Addresses) == 0 {
		return errors.New("redis store: no address: give at least one host:port")
	}
	for _, address := range o.Addresses {
		host, port, err := net.SplitHostPort(address)
		if err != nil || host == "" {
			// What follows an @ or a scheme may be a password in a URL.
			if strings.ContainsAny(address, "@/") {
				return errors.New("redis store: an address is a URL: it must be host:port, credentials are given beside it")
			}
			return fmt.Errorf("redis store: address %q is not host:port", address)
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("redis store: address %q: the port must be a number from 1 to 65535", address)
		}
	}
	return nil
}

func (o *Options) checkMode() error {
	switch o.Mode {
	case ModeSingle:
		if len(o.Addresses) > 1 {
			return fmt.Errorf("redis store: %d addresses for mode %s: give one, or set mode %s or %s", len(o.Addresses), ModeSingle, ModeSentinel, ModeCluster)
		}
	case ModeSentinel:
		if o.MasterName == "" {
			return fmt.Errorf("redis store: mode %s needs the name of the primary's group (sentinel monitor <name> …)", ModeSentinel)
		}
	case ModeCluster:
		if o.Database != 0 {
			return fmt.Errorf("redis store: database %d: a Redis Cluster only has database 0", o.Database)
		}
	default:
		return fmt.Errorf("redis store: mode %q: it must be %s, %s or %s", o.Mode, ModeSingle, ModeSentinel, ModeCluster)
	}
	if o.Mode != ModeSentinel && (o.MasterName != "" || o.SentinelCredentials != Credentials{}) {
		return fmt.Errorf("redis store: a group's name and Sentinel credentials are for mode %s, the mode is %s", ModeSentinel, o.Mode)
	}
	return nil
}

func (o *Options) checkRest() error {
	switch {
	case o.Policy == "":
		return errors.New("redis store: no policy")
	case strings.ContainsAny(o.Prefix, "{}"):
		return fmt.Errorf("redis store: key prefix %q: it must not contain { or }", o.Prefix)
	case o.Timeout < 0 || o.PoolSize < 0 || o.Database < 0:
		return errors.New("redis store: timeout, pool size and database must not be negative")
	case o.Credentials.Username != "" && o.Credentials.Password.value == "":
		return fmt.Errorf("redis store: user %q has no password", o.Credentials.Username)
	}
	return nil
}

// client connects to nobody yet.
func (o *Options) client() goredis.UniversalClient {
	universal := &goredis.UniversalOptions{
		Addrs: o.Addresses, MasterName: o.MasterName, DB: o.Database,
		Username: o.Credentials.Username, Password: o.Credentials.Password.value,
		SentinelUsername: o.SentinelCredentials.Username, SentinelPassword: o.SentinelCredentials.Password.value,
		Dialer:      dialer(o.Dial, o.TLS, o.Timeout),
		PoolSize:    o.PoolSize + feedConnections,
		DialTimeout: o.Timeout, ReadTimeout: o.Timeout, WriteTimeout: o.Timeout, PoolTimeout: o.Timeout,
		ContextTimeoutEnabled: true,
		MaxRetries:            retries, DialerRetries: 1,
		ReadBufferSize: 4 << 10, WriteBufferSize: 4 << 10, // a record is half a KiB
		// Neither is of use here, and each is one more right that a user would need.
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	switch o.Mode {
	case ModeSentinel:
		return goredis.NewFailoverClient(universal.Failover())
	case ModeCluster:
		return goredis.NewClusterClient(universal.Cluster())
	default:
		return goredis.NewClient(universal.Simple())
	}
}
