// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"crypto/x509"
	"fmt"
	"sync"
	"testing"
	"time"
)

func renewed(t testing.TB, c Certificates, now time.Time) Certificates {
	t.Helper()
	c, _, err := c.Renew(now, host)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// verify returns what an agent that knows a bundle says of a certificate.
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

// In three years, an agent that got each bundle up to half an hour late knows
// the operator at every moment.
func TestCertificatesAreRenewedInTime(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	c := renewed(t, Certificates{}, now)
	type handed struct {
		at     time.Time
		bundle []byte
	}
	bundles := []handed{{now, c.Bundle()}}
	authorities, certificates := 1, 1
	for end := now.Add(3 * caLifetime); now.Before(end); {
		// Every 20 minutes where something happens.
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

// What was kept badly, or by an operator of another name, is made anew.
func TestCertificatesThatDoNotFit(t *testing.T) {
	now := time.Now()
	good := renewed(t, Certificates{}, now)
	if _, changed, err := good.Renew(now, host); err != nil || changed {
		t.Errorf("good ones are changed: %v", err)
	}
	other := renewed(t, Certificates{}, now)
	for name, spoil := range map[string]func(c *Certificates){
		"no key":                      func(c *Certificates) { c.Key = nil },
		"a key of another":            func(c *Certificates) { c.Key = other.Key },
		"garbage":                     func(c *Certificates) { c.Certificate = []byte("x") },
		"signed by another":           func(c *Certificates) { c.Certificate, c.Key = other.Certificate, other.Key },
		"CA is garbage":               func(c *Certificates) { c.CA = []byte("x") },
		"all of it had expired":       func(c *Certificates) { *c = renewed(t, Certificates{}, now.Add(-2*caLifetime)) },
		"the certificate had expired": func(c *Certificates) { *c = renewed(t, Certificates{}, now.Add(-2*servingLifetime)) },
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

// New certificates, and a new CA, under load: no stream is broken by it, and
// those that begin anew know the operator at every moment.
func TestCertificatesChangeUnderLoad(t *testing.T) {
	now := time.Now()
	c := renewed(t, renewed(t, Certificates{}, now.Add(-250*24*time.Hour)), now.Add(-25*24*time.Hour))
	o := newOperator(t, "", &c)
	p := newProxy(t, o.address)
	n := newNode(t, o, "n1", func(c *ClientOptions) { c.Operator = p.operator() })
	done := make(chan struct{})
	var load sync.WaitGroup
	load.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
				o.Publish(web(i % 10))
			}
		}
	})
	reconnect := func() {
		t.Helper()
		before := p.accepted.Load()
		p.cut()
		eventually(t, func() string {
			if p.accepted.Load() == before {
				return "the agent does not come back"
			}
			return ""
		})
		v := o.Publish(web(11))
		eventually(t, func() string {
			if r, _ := o.report("n1", "blue"); !r.Connected || r.Version.Sequence < v.Sequence {
				return fmt.Sprintf("report %+v, want sequence %d", r, v.Sequence)
			}
			return ""
		})
	}
	first := c
	for _, at := range []time.Time{now.Add(-2 * time.Hour), now} {
		next := renewed(t, c, at)
		write(t, n.ca, next.Bundle())
		reconnect() // new bundle, old certificate
		accepted := p.accepted.Load()
		o.certificates.Store(&next)
		v := o.Publish(web(12))
		eventually(t, func() string {
			if r, _ := o.report("n1", "blue"); r.Version.Sequence < v.Sequence {
				return fmt.Sprintf("report %+v, want sequence %d", r, v.Sequence)
			}
			return ""
		})
		if p.accepted.Load() != accepted {
			t.Error("a new certificate has broken the stream")
		}
		reconnect() // both new
		c = next
	}
	close(done)
	load.Wait()
	if string(c.CA) == string(first.CA) || string(c.Certificate) == string(first.Certificate) {
		t.Error("the CA or the certificate has not changed")
	}
	o.serves(t, "n1", o.Publish(web(13)), web(13))
	// An agent that knows only the first CA does not know the operator.
	text := &logged{}
	newNode(t, o, "n2", func(o *ClientOptions) { o.Log = textLog(text); write(t, o.CAFile, first.CA) })
	eventually(t, func() string {
		if text.count("unknown authority") == 0 {
			return "an agent trusts a certificate of a CA that it does not know"
		}
		return ""
	})
}
