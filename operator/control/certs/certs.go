// SPDX-License-Identifier: Apache-2.0

// Package certs renews the certificate by which agents know the operator, and
// the CA that signs it. In come the certificates as stored and the time; out
// come those that should be stored. It is pure, apart from random keys.
package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"time"
)

// Lifetimes of certificates. Each certificate is renewed when a third of its
// lifetime is left. A new CA is distributed before it signs: it reaches agents
// by a ConfigMap, which takes minutes. The previous CA stays in the bundle as
// long as it is valid.
const (
	caLifetime      = 365 * 24 * time.Hour
	servingLifetime = 30 * 24 * time.Hour
	distribution    = time.Hour
	clockSkew       = 5 * time.Minute
)

// Certificates are the operator's certificate and the CAs by which agents know
// it, PEM-encoded. All but Bundle is secret. The zero value has none of them.
type Certificates struct {
	// CA and CAKey sign. NextCA and NextCAKey will sign next.
	CA, CAKey, NextCA, NextCAKey []byte
	// OldCA is the previous CA.
	OldCA []byte
	// Certificate and Key are the operator's.
	Certificate, Key []byte
}

// Bundle returns the CAs that an agent should trust, PEM-encoded.
func (c Certificates) Bundle() []byte { return slices.Concat(c.CA, c.NextCA, c.OldCA) }

// Renew returns the certificates that an operator with these DNS names should
// have now, and whether they differ from c. The caller distributes the bundle
// before it uses the certificate, and calls Renew again a few times an hour.
func (c Certificates) Renew(now time.Time, names ...string) (Certificates, bool, error) {
	r := &renewal{now: now, names: names, Certificates: c}
	if err := r.renew(); err != nil {
		return c, false, fmt.Errorf("renew certificates: %w", err)
	}
	return r.Certificates, r.changed, nil
}

// Pair returns the operator's certificate with its key. It returns an error if
// they do not match.
func (c Certificates) Pair() (tls.Certificate, error) {
	return tls.X509KeyPair(c.Certificate, c.Key)
}

type renewal struct {
	Certificates
	now     time.Time
	names   []string
	changed bool
}

// renew first drops what cannot be used, as after a clock was wrong or somebody
// has edited the Secret. What is left is renewed in time.
func (r *renewal) renew() (err error) {
	r.dropUnusable()
	ca, _ := parse(r.CA)
	switch {
	case ca == nil:
		if err := r.replaceCA(); err != nil {
			return err
		}
	case r.due(ca) || r.CAKey == nil:
		if err := r.changeCA(); err != nil {
			return err
		}
	}
	if r.serves() {
		return nil
	}
	if r.CAKey == nil { // it cannot sign
		r.OldCA = r.CA
		if err := r.replaceCA(); err != nil {
			return err
		}
	}
	r.changed = true
	r.Certificate, r.Key, err = r.makeServing()
	return err
}

// dropUnusable drops CAs that are no CA at this time, and keys that are not
// theirs. A CA without its key stays, as it has signed what agents trust.
func (r *renewal) dropUnusable() {
	drop := func(field *[]byte) {
		r.changed = r.changed || len(*field) > 0
		*field = nil
	}
	for _, field := range []*[]byte{&r.CA, &r.NextCA, &r.OldCA} {
		if c, err := parse(*field); err != nil || !c.IsCA || !r.valid(c, clockSkew) {
			drop(field)
		}
	}
	if !matches(r.CA, r.CAKey) {
		drop(&r.CAKey)
	}
	if !matches(r.NextCA, r.NextCAKey) {
		drop(&r.NextCA)
		drop(&r.NextCAKey)
	}
}

// valid reports whether a certificate is valid now. One that will be soon counts:
// the clock of the replica that made it may be a little ahead. What will be valid
// much later was made while a clock was wrong.
func (r *renewal) valid(c *x509.Certificate, soon time.Duration) bool {
	return !r.now.Add(soon).Before(c.NotBefore) && !r.now.After(c.NotAfter)
}

// matches reports whether a key is that of a certificate.
func matches(certificate, key []byte) bool {
	_, err := tls.X509KeyPair(certificate, key)
	return err == nil
}

// replaceCA replaces a CA that cannot be used: by the next one, which agents know
// already, or else by a new one.
func (r *renewal) replaceCA() (err error) {
	r.changed = true
	if r.NextCA != nil {
		r.CA, r.CAKey, r.NextCA, r.NextCAKey = r.NextCA, r.NextCAKey, nil, nil
		return nil
	}
	r.CA, r.CAKey, err = r.makeCA()
	return err
}

// changeCA creates the next CA or, once that has been distributed for long
// enough, makes it the one that signs.
func (r *renewal) changeCA() (err error) {
	next, _ := parse(r.NextCA)
	switch {
	case next == nil:
		r.NextCA, r.NextCAKey, err = r.makeCA()
		r.changed = true
	case r.now.Sub(next.NotBefore.Add(clockSkew)) >= distribution:
		r.OldCA = r.CA
		return r.replaceCA()
	}
	return err
}

// due reports whether less than a third of the lifetime is left.
func (r *renewal) due(c *x509.Certificate) bool {
	return c.NotAfter.Sub(r.now) < c.NotAfter.Sub(c.NotBefore)/3
}

// serves reports whether the operator's certificate is still good.
func (r *renewal) serves() bool {
	c, err := parse(r.Certificate)
	if err != nil || !r.valid(c, 0) || r.due(c) || !slices.Equal(c.DNSNames, r.names) || !matches(r.Certificate, r.Key) {
		return false
	}
	ca, err := parse(r.CA)
	return err == nil && c.CheckSignatureFrom(ca) == nil
}

func (r *renewal) makeCA() (cert, key []byte, err error) {
	return r.make(&x509.Certificate{
		Subject: pkix.Name{CommonName: "Blixt " + r.now.UTC().Format(time.DateTime)}, NotAfter: r.now.Add(caLifetime),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil, nil)
}

func (r *renewal) makeServing() (cert, key []byte, err error) {
	ca, err := parse(r.CA)
	if err != nil {
		return nil, nil, err
	}
	pair, err := tls.X509KeyPair(r.CA, r.CAKey)
	if err != nil {
		return nil, nil, err
	}
	notAfter := r.now.Add(servingLifetime)
	if ca.NotAfter.Before(notAfter) {
		notAfter = ca.NotAfter
	}
	return r.make(&x509.Certificate{
		Subject: pkix.Name{CommonName: "Blixt operator"}, NotAfter: notAfter, DNSNames: r.names,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca, pair.PrivateKey)
}

// make creates a certificate and its key, signed by the parent or, if there is
// none, by itself.
func (r *renewal) make(c, parent *x509.Certificate, parentKey crypto.PrivateKey) (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if parent == nil {
		parent, parentKey = c, private
	}
	c.NotBefore = r.now.Add(-clockSkew)
	if c.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return nil, nil, err
	}
	signed, err := x509.CreateCertificate(rand.Reader, c, parent, private.Public(), parentKey)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return encodePEM("CERTIFICATE", signed), encodePEM("PRIVATE KEY", der), nil
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// parse parses a single certificate. It returns an error if the text is
// anything else.
func parse(text []byte) (*x509.Certificate, error) {
	block, rest := pem.Decode(text)
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("want one certificate as PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}
