// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package granted

import (
	"context"
	"time"
)

// Look reads the Secret, opens what it holds if that is new, and checks what is open.
// Looks at the same time are one. The error is the context's own, or [ErrClosed].
func (k *Keeper[T]) Look(ctx context.Context) (Look, error) {
	look, _, err := k.looks.Do(ctx, struct{}{}, lookTimeout, k.look)
	return look, err
}

// lookFirst is a look for calls that have found nothing open, unless another one has ended
// since they looked.
func (k *Keeper[T]) lookFirst(ctx context.Context) (Look, error) {
	k.mu.Lock()
	last, done := k.last, k.current != nil || k.absent != nil && k.pause() > 0
	k.mu.Unlock()
	if done {
		return last, nil
	}
	return k.look(ctx)
}

// lookSoon is a look that calls ask for, and so not before its time. They wait for it,
// unless the last one has shown that there is nothing to wait for.
func (k *Keeper[T]) lookSoon(ctx context.Context) (Look, error) {
	k.mu.Lock()
	pause, hopeless, last := k.pause(), k.hopeless, k.last
	k.mu.Unlock()
	if hopeless && pause > 0 {
		return last, nil // whoever joins may be one who reports it
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return k.look(ctx)
	case <-k.ctx.Done():
		return Look{}, ErrClosed
	}
}

func (k *Keeper[T]) look(ctx context.Context) (Look, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(k.ctx, cancel) //nolint:contextcheck // it ends with either of the two
	defer stop()
	k.mu.Lock()
	h := k.current
	k.mu.Unlock()
	look, next := k.compare(ctx, h)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		if next != nil && next != h {
			k.closing.Add(1)
			next.leave()
			k.closeUnused(next)
		}
		return Look{}, ErrClosed
	}
	if next != h {
		k.replace(next)
	}
	k.absent, k.last = look.Err, look
	k.hopeless = look.Err != nil && !look.Former && k.Refused(look.Err)
	k.looked = k.Now()
	return look, nil
}

// compare what is open, which may be nothing, with what the Secret says, and choose.
// It changes nothing.
func (k *Keeper[T]) compare(ctx context.Context, h *holding[T]) (Look, *holding[T]) {
	data, err := k.read(ctx)
	switch {
	case err != nil && k.Gone(err):
		return Look{Err: err}, nil
	case err != nil:
		return Look{Err: err, Former: h != nil}, h
	case h != nil && h.digest == digest(data):
		return Look{Err: check(ctx, h)}, h
	}
	opened, err := k.Open(data)
	if err != nil {
		return Look{Err: err, Former: h != nil}, h
	}
	candidate := &holding[T]{Opened: opened, digest: digest(data)}
	candidate.leaving, candidate.leave = context.WithCancel(k.ctx) // it lives on after the look
	chosen := false
	defer func() { // after a panic too
		if !chosen {
			candidate.leave()
			candidate.Close()
		}
	}()
	problem := check(ctx, candidate)
	if h != nil && problem != nil && k.badness(problem) > k.badness(check(ctx, h)) {
		return Look{Err: problem, Former: true}, h
	}
	chosen = true
	return Look{Err: problem}, candidate
}

// badness puts in order what a check says: it works, it works for some, it does not.
func (k *Keeper[T]) badness(problem error) int {
	switch {
	case problem == nil:
		return 0
	case k.Serves(problem):
		return 1
	}
	return 2
}

func (k *Keeper[T]) read(ctx context.Context) (map[string][]byte, error) {
	if k.Read == nil {
		return nil, nil //nolint:nilnil // no data, as there is no Secret
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	return k.Read(ctx)
}

func check[T any](ctx context.Context, h *holding[T]) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	return h.Check(ctx)
}
