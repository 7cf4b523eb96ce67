// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/agent"
	"github.com/kubernetes-sigs/blixt/operator/datapath"
)

// Whatever is published, and however fast, agents end with what it means on
// their nodes.
func TestAgentsEndWithWhatWasPublished(t *testing.T) {
	o := newOperator(t, "", nil)
	for _, name := range []string{"n1", "n2"} {
		newNode(t, o, name, nil)
	}
	r := rand.New(rand.NewPCG(1, 2))
	s := randomSnapshot(r)
	for range 40 {
		var v agent.Version
		for range 1 + r.IntN(3) {
			s = mutate(r, s)
			v = o.Publish(s)
		}
		for _, name := range []string{"n1", "n2"} {
			o.serves(t, name, v, s)
		}
	}
	if full, changes := o.updatesOf("complete"), o.updatesOf("changes"); full != 2 || changes < 40 {
		t.Errorf("%d complete updates and %d of changes, want one complete for each agent", full, changes)
	}
	if again := o.Publish(s); again != o.Publish(s) {
		t.Errorf("the same snapshot is another version %+v", again)
	}
}

// An agent that has lost the stream is told what it has missed, no more.
func TestReconnectedAgentGetsChanges(t *testing.T) {
	o := newOperator(t, "", nil)
	p := newProxy(t, o.address)
	newNode(t, o, "n1", func(c *ClientOptions) { c.Operator = p.operator() })
	o.serves(t, "n1", o.Publish(web(5)), web(5))
	for i := range 5 {
		p.cut()
		if i%2 == 1 { // back before there is something to say
			eventually(t, func() string {
				if n := p.accepted.Load(); int(n) < i+2 {
					return fmt.Sprintf("%d connections after %d cuts", n, i+1)
				}
				return ""
			})
		}
		o.serves(t, "n1", o.Publish(web(6+i)), web(6+i))
	}
	if n := p.accepted.Load(); n < 6 {
		t.Errorf("%d connections: nothing was cut", n)
	}
	if full := o.updatesOf("complete"); full != 1 {
		t.Errorf("%d complete updates, want 1", full)
	}
}

// A process that has begun anew has nothing in memory, and maps that hold the
// state already: nothing is written.
func TestRestartedAgentWritesNothing(t *testing.T) {
	o := newOperator(t, "", nil)
	fake := datapath.NewFake(testSizes)
	with := func(c *ClientOptions) { c.Tables = fake }
	n := newNode(t, o, "n1", with)
	o.serves(t, "n1", o.Publish(web(5)), web(5))
	n.stop()
	fake.Writes()
	n = newNode(t, o, "n1", with)
	eventually(t, func() string {
		if err := n.Ready(); err != nil {
			return err.Error()
		}
		return ""
	})
	n.stop()
	if writes := fake.Writes(); writes != 0 {
		t.Errorf("%d writes", writes)
	}
}

// A new leader begins with another epoch, whatever its sequence; one whose etcd
// was restored has published less than agents hold.
func TestNewLeader(t *testing.T) {
	first := newOperator(t, "", nil)
	n := newNode(t, first, "n1", nil)
	for i := range 5 {
		first.serves(t, "n1", first.Publish(web(i)), web(i))
	}
	first.Lead(2) // the same process again
	v := first.Publish(web(7))
	if v != (agent.Version{Epoch: 2, Sequence: 1}) {
		t.Errorf("version %+v", v)
	}
	first.serves(t, "n1", v, web(7))
	first.stop()
	restored := newOperator(t, first.address, first.certificates.Load())
	restored.Lead(3)
	restored.serves(t, "n1", restored.Publish(web(2)), web(2))
	if err := n.Ready(); err != nil {
		t.Error(err)
	}
	// An epoch that was used before is no way back, and said to be none.
	restored.serves(t, "n1", restored.Publish(web(3)), web(3))
	restored.Lead(3)
	eventually(t, func() string {
		if restored.refusedFor(ReasonFalseAck) == 0 {
			return "an agent with a later state of the same epoch is let in"
		}
		return ""
	})
	restored.Lead(4)
	restored.serves(t, "n1", restored.Publish(web(1)), web(1))
}

// An operator that does not lead sends agents to the one that does.
func TestFollowerSendsAgentsToLeader(t *testing.T) {
	leader := newOperator(t, "", nil)
	v := leader.Publish(web(3))
	follower := newOperator(t, "", leader.certificates.Load())
	follower.Follow(leader.address)
	newNode(t, follower, "n1", nil)
	leader.serves(t, "n1", v, web(3))
	if r := follower.Reports(); len(r) > 0 {
		t.Errorf("the follower has let somebody in: %+v", r)
	}
	if v := follower.Publish(web(1)); v != (agent.Version{}) {
		t.Errorf("the follower has published %+v", v)
	}
}

// The kernel goes on serving while the operator is away, and is told what has
// changed when it is back.
func TestOperatorAway(t *testing.T) {
	o := newOperator(t, "", nil)
	text := &logged{}
	n := newNode(t, o, "n1", func(c *ClientOptions) { c.Log = textLog(text) })
	o.serves(t, "n1", o.Publish(web(3)), web(3))
	o.stop()
	eventually(t, func() string {
		if text.count("the operator is away") == 0 {
			return "the agent does not say that the operator is away"
		}
		return ""
	})
	before, _ := n.fake.Config()
	if err := n.Ready(); err != nil {
		t.Error(err)
	}
	late := newNode(t, o, "n2", nil)
	eventually(t, func() string {
		if err := late.Ready(); err == nil || !strings.Contains(err.Error(), "has not been reached") {
			return fmt.Sprintf("an agent that has never reached the operator is ready: %v", err)
		}
		return ""
	})
	if after, _ := n.fake.Config(); after != before {
		t.Errorf("maps have changed: %+v", after)
	}
	back := newOperator(t, o.address, o.certificates.Load())
	back.Lead(2)
	v := back.Publish(web(4))
	back.serves(t, "n1", v, web(4))
	back.serves(t, "n2", v, web(4))
}

// Each side notices within 20 seconds that the other has fallen silent.
func TestSilence(t *testing.T) {
	t.Parallel()
	o := newOperator(t, "", nil)
	p := newProxy(t, o.address)
	text := &logged{}
	newNode(t, o, "n1", func(c *ClientOptions) { c.Operator, c.Log = p.operator(), textLog(text) })
	o.serves(t, "n1", o.Publish(web(3)), web(3))
	p.freeze()
	began := time.Now()
	eventually(t, func() string {
		if r, _ := o.report("n1", "blue"); r.Connected {
			return "the operator does not notice a silent agent"
		}
		return ""
	})
	eventually(t, func() string {
		if text.count("the operator is away") == 0 {
			return "the agent does not notice a silent operator"
		}
		return ""
	})
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("noticed after %v", took)
	}
	p.thaw()
	o.serves(t, "n1", o.Publish(web(4)), web(4))
}

// Many backends are more than a part.
func TestManyBackends(t *testing.T) {
	o := newOperator(t, "", nil)
	sizes := testSizes
	sizes.Backends = 1 << 15
	newNode(t, o, "n1", func(c *ClientOptions) { c.Tables = datapath.NewFake(sizes) })
	s := web(20_000)
	if n := len(encoded(t, s)); n <= partSize {
		t.Errorf("%d bytes are one part", n)
	}
	o.serves(t, "n1", o.Publish(s), s)
}

// What does not fit is said in the words of the table, and what was served
// before goes on; once it fits it is served.
func TestFullTable(t *testing.T) {
	o := newOperator(t, "", nil)
	n := newNode(t, o, "n1", nil)
	small := o.Publish(web(3))
	o.serves(t, "n1", small, web(3))
	o.Publish(web(600))
	eventually(t, func() string {
		r, _ := o.report("n1", "blue")
		if r.Version != small || r.Error != "table backends of size 511 is too small: 600 needed" {
			return fmt.Sprintf("report %+v", r)
		}
		return ""
	})
	if err := n.Ready(); err != nil {
		t.Error(err)
	}
	o.serves(t, "n1", o.Publish(web(500)), web(500))
	if r, _ := o.report("n1", "blue"); r.Error != "" || r.Backends != 500 || r.Frontends != 1 || r.Tables["backends"] != (agent.Use{Used: 500, Size: 511}) {
		t.Errorf("report %+v", r)
	}
}

// Another writer is noticed, told of and undone.
func TestForeignWriter(t *testing.T) {
	o := newOperator(t, "", nil)
	n := newNode(t, o, "n1", nil)
	v := o.Publish(web(3))
	o.serves(t, "n1", v, web(3))
	lock := n.fake
	c, err := lock.Config()
	if err != nil {
		t.Fatal(err)
	}
	c.StateHash++
	if err := lock.SetConfig(c); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if r, _ := o.report("n1", "blue"); !strings.Contains(r.Drift, "another writer") {
			return fmt.Sprintf("report %+v", r)
		}
		return ""
	})
	o.serves(t, "n1", v, web(3))
}

// Two applications on a node have settings of their own, and a change of them
// needs no new state.
func TestSettingsOfTwoApplications(t *testing.T) {
	o := newOperator(t, "", nil)
	o.SetSettings("green", Settings{SNAT: agent.PortRange{Min: 20000, Max: 29999}})
	v := o.Publish(web(3))
	blue := newNode(t, o, "n1", nil)
	green := newNode(t, o, "n1", func(c *ClientOptions) { c.Application = "green" })
	check := func(n *node, application string, snat agent.PortRange, drain bool) {
		t.Helper()
		eventually(t, func() string {
			c, err := n.fake.Config()
			r, _ := o.report("n1", application)
			if err != nil || c.SnatMin != snat.Min || c.SnatMax != snat.Max || c.Flags&datapath.ConfigDrain != 0 != drain ||
				r.Draining != drain || r.SNAT != snat || r.Version != v {
				return fmt.Sprintf("%s has config %+v, report %+v", application, c, r)
			}
			return ""
		})
	}
	check(blue, "blue", agent.PortRange{Min: 11000, Max: 19999}, false)
	check(green, "green", agent.PortRange{Min: 20000, Max: 29999}, false)
	o.SetSettings("blue", Settings{SNAT: agent.PortRange{Min: 12000, Max: 13000}, Drain: map[string]bool{"n1": true}})
	check(blue, "blue", agent.PortRange{Min: 12000, Max: 13000}, true)
	check(green, "green", agent.PortRange{Min: 20000, Max: 29999}, false)
	o.SetSettings("blue", Settings{SNAT: agent.PortRange{Min: 12000, Max: 14000}})
	check(blue, "blue", agent.PortRange{Min: 12000, Max: 14000}, true) // as it was
	o.SetSettings("blue", Settings{SNAT: agent.PortRange{Min: 12000, Max: 14000}, Drain: map[string]bool{"n1": false}})
	check(blue, "blue", agent.PortRange{Min: 12000, Max: 14000}, false)
	o.Forget("blue")
	eventually(t, func() string {
		if all := o.Reports(); len(all) != 1 || all[0].Application != "green" || o.refusedFor(ReasonApplication) == 0 {
			return fmt.Sprintf("reports %+v", all)
		}
		return ""
	})
}

// A node that changes its addresses serves at the new ones.
func TestNodeChanges(t *testing.T) {
	o := newOperator(t, "", nil)
	n := newNode(t, o, "n1", nil)
	s := web(3)
	s.Addresses[0].IP, s.Frontends[0].Addr = v4any, v4any
	v := o.Publish(s)
	o.serves(t, "n1", v, s)
	changed := testNode(1)
	changed.Addresses = changed.Addresses[:1]
	changed.Addresses[0] = changed.Addresses[0].Next()
	o.SetNodes([]Node{changed})
	eventually(t, func() string {
		frontends, err := n.fake.Frontends()
		for key := range frontends {
			if len(frontends) == 1 && key.Addr == changed.Addresses[0] {
				return ""
			}
		}
		return fmt.Sprintf("frontends %+v, %v", frontends, err)
	})
	o.SetNodes(nil)
	eventually(t, func() string {
		if all := o.Reports(); len(all) > 0 {
			return fmt.Sprintf("reports %+v", all)
		}
		return ""
	})
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
