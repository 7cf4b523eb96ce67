// SPDX-License-Identifier: Apache-2.0

// Package announce has a node announce its clients to other nodes, and undo what
// they announce (bpf/announce.h). In come keys, other nodes and the state that is
// served; out go the maps of the program, and which messages get to each backend's
// node, which probes find out. The Kubernetes agent and a host alone use it alike.
package announce

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// Settings are what a node needs to know.
type Settings struct {
	// Boot is the node's boot number.
	Boot uint16
	// Keys are those that make messages genuine, by id. Zero: none.
	Keys [lb.AnnounceKeys]lb.AnnounceKey
	// Sign is the id of the key that signs. Negative: nothing is announced.
	Sign int
	// Ports are those to which any node translates sources.
	Ports lb.PortRange
	// Peers are the other nodes. nil: not known yet, the maps keep those that they
	// have.
	Peers []Peer
}

// Peer is another node.
type Peer struct {
	Name string
	// Sources are the addresses to which it translates sources. Nobody else has any
	// of them.
	Sources []netip.Addr
	// Networks are those whose addresses are on it, besides its own. In a cluster,
	// endpoints name their nodes, so there are none.
	Networks []netip.Prefix
	// Boot is its boot number; 0: that of its messages.
	Boot uint16
	// Undoes reports that clients may be announced to it; Reason is why not.
	Undoes bool
	Reason string
}

// Options configure an Announcer. The zero value of each field is usable.
type Options struct {
	// Changed is called when Hears decides otherwise than before.
	Changed func()
	Log     *slog.Logger

	// Probe replaces the packets of a test.
	Probe Probe
}

// Announcer keeps the maps of one program. Its methods may be called concurrently.
type Announcer struct {
	tables datapath.Announcing
	o      Options
	wake   chan struct{} // has an element if something may be due sooner
	// changed has an element if Hears may decide otherwise than was told.
	changed chan struct{}

	writing sync.Mutex // held while maps are written
	told    map[netip.Addr]uint16
	logged  map[string]bool

	mu       sync.RWMutex // of all below; never held while maps are read or written
	set      bool         // Set was called with peers
	settings Settings
	peers    map[string]*Peer
	sources  map[netip.Addr]string // nodes by address
	networks []network
	leftOut  int // sources of peers for which `peers` has no room
	backends []backend
	schedule schedule
}

type network struct {
	prefix netip.Prefix
	node   string
}

// backend is a backend on another node whose frontend wants it to see clients.
type backend struct {
	protocol lb.Protocol
	lb.Backend
}

// New returns an Announcer that has not touched the maps yet.
func New(t datapath.Announcing, o Options) *Announcer {
	if o.Changed == nil {
		o.Changed = func() {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Probe == nil {
		o.Probe = NewProbe(t)
	}
	return &Announcer{
		tables: t, o: o, wake: make(chan struct{}, 1), changed: make(chan struct{}, 1), told: map[netip.Addr]uint16{}, logged: map[string]bool{},
		settings: Settings{Sign: -1}, schedule: newSchedule(),
	}
}

// Held returns the settings that the maps hold, before Set is called those of an
// earlier process, and whether what their keys make genuine is undone. Peers is nil.
func (a *Announcer) Held() (s Settings, undoes bool, err error) {
	s.Sign = -1
	c, err := a.tables.AnnounceConfig()
	if err != nil {
		return s, false, fmt.Errorf("read announcing: %w", err)
	}
	keys, err := a.tables.AnnounceKeys()
	if err != nil {
		return s, false, fmt.Errorf("read announce_keys: %w", err)
	}
	s.Boot, s.Ports = c.Boot, lb.PortRange{First: c.PortsMin, Last: c.PortsMax}
	for i, k := range keys[:len(s.Keys)] {
		s.Keys[i] = k.Bytes
	}
	if c.Flags&datapath.AnnouncingTell != 0 && int(c.Key) < len(keys) && keys[c.Key] != (datapath.AnnounceKey{}) {
		s.Sign = int(c.Key)
	}
	return s, c.Flags&datapath.AnnouncingUndo != 0, nil
}

// Set makes the maps hold settings. Those of a program without such maps stay
// as they are, and no error tells that. Set may be tried again after an error.
func (a *Announcer) Set(s Settings) error {
	if s.Sign >= len(s.Keys) || s.Sign >= 0 && s.Keys[s.Sign] == (lb.AnnounceKey{}) {
		return fmt.Errorf("key %d is to sign, and there is none of that id", s.Sign)
	}
	a.mu.Lock()
	a.settings = s
	if s.Peers != nil {
		a.set = true
		a.index()
	}
	a.rebuild(time.Now())
	a.mu.Unlock()
	err := a.writeMaps()
	a.wakeUp()
	a.o.Changed()
	return err
}

// index finds peers by name, address and network.
func (a *Announcer) index() {
	known := a.peers
	a.peers, a.sources, a.networks = map[string]*Peer{}, map[netip.Addr]string{}, nil
	for i := range a.settings.Peers {
		p := &a.settings.Peers[i]
		a.peers[p.Name] = p
		for _, ip := range p.Sources {
			a.sources[ip] = p.Name
		}
		for _, n := range p.Networks {
			a.networks = append(a.networks, network{n, p.Name})
		}
		if old := known[p.Name]; old != nil && (old.Boot != p.Boot || !slices.Equal(old.Sources, p.Sources)) {
			a.schedule.probeSoon(p.Name, time.Now())
		}
	}
}

// SetState tells what is served: which backends are to see their clients. It keeps
// nothing that s refers to.
func (a *Announcer) SetState(s lb.State) {
	var all []backend
	for i := range s.Frontends {
		f := &s.Frontends[i]
		if !f.PreserveClient {
			continue
		}
		for _, b := range f.Backends {
			if !b.Local && !b.ThroughStack {
				all = append(all, backend{f.Protocol, b})
			}
		}
	}
	a.mu.Lock()
	a.backends = all
	a.rebuild(time.Now())
	a.mu.Unlock()
	a.wakeUp()
}

// wakeUp has Run look for what is due.
func (a *Announcer) wakeUp() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// nodeOf returns the node of a backend; "": it is not known.
func (a *Announcer) nodeOf(b lb.Backend) string {
	if a.peers[b.Node] != nil {
		return b.Node
	}
	ip := b.Addr.Addr()
	if node, is := a.sources[ip]; is {
		return node
	}
	for _, n := range a.networks {
		if n.prefix.Contains(ip) {
			return n.node
		}
	}
	return ""
}

// rebuild finds out whom to probe: each node to which clients could be announced, in
// the forms in which they would be. Pods come before the node's own addresses: where the
// network masquerades what a pod sends to nodes, no probe of a pod's gets there.
func (a *Announcer) rebuild(now time.Time) {
	wanted := map[pair][]netip.AddrPort{}
	for _, ofNode := range []bool{false, true} {
		for _, b := range a.backends {
			_, is := a.sources[b.Addr.Addr()]
			node := a.nodeOf(b.Backend)
			if is != ofNode || a.hindrance(node) != "" {
				continue
			}
			for _, form := range forms(b.protocol, b.Addr.Addr()) {
				p := pair{node, form}
				if list := wanted[p]; len(list) < endpointsTried && !slices.Contains(list, b.Addr) {
					wanted[p] = append(list, b.Addr)
				}
			}
		}
	}
	a.schedule.want(wanted, now)
}

// endpointsTried is how many endpoints of a node are probed in turns, if they do
// not answer.
const endpointsTried = 4

// forms returns both forms of messages about flows of a protocol to an address:
// first that within a packet.
func forms(protocol lb.Protocol, ip netip.Addr) [2]lb.Forms {
	udp, ipv6 := protocol == lb.UDP, ip.Is6()
	return [2]lb.Forms{lb.FormOf(false, udp, ipv6), lb.FormOf(true, udp, ipv6)}
}

// hindrance returns why clients cannot be announced to a node, whatever probes say;
// "": they can.
func (a *Announcer) hindrance(node string) string {
	p := a.peers[node]
	switch {
	case !a.tables.Announces():
		return lb.ReasonEarlier
	case a.settings.Sign < 0:
		return lb.ReasonNoKey
	case p == nil:
		return lb.ReasonNoPeer
	case !p.Undoes:
		return p.Reason
	}
	return ""
}

// Hears is for writer.Options.Hears.
func (a *Announcer) Hears(protocol lb.Protocol, b lb.Backend) (h datapath.Hearing, known bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	h, reason := a.hearing(protocol, b)
	return h, a.set && reason != lb.ReasonNotProbed
}

// hearing returns what gets to a backend, and why not all does.
func (a *Announcer) hearing(protocol lb.Protocol, b lb.Backend) (h datapath.Hearing, reason string) {
	node := a.nodeOf(b)
	if reason := a.hindrance(node); reason != "" {
		return h, reason
	}
	both := forms(protocol, b.Addr.Addr())
	within, alone := a.schedule.state(pair{node, both[0]}), a.schedule.state(pair{node, both[1]})
	if within == unknown || alone == unknown {
		return h, lb.ReasonNotProbed
	}
	h = datapath.Hearing{Within: within == good, Alone: alone == good}
	if !h.Within && !h.Alone {
		return h, lb.ReasonNoAnswer
	}
	return h, ""
}
