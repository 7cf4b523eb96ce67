// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/x509"
	"testing"
	"time"
)

// host is the name in the certificates of tests.
const host = "localhost"

func renewed(t testing.TB, now time.Time) Certificates {
	t.Helper()
	c, _, err := Certificates{}.Renew(now, host)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// verify returns whether an agent with this bundle trusts a certificate, as an
// error.
func verify(t *testing.T, bundle, certificate []byte, now time.Time) error {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		t.Fatal("the bundle is empty")
	}
	c, err := parse(certificate)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, CurrentTime: now})
	return err
}

// For three years, an agent that gets each bundle up to half an hour late
// trusts the operator at every moment.
func TestCertificatesAreRenewedInTime(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	c := renewed(t, now)
	type handed struct {
		at     time.Time
		bundle []byte
	}
	bundles := []handed{{now, c.Bundle()}}
	authorities, certificates := 1, 1
	for end := now.Add(3 * caLifetime); now.Before(end); {
		// Every 20 minutes while something happens.
		step := 20 * time.Minute
		if now.Sub(bundles[len(bundles)-1].at) > 3*time.Hour {
			step = 12 * time.Hour
		}
		now = now.Add(step)
		next, changed, err := c.Renew(now, host)
		if err != nil {
			t.Fatal(err)
		}
		if changed {
			if string(next.CA) != string(c.CA) {
				authorities++
			}
			if string(next.Certificate) != string(c.Certificate) {
				certificates++
			}
			bundles = append(bundles, handed{now, next.Bundle()})
			c = next
		}
		for i, b := range bundles {
			old := i+1 < len(bundles) && now.Sub(bundles[i+1].at) > 30*time.Minute
			if old {
				continue
			}
			if err := verify(t, b.bundle, c.Certificate, now); err != nil {
				t.Fatalf("at %v, with the bundle of %v: %v", now, b.at, err)
			}
		}
		bundles = bundles[max(0, len(bundles)-3):]
	}
	if authorities != 5 || certificates < 50 || certificates > 65 {
		t.Errorf("%d CAs and %d certificates in three years", authorities, certificates)
	}
}

// Damaged certificates, and those for another name, are replaced.
func TestCertificatesThatDoNotFit(t *testing.T) {
	now := time.Now()
	good := renewed(t, now)
	if _, changed, err := good.Renew(now, host); err != nil || changed {
		t.Errorf("good ones are changed: %v", err)
	}
	other := renewed(t, now)
	for name, spoil := range map[string]func(c *Certificates){
		"no key":                      func(c *Certificates) { c.Key = nil },
		"a key of another":            func(c *Certificates) { c.Key = other.Key },
		"garbage":                     func(c *Certificates) { c.Certificate = []byte("x") },
		"signed by another":           func(c *Certificates) { c.Certificate, c.Key = other.Certificate, other.Key },
		"CA is garbage":               func(c *Certificates) { c.CA = []byte("x") },
		"all of it had expired":       func(c *Certificates) { *c = renewed(t, now.Add(-2*caLifetime)) },
		"the certificate had expired": func(c *Certificates) { *c = renewed(t, now.Add(-2*servingLifetime)) },
	} {
		bad := good
		spoil(&bad)
		c, changed, err := bad.Renew(now, host)
		if err != nil || !changed {
			t.Errorf("%s: changed %v, %v", name, changed, err)
			continue
		}
		if err := verify(t, c.Bundle(), c.Certificate, now); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if c, changed, err := good.Renew(now, "other"); err != nil || !changed || string(c.CA) != string(good.CA) {
		t.Errorf("another name: changed %v, %v", changed, err)
	}
}
