// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/kubernetes-sigs/blixt/bpf"
)

// fakeAnnouncing are the tables of Announcing in a Fake.
type fakeAnnouncing struct {
	announcing AnnounceConfig
	keys       [bpf.BlixtLimitMAX_ANNOUNCE_KEYS]AnnounceKey
	peers      map[netip.Addr]Peer
	probes     map[FlowKey]bpf.BlixtProbeForm
	links      map[int]bool
}

var _ Announcing = (*Fake)(nil)

// Announces implements Announcing.
func (f *Fake) Announces() bool { return !f.Earlier }

// announcing does a write, if the program has the tables.
func (f *Fake) writeAnnouncing(do func()) error {
	if f.Earlier {
		return ErrNoAnnouncing
	}
	return f.write(do)
}

// AnnounceConfig implements Announcing.
func (f *Fake) AnnounceConfig() (AnnounceConfig, error) {
	return get(f, func() AnnounceConfig { return f.a.announcing })
}

// SetAnnounceConfig implements Announcing.
func (f *Fake) SetAnnounceConfig(c AnnounceConfig) error {
	return f.writeAnnouncing(func() { f.a.announcing = c })
}

// AnnounceKeys implements Announcing.
func (f *Fake) AnnounceKeys() ([]AnnounceKey, error) {
	return get(f, func() []AnnounceKey { return slices.Clone(f.a.keys[:]) })
}

// SetAnnounceKey implements Announcing.
func (f *Fake) SetAnnounceKey(index int, key AnnounceKey) error {
	return f.writeAnnouncing(func() { f.a.keys[index] = key })
}

// Peers implements Announcing.
func (f *Fake) Peers() (map[netip.Addr]Peer, error) {
	return get(f, func() map[netip.Addr]Peer { return maps.Clone(f.a.peers) })
}

// AddPeer implements Announcing.
func (f *Fake) AddPeer(ip netip.Addr, boot uint16) error {
	have, err := f.Peers()
	if _, is := have[ip]; is || err != nil {
		return err
	}
	if f.MaxPeers > 0 && len(have) >= f.MaxPeers {
		return ErrFull
	}
	return f.SetPeer(ip, Peer{Boot: boot})
}

// SetPeer sets a peer as the program does.
func (f *Fake) SetPeer(ip netip.Addr, p Peer) error {
	return f.writeAnnouncing(func() {
		if f.a.peers == nil {
			f.a.peers = map[netip.Addr]Peer{}
		}
		f.a.peers[ip] = p
	})
}

// DeletePeer implements Announcing.
func (f *Fake) DeletePeer(ip netip.Addr) error {
	return f.writeAnnouncing(func() { delete(f.a.peers, ip) })
}

// PutProbe implements Announcing.
func (f *Fake) PutProbe(k FlowKey, form bpf.BlixtProbeForm, _ netip.Addr) error {
	return f.writeAnnouncing(func() {
		if f.a.probes == nil {
			f.a.probes = map[FlowKey]bpf.BlixtProbeForm{}
		}
		f.a.probes[k] = form
	})
}

// ProbeAnswered implements Announcing.
func (f *Fake) ProbeAnswered(k FlowKey) (bool, error) {
	f.mu.Lock()
	form, is := f.a.probes[k]
	err := f.fails()
	f.mu.Unlock()
	return is && f.Answers != nil && f.Answers(k, form), err
}

// DeleteProbe implements Announcing.
func (f *Fake) DeleteProbe(k FlowKey) error {
	return f.writeAnnouncing(func() { delete(f.a.probes, k) })
}

// Probes implements Announcing.
func (f *Fake) Probes() ([]FlowKey, error) {
	return get(f, func() []FlowKey { return slices.Collect(maps.Keys(f.a.probes)) })
}

// EgressLinks implements Announcing.
func (f *Fake) EgressLinks() ([]int, error) {
	return get(f, func() []int { return slices.Sorted(maps.Keys(f.a.links)) })
}

// SetEgressLink implements Announcing.
func (f *Fake) SetEgressLink(index int, attached bool) error {
	return f.writeAnnouncing(func() {
		if f.a.links == nil {
			f.a.links = map[int]bool{}
		}
		index %= int(bpf.BlixtLimitMAX_LINKS)
		f.a.links[index] = true
		if !attached {
			delete(f.a.links, index)
		}
	})
}
