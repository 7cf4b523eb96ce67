// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package client

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/hostnet"
)

// checkUnbroken fails the test if a connection broke, or a server saw somebody else by
// TCP, or, unless that is allowed, by UDP.
func (r loadResult) checkUnbroken(w *world, strangeDatagrams bool) {
	w.Helper()
	if len(r.broken) > 0 {
		w.Errorf("%d connections or sockets broke: %v", len(r.broken), errors.Join(r.broken...))
	}
	if r.strangeTCP > 0 || r.strangeUDP > 0 && !strangeDatagrams {
		w.Errorf("servers saw others than their clients: %v", r)
	}
}

// TestNodeIsCutOff takes node a's link away under load and in the middle of downloads,
// and leads the VIPs to node d: no connection breaks.
func TestNodeIsCutOff(t *testing.T) {
	eachTopology(t, func(w *world) {
		w.dumpIfFailed()
		w.serveStreams()
		l := w.startLoad()
		l.round(3)
		streams := []*stream{w.openStream(4), w.openStream(6)}
		for _, s := range streams {
			w.Check(s.read(8 << 20))
		}
		l.result()
		w.leadVIPsTo(w.d)
		w.swtch.IP("link set a-eth0 down")
		w.Check(w.Err())
		for _, s := range streams {
			s.stall = 0
			if err := s.read(64 << 20); err != nil {
				w.Errorf("a download broke: %v", err)
			}
			w.Logf("%d MB of a download, longest stall %s", s.at>>20, s.stall.Round(time.Millisecond))
		}
		l.round(3)
		l.finish().checkUnbroken(w, false)
	})
}

// TestKeyRotation changes the key under load: to one that all have, and then the previous
// one is dropped.
func TestKeyRotation(t *testing.T) {
	eachSharedTopology(t, func(w *world) {
		w.dumpIfFailed()
		l := w.startLoad()
		l.round(3)
		w.unharmed(func() {
			before := w.counters(w.b)
			for _, h := range w.hosts {
				w.Check(h.plane.announce(1))
			}
			l.round(3)
			for _, h := range w.hosts {
				w.Check(h.plane.maps[bpf.BlixtMapAnnounceKeys].Put(uint32(0), bpf.BlixtAnnounceKey{}))
			}
			// Long enough for the messages that repeat what is known of UDP flows.
			time.Sleep(10 * tick)
			for _, network := range []string{"tcp", "udp"} {
				seen, own, err := w.peerOf(w.client, network, vip(4, 80), "hello")
				if err != nil || seen != own {
					w.Errorf("%s: the backend sees %q (%v), want the client %s", network, seen, err, own)
				}
			}
			l.round(3)
			r := l.finish()
			r.checkUnbroken(w, false)
			if r.lost > 0 {
				w.Errorf("%d datagrams were lost", r.lost)
			}
			if n := w.counters(w.b)["announce_refused"] - before["announce_refused"]; n > 0 {
				w.Errorf("node b refused %d messages", n)
			}
		})
	})
}

// TestUnknownKey has node a sign with a key that node b does not have. Flows begin as
// without announcements, or not at all, but never as somebody else's.
func TestUnknownKey(t *testing.T) {
	eachSharedTopology(t, func(w *world) {
		w.Check(w.b.plane.maps[bpf.BlixtMapAnnounceKeys].Put(uint32(0), bpf.BlixtAnnounceKey{Bytes: [16]uint8{66}}))
		for _, network := range []string{"tcp", "udp"} {
			rose := w.rise(w.b, func() {
				c, err := w.dial(w.client, network, vip(4, 80))
				if err == nil {
					c.Close()
				}
				if network == "udp" {
					_, _, _ = w.peerOf(w.client, network, vip(4, 80), "hello")
				}
			})
			if rose["flow_undone"] > 0 || rose["announce_refused"] == 0 {
				w.Errorf("%s: flow_undone rose by %d, announce_refused by %d", network, rose["flow_undone"], rose["announce_refused"])
			}
		}
	})
}

// TestTwoPrograms upgrades node a, or b, under load: a second program comes, the first one
// drains and goes, with all that it knew of flows, from one device after another.
func TestTwoPrograms(t *testing.T) {
	for _, name := range []string{"a", "b"} {
		for _, order := range []struct{ topology, last string }{{"routed", "eth0"}, {"tunnel", "eth0"}, {"tunnel", tunnelDevice}} {
			t.Run(name+"/"+order.topology+"/"+order.last+" at last", func(t *testing.T) {
				w := newWorld(t, order.topology)
				w.dumpIfFailed()
				w.replaceProgram(map[string]*host{"a": w.a, "b": w.b}[name], order.last)
			})
		}
	}
}

func (w *world) replaceProgram(h *host, last string) {
	w.Helper()
	previous := h.plane
	next := w.newPlane(h, planeOptions{suffix: "-next", ports: lb.DefaultSNATPorts.Ends()[1], behind: previous})
	l := w.startLoad()
	l.round(3)
	w.Check(datapath.Drain(previous.loader.Dir(), true))
	asks := func(when string) {
		w.Helper()
		for _, network := range []string{"tcp", "udp"} {
			for _, family := range []int{4, 6} {
				seen, own, err := w.peerOf(w.client, network, vip(family, 80), "hello")
				if err != nil || seen != own {
					w.Errorf("%s, %s%d: the backend sees %q (%v), want the client %s", when, network, family, seen, err, own)
				}
			}
		}
	}
	asks("two programs")
	l.round(5)
	r := l.result()
	r.checkUnbroken(w, false)
	if r.lost > loadSockets { // those on their way
		w.Errorf("two programs: %v", r)
	}
	w.Check(h.Do(func() error {
		snapshot, err := hostnet.Read()
		if err != nil {
			return err
		}
		i, _ := snapshot.ByName(last)
		return previous.loader.SetInterfaces([]hostnet.Interface{i})
	}))
	time.Sleep(400 * time.Millisecond)
	w.Check(previous.stop())
	h.plane = next
	l.round(5)
	asks("the next program")
	l.finish().checkUnbroken(w, true)
}

// TestSwitchWithConntrack has the switch drop what its conntrack calls invalid.
func TestSwitchWithConntrack(t *testing.T) {
	eachSharedTopology(t, func(w *world) {
		w.dumpIfFailed()
		w.setSwitch(true)
		w.learnPath(1472)
		w.serveStreams()
		l := w.startLoad()
		w.unharmed(func() {
			for _, family := range []int{4, 6} {
				for _, size := range []int{1, 1000, 1431, 1452, 3000} {
					seen, own, err := w.peerOf(w.client, "udp", vip(family, 80), text(size))
					if err != nil || seen != own {
						w.Errorf("IPv%d, %d bytes: the backend sees %q (%v), want the client %s", family, size, seen, err, own)
					}
				}
			}
			streams := []*stream{w.openStream(4), w.openStream(6)}
			for _, s := range streams {
				w.Check(s.read(4 << 20))
			}
			l.round(3)
			w.leadVIPsTo(w.d)
			for _, s := range streams {
				if err := s.read(4 << 20); err != nil {
					w.Errorf("a download broke: %v", err)
				}
			}
			l.round(3)
			l.finish().checkUnbroken(w, false)
		})
	})
}

// TestFirewallBetweenNodes drops SYNs with data on their way to node b: connections begin
// with the second repetition at the latest, from node a.
func TestFirewallBetweenNodes(t *testing.T) {
	w := newWorld(t, "routed")
	w.nft(w.swtch, "firewall", `table bridge firewall {
	counter dropped { }
	chain forward {
		type filter hook forward priority 1
		oifname b-eth0 tcp flags & (syn | ack) == syn ip length > 80 counter name dropped drop
		oifname b-eth0 tcp flags & (syn | ack) == syn ip6 length > 60 counter name dropped drop
	}
}
`)
	for _, family := range []int{4, 6} {
		t.Run(fmt.Sprintf("IPv%d", family), func(t *testing.T) {
			w := w.In(t)
			w.dumpIfFailed()
			before := w.ruleCounts(w.swtch)["dropped"]
			start := time.Now()
			seen, _, err := w.peerOf(w.client, "tcp", vip(family, 80), "hello")
			if want := w.sourceOf(w.a, family); err != nil || hostOf(seen) != want {
				t.Errorf("the backend sees %q (%v), want %s", seen, err, want)
			}
			if n := w.ruleCounts(w.swtch)["dropped"] - before; n < 1 || n > 2 {
				t.Errorf("%d SYNs with data were dropped, want one or two", n)
			}
			t.Logf("took %s", time.Since(start).Round(time.Millisecond))
		})
	}
}
