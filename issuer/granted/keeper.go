// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package granted

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tokenward/tokenward/internal/flight"
)

const (
	// Gap is the least time between the end of one look and another that calls ask for.
	Gap = 2 * time.Second

	// A look reads the Secret and checks two at most, one after the other.
	readTimeout  = 5 * time.Second
	checkTimeout = 10 * time.Second
	lookTimeout  = readTimeout + 2*checkTimeout + Gap
)

// ErrClosed is an outage to the caller: the policy has another one now, or is gone.
var ErrClosed = errors.New("it was closed: the policy has changed")

// Opened is what one content of the Secret was opened to.
type Opened[T any] struct {
	// Value is what calls use.
	Value T
	// Check says what keeps it from working; nil when it works.
	Check func(context.Context) error
	// Close ends it. It is called once, when no call uses it.
	Close func()
}

// Options of a [Keeper]. All but Read are required.
type Options[T any] struct {
	// Read returns the data of the Secret, which is not changed afterwards. Nil where
	// there is no Secret: then Open gets no data.
	Read func(context.Context) (map[string][]byte, error)
	// Gone tells the errors of Read that say that there is no Secret for us any more.
	Gone func(error) bool
	// Open connects to nobody yet. An error says that the data is not understood.
	Open func(data map[string][]byte) (Opened[T], error)
	// Serves tells the errors of Check that concern some calls only.
	Serves func(error) bool
	// Refused tells the errors of a call that other credentials may help against. What it
	// was to do is not done then, so that it may be tried again.
	Refused func(error) bool
	Now     func() time.Time
}

// Look is what a look has shown.
type Look struct {
	// Err is what is wrong: an error of Read, Open or Check.
	Err error
	// Former says that what was opened before stays in use nevertheless.
	Former bool
}

// Keeper keeps one open. It is safe for concurrent use.
type Keeper[T any] struct {
	Options[T]
	looks flight.Group[struct{}, Look]

	ctx  context.Context //nolint:containedctx // ends with the keeper
	stop context.CancelFunc
	// closing are those that were replaced and are not closed yet.
	closing sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	current *holding[T] // nil: absent says why
	absent  error
	last    Look
	looked  time.Time // when the last look ended
	// hopeless: it has shown that what is open is refused, and that the Secret has nothing else.
	hopeless bool
}

// holding is what is open, and who uses it.
type holding[T any] struct {
	Opened[T]
	// digest of the Secret: the content itself may be a megabyte, for each policy.
	digest [sha256.Size]byte
	// leaving ends when another one takes over.
	leaving context.Context //nolint:containedctx // ends with the holding
	leave   context.CancelFunc
	uses    int // calls under way, guarded by the keeper
}

// New makes a keeper. It opens nothing before the first call or look.
func New[T any](options Options[T]) *Keeper[T] {
	k := &Keeper[T]{Options: options}
	k.ctx, k.stop = context.WithCancel(context.Background()) //nolint:gosec // Close calls it
	return k
}

// Use has call work with what is open, and again when its credentials were refused and
// there are others meanwhile. While nothing is open it returns the reason.
func (k *Keeper[T]) Use(ctx context.Context, call func(T) error) error {
	h, err := k.acquire(ctx)
	if err != nil {
		return err
	}
	err = k.serve(h, call)
	if err == nil || !k.Refused(err) || !k.renewed(ctx, h) {
		return err
	}
	if h, err = k.acquire(ctx); err != nil {
		return err
	}
	return k.serve(h, call)
}

// serve lets go of it after a panic too, or it could never be closed.
func (k *Keeper[T]) serve(h *holding[T], call func(T) error) error {
	defer k.release(h)
	return call(h.Value)
}

// Follow is for what outlives a call, such as a stream: begin gets a context that ends
// when what is open now is to be let go.
func (k *Keeper[T]) Follow(ctx context.Context, begin func(context.Context, T) error) error {
	h, err := k.acquire(ctx)
	if err != nil {
		return err
	}
	defer k.release(h)
	following, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(h.leaving, cancel) //nolint:contextcheck // it ends with either of the two
	context.AfterFunc(following, func() { stop() })
	if err := begin(following, h.Value); err != nil {
		cancel()
		return err
	}
	return nil
}

// Peek has see look at what is open, if anything is. It must not wait.
func (k *Keeper[T]) Peek(see func(T)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.current != nil {
		see(k.current.Value)
	}
}

// Close ends it for good, once the calls under way have left.
func (k *Keeper[T]) Close() {
	k.mu.Lock()
	k.closed, k.absent = true, ErrClosed
	k.replace(nil)
	k.mu.Unlock()
	k.stop()
	k.looks.Wait()
	k.closing.Wait()
}

// acquire what is open. What was never opened is opened for the first who asks.
func (k *Keeper[T]) acquire(ctx context.Context) (*holding[T], error) {
	h, ask, err := k.take()
	if !ask {
		return h, err
	}
	if _, _, err := k.looks.Do(ctx, struct{}{}, lookTimeout, k.lookFirst); err != nil {
		return nil, err
	}
	h, _, err = k.take()
	return h, err
}

// take says besides whether it is time to look.
func (k *Keeper[T]) take() (h *holding[T], ask bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.current == nil {
		return nil, !k.closed && (k.absent == nil || k.pause() == 0), k.absent
	}
	k.current.uses++
	return k.current, false, nil
}

func (k *Keeper[T]) release(h *holding[T]) {
	k.mu.Lock()
	defer k.mu.Unlock()
	h.uses--
	k.closeUnused(h)
}

// pause is how long calls have to wait for the next look.
func (k *Keeper[T]) pause() time.Duration {
	if k.looked.IsZero() {
		return 0
	}
	return min(max(k.looked.Add(Gap).Sub(k.Now()), 0), Gap)
}

// renewed says whether another one has taken the place of used, which refuses calls. It
// looks for itself when nobody else has.
func (k *Keeper[T]) renewed(ctx context.Context, used *holding[T]) bool {
	for range 2 {
		if k.replaced(used) {
			return true
		}
		_, joined, err := k.looks.Do(ctx, struct{}{}, lookTimeout, k.lookSoon)
		if err != nil || !joined {
			break
		}
		// Who joined cannot know whether that look has seen the newest Secret.
	}
	return k.replaced(used)
}

func (k *Keeper[T]) replaced(h *holding[T]) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.current != h
}

// replace what is open; the keeper is locked.
func (k *Keeper[T]) replace(next *holding[T]) {
	old := k.current
	k.current = next
	if old != nil {
		k.closing.Add(1)
		old.leave()
		k.closeUnused(old)
	}
}

// closeUnused closes one that was replaced and is not used; the keeper is locked.
func (k *Keeper[T]) closeUnused(h *holding[T]) {
	if h.uses > 0 || k.current == h {
		return
	}
	go func() { // it may wait for the network
		defer k.closing.Done()
		h.Close()
	}()
}

// digest of the content of a Secret.
func digest(data map[string][]byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, key := range slices.Sorted(maps.Keys(data)) {
		// With the lengths no two contents are written as one.
		_, _ = fmt.Fprintf(h, "%d %d %s", len(key), len(data[key]), key) // a hash does not fail
		_, _ = h.Write(data[key])
	}
	h.Sum(sum[:0])
	return sum
}
