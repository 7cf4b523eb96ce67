// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/control/certs"
	"github.com/kubernetes-sigs/blixt/operator/node/agent"
)

func renewed(t testing.TB, c certs.Certificates, now time.Time) certs.Certificates {
	t.Helper()
	c, _, err := c.Renew(now, host)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// New certificates, and a new CA, under load: no stream breaks, and new streams
// trust the operator at every moment.
func TestCertificatesChangeUnderLoad(t *testing.T) {
	now := time.Now()
	c := renewed(t, renewed(t, certs.Certificates{}, now.Add(-250*24*time.Hour)), now.Add(-25*24*time.Hour))
	o := newOperator(t, "", &c)
	p := newProxy(t, o.address)
	n := newNode(t, o, "n1", func(c *agent.Options) { c.Operator = p.operator() })
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
	// An agent with only the first CA does not trust the operator.
	text := &logged{}
	newNode(t, o, "n2", func(o *agent.Options) { o.Log = textLog(text); write(t, o.CAFile, first.CA) })
	eventually(t, func() string {
		if text.count("unknown authority") == 0 {
			return "an agent trusts a certificate of a CA that it does not know"
		}
		return ""
	})
}
