// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/announce"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// announcing is what the operator has told of how nodes announce clients to each
// other. Only the stream uses it. It outlasts streams.
type announcing struct {
	peers    wire.PeerTable
	settings announce.Settings
}

// adopt begins with what the maps hold: whatever the operator leaves as it was stays.
func (a *Agent) adopt() {
	held, _, err := a.announcer.Held()
	if err != nil {
		a.o.Log.Error("read how clients are announced", "error", err)
	}
	a.announcing.settings = held
}

// setAnnouncing applies the part of Config.
func (a *Agent) setAnnouncing(w *wire.Announcing) error {
	if w == nil {
		return nil
	}
	d, s := &wire.Decoder{}, &a.announcing.settings
	keys, ports := d.AnnounceKeys(w.Keys), d.Ports(w.Ports)
	sign := s.Sign
	if w.Sign != nil {
		sign = int(*w.Sign)
	}
	all := s.Keys
	if !w.KeepOthers {
		all = [lb.AnnounceKeys]lb.AnnounceKey{}
	}
	for id, key := range keys {
		all[id] = key
	}
	if d.Err != nil {
		return d.Err
	}
	if sign >= 0 && (sign >= len(all) || all[sign] == (lb.AnnounceKey{})) {
		if w.Sign != nil {
			return fmt.Errorf("key %d is to sign, and there is none", sign)
		}
		sign = -1 // the key that has signed is gone
	}
	s.Keys, s.Sign, s.Ports = all, sign, ports
	if w.Boot != 0 {
		s.Boot = d.Port(w.Boot)
	}
	if d.Err != nil {
		return d.Err
	}
	return a.writeAnnouncing()
}

// setPeers applies what has changed of the other nodes.
func (a *Agent) setPeers(m *wire.Peers) error {
	a.announcing.peers.Apply(m)
	d := &wire.Decoder{}
	peers := []announce.Peer{}
	for p := range a.announcing.peers.All() {
		if p.Node == a.o.Node {
			continue
		}
		one := announce.Peer{Name: p.Node, Boot: d.Port(p.Boot), Undoes: p.Undoes, Reason: p.Reason}
		for _, ip := range p.Addresses {
			one.Sources = append(one.Sources, d.Addr(ip))
		}
		peers = append(peers, one)
	}
	if d.Err != nil {
		a.announcing.peers = wire.PeerTable{} // the next stream brings all
		return fmt.Errorf("read peers: %w", d.Err)
	}
	a.announcing.settings.Peers = peers
	return a.writeAnnouncing()
}

// writeAnnouncing writes the maps, and tells the operator, which waits for it.
func (a *Agent) writeAnnouncing() error {
	defer a.notify()
	if err := a.announcer.Set(a.announcing.settings); err != nil {
		return fmt.Errorf("write how clients are announced: %w", err)
	}
	return nil
}

// recordEgress records the interfaces at which the program sees packets leave.
func (a *Agent) recordEgress(hooks []writer.HookCount) {
	var egress []int
	for _, h := range hooks {
		if h.Direction == "egress" {
			egress = append(egress, h.Index)
		}
	}
	if err := a.announcer.SetEgressLinks(egress, false); err != nil {
		a.o.Log.Error("record where packets leave", "error", err)
	}
}

// reportAge is how old what is reported of other nodes may be, unless it has changed:
// it takes milliseconds if there are thousands.
const reportAge = time.Second

// report returns how the node gets on with others.
func (a *Agent) report() (lb.Announcing, error) {
	a.reported.Lock()
	defer a.reported.Unlock()
	if a.reported.at.IsZero() || time.Since(a.reported.at) > reportAge {
		status, err := a.announcer.Status()
		if err != nil {
			return lb.Announcing{}, err
		}
		a.reported.at, a.reported.last = time.Now(), status.Report()
	}
	return a.reported.last, nil
}

// announcingChanged is called when something gets to another node, or does not any
// more.
func (a *Agent) announcingChanged() {
	a.writer.HearsChanged()
	a.reported.Lock()
	a.reported.at = time.Time{}
	a.reported.Unlock()
	a.notify()
}

// announcingStatus is for Status; nil if the program has no such maps.
func (a *Agent) announcingStatus(sources []netip.Addr) (*wire.AnnouncingStatus, error) {
	if !a.o.Tables.Announces() {
		return nil, nil
	}
	held, undoes, err := a.announcer.Held()
	if err != nil {
		return nil, err
	}
	r, err := a.report()
	if err != nil {
		return nil, err
	}
	s := &wire.AnnouncingStatus{Boot: uint32(held.Boot)}
	for _, ip := range sources[:min(len(sources), lb.MaxNodeAddresses)] {
		s.Addresses = append(s.Addresses, ip.AsSlice())
	}
	for id, key := range held.Keys {
		if key != (lb.AnnounceKey{}) && undoes {
			s.Keys = append(s.Keys, &wire.HeldKey{Id: uint32(id), Sum: key.Sum()})
		}
	}
	if held.Sign >= 0 {
		s.Sign = new(uint32(held.Sign))
	}
	s.Backends, s.Peers, s.Failing = uint32(r.Backends), uint32(r.Peers), uint32(r.Failing)
	for _, u := range r.Unannounced {
		s.Unannounced = append(s.Unannounced, &wire.Unannounced{Reason: u.Reason, Backends: uint32(u.Backends)})
	}
	for _, p := range r.Pairs {
		s.Pairs = append(s.Pairs, &wire.Pair{
			Node: p.Node, Answered: uint32(p.Answered), Unanswered: uint32(p.Unanswered), Unannounced: uint32(p.Unannounced),
			Undone: p.Undone, Plain: p.Plain, Refused: p.Refused, Asked: p.Asked,
		})
	}
	return s, nil
}
