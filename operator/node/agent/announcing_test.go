// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

var announcingSizes = datapath.Sizes{Addresses: 4, Frontends: 4, Backends: 16, RingSlots: 1 << 18, Flows: 64, NewFlows: 64, UDPFlows: 64}

func announceKey(n byte) []byte { return bytes.Repeat([]byte{n}, 16) }

// announcingConfig has keys 0 and 1, of which 1 signs.
func announcingConfig() *wire.Config {
	return &wire.Config{
		Node: "a", Addresses: [][]byte{{192, 0, 2, 1}}, Snat: &wire.Ports{Min: 11000, Max: 20000},
		Announcing: &wire.Announcing{
			Boot: 5, Keys: []*wire.AnnounceKey{{Id: 0, Key: announceKey(10)}, {Id: 1, Key: announceKey(11)}}, Sign: new(uint32(1)),
			Ports: &wire.Ports{Min: 11000, Max: 29999},
		},
	}
}

// announcingPeers are nodes a, which the agent is on, and b.
func announcingPeers() *wire.Peers {
	return &wire.Peers{Complete: true, Changed: []*wire.Peer{
		{Node: "a", Addresses: [][]byte{{192, 0, 2, 1}}, Boot: 5, Undoes: true},
		{Node: "b", Addresses: [][]byte{{192, 0, 2, 2}}, Boot: 9, Undoes: true},
	}}
}

// announcingState has a frontend that preserves clients, with a backend on node b.
func announcingState(a *Agent) {
	f := lb.Frontend{Addr: netip.MustParseAddr("203.0.113.1"), Protocol: lb.TCP, Port: 80, PreserveClient: true, IdleTimeout: time.Minute}
	f.Backends = []lb.Backend{{Addr: netip.MustParseAddrPort("10.0.2.1:80"), Weight: lb.WeightUnit, Node: "b"}}
	a.replica.Version = &lb.Version{Epoch: 1, Sequence: 1}
	a.replica.Resolution = gateway.Resolution{State: lb.State{Addresses: []lb.Address{{IP: f.Addr, Exclusive: true}}, Frontends: []lb.Frontend{f}}}
	a.replica.everything = true
	a.announcer.SetState(a.replica.Resolution.State)
	a.states <- a.replica.state()
}

// announcingAgent runs until stop, on tables that other agents may have had before. Its
// operator is away.
func announcingAgent(tables *datapath.Fake, answers *bool, log *bytes.Buffer) (a *Agent, stop func()) {
	o := Options{
		Operator: "127.0.0.1:1", TokenFile: "none", CAFile: "none", Node: "a", Tables: tables, Pause: time.Hour,
		Probe: func(context.Context, lb.Forms, netip.AddrPort) (bool, time.Duration, error) {
			time.Sleep(time.Millisecond)
			return *answers, time.Millisecond, nil
		},
	}
	if log != nil {
		o.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	a = New(o)
	a.adopt()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() { a.writer.Run(ctx, a.states); done <- struct{}{} }()
	go func() { a.announcer.Run(ctx); done <- struct{}{} }()
	return a, func() {
		cancel()
		<-done
		<-done
	}
}

// backendHears returns the flags of the one backend.
func backendHears(t *testing.T, tables datapath.Tables) datapath.Hearing {
	t.Helper()
	all, err := tables.Backends()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range all {
		if b.Generation&1 != 0 {
			return datapath.HearingOf(b.Flags)
		}
	}
	t.Fatal("there is no backend")
	return datapath.Hearing{}
}

// From the operator's messages to the maps, and back to the operator: the agent says
// what the maps hold. When it begins again, nothing is taken away that was there.
func TestAgentAnnounces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tables, answers, log := datapath.NewFake(announcingSizes), true, &bytes.Buffer{}
		a, stop := announcingAgent(tables, &answers, log)
		if err := errors.Join(a.configure(announcingConfig()), a.setPeers(announcingPeers())); err != nil {
			t.Fatal(err)
		}
		announcingState(a)
		time.Sleep(3 * time.Second)
		both := datapath.Hearing{Within: true, Alone: true}
		if got := backendHears(t, tables); got != both {
			t.Errorf("the backend hears %+v", got)
		}
		if peers, _ := tables.Peers(); len(peers) != 1 || peers[netip.MustParseAddr("192.0.2.2")].Boot != 9 {
			t.Errorf("peers %+v: want node b alone", peers)
		}
		s := a.status().Announcing
		if len(s.Keys) != 2 || s.Keys[1].Id != 1 || s.Keys[1].Sum != lb.AnnounceKey(announceKey(11)).Sum() || s.GetSign() != 1 || s.Boot != 5 {
			t.Errorf("acknowledged %+v", s)
		}
		if s.Backends != 1 || len(s.Unannounced) != 0 || s.Peers != 1 || s.Failing != 0 || lb.Forms(s.Pairs[0].Answered).String() != "TCP/IPv4, TCP/IPv4 alone" {
			t.Errorf("reported %+v", s)
		}
		stop()

		// The next agent, and its operator away. Nothing answers, but nobody knows that.
		answers = false
		a, stop = announcingAgent(tables, &answers, log)
		time.Sleep(24 * time.Hour)
		if got := backendHears(t, tables); got != both {
			t.Errorf("after a restart without the operator, the backend hears %+v", got)
		}
		if s := a.status().Announcing; len(s.Keys) != 2 || s.GetSign() != 1 || s.Boot != 5 {
			t.Errorf("acknowledged after a restart: %+v", s)
		}
		stop()

		// And one with an operator: flags stay until two probes have found out otherwise.
		a, stop = announcingAgent(tables, &answers, log)
		if err := a.configure(announcingConfig()); err != nil {
			t.Fatal(err)
		}
		announcingState(a)
		time.Sleep(time.Second)
		if got := backendHears(t, tables); got != both {
			t.Errorf("before peers are known, the backend hears %+v", got)
		}
		if err := a.setPeers(announcingPeers()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(500 * time.Millisecond)
		if got := backendHears(t, tables); got != both {
			t.Errorf("after one lost probe, the backend hears %+v", got)
		}
		time.Sleep(5 * time.Second)
		if got := backendHears(t, tables); got != (datapath.Hearing{}) {
			t.Errorf("after two lost probes, the backend hears %+v", got)
		}
		s = a.status().Announcing
		if s.Failing != 1 || len(s.Unannounced) != 1 || s.Unannounced[0].Reason != lb.ReasonNoAnswer || s.Unannounced[0].Backends != 1 {
			t.Errorf("reported %+v", s)
		}
		stop()
		for _, shown := range []string{"0a0a", "10 10", "CgoK", "\n\n\n", "11 11", "0b0b"} {
			if strings.Contains(log.String(), shown) {
				t.Errorf("a key is in the log: %s", log)
			}
		}
	})
}

// Keys change as the operator says, and what it does not name stays.
func TestKeysOfTheOperator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tables, answers := datapath.NewFake(announcingSizes), true
		a, stop := announcingAgent(tables, &answers, nil)
		defer stop()
		if err := errors.Join(a.configure(announcingConfig()), a.setPeers(announcingPeers())); err != nil {
			t.Fatal(err)
		}
		key := func(id uint32, n byte) *wire.AnnounceKey { return &wire.AnnounceKey{Id: id, Key: announceKey(n)} }
		for _, c := range []struct {
			name string
			told *wire.Announcing
			keys []byte // their first bytes, by id
			sign int
			ok   bool
		}{
			{"nothing", nil, []byte{10, 11, 0, 0}, 1, true},
			{"a new key", &wire.Announcing{Keys: []*wire.AnnounceKey{key(2, 12)}, KeepOthers: true}, []byte{10, 11, 12, 0}, 1, true},
			{"it signs", &wire.Announcing{Keys: []*wire.AnnounceKey{key(2, 12)}, KeepOthers: true, Sign: new(uint32(2))}, []byte{10, 11, 12, 0}, 2, true},
			{"none signs that is not there", &wire.Announcing{KeepOthers: true, Sign: new(uint32(3))}, []byte{10, 11, 12, 0}, 2, false},
			{"a short key", &wire.Announcing{Keys: []*wire.AnnounceKey{{Id: 3, Key: []byte{1}}}}, []byte{10, 11, 12, 0}, 2, false},
			{"an id that there is not", &wire.Announcing{Keys: []*wire.AnnounceKey{key(4, 1)}}, []byte{10, 11, 12, 0}, 2, false},
			{"old ones go", &wire.Announcing{Keys: []*wire.AnnounceKey{key(2, 12)}}, []byte{0, 0, 12, 0}, 2, true},
			{"all go", &wire.Announcing{}, []byte{0, 0, 0, 0}, -1, true},
		} {
			config := announcingConfig()
			config.Announcing = c.told
			if err := a.configure(config); (err == nil) != c.ok {
				t.Errorf("%s: %v", c.name, err)
			}
			held, _, err := a.announcer.Held()
			if err != nil {
				t.Fatal(err)
			}
			var first []byte
			for _, k := range held.Keys {
				first = append(first, k[0])
			}
			if !slices.Equal(first, c.keys) || held.Sign != c.sign || held.Boot != 5 {
				t.Errorf("%s: keys %v, %d signs, boot %d; want %v, %d", c.name, first, held.Sign, held.Boot, c.keys, c.sign)
			}
		}
	})
}

// An agent whose program has no such maps says nothing of them, and needs nothing.
func TestAgentOfAnEarlierProgram(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tables, answers := datapath.NewFake(announcingSizes), true
		tables.Earlier = true
		a, stop := announcingAgent(tables, &answers, nil)
		defer stop()
		if err := errors.Join(a.configure(announcingConfig()), a.setPeers(announcingPeers())); err != nil {
			t.Fatal(err)
		}
		announcingState(a)
		a.sample(t.Context())
		time.Sleep(3 * time.Second)
		if got := backendHears(t, tables); got != (datapath.Hearing{}) {
			t.Errorf("the backend hears %+v", got)
		}
		if s := a.status(); s.Announcing != nil || s.Error != "" {
			t.Errorf("status %+v", s)
		}
	})
}

// Where packets were seen at egress, the program is attached there.
func TestEgressLinksOfPackets(t *testing.T) {
	tables := datapath.NewFake(announcingSizes)
	a := New(Options{Operator: "none", Tables: tables})
	tables.LinkPacketsNow[2*3+1], tables.LinkPacketsNow[2*4] = 7, 9
	a.sample(t.Context())
	tables.LinkPacketsNow[2*9+1] = 1
	a.sample(t.Context())
	if links, err := tables.EgressLinks(); err != nil || !slices.Equal(links, []int{3, 9}) {
		t.Errorf("links %v, %v", links, err)
	}
}

// Metrics tell what becomes of each pair of nodes; of a few, where there are thousands.
func TestMetricsOfPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tables, answers := datapath.NewFake(announcingSizes), true
		a, stop := announcingAgent(tables, &answers, nil)
		defer stop()
		peers := announcingPeers()
		peers.Changed = append(peers.Changed, &wire.Peer{Node: "c", Addresses: [][]byte{{192, 0, 2, 3}}, Reason: lb.ReasonAway})
		if err := errors.Join(a.configure(announcingConfig()), a.setPeers(peers)); err != nil {
			t.Fatal(err)
		}
		if err := tables.SetPeer(netip.MustParseAddr("192.0.2.2"), datapath.Peer{Boot: 9, Undone: 1, Plain: 2, Refused: 3, Asked: 4}); err != nil {
			t.Fatal(err)
		}
		announcingState(a)
		time.Sleep(3 * time.Second)
		metrics := func() (text []string) {
			families, err := a.Page().Gather()
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range families {
				for _, m := range f.Metric {
					line := strings.TrimPrefix(f.GetName(), "blixt_")
					for _, l := range m.Label {
						line += " " + l.GetValue()
					}
					if strings.HasPrefix(line, "peer") || strings.HasPrefix(line, "backends_") {
						text = append(text, fmt.Sprint(line, " ", m.Gauge.GetValue()+m.Counter.GetValue()))
					}
				}
			}
			return text
		}
		none := []string{"backends_preserving 1", "peers 2", "peers_failing 0", "peers_left_out 0"}
		if diff := cmp.Diff(none, metrics()); diff != "" {
			t.Errorf("metrics of no peer (-want +got):\n%s", diff)
		}
		a.o.PeerMetrics = 1
		want := slices.Concat(none[:1], []string{
			"peer_answers TCP/IPv4 b 1", "peer_answers TCP/IPv4 alone b 1", "peer_flows_total undone b 1", "peer_flows_total plain b 2", "peer_messages_refused_total b 3",
			"peer_probes_total TCP/IPv4 b answered 1", "peer_probes_total TCP/IPv4 b lost 0",
			"peer_probes_total TCP/IPv4 alone b answered 1", "peer_probes_total TCP/IPv4 alone b lost 0",
			"peer_questions_total b 4", "peer_round_trip_seconds TCP/IPv4 b 0.001", "peer_round_trip_seconds TCP/IPv4 alone b 0.001",
		}, none[1:])
		got := metrics()
		slices.Sort(want)
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}
