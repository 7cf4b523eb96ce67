// SPDX-License-Identifier: Apache-2.0

// Package certs renews the certificate by which agents know the operator, and
// the CA that signs it. In come the certificates as stored and the time; out
// come those that there should be. It is pure but for random keys.
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

// Lifetimes of certificates. Each is renewed when a third is left. A CA is
// handed out before it signs: it reaches agents by a ConfigMap, which takes
// minutes. The one before stays in the bundle as long as it is valid.
const (
	caLifetime      = 365 * 24 * time.Hour
	servingLifetime = 30 * 24 * time.Hour
	handOut         = time.Hour
	clockSkew       = 5 * time.Minute
)

// Certificates are the certificate of the operator and the CA that agents know
// it by, as PEM. All but Bundle is secret. The zero value is none.
type Certificates struct {
	// CA and CAKey sign; NextCA and NextCAKey will.
	CA, CAKey, NextCA, NextCAKey []byte
	// OldCA signed before.
	OldCA []byte
	// Certificate and Key are the operator's.
	Certificate, Key []byte
}

// Bundle returns the CAs that an agent should trust.
func (c Certificates) Bundle() []byte { return slices.Concat(c.CA, c.NextCA, c.OldCA) }

// Renew returns what the certificates should be now, for an operator of these
// DNS names, and whether that differs. Whoever keeps them hands the bundle out
// before the certificate is used, and asks again a few times an hour.
func (c Certificates) Renew(now time.Time, names ...string) (Certificates, bool, error) {
	r := &renewal{now: now, names: names, Certificates: c}
	if err := r.renew(); err != nil {
		return c, false, fmt.Errorf("renew certificates: %w", err)
	}
	return r.Certificates, r.changed, nil
}

// Pair returns the operator's certificate for TLS.
func (c Certificates) Pair() (tls.Certificate, error) {
	return tls.X509KeyPair(c.Certificate, c.Key)
}

type renewal struct {
	Certificates
	now     time.Time
	names   []string
	changed bool
}

func (r *renewal) renew() (err error) {
	ca, _ := parse(r.CA)
	if ca == nil || r.now.After(ca.NotAfter) {
		if r.CA, r.CAKey, err = r.makeCA(); err != nil {
			return err
		}
		r.NextCA, r.NextCAKey, r.OldCA, r.changed = nil, nil, nil, true
	} else if r.due(ca) {
		if err := r.changeCA(); err != nil {
			return err
		}
	}
	if old, _ := parse(r.OldCA); old != nil && r.now.After(old.NotAfter) {
		r.OldCA, r.changed = nil, true
	}
	if r.serves() {
		return nil
	}
	r.changed = true
	r.Certificate, r.Key, err = r.makeServing()
	return err
}

// changeCA makes the next CA, or makes it sign once it has been handed out.
func (r *renewal) changeCA() (err error) {
	next, _ := parse(r.NextCA)
	switch {
	case next == nil:
		r.NextCA, r.NextCAKey, err = r.makeCA()
		r.changed = true
	case r.now.Sub(next.NotBefore.Add(clockSkew)) >= handOut:
		r.OldCA, r.CA, r.CAKey, r.NextCA, r.NextCAKey = r.CA, r.NextCA, r.NextCAKey, nil, nil
		r.changed = true
	}
	return err
}

// due tells whether less than a third of a lifetime is left.
func (r *renewal) due(c *x509.Certificate) bool {
	return c.NotAfter.Sub(r.now) < c.NotAfter.Sub(c.NotBefore)/3
}

// serves tells whether the operator's certificate will do.
func (r *renewal) serves() bool {
	c, err := parse(r.Certificate)
	if err != nil || r.due(c) || !slices.Equal(c.DNSNames, r.names) {
		return false
	}
	if _, err := r.Pair(); err != nil {
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

// make signs by the parent, or by itself.
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

// parse reads one certificate. Returns an error if there is none.
func parse(text []byte) (*x509.Certificate, error) {
	block, rest := pem.Decode(text)
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("want one certificate as PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}
