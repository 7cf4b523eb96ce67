// SPDX-License-Identifier: Apache-2.0

package announce

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// writeMaps makes the maps hold the settings. Whenever it is interrupted, what they
// hold is usable: a peer is there before messages of it are genuine, and a key before
// it signs; and each goes in the reverse order.
func (a *Announcer) writeMaps() error {
	a.writing.Lock()
	defer a.writing.Unlock()
	a.mu.RLock()
	s := a.settings
	a.mu.RUnlock()
	if !a.tables.Announces() {
		return nil
	}
	peers, err := a.addPeers(s.Peers)
	if err != nil {
		return err
	}
	keys, err := a.tables.AnnounceKeys()
	if err != nil {
		return fmt.Errorf("read announce_keys: %w", err)
	}
	for i, key := range s.Keys {
		if key != (lb.AnnounceKey{}) && keys[i].Bytes != key {
			if err := a.tables.SetAnnounceKey(i, datapath.AnnounceKey{Bytes: key}); err != nil {
				return fmt.Errorf("write key %d: %w", i, err)
			}
		}
	}
	have, err := a.tables.AnnounceConfig()
	if err != nil {
		return fmt.Errorf("read announcing: %w", err)
	}
	if c := s.config(); c != have {
		if err := a.tables.SetAnnounceConfig(c); err != nil {
			return fmt.Errorf("write announcing: %w", err)
		}
	}
	for i, key := range keys {
		if key != (datapath.AnnounceKey{}) && (i >= len(s.Keys) || s.Keys[i] == (lb.AnnounceKey{})) {
			if err := a.tables.SetAnnounceKey(i, datapath.AnnounceKey{}); err != nil {
				return fmt.Errorf("remove key %d: %w", i, err)
			}
		}
	}
	return a.removePeers(s.Peers, peers)
}

// config returns the element of `announcing`.
func (s *Settings) config() datapath.AnnounceConfig {
	c := datapath.AnnounceConfig{Boot: s.Boot, PortsMin: s.Ports.First, PortsMax: s.Ports.Last}
	if s.Keys != ([lb.AnnounceKeys]lb.AnnounceKey{}) {
		c.Flags = datapath.AnnouncingUndo
	}
	if s.Sign >= 0 {
		c.Key, c.Flags = uint8(s.Sign), c.Flags|datapath.AnnouncingTell
	}
	return c
}

// addPeers adds the peers that `peers` lacks, and returns which it had.
func (a *Announcer) addPeers(wanted []Peer) (had map[netip.Addr]datapath.Peer, err error) {
	if wanted == nil {
		return nil, nil
	}
	if had, err = a.tables.Peers(); err != nil {
		return nil, fmt.Errorf("read peers: %w", err)
	}
	leftOut := 0
	for _, p := range wanted {
		for _, ip := range p.Sources {
			value, is := had[ip]
			if is && p.Boot != 0 && a.told[ip] != p.Boot && int16(value.Boot-p.Boot) > 0 {
				// Whoever counts its boots has lost count. Its messages would be refused.
				if err := a.tables.DeletePeer(ip); err != nil {
					return nil, fmt.Errorf("remove peer %s: %w", ip, err)
				}
				is = false
			}
			if err := a.tables.AddInterest(datapath.ToAddr(ip), datapath.InterestPeer); err != nil { // an earlier version's sweep takes it away
				return nil, fmt.Errorf("write interest: %w", err)
			}
			if !is {
				err := a.addPeer(ip, p.Boot)
				if errors.Is(err, datapath.ErrFull) {
					leftOut++
					continue
				} else if err != nil {
					return nil, fmt.Errorf("add peer %s: %w", ip, err)
				}
			}
			a.told[ip] = p.Boot
		}
	}
	a.mu.Lock()
	a.leftOut = leftOut
	a.mu.Unlock()
	a.logOnce(leftOut > 0, "full", "map peers has no room for all nodes: what the others announce is not undone", "addresses", leftOut)
	return had, nil
}

// addPeer adds a peer whose interest is there, and adds that again: a sweep may have
// found meanwhile that nobody needs it.
func (a *Announcer) addPeer(ip netip.Addr, boot uint16) error {
	if err := a.tables.AddPeer(ip, boot); err != nil {
		return err
	}
	return a.tables.AddInterest(datapath.ToAddr(ip), datapath.InterestPeer)
}

// removePeers removes those of the peers that `peers` had that are not wanted. If
// there was no room for others, it adds these.
func (a *Announcer) removePeers(wanted []Peer, had map[netip.Addr]datapath.Peer) error {
	if wanted == nil {
		return nil
	}
	wants := map[netip.Addr]bool{}
	for _, p := range wanted {
		for _, ip := range p.Sources {
			wants[ip] = true
		}
	}
	removed := false
	for ip := range had {
		if !wants[ip] {
			if err := a.tables.DeletePeer(ip); err != nil {
				return fmt.Errorf("remove peer %s: %w", ip, err)
			}
			delete(a.told, ip)
			removed = true
		}
	}
	a.mu.RLock()
	retry := removed && a.leftOut > 0
	a.mu.RUnlock()
	if !retry {
		return nil
	}
	_, err := a.addPeers(wanted)
	return err
}

// SetEgressLinks records which interfaces have the program at egress, by index. If
// these are all, it forgets the others: whoever knows an interface by its packets alone
// cannot tell one without packets from one without the program.
func (a *Announcer) SetEgressLinks(indices []int, all bool) error {
	a.writing.Lock()
	defer a.writing.Unlock()
	if !a.tables.Announces() {
		return nil
	}
	have, err := a.tables.EgressLinks()
	if err != nil {
		return fmt.Errorf("read egress_links: %w", err)
	}
	wanted := map[int]bool{}
	for _, i := range indices {
		wanted[i%int(bpf.BlixtLimitMAX_LINKS)] = true
	}
	for _, i := range have {
		if all && !wanted[i] {
			if err := a.tables.SetEgressLink(i, false); err != nil {
				return fmt.Errorf("write egress_links: %w", err)
			}
		}
		delete(wanted, i)
	}
	for i := range wanted {
		if err := a.tables.SetEgressLink(i, true); err != nil {
			return fmt.Errorf("write egress_links: %w", err)
		}
	}
	return nil
}

// logOnce logs that something is wrong, once until it is right again. The caller holds
// writing.
func (a *Announcer) logOnce(wrong bool, about, text string, args ...any) {
	if wrong && !a.logged[about] {
		a.o.Log.Warn(text, args...)
	}
	a.logged[about] = wrong
}
