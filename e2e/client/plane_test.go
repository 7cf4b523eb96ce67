// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package client

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/cilium/ebpf"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/hostnet"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// ports are those of the VIPs, each with the port of pod b1 that it leads to.
var ports = map[int]uint16{
	80:   8080, // a lab.Server
	81:   8080,
	84:   9, // nobody listens
	85:   9100,
	9001: 9001,
}

// keys are the cluster's, by id.
var keys = [4]bpf.BlixtAnnounceKey{{Bytes: [16]uint8{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}}, {Bytes: [16]uint8{17, 18, 19}}}

// plane is Blixt on a node: the program, and who writes its maps.
type plane struct {
	host   *host
	loader *loader.Loader
	tables *datapath.Maps
	writer *writer.Writer
	// maps are those that the writer does not write.
	maps map[string]*ebpf.Map
}

// planeOptions change how a plane is started.
type planeOptions struct {
	// suffix tells one plane of a node from another.
	suffix string
	// ports are the source ports that it has.
	ports lb.PortRange
	// behind is the previous plane, which sees packets first. It has no link for a moment.
	behind *plane
}

// startPlane starts Blixt on a node.
func (w *world) startPlane(h *host) (err error) {
	h.plane, err = w.loadPlane(h, planeOptions{ports: lb.DefaultSNATPorts.Alone(lb.DefaultSNATPorts.Ends()[0])})
	return err
}

// newPlane is loadPlane, until the test ends.
func (w *world) newPlane(h *host, o planeOptions) *plane {
	w.Helper()
	p, err := w.loadPlane(h, o)
	w.Cleanup(func() {
		if err := p.stop(); err != nil {
			w.Error(err)
		}
	})
	w.Check(err)
	return p
}

// loadPlane loads the program, and gives it what to serve and whom to hear.
func (w *world) loadPlane(h *host, o planeOptions) (p *plane, err error) {
	p = &plane{host: h, maps: map[string]*ebpf.Map{}}
	name := w.name + "-" + h.Name + o.suffix
	if err := os.RemoveAll(lab.Pins(name)); err != nil { // of a killed run
		return p, err
	}
	err = h.Do(func() error {
		snapshot, err := hostnet.Read()
		if err != nil {
			return err
		}
		options := loader.Options{Name: name, RunDir: w.Dir(), Flows: 65536}
		for _, name := range w.devices() {
			i, found := snapshot.ByName(name)
			if !found {
				return fmt.Errorf("%s has no device %s", h.Name, name)
			}
			options.Interfaces = append(options.Interfaces, i)
		}
		if p.loader, err = loader.Load(options); err != nil || o.behind == nil {
			return err
		}
		previous := o.behind.loader // a new link is the first one
		return errors.Join(previous.SetInterfaces(nil), previous.SetInterfaces(options.Interfaces))
	})
	if err != nil {
		return p, err
	}
	if p.tables, err = datapath.Open(p.loader.Dir()); err != nil {
		return p, err
	}
	pins, err := os.ReadDir(p.loader.Dir())
	if err != nil {
		return p, err
	}
	for _, pin := range pins {
		m, err := ebpf.LoadPinnedMap(filepath.Join(p.loader.Dir(), pin.Name()), nil)
		if err != nil {
			return p, err
		}
		p.maps[pin.Name()] = m
	}
	seed := uint64(42)
	p.writer = writer.New(p.tables, writer.Options{
		SNAT: o.ports, HostAddresses: w.addressesOf(h), Seed: &seed, MasqueradeMark: lb.DefaultMasqueradeMark, Upgrading: o.behind != nil,
	})
	if _, err := p.writer.Apply(context.Background(), w.state(h)); err != nil {
		return p, err
	}
	return p, w.acquaint(p)
}

// stop removes the plane.
func (p *plane) stop() error {
	if p.loader == nil {
		return nil
	}
	var errs []error
	for _, m := range p.maps {
		errs = append(errs, m.Close())
	}
	if p.tables != nil {
		errs = append(errs, p.tables.Close())
	}
	errs = append(errs, p.host.Do(func() error { return p.loader.Close(false) }))
	p.loader = nil
	return errors.Join(errs...)
}

// devices are those that have the program.
func (w *world) devices() []string {
	if w.tunnel {
		return []string{"eth0", tunnelDevice}
	}
	return []string{"eth0"}
}

// addressesOf returns a node's own addresses.
func (w *world) addressesOf(h *host) (list []netip.Addr) {
	list = []netip.Addr{netip.MustParseAddr(h.IPv4), netip.MustParseAddr(h.IPv6)}
	if w.tunnel {
		list = append(list, netip.MustParseAddr(w.sourceOf(h, 4)), netip.MustParseAddr(w.sourceOf(h, 6)))
	}
	return list
}

// state returns what a node serves: nodes a and d all ports of the VIPs, of which each
// leads to one port of pod b1.
func (w *world) state(h *host) (s lb.State) {
	if h == w.b {
		return s
	}
	for _, vip := range []string{vip4, vip6, second4, second6} {
		ip := netip.MustParseAddr(vip)
		s.Addresses = append(s.Addresses, lb.Address{IP: ip, Exclusive: true})
		pod := netip.MustParseAddr(w.b.pods[0].IPv4)
		if ip.Is6() {
			pod = netip.MustParseAddr(w.b.pods[0].IPv6)
		}
		for port, to := range ports {
			for _, protocol := range []lb.Protocol{lb.TCP, lb.UDP} {
				s.Frontends = append(s.Frontends, lb.Frontend{
					Addr: ip, Protocol: protocol, Port: uint16(port), IdleTimeout: lb.DefaultIdleTimeout(protocol),
					Backends: []lb.Backend{{Addr: netip.AddrPortFrom(pod, to), Weight: lb.WeightUnit}},
				})
			}
		}
	}
	return s
}

// acquaint writes what makes a plane announce clients to all others, and undo what they
// announce.
func (w *world) acquaint(p *plane) error {
	for id, key := range keys {
		if err := p.maps[bpf.BlixtMapAnnounceKeys].Put(uint32(id), key); err != nil {
			return fmt.Errorf("write key: %w", err)
		}
	}
	for _, o := range w.hosts {
		if o == p.host {
			continue
		}
		for _, ip := range w.addressesOf(o) {
			a := datapath.ToAddr(ip)
			if err := p.tables.AddInterest(a, bpf.BlixtInterestFlagINTEREST_PEER); err != nil {
				return fmt.Errorf("write interest: %w", err)
			}
			// The program keeps in an entry what it has heard.
			err := p.maps[bpf.BlixtMapPeers].Update(a, bpf.BlixtPeer{Boot: 1}, ebpf.UpdateNoExist)
			if err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
				return fmt.Errorf("write peer: %w", err)
			}
		}
	}
	err := p.host.Do(func() error {
		snapshot, err := hostnet.Read()
		if err != nil {
			return err
		}
		for _, name := range w.devices() {
			i, _ := snapshot.ByName(name)
			if err := p.maps[bpf.BlixtMapEgressLinks].Put(uint32(i.Index), uint32(1)); err != nil {
				return fmt.Errorf("write egress link: %w", err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := p.announce(0); err != nil {
		return err
	}
	return p.setHears(true)
}

// announce sets the key that signs, by its id.
func (p *plane) announce(key uint8) error {
	return p.maps[bpf.BlixtMapAnnouncing].Put(uint32(0), bpf.BlixtAnnounceConfig{
		Boot: 1, Key: key, Flags: uint8(bpf.BlixtAnnouncingFlagANNOUNCING_UNDO | bpf.BlixtAnnouncingFlagANNOUNCING_TELL),
		PortsMin: lb.DefaultSNATPorts.First, PortsMax: lb.DefaultSNATPorts.Last,
	})
}

// setHears sets whether the nodes of backends are said to hear announcements.
func (p *plane) setHears(on bool) error {
	const hears = uint16(bpf.BlixtBackendFlagBACKEND_HEARS_WITHIN | bpf.BlixtBackendFlagBACKEND_HEARS_ALONE)
	backends := p.maps[bpf.BlixtMapBackends]
	for id := uint32(1); id < 128; id++ {
		var b bpf.BlixtBackend
		if err := backends.Lookup(id, &b); err != nil {
			return fmt.Errorf("read backend: %w", err)
		}
		if b.Generation%2 == 0 {
			continue // not in use
		}
		b.Flags &^= hears
		if on {
			b.Flags |= hears
		}
		if err := backends.Put(id, b); err != nil {
			return fmt.Errorf("write backend: %w", err)
		}
	}
	return nil
}

// counters returns the program's counters by name.
func (w *world) counters(h *host) map[string]uint64 {
	w.Helper()
	names, err := datapath.CounterNames()
	w.Check(err)
	values, err := h.plane.tables.Counters()
	w.Check(err)
	counts := map[string]uint64{}
	for i, name := range names {
		counts[name] = values[i]
	}
	return counts
}

// rise returns by how much counters of a node rise while f runs.
func (w *world) rise(h *host, f func()) map[string]uint64 {
	w.Helper()
	before := w.counters(h)
	f()
	after := w.counters(h)
	for name := range after {
		after[name] -= before[name]
	}
	return after
}

// forget empties the tables of flows of a node, as if its program had begun anew. Of a flow
// the forward entry goes first: without it packets begin the flow again.
func (p *plane) forget() error {
	for _, reply := range []bool{false, true} {
		for _, name := range []string{bpf.BlixtMapFlows, bpf.BlixtMapNewFlows, bpf.BlixtMapUdpFlows} {
			var key bpf.BlixtFlowKey
			var value bpf.BlixtFlow
			var all []bpf.BlixtFlowKey
			m := p.maps[name]
			for entries := m.Iterate(); entries.Next(&key, &value); {
				if reply == (value.Flags&uint32(bpf.BlixtFlowFlagFLOW_REPLY) != 0) {
					all = append(all, key)
				}
			}
			for _, key := range all {
				if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
					return fmt.Errorf("delete flow: %w", err)
				}
			}
		}
	}
	// What is in slots outlives its entry: a new epoch ends all of it.
	c, err := p.tables.Config()
	if err != nil {
		return err
	}
	c.CacheEpoch++
	if err := p.tables.SetConfig(c); err != nil {
		return err
	}
	var zero uint32
	return p.maps[bpf.BlixtMapEstablished].Put(zero, zero)
}

// tick is a little longer than the program's unit of time.
const tick = 1100 * time.Millisecond
