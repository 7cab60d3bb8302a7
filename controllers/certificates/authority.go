// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package certificates

import (
	"bytes"
	"crypto/x509"
	"slices"
	"time"
)

// Lives and margins.
const (
	authorityLife = 365 * 24 * time.Hour
	servingLife   = 90 * 24 * time.Hour
	// succession is how long before its end an authority gets a successor: longer
	// than any certificate it may still sign.
	succession = servingLife + 30*24*time.Hour
	// publishBefore is how long a successor is in the bundle before it signs. Sidecars
	// have the bundle within minutes; a day also covers a long outage of the manager.
	publishBefore = 24 * time.Hour
	// republishBefore is how long a manager has known a successor before it lets it sign.
	// The manager that made it may have ended before the bundle was everywhere: after a
	// start the settings of every policy are written again, and kubelets need two minutes.
	republishBefore = 5 * time.Minute
	// backdate lets verifiers be late: a certificate is valid this long before it is made.
	backdate = time.Hour
)

// Keys of the authority's Secret, beside tls.crt and tls.key for the one that signs.
const (
	// BundleKey holds every authority to trust, PEM.
	BundleKey   = "bundle.pem"
	nextCertKey = "next.crt"
	nextKeyKey  = "next.key"

	certKey = "tls.crt"
	keyKey  = "tls.key"
	caKey   = "ca.crt"
)

// content is the data of a Secret.
type content map[string][]byte

// authority is the content of the authority's Secret, understood.
type authority struct {
	current pair
	next    *pair
	// previous no longer sign; what they have signed still verifies.
	previous []*x509.Certificate
}

// nextAuthority works out what the authority's Secret is to hold at now, and when
// to look again. Content that cannot be read is replaced, but every certificate in it
// that still can be stays trusted. seen is since when this manager has known the next
// authority that is held.
func nextAuthority(held content, seen, now time.Time) (*authority, time.Time, error) {
	a := &authority{}
	trusted := parseCertificates(held[BundleKey])
	current, err := parsePair(held[certKey], held[keyKey])
	if err != nil {
		trusted = append(trusted, parseCertificates(held[certKey])...)
	}
	next, err2 := parsePair(held[nextCertKey], held[nextKeyKey])
	usable := func(p pair, err error) bool { return err == nil && p.cert.IsCA && now.Before(p.cert.NotAfter) }

	switch {
	case usable(next, err2) && (!usable(current, err) || !now.Before(signsFrom(next, seen))):
		a.current = next
		if err == nil {
			trusted = append(trusted, current.cert)
		}
	case usable(current, err):
		a.current = current
		if usable(next, err2) {
			a.next = &next
		}
	default:
		if a.current, err = newAuthority(now); err != nil {
			return nil, time.Time{}, err
		}
	}
	if a.next == nil && a.current.cert.NotAfter.Sub(now) <= succession {
		successor, err := newAuthority(now)
		if err != nil {
			return nil, time.Time{}, err
		}
		a.next, seen = &successor, now
	}
	a.keep(trusted, now)
	recheck := a.recheck(seen)
	return a, recheck, nil
}

// publishedAt is when an authority came into the bundle: when it was made.
func publishedAt(p pair) time.Time { return p.cert.NotBefore.Add(backdate) }

// signsFrom is when a next authority takes over.
func signsFrom(p pair, seen time.Time) time.Time {
	from := publishedAt(p).Add(publishBefore)
	if again := seen.Add(republishBefore); again.After(from) {
		return again
	}
	return from
}

// keep remembers those of trusted that are neither dead nor in another role.
func (a *authority) keep(trusted []*x509.Certificate, now time.Time) {
	for _, cert := range trusted {
		if !cert.IsCA || !now.Before(cert.NotAfter) || cert.Equal(a.current.cert) || (a.next != nil && cert.Equal(a.next.cert)) {
			continue
		}
		if !slices.ContainsFunc(a.previous, cert.Equal) {
			a.previous = append(a.previous, cert)
		}
	}
}

// recheck is when time alone will change something.
func (a *authority) recheck(seen time.Time) time.Time {
	at := a.current.cert.NotAfter.Add(-succession)
	if a.next != nil {
		at = signsFrom(*a.next, seen)
	}
	for _, cert := range a.previous {
		at = earlier(at, cert.NotAfter)
	}
	return at
}

// bundle is every authority to trust, PEM.
func (a *authority) bundle() []byte {
	var out bytes.Buffer
	out.Write(encodeCertificate(a.current.cert))
	if a.next != nil {
		out.Write(encodeCertificate(a.next.cert))
	}
	for _, cert := range a.previous {
		out.Write(encodeCertificate(cert))
	}
	return out.Bytes()
}

// content is the authority as a Secret holds it.
func (a *authority) content() (content, error) {
	key, err := a.current.encodeKey()
	if err != nil {
		return nil, err
	}
	out := content{certKey: encodeCertificate(a.current.cert), keyKey: key, BundleKey: a.bundle()}
	if a.next != nil {
		if out[nextKeyKey], err = a.next.encodeKey(); err != nil {
			return nil, err
		}
		out[nextCertKey] = encodeCertificate(a.next.cert)
	}
	return out, nil
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
