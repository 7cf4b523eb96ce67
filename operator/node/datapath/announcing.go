// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"maps"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/bpf"
)

// Announcing are the tables by which nodes announce clients to each other: see
// bpf/announce.h. A program of an earlier version has none of them: then the tables
// are empty, and writes return ErrNoAnnouncing.
type Announcing interface {
	// Announces reports whether the program has the tables.
	Announces() bool
	// Config and AddInterest are those of Tables.
	Config() (Config, error)
	AddInterest(bpf.BlixtAddr, bpf.BlixtInterestFlag) error

	AnnounceConfig() (AnnounceConfig, error)
	// SetAnnounceConfig writes all of it by one store.
	SetAnnounceConfig(AnnounceConfig) error
	AnnounceKeys() ([]AnnounceKey, error)
	SetAnnounceKey(index int, key AnnounceKey) error
	// Peers returns the peers with what the program counts.
	Peers() (map[netip.Addr]Peer, error)
	// AddPeer adds a peer, unless it is there. Its value is the program's from then
	// on. It returns an error wrapping ErrFull if there is no room.
	AddPeer(ip netip.Addr, boot uint16) error
	DeletePeer(netip.Addr) error

	// PutProbe makes a probe of the next packet that leaves from an address with this
	// key, whose source is zero.
	PutProbe(FlowKey, bpf.BlixtProbeForm, netip.Addr) error
	// ProbeAnswered reports whether the other node has answered.
	ProbeAnswered(FlowKey) (bool, error)
	DeleteProbe(FlowKey) error
	// Probes returns the keys of all probes.
	Probes() ([]FlowKey, error)

	// EgressLinks returns the indices, modulo MAX_LINKS, of the interfaces that are
	// known to have the program at egress.
	EgressLinks() ([]int, error)
	SetEgressLink(index int, attached bool) error
}

// Errors of Announcing.
var (
	ErrNoAnnouncing = errors.New("the program knows of no announcements")
	ErrFull         = errors.New("the table is full")
)

var _ Announcing = (*Maps)(nil)

// Announces implements Announcing.
func (m *Maps) Announces() bool {
	return !slices.Contains([]*ebpf.Map{m.announcing, m.announceKeys, m.peers, m.probes, m.egressLinks}, nil)
}

// with calls f if the program has the tables.
func (m *Maps) with(f func() error) error {
	if !m.Announces() {
		return ErrNoAnnouncing
	}
	return f()
}

// AnnounceConfig implements Announcing.
func (m *Maps) AnnounceConfig() (c AnnounceConfig, err error) {
	if !m.Announces() {
		return c, nil
	}
	return c, m.announcing.Lookup(uint32(0), &c)
}

// SetAnnounceConfig implements Announcing.
func (m *Maps) SetAnnounceConfig(c AnnounceConfig) error {
	return m.with(func() error { return m.announcing.Put(uint32(0), c) })
}

// AnnounceKeys implements Announcing.
func (m *Maps) AnnounceKeys() ([]AnnounceKey, error) {
	keys := make([]AnnounceKey, bpf.BlixtLimitMAX_ANNOUNCE_KEYS)
	if !m.Announces() {
		return keys, nil
	}
	return keys, readArray(m.announceKeys, keys)
}

// SetAnnounceKey implements Announcing.
func (m *Maps) SetAnnounceKey(index int, key AnnounceKey) error {
	return m.with(func() error { return m.announceKeys.Put(uint32(index), key) })
}

// Peers implements Announcing.
func (m *Maps) Peers() (map[netip.Addr]Peer, error) {
	if !m.Announces() {
		return nil, nil
	}
	return readHash[Peer](m.peers, FromAddr)
}

// AddPeer implements Announcing.
func (m *Maps) AddPeer(ip netip.Addr, boot uint16) error {
	return m.with(func() error {
		err := m.peers.Update(ToAddr(ip), Peer{Boot: boot}, ebpf.UpdateNoExist)
		switch {
		case errors.Is(err, ebpf.ErrKeyExist):
			return nil
		case errors.Is(err, unix.E2BIG):
			return ErrFull
		}
		return err
	})
}

// DeletePeer implements Announcing.
func (m *Maps) DeletePeer(ip netip.Addr) error {
	return m.with(func() error { return remove(m.peers, ToAddr(ip)) })
}

// PutProbe implements Announcing.
func (m *Maps) PutProbe(k FlowKey, form bpf.BlixtProbeForm, from netip.Addr) error {
	return m.with(func() error { return m.probes.Put(k, bpf.BlixtProbe{Form: uint32(form), Src: ToAddr(from)}) })
}

// ProbeAnswered implements Announcing.
func (m *Maps) ProbeAnswered(k FlowKey) (bool, error) {
	var p bpf.BlixtProbe
	err := m.with(func() error { return m.probes.Lookup(k, &p) })
	return p.Answered != 0, err
}

// DeleteProbe implements Announcing.
func (m *Maps) DeleteProbe(k FlowKey) error {
	return m.with(func() error { return remove(m.probes, k) })
}

// Probes implements Announcing.
func (m *Maps) Probes() ([]FlowKey, error) {
	if !m.Announces() {
		return nil, nil
	}
	all, err := readHash[bpf.BlixtProbe](m.probes, func(k FlowKey) FlowKey { return k })
	return slices.Collect(maps.Keys(all)), err
}

// EgressLinks implements Announcing.
func (m *Maps) EgressLinks() (indices []int, err error) {
	if !m.Announces() {
		return nil, nil
	}
	values := make([]uint32, m.egressLinks.MaxEntries())
	err = readArray(m.egressLinks, values)
	for i, v := range values {
		if v != 0 {
			indices = append(indices, i)
		}
	}
	return indices, err
}

// SetEgressLink implements Announcing.
func (m *Maps) SetEgressLink(index int, attached bool) error {
	value := uint32(0)
	if attached {
		value = 1
	}
	return m.with(func() error { return m.egressLinks.Put(uint32(index%int(m.egressLinks.MaxEntries())), value) })
}
