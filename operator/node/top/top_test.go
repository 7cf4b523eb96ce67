// SPDX-License-Identifier: Apache-2.0

package top

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

var began = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

// look is a sample in which everything has been counted n times.
func look(after time.Duration, n uint64) Sample {
	backend := func(id uint32, addr string, flows, active uint64) writer.BackendStatus {
		return writer.BackendStatus{Address: addr, ID: id, Service: "prod/web", State: "serving", NewFlows: flows, ActiveFlows: active}
	}
	return Sample{began.Add(after), Report{Status: writer.Status{Frontends: []writer.FrontendStatus{
		{Frontend: "192.0.2.10:53/UDP", Index: 1, Route: "UDPRoute/prod/dns\x1b[2J", ActiveFlows: 7, NewFlows: 4 * n},
		{
			Frontend: "192.0.2.10:443/TCP", Index: 0, Gateway: "prod/edge", Route: "TCPRoute/prod/web", ActiveFlows: 120, NewFlows: 2468 * n, Rejected: n,
			Packets: 12_000 * n, ReplyPackets: 18_000 * n, Bytes: 1_000_000 * n, ReplyBytes: 3_000_000_000 * n,
			Backends: []writer.BackendStatus{backend(1, "10.1.0.2:8443", 1000*n, 50), backend(2, "10.1.0.3:8443", 1468*n, 70)},
		},
	}}}}
}

func TestRates(t *testing.T) {
	first := look(0, 1)
	v := New(&first, look(2*time.Second, 2), 0)
	v.Clients = []Client{{netip.MustParseAddr("203.0.113.7"), 99, 3}, {netip.MustParseAddr("2001:db8::7"), 4, 0}}
	v.ClientsLost = 2
	var out strings.Builder
	if err := v.Text(&out); err != nil {
		t.Fatal(err)
	}
	const want = `FRONTEND            ROUTE                       FLOWS  CONN/S  REJECTED/S  PACKETS/S IN  OUT    BYTES/S IN  OUT
192.0.2.10:443/TCP  TCPRoute/prod/web           120    1.23k   0.50        6.00k         9.00k  500k        1.50G
192.0.2.10:53/UDP   UDPRoute/prod/dns\u001b[2J  7      2.00    0           0             0      0           0

BACKEND        SERVICE   FRONTEND            STATE    FLOWS  CONN/S
10.1.0.3:8443  prod/web  192.0.2.10:443/TCP  serving  70     734
10.1.0.2:8443  prod/web  192.0.2.10:443/TCP  serving  50     500

CLIENT       FLOWS  OPENING
203.0.113.7  99     3
2001:db8::7  4      0
There are more clients than are counted: each number may be 2 too small.
`
	if out.String() != want {
		t.Errorf("\n%s\nwant\n%s", out.String(), want)
	}
}

// TestRatesThatAreNotKnown: those of the first look, of counters that began anew, of an
// index or an id that somebody else had before, and where no time has passed.
func TestRatesThatAreNotKnown(t *testing.T) {
	first, back, other := look(0, 1), look(time.Second, 1), look(0, 1)
	first.Status.Frontends[1].NewFlows += 1 << 40
	other.Status.Frontends[1].Index, other.Status.Frontends[1].Backends[0].ID = 9, 9
	now := look(0, 1)
	for name, v := range map[string]View{
		"the first look":      New(nil, now, 0),
		"a counter that fell": New(&first, look(time.Second, 1), 0),
		"another index":       New(&other, look(time.Second, 2), 0),
		"no time has passed":  New(&now, look(0, 2), 0),
		"a clock that is set": New(&back, look(0, 2), 0),
	} {
		for _, f := range v.Frontends {
			if f.Frontend == "192.0.2.10:443/TCP" && f.Connections != nil {
				t.Errorf("%s: %v connections a second", name, *f.Connections)
			}
		}
	}
	v := New(&other, look(time.Second, 2), 1)
	if len(v.Frontends) != 1 || len(v.Backends) != 1 || v.Backends[0].Connections == nil {
		t.Errorf("the busiest: %+v", v)
	}
}

// TestMerge: nodes that have the same frontends count together. A node that was just
// restarted has no rates yet.
func TestMerge(t *testing.T) {
	first, second := look(0, 1), look(2*time.Second, 2)
	second.Clients = []Client{{netip.MustParseAddr("203.0.113.7"), 3, 1}}
	one, other := New(&first, second, 0), New(nil, second, 0)
	sum := Merge([]View{one, one, other}, 1)
	f, b := sum.Frontends[0], sum.Backends[0]
	if len(sum.Frontends) != 1 || *f.Connections != 2468 || f.Active != 360 || *f.BytesOut != 3e9 {
		t.Errorf("frontend %+v", f)
	}
	if len(sum.Backends) != 1 || *b.Connections != 1468 || b.Active != 210 {
		t.Errorf("backend %+v", b)
	}
	if *one.Frontends[0].Connections != 1234 {
		t.Errorf("a node's own view has changed")
	}
	if sum.Clients[0] != (Client{netip.MustParseAddr("203.0.113.7"), 9, 3}) || sum.Seconds != 2 {
		t.Errorf("clients %+v, %v s", sum.Clients, sum.Seconds)
	}
}

// flowTables have entries that a function makes.
type flowTables struct {
	n    int
	make func(i int) datapath.FlowEntry
}

func (f flowTables) EachFlow(yield func([]datapath.FlowEntry) bool) error {
	for i := range f.n {
		if !yield([]datapath.FlowEntry{f.make(i)}) {
			return nil
		}
	}
	return nil
}

func (f flowTables) EachNewFlow(func([]datapath.FlowEntry) bool) error { return nil }

func addr4(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}

// TestClientsOfAFlood: who has most is found among a million flows of as many forged
// clients, with an error that is said, in bounded memory.
func TestClientsOfAFlood(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	const flows, busy = 1_000_000, 20_000
	c, err := CountClients(flowTables{flows, func(i int) datapath.FlowEntry {
		a := addr4(1<<28 + r.Uint32N(1<<30))
		if i%(flows/busy) == 0 {
			a = netip.MustParseAddr("203.0.113.7")
		}
		return datapath.FlowEntry{Key: datapath.FlowKey{Src: datapath.ToAddr(a)}}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(c.flows.of); n > maxClients {
		t.Errorf("%d clients are counted, at most %d should be", n, maxClients)
	}
	top, lost := c.Top(3)
	if top[0].Client.String() != "203.0.113.7" || top[0].Flows > busy || top[0].Flows+lost < busy {
		t.Errorf("%+v, %d lost; one client has %d flows", top, lost, busy)
	}
	if lost > flows/maxClients {
		t.Errorf("%d lost", lost)
	}
}

// TestClientsAreThose whose flows are balanced: each once.
func TestClientsAreThose(t *testing.T) {
	entry := func(src string, f datapath.Flow) datapath.FlowEntry {
		return datapath.FlowEntry{Key: datapath.FlowKey{Src: datapath.ToAddr(netip.MustParseAddr(src))}, Value: f}
	}
	all := []datapath.FlowEntry{
		entry("203.0.113.7", datapath.Flow{Flags: datapath.FlowEstablished}),
		entry("10.1.0.2", datapath.Flow{Flags: datapath.FlowReply | datapath.FlowEstablished}),
		entry("10.0.0.5", datapath.Flow{Flags: datapath.FlowUndone, Src: datapath.ToAddr(netip.MustParseAddr("203.0.113.7")), Frontend: uint32(bpf.BlixtNoFlowOfNO_FRONTEND)}),
		entry("10.0.0.6", datapath.Flow{Flags: datapath.FlowPlain, Frontend: uint32(bpf.BlixtNoFlowOfNO_FRONTEND)}),
		entry("10.0.0.7", datapath.Flow{Frontend: uint32(bpf.BlixtNoFlowOfNO_FRONTEND)}),
		entry("2001:db8::7", datapath.Flow{}),
	}
	c, err := CountClients(flowTables{len(all), func(i int) datapath.FlowEntry { return all[i] }})
	if err != nil {
		t.Fatal(err)
	}
	top, lost := c.Top(9)
	if len(top) != 2 || top[0] != (Client{netip.MustParseAddr("203.0.113.7"), 2, 0}) || top[1].Client.String() != "2001:db8::7" || lost != 0 {
		t.Errorf("%+v, %d lost", top, lost)
	}
}
