// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Peer is another host that runs Blixt. The two announce their clients to each other.
type Peer struct {
	// Addresses are those that it translates sources to.
	Addresses []netip.Addr
	// Networks are those whose addresses are on it, besides its own: of its containers.
	Networks []netip.Prefix
}

// String returns the peer's first address.
func (p Peer) String() string {
	if len(p.Addresses) == 0 {
		return "none"
	}
	return p.Addresses[0].String()
}

// Has reports whether an address is on the peer.
func (p Peer) Has(ip netip.Addr) bool {
	for _, a := range p.Addresses {
		if a == ip {
			return true
		}
	}
	for _, n := range p.Networks {
		if n.Contains(ip) {
			return true
		}
	}
	return false
}

// ParsePeer parses a list of addresses and networks, with commas between them.
func ParsePeer(text string) (p Peer, err error) {
	for _, part := range strings.Split(text, ",") {
		part = strings.TrimSpace(part)
		if strings.Contains(part, "/") {
			network, err := netip.ParsePrefix(part)
			if err != nil {
				return Peer{}, fmt.Errorf("%q is no network, such as 10.244.2.0/24: %w", part, err)
			}
			if network.Masked() != network {
				return Peer{}, fmt.Errorf("%s is an address with the length of its network: want the address alone, or the network %s if all of it is on that host", part, network.Masked())
			}
			if network.Bits() == 0 {
				return Peer{}, fmt.Errorf("%s is every address: want networks that are on that host alone", part)
			}
			p.Networks = append(p.Networks, network)
			continue
		}
		ip, err := netip.ParseAddr(part)
		if err != nil {
			return Peer{}, fmt.Errorf("%q is no IP address: want all addresses that the host reaches this one from; names are not looked up", part)
		}
		if ip = ip.Unmap(); ip.Zone() != "" || !ip.IsGlobalUnicast() {
			return Peer{}, fmt.Errorf("%s is no address by which hosts know each other: want one of global unicast", part)
		}
		p.Addresses = append(p.Addresses, ip)
	}
	if len(p.Addresses) == 0 {
		return Peer{}, errors.New("it has networks only: want the addresses that the host reaches this one from as well")
	}
	return p, nil
}

// CheckPeers returns an error if an address is of two peers.
func CheckPeers(peers []Peer) error {
	for i, p := range peers {
		for _, other := range peers[:i] {
			for _, ip := range p.Addresses {
				if other.Has(ip) {
					return fmt.Errorf("%s is on two peers, %s and %s: want one --peer for each host", ip, other, p)
				}
			}
			for _, ip := range other.Addresses {
				if p.Has(ip) {
					return fmt.Errorf("%s is on two peers, %s and %s: want one --peer for each host", ip, other, p)
				}
			}
			for _, n := range p.Networks {
				for _, o := range other.Networks {
					if n.Overlaps(o) {
						return fmt.Errorf("networks %s and %s of two peers, %s and %s, overlap: want one --peer for each host", o, n, other, p)
					}
				}
			}
		}
	}
	return nil
}

// otherPeers returns the peers that are not this host, whose addresses are given, and a
// message about each that is: hosts may all have the same list.
func otherPeers(peers []Peer, own []netip.Addr) (others []Peer, notes []string) {
	for _, p := range peers {
		is := -1
		for i, ip := range own {
			if p.Has(ip) {
				is = i
				break
			}
		}
		if is >= 0 {
			notes = append(notes, fmt.Sprintf("peer %s is this host, which has the address %s: it is ignored", p, own[is]))
			continue
		}
		others = append(others, p)
	}
	return others, notes
}
