// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/x509"
	"slices"
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

// A clock that was wrong for a while, ahead or behind, leaves nothing behind that
// agents with right clocks do not trust.
func TestCertificatesAfterAWrongClock(t *testing.T) {
	const day = 24 * time.Hour
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, leap := range []time.Duration{10 * time.Minute, day, 40 * day, 250 * day, 366 * day, 10 * 365 * day, -10 * time.Minute, -day, -366 * day} {
		for _, age := range []time.Duration{0, 12 * day, 250 * day} { // a third is left of the CA
			for _, passes := range []int{1, 2, 10} {
				c, now := renewed(t, start), start.Add(age)
				renew := func(at time.Time) {
					t.Helper()
					var err error
					if c, _, err = c.Renew(at, host); err != nil {
						t.Fatal(err)
					}
				}
				renew(now)
				for i := range passes { // the next CA is made, and signs
					renew(now.Add(leap + time.Duration(i)*2*distribution))
				}
				for i := range 3 {
					now = now.Add(time.Minute)
					renew(now)
					if err := verify(t, c.Bundle(), c.Certificate, now); err != nil {
						t.Fatalf("a CA of %v, %v off for %d passes, %d minutes later: %v", age, leap, passes, i+1, err)
					}
				}
				if _, changed, _ := c.Renew(now, host); changed {
					t.Errorf("a CA of %v, %v off for %d passes: it does not settle", age, leap, passes)
				}
			}
		}
	}
}

// Replicas whose clocks differ lead in turn: each has a certificate that agents
// trust whose clocks are right or like its own.
func TestCertificatesOfReplicasWithDifferentClocks(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, apart := range []time.Duration{time.Second, 4 * time.Minute, 11 * time.Minute, 24 * time.Hour, 2 * caLifetime} {
		c := renewed(t, now)
		for i := range 6 {
			ahead := time.Duration(i%2) * apart
			var err error
			if c, _, err = c.Renew(now.Add(ahead), host); err != nil {
				t.Fatal(err)
			}
			agents := now
			if ahead > clockSkew {
				agents = now.Add(ahead)
			}
			if err := verify(t, c.Bundle(), c.Certificate, agents); err != nil {
				t.Errorf("%v apart, leader %d: %v", apart, i%2, err)
			}
			now = now.Add(time.Hour)
		}
	}
}

// An expired CA gives way to the next one, which agents know already.
func TestExpiredCAGivesWayToTheNext(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	c := renewed(t, now)
	now = now.Add(caLifetime * 3 / 4)
	c, _, err := c.Renew(now, host)
	if err != nil || c.NextCA == nil {
		t.Fatal("no next CA: ", err)
	}
	known := c.Bundle()
	now = now.Add(caLifetime / 2) // the operator was away
	if c, _, err = c.Renew(now, host); err != nil {
		t.Fatal(err)
	}
	if err := verify(t, known, c.Certificate, now); err != nil {
		t.Error(err)
	}
}

// Whatever somebody makes of the Secret, the next pass has certificates that fit
// together, and what agents trust already stays where that is possible.
func TestSecretEditedByHand(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	now, c := now.Add(caLifetime*3/4), renewed(t, now)
	good, _, err := c.Renew(now, host)
	if err != nil || good.NextCA == nil {
		t.Fatal("no next CA: ", err)
	}
	other := renewed(t, now)
	fields := func(c *Certificates) []*[]byte {
		return []*[]byte{&c.CA, &c.CAKey, &c.NextCA, &c.NextCAKey, &c.OldCA, &c.Certificate, &c.Key}
	}
	values := [][]byte{nil, {}, []byte("garbage"), good.CA[:len(good.CA)/2], slices.Concat(good.CA, good.CA), other.CA, other.CAKey, other.Certificate, other.Key}
	for i := range fields(&good) {
		for j := range fields(&good) {
			for k, value := range values {
				bad := good
				*fields(&bad)[i], *fields(&bad)[j] = value, value
				c, _, err := bad.Renew(now, host)
				if err != nil {
					t.Fatalf("fields %d and %d are value %d: %v", i, j, k, err)
				}
				if err := verify(t, c.Bundle(), c.Certificate, now); err != nil {
					t.Errorf("fields %d and %d are value %d: %v", i, j, k, err)
				}
				if _, err := c.Pair(); err != nil {
					t.Errorf("fields %d and %d are value %d: %v", i, j, k, err)
				}
				if again, changed, err := c.Renew(now, host); err != nil || changed {
					t.Errorf("fields %d and %d are value %d: changed again to %+v: %v", i, j, k, again, err)
				}
			}
		}
	}
	// Without its key, the CA is replaced as an old one is: what it has signed stays
	// until agents know the next one.
	bad := good
	bad.CAKey, bad.NextCA, bad.NextCAKey = nil, nil, nil
	c, _, err = bad.Renew(now, host)
	if err != nil || string(c.Certificate) != string(good.Certificate) || c.NextCA == nil {
		t.Errorf("the key of the CA is gone: %v", err)
	}
}
