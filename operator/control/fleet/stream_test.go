// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubernetes-sigs/blixt/operator/control/certs"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/agent"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// Whatever is published, and however fast: agents end with the last snapshot,
// resolved for their nodes.
func TestAgentsEndWithWhatWasPublished(t *testing.T) {
	o := newOperator(t, "", nil)
	for _, name := range []string{"n1", "n2"} {
		newNode(t, o, name, nil)
	}
	r := rand.New(rand.NewPCG(1, 2))
	s := randomSnapshot(r)
	for range 40 {
		var v lb.Version
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

// An agent that has lost the stream gets what it has missed, and no more.
func TestReconnectedAgentGetsChanges(t *testing.T) {
	o := newOperator(t, "", nil)
	p := newProxy(t, o.address)
	newNode(t, o, "n1", func(c *agent.Options) { c.Operator = p.operator() })
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

// A restarted process has nothing in memory, but its maps hold the state
// already: it writes nothing.
func TestRestartedAgentWritesNothing(t *testing.T) {
	o := newOperator(t, "", nil)
	fake := datapath.NewFake(testSizes)
	with := func(c *agent.Options) { c.Tables = fake }
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

// The update for many backends takes several parts.
func TestManyBackends(t *testing.T) {
	o := newOperator(t, "", nil)
	sizes := testSizes
	sizes.Backends = 1 << 15
	newNode(t, o, "n1", func(c *agent.Options) { c.Tables = datapath.NewFake(sizes) })
	s := web(20_000)
	if n := len(encoded(t, s)); n <= partSize {
		t.Errorf("%d bytes are one part", n)
	}
	o.serves(t, "n1", o.Publish(s), s)
}

// What does not fit is reported with the table's name and size, and the rest is
// served. A state that fits clears the report.
func TestFullTable(t *testing.T) {
	o := newOperator(t, "", nil)
	n := newNode(t, o, "n1", nil)
	o.serves(t, "n1", o.Publish(web(3)), web(3))
	v := o.Publish(web(600))
	eventually(t, func() string {
		r, _ := o.report("n1", "blue")
		full := &lb.TableFull{Table: "backends", Size: 511, Needed: 600, Reduced: 1}
		if r.Version != v || r.Error != full.String() || !cmp.Equal(r.TableFull, full) || r.Backends != 511-511/8 {
			return fmt.Sprintf("report %+v", r)
		}
		return ""
	})
	if err := n.Ready(); err != nil {
		t.Error(err)
	}
	o.serves(t, "n1", o.Publish(web(500)), web(500))
	eventually(t, func() string { // the maps hold it before the agent knows that all is well
		if r, _ := o.report("n1", "blue"); r.Error != "" || r.TableFull != nil || r.Backends != 500 || r.Frontends != 1 || r.Tables["backends"] != (lb.Use{Used: 500, Size: 511}) {
			return fmt.Sprintf("report %+v", r)
		}
		return ""
	})
}

// Another writer is noticed and reported, and its changes are undone.
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

// The report names the frontends at which the node itself listens, and a change of
// them wakes whoever waits for changes.
func TestHostListens(t *testing.T) {
	o := newOperator(t, "", nil)
	n := newNode(t, o, "n1", func(a *agent.Options) { a.Writer.Ticks = func() uint32 { return 1 } })
	published := web(3)
	o.serves(t, "n1", o.Publish(published), web(3))
	key := published.Frontends[0].Key
	for _, want := range [][]lb.Key{{key}, nil} {
		for len(o.Changed()) > 0 {
			<-o.Changed()
		}
		listens := map[lb.Key]uint32{}
		for _, key := range want {
			listens[key] = 1
		}
		n.fake.SetHostListens(listens)
		eventually(t, func() string {
			if r, _ := o.report("n1", "blue"); !slices.Equal(r.HostListens, want) {
				return fmt.Sprintf("the node listens at %v, want %v", r.HostListens, want)
			}
			return ""
		})
		select {
		case <-o.Changed():
		case <-time.After(10 * time.Second):
			t.Fatal("nobody learns of the change")
		}
	}
}

// Two applications on a node have settings of their own, and a change of them
// needs no new state.
func TestSettingsOfTwoApplications(t *testing.T) {
	o := newOperator(t, "", nil)
	o.SetSettings("green", Settings{SNAT: lb.PortRange{First: 20000, Last: 29999}})
	v := o.Publish(web(3))
	blue := newNode(t, o, "n1", nil)
	green := newNode(t, o, "n1", func(c *agent.Options) { c.Application = "green" })
	check := func(n *node, application string, snat lb.PortRange, drain bool) {
		t.Helper()
		eventually(t, func() string {
			c, err := n.fake.Config()
			r, _ := o.report("n1", application)
			if err != nil || c.SnatMin != snat.First || c.SnatMax != snat.Last || c.Flags&datapath.ConfigDrain != 0 != drain ||
				r.Draining != drain || r.SNAT != snat || r.Version != v {
				return fmt.Sprintf("%s has config %+v, report %+v", application, c, r)
			}
			return ""
		})
	}
	check(blue, "blue", lb.PortRange{First: 11000, Last: 19999}, false)
	check(green, "green", lb.PortRange{First: 20000, Last: 29999}, false)
	o.SetSettings("blue", Settings{SNAT: lb.PortRange{First: 12000, Last: 13000}, Drain: map[string]bool{"n1": true}})
	check(blue, "blue", lb.PortRange{First: 12000, Last: 13000}, true)
	check(green, "green", lb.PortRange{First: 20000, Last: 29999}, false)
	o.SetSettings("blue", Settings{SNAT: lb.PortRange{First: 12000, Last: 14000}})
	check(blue, "blue", lb.PortRange{First: 12000, Last: 14000}, true) // as it was
	o.SetSettings("blue", Settings{SNAT: lb.PortRange{First: 12000, Last: 14000}, Drain: map[string]bool{"n1": false}})
	check(blue, "blue", lb.PortRange{First: 12000, Last: 14000}, false)
	o.SetSettings("blue", Settings{SNAT: lb.PortRange{First: 12000, Last: 14000}, ThroughStack: true, MasqueradeMark: 0x4000, Upgrading: true})
	eventually(t, func() string {
		if c, _ := blue.fake.Config(); c.MasqueradeMark != 0x4000 || c.Flags&datapath.ConfigUpgrading == 0 {
			return fmt.Sprintf("the mark is %#x, the flags %#x", c.MasqueradeMark, c.Flags)
		}
		return ""
	})
	o.Forget("blue")
	eventually(t, func() string {
		if all := o.Reports(); len(all) != 1 || all[0].Application != "green" || o.refusedFor(ReasonApplication) == 0 {
			return fmt.Sprintf("reports %+v", all)
		}
		return ""
	})
}

// All agents get the seed before the state. One that is not told a seed keeps that
// of its maps.
func TestSeedArrives(t *testing.T) {
	const seed, other = 0xfedcba9876543210, 5
	c := renewed(t, certs.Certificates{}, time.Now())
	o := newOperator(t, "", &c)
	o.SetSeed(seed)
	v := o.Publish(web(3))
	check := func(n *node, want uint64) {
		t.Helper()
		eventually(t, func() string {
			if c, err := n.fake.Config(); err != nil || c.Seed != want {
				return fmt.Sprintf("seed %#x (%v), want %#x", c.Seed, err, want)
			}
			return ""
		})
	}
	n1, n2 := newNode(t, o, "n1", nil), newNode(t, o, "n2", nil)
	for _, n := range []*node{n1, n2} {
		check(n, seed)
	}
	o.serves(t, "n1", v, web(3))
	o.serves(t, "n2", v, web(3))
	o.SetSeed(other)
	check(n1, other)
	check(n2, other)
	o.stop()
	n1.stop()
	next := newFollower(t, o.address, &c)
	next.Lead(2)
	n1 = newNode(t, next, "n1", func(a *agent.Options) { a.Tables = n1.fake }) // its writer knows no seed
	next.serves(t, "n1", next.Publish(web(2)), web(2))
	check(n1, other)
	next.SetSeed(seed)
	check(n1, seed)
	if text := fmt.Sprint(next.Reports()); strings.Contains(text, fmt.Sprint(uint64(seed))) {
		t.Errorf("reports %s", text)
	}
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
