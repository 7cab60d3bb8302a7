// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package issuerclient

import (
	"net/http"
	"strconv"
	"time"

	"github.com/tokenward/tokenward/internal/protocol"
)

// issuerTime is what an issuer has said of the time, and when that was here.
type issuerTime struct{ said, heard time.Time }

// hear takes the time from an answer. It is up to a second and the way behind the
// issuer's clock, so that nothing seems to be sent later than it was.
func (c *Client) hear(res *http.Response) {
	said, err := http.ParseTime(res.Header.Get("Date"))
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.issuerTime = issuerTime{said: said, heard: c.Now()}
}

// begun is when a call was sent at the latest, by our clock: now, or before the process
// stood still.
func (c *Client) begun() time.Time {
	if c.StoodStill == nil {
		return c.Now()
	}
	return c.Now().Add(-c.StoodStill())
}

// stamp says so by the issuers' clock, as it is known now: the answer to an attempt may
// have set it right. See ADR 0026.
func (c *Client) stamp(header http.Header, begun time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.issuerTime.said.IsZero() {
		return
	}
	sentAt := c.issuerTime.said.Add(begun.Sub(c.issuerTime.heard))
	header.Set(protocol.SentAtHeader, strconv.FormatInt(sentAt.UnixMilli(), 10))
}
