// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/agent"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// follow has an agent that holds a replica join, and applies updates until it has
// a version. It returns how many bytes came.
func follow(t *testing.T, o *operator, name string, m *agent.Replica, until lb.Version) (size int) {
	t.Helper()
	r := newRaw(t, o, name+"/agent")
	hello := &wire.Hello{Node: name, Application: "blue", Got: wire.EncodeVersion(m.Version), Status: &wire.Status{}}
	if m.Version != nil {
		hello.GotSum = m.Sum.Bytes()
	}
	_ = r.Send(&wire.AgentMessage{Message: &wire.AgentMessage_Hello{Hello: hello}})
	for m.Version == nil || *m.Version != until {
		u, err := r.update()
		if err != nil {
			t.Fatal(err)
		}
		data, err := proto.Marshal(u)
		if err != nil {
			t.Fatal(err)
		}
		size += len(data)
		if err := m.Apply(data, gateway.ResolveOptions{NodeName: name}); err != nil {
			t.Fatal(err)
		}
		r.ack(wire.EncodeVersion(m.Version), wire.EncodeVersion(m.Version))
	}
	return size
}

// Of a hundred agents, a new leader sends everything to the one that holds
// something else, and its number to the others. That holds for a leader whose epoch
// is older, too, as after a clock was set back.
func TestNewLeaderSendsEverythingToThoseThatDiffer(t *testing.T) {
	const agents, endpoints = 100, 1000
	var nodes []Node
	for i := range agents {
		nodes = append(nodes, Node{Name: fmt.Sprintf("n%d", i+1)})
	}
	first := newOperator(t, "", nil)
	first.SetNodes(nodes)
	replicas := make([]agent.Replica, agents)
	v := first.Publish(web(endpoints - 1))
	follow(t, first, "n1", &replicas[0], v) // misses the next one
	v = first.Publish(web(endpoints))
	for i := 1; i < agents; i++ {
		follow(t, first, nodes[i].Name, &replicas[i], v)
	}
	for _, epoch := range []uint64{2, 1} {
		second := newOperator(t, "", nil)
		second.Lead(epoch + 7)
		second.SetNodes(nodes)
		v = second.Publish(web(endpoints))
		sizes := make([]int, agents)
		for i := range replicas {
			sizes[i] = follow(t, second, nodes[i].Name, &replicas[i], v)
		}
		different := 1
		if epoch == 1 { // all have the same by now
			different = 0
		}
		if n := second.updatesOf("complete"); n != different {
			t.Errorf("%d complete updates, want %d", n, different)
		}
		if n := second.updatesOf("renumbered"); n != agents-different {
			t.Errorf("%d agents were given the number alone, want %d", n, agents-different)
		}
		if different == 1 && sizes[0] < 10*endpoints {
			t.Errorf("the one that differs got %d bytes", sizes[0])
		}
		if sizes[1] > 50 {
			t.Errorf("the others got %d bytes each", sizes[1])
		}
		t.Logf("%d bytes for the first, %d for each other one", sizes[0], sizes[1])
	}
}

// What agents hold may be what the new leader published first, before it learned
// of a change: they get the change. An agent of this epoch gets no number.
func TestNewLeaderHasGoneOn(t *testing.T) {
	first := newOperator(t, "", nil)
	var m agent.Replica
	follow(t, first, "n1", &m, first.Publish(web(1000)))
	second := newOperator(t, "", nil)
	second.Lead(9)
	second.Publish(web(1000))
	second.Publish(web(1))
	v := second.Publish(web(1001))
	follow(t, second, "n1", &m, v)
	if second.updatesOf("complete") != 0 || second.updatesOf("renumbered") != 1 || second.updatesOf("changes") != 1 {
		t.Errorf("%d complete, %d numbers, %d changes", second.updatesOf("complete"), second.updatesOf("renumbered"), second.updatesOf("changes"))
	}
	follow(t, second, "n1", &m, second.Publish(web(1000)))
	if second.updatesOf("renumbered") != 1 {
		t.Error("a version of this epoch got a number")
	}
}

// Who lies about what it holds has the wrong state, and nobody else has.
func TestAgentLiesAboutItsSum(t *testing.T) {
	first, second := newOperator(t, "", nil), newOperator(t, "", nil)
	var honest, liar agent.Replica
	follow(t, first, "n1", &honest, first.Publish(web(3)))
	follow(t, first, "n2", &liar, first.Publish(web(2)))
	second.Lead(9)
	v := second.Publish(web(3))
	liar.Sum = honest.Sum
	follow(t, second, "n2", &liar, v)
	for _, sum := range [][]byte{nil, {1}, bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{1}, 1000)} {
		r := newRaw(t, second, "n3/agent")
		_ = r.Send(&wire.AgentMessage{Message: &wire.AgentMessage_Hello{Hello: &wire.Hello{
			Node: "n3", Application: "blue", Got: &wire.Version{Epoch: 1, Sequence: 1}, GotSum: sum, Status: &wire.Status{},
		}}})
		if u, err := r.update(); err != nil || u.Base != nil {
			t.Errorf("sum %v: update %v, %v", sum, u, err)
		}
	}
	follow(t, second, "n1", &honest, v)
	if honest.Sum != second.history.sum || len(honest.Endpoints[web(3).Frontends[0].Refs[0].Service].Ports[0].Endpoints) != 3 {
		t.Errorf("the honest one has %+v", honest.Endpoints)
	}
}

// An update is encoded once for all agents, however many ask at the same time.
func TestUpdateIsEncodedOnce(t *testing.T) {
	h := newHistory(1)
	h.publish(indexSnapshot(web(1000)))
	all := make([][]byte, 50)
	var group sync.WaitGroup
	for i := range all {
		u := h.since(nil, true)
		group.Go(func() { all[i], _ = u.encoded() })
	}
	group.Wait()
	for _, data := range all {
		if len(data) == 0 || &data[0] != &all[0][0] {
			t.Fatal("it is encoded again")
		}
	}
}

// What is set again as it was wakes no session, and a change wakes those that it is
// for.
func TestSettingTheSameWakesNobody(t *testing.T) {
	s := NewServer(ServerOptions{})
	s.Lead(1)
	nodes := func() []Node { return []Node{testNode(1), testNode(2)} }
	settings := func(drain bool) Settings {
		return Settings{SNAT: lb.PortRange{First: 1, Last: 2}, Drain: map[string]bool{"n1": drain}}
	}
	s.SetNodes(nodes())
	s.SetSettings("blue", settings(false))
	s.SetSettings("red", settings(false))
	sessions := map[string]*session{}
	for _, m := range []member{{"blue", "n1"}, {"blue", "n2"}, {"red", "n1"}} {
		c := &session{member: m, wake: make(chan struct{}, 1), end: func(error) {}}
		s.sessions[m], s.reports[m], sessions[m.application+m.node] = c, &lb.Report{}, c
	}
	woken := func(what string, want ...string) {
		t.Helper()
		got := 0
		for _, c := range sessions {
			got += len(c.wake)
		}
		if got != len(want) {
			t.Errorf("%s wakes %d, want %v", what, got, want)
		}
		for _, name := range want {
			select {
			case <-sessions[name].wake:
			default:
				t.Errorf("%s does not wake %s", what, name)
			}
		}
	}
	s.SetNodes(nodes())
	woken("the same nodes")
	s.SetSettings("blue", settings(false))
	woken("the same settings")
	s.SetSettings("blue", settings(true))
	woken("draining on a node", "bluen1")
	moved := nodes()
	moved[1].Zone = "elsewhere"
	s.SetNodes(moved)
	woken("another zone", "bluen2")
	s.SetNodes(nodes())
	woken("the zone before", "bluen2")
	s.SetNodes(nodes()[:1])
	woken("a node alone", "bluen1", "redn1", "bluen2")
	s.Publish(web(1))
	woken("a version", "bluen1", "redn1", "bluen2")
	s.Publish(web(1))
	woken("the same version")
}

// A stream that has lasted long enough ends, and begins anew: that is no news.
func TestPlannedReconnection(t *testing.T) {
	o := newOperator(t, "", nil)
	o.o.MaxAge = 400 * time.Millisecond
	text := &logged{}
	newNode(t, o, "n1", func(c *agent.Options) { c.Log = textLog(text) })
	eventually(t, func() string {
		if text.count("connected to the operator") < 4 {
			return "the agent does not come again"
		}
		return ""
	})
	if text.count("WARN")+text.count("away") > 0 {
		t.Errorf("logged:\n%s", text.text.String())
	}
	if o.updatesOf("complete") > 1 {
		t.Error("it gets everything again")
	}
	o.serves(t, "n1", o.Publish(web(2)), web(2))
	r := newRaw(t, o, "n2/agent")
	r.hello("n2", "blue", nil, nil)
	for {
		if _, err := r.Recv(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// A node that sends nonsense as fast as it can is heard now and then. Others are
// heard at once.
func TestHostileNodeIsHeardNowAndThen(t *testing.T) {
	o := newOperator(t, "", nil)
	newNode(t, o, "n1", nil)
	start := time.Now()
	hostile := newRaw(t, o, "n2/agent")
	hostile.hello("n2", "blue", nil, nil)
	go func() {
		for i := range 100_000 {
			st := &wire.Status{Error: fmt.Sprint(i), HeartbeatLost: i%2 == 0}
			if hostile.Send(&wire.AgentMessage{Message: &wire.AgentMessage_Status{Status: st}}) != nil {
				return
			}
		}
	}()
	for i := range 5 {
		o.serves(t, "n1", o.Publish(web(i)), web(i))
		time.Sleep(50 * time.Millisecond)
	}
	r, _ := o.report("n2", "blue")
	heard := 0
	_, _ = fmt.Sscan(r.Error, &heard)
	if most := (maxCosts+costsPerSecond*int(1+time.Since(start).Seconds()))/changeCost + 1; heard > most {
		t.Errorf("it is heard %d times, want %d at most", heard, most)
	}
}

// A node that comes and goes does so a few times a second at most.
func TestFlappingNode(t *testing.T) {
	o := newOperator(t, "", nil)
	start, joined := time.Now(), 0
	for time.Since(start) < 2*time.Second {
		r := newRaw(t, o, "n2/agent")
		r.hello("n2", "blue", nil, nil)
		if _, err := r.Recv(); err != nil {
			t.Fatal(err)
		}
		joined++
	}
	if most := (maxCosts+costsPerSecond*int(1+time.Since(start).Seconds()))/joinCost + 1; joined > most {
		t.Errorf("it joined %d times, want %d at most", joined, most)
	}
}

// Numbers that no node has are none that the API server refuses to store.
func TestNumbersOfReports(t *testing.T) {
	var r lb.Report
	readStatus(&r, &wire.Status{
		Flows: math.MaxUint64, Frontends: math.MaxUint32, Backends: math.MaxUint32, PacketsAge: math.MaxUint64,
		Tables:    map[string]*wire.Use{"flows": {Used: math.MaxUint64, Size: math.MaxUint64}},
		TableFull: &wire.TableFull{Size: math.MaxUint64, Needed: math.MaxUint64, Frontends: math.MaxUint64, Reduced: math.MaxUint64},
	}, time.Now(), nil)
	if r.Flows > math.MaxInt64 {
		t.Errorf("%d flows", r.Flows)
	}
	for _, n := range []int{r.Frontends, r.Backends, r.Tables["flows"].Used, r.Tables["flows"].Size, r.TableFull.Size, r.TableFull.Needed, r.TableFull.Frontends, r.TableFull.Reduced} {
		if n < 0 || n > math.MaxInt32 {
			t.Errorf("%+v", r)
		}
	}
}
