// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package reload keeps the policy in force: it reads the settings file when it
// changes, takes key sets from the issuer, and swaps in a compiled policy that
// requests read without a lock.
//
// A file that cannot be used changes nothing: the last good one stays, and
// [Loader.Status], the log and a metric say what is wrong. Keys only ever move
// forward: an older version of a key set never replaces a newer one of the same
// owner, wherever the two come from.
package reload

import (
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tokenward/tokenward/internal/settings"
	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/sidecar/decide"
	"github.com/tokenward/tokenward/sidecar/metrics"
)

// Options of a Loader; all are required.
type Options struct {
	// Dir is the mounted ConfigMap.
	Dir      string
	Sessions decide.Sessions
	// MemoryBytes bounds the tokens that a policy remembers.
	MemoryBytes int
	Metrics     *metrics.Metrics
	Log         *slog.Logger
	Now         func() time.Time
}

// Loader is safe for concurrent use.
type Loader struct {
	options Options
	policy  atomic.Pointer[decide.Policy]

	mu     sync.Mutex
	digest [sha256.Size]byte
	read   bool // digest is of a file
	keys   keyrings
	status Status
}

// Status is what readiness detail shows of the settings.
type Status struct {
	// LoadedAt is when the policy in force was taken; zero before the first.
	LoadedAt time.Time
	// Err is why the file as it is now cannot be used; nil when it is in force.
	Err error
}

// New makes a loader that has read nothing yet.
func New(options Options) *Loader { return &Loader{options: options} }

// Current is the policy in force, nil before there is one.
func (l *Loader) Current() *decide.Policy { return l.policy.Load() }

// Settings are those in force, nil before there are any.
func (l *Loader) Settings() *settings.Settings {
	if p := l.policy.Load(); p != nil {
		return p.Settings
	}
	return nil
}

// Status is how the settings are.
func (l *Loader) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status
}

// Check reads the file and, if it changed, puts it in force.
func (l *Loader) Check() {
	l.mu.Lock()
	defer l.mu.Unlock()
	data, err := readFile(filepath.Join(l.options.Dir, settings.Key))
	if err != nil {
		// A file that could not be read and comes back unchanged is in force again.
		l.read = false
		l.fail(err)
		return
	}
	digest := sha256.Sum256(data)
	if l.read && digest == l.digest {
		return
	}
	l.digest, l.read = digest, true
	if err := l.apply(data); err != nil {
		l.fail(err)
		return
	}
	l.status.Err = nil
	l.options.Metrics.Reload(metrics.OK)
	p := l.policy.Load()
	l.options.Log.Info("settings are in force", "policy", p.Settings.Policy.Namespace+"/"+p.Settings.Policy.Name,
		"generation", p.Settings.Policy.Generation, "key_set_version", p.Keys.Version(), "enforcement", p.Settings.Enforcement)
}

// Offer takes a key set that the issuer gave, unless a newer one is in force.
func (l *Loader) Offer(keys *token.KeySet) {
	l.mu.Lock()
	defer l.mu.Unlock()
	current := l.policy.Load()
	if current == nil || !l.keys.offer(keys) {
		return
	}
	if err := l.swap(current.Settings); err != nil {
		// The same settings compiled before.
		l.options.Log.Error("compile settings with new keys", "error", err)
		return
	}
	l.options.Log.Info("keys from the issuer are in force", "key_set_version", keys.Version())
}

// readFile reads no more than settings can have.
func readFile(name string) ([]byte, error) {
	f, err := os.Open(name) //nolint:gosec // the directory is a flag, the name a constant
	if err != nil {
		return nil, fmt.Errorf("open the settings: %w", err)
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, settings.MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read the settings: %w", err)
	}
	return data, nil
}

// apply parses and compiles. The caller holds mu.
func (l *Loader) apply(data []byte) error {
	s, err := settings.Parse(data)
	if err != nil {
		return err
	}
	keys, err := token.ParseKeySet(s.Keys)
	if err != nil {
		return fmt.Errorf("settings: keys: %w: have the manager write the file", err)
	}
	before := l.keys
	l.keys.file(keys)
	if err := l.swap(s); err != nil {
		l.keys = before
		return err
	}
	return nil
}

// swap puts settings with the best keys in force. The caller holds mu.
func (l *Loader) swap(s *settings.Settings) error {
	p, err := decide.Compile(s, l.keys.effective(), l.options.Sessions, l.options.MemoryBytes)
	if err != nil {
		return err
	}
	l.policy.Store(p)
	l.status.LoadedAt = l.options.Now()
	return nil
}

// fail notes and says, once for each different file, that it cannot be used. The
// caller holds mu.
func (l *Loader) fail(err error) {
	if l.status.Err != nil && l.status.Err.Error() == err.Error() {
		return
	}
	l.status.Err = err
	l.options.Metrics.Reload(metrics.Refused)
	l.options.Log.Error("settings cannot be used; the last good ones stay in force", "error", err, "have_good", l.policy.Load() != nil)
}
