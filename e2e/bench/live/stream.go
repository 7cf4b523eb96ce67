// SPDX-License-Identifier: Apache-2.0

package live

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// A path is what a balancer does with a packet.
type path string

// The paths, and the rig of each. A variant is a path with numbers.
const (
	pathDrop       path = "drop"         // dropped where it comes in: what the generator costs
	pathForward    path = "forward"      // forwarded to one backend
	pathForward2   path = "forward to 2" // forwarded to two
	pathEmpty      path = "empty"        // as forward, with an empty program at both hooks
	pathNFT        path = "nft"          // the kernel's DNAT
	pathMasquerade path = "nft masq"     // the kernel's DNAT and masquerade
	pathMiss       path = "miss"         // as forward, through Blixt
	pathLocal      path = "local"        // Blixt, backends on this node
	pathRemote     path = "remote"       // Blixt, backends elsewhere
)

// stream is packets of a number of flows through a rig, and how they are answered.
type stream struct {
	rig      *rig
	path     path
	family   int
	flows    int
	checksum bool
	// number distinguishes the clients of streams of one rig.
	number int

	requests [][]byte
	replies  map[string][][]byte // by the backends' devices
}

// request returns where the packets of a flow come from and go to.
func (s *stream) request(flow int) (src, dst netip.AddrPort) {
	const ports = 16 // of a client, from 40000 on: ephemeral ones, as clients have
	a := clients[s.family].AsSlice()
	a[1] += byte(s.number)
	client := flow / ports
	a[len(a)-2], a[len(a)-1] = byte(client>>8), byte(client)
	from, _ := netip.AddrFromSlice(a)
	src = netip.AddrPortFrom(from, uint16(40000+flow%ports))
	switch s.path {
	case pathForward2:
		// As a hash of the flow would choose.
		return src, netip.AddrPortFrom(peers[inside[uint32(flow)*0x9e3779b1>>31]][s.family], portBackend)
	case pathNFT, pathMasquerade, pathLocal:
		return src, netip.AddrPortFrom(vips[s.family], portLocal)
	case pathRemote:
		return src, netip.AddrPortFrom(vips[s.family], portRemote)
	}
	// An address that no frontend has: what is not Blixt's.
	return src, netip.AddrPortFrom(peers["b1"][s.family].Next(), portBackend)
}

// build builds the packets of all flows.
func (s *stream) build() error {
	for flow := range s.flows {
		src, dst := s.request(flow)
		f, err := frame(mac(2, 0), mac(1, 0), src, dst, s.checksum)
		if err != nil {
			return err
		}
		s.requests = append(s.requests, f)
	}
	return nil
}

// patience is how long a datagram may be on its way through a busy machine.
const patience = 5 * time.Second

// establish sends a datagram of each flow, and answers it. It fails unless all arrive,
// translated as the path has it.
func (s *stream) establish() error {
	s.replies = map[string][][]byte{}
	if s.path == pathDrop { // nothing arrives
		for i, f := range s.requests {
			dev := inside[i%2]
			s.replies[dev] = append(s.replies[dev], answer(f))
		}
		return nil
	}
	out, err := openTap(s.rig.client, "out")
	if err != nil {
		return err
	}
	defer out.close()
	taps := map[string]tap{}
	for _, dev := range inside {
		t, err := openTap(s.rig.backends, dev)
		if err != nil {
			return err
		}
		defer t.close()
		taps[dev] = t
	}
	const at = 256 // a socket's buffer has room for so many
	for begin := 0; begin < s.flows; begin += at {
		if err := s.exchange(begin, min(begin+at, s.flows), out, taps); err != nil {
			return fmt.Errorf("%s, IPv%d, flows from %d on: %w", s.path, s.family, begin, err)
		}
	}
	return nil
}

// exchange sends and answers datagrams of some flows.
func (s *stream) exchange(begin, end int, out tap, taps map[string]tap) error {
	wanted := map[netip.AddrPort]netip.AddrPort{} // which answers, by the client's address
	for flow := begin; flow < end; flow++ {
		src, dst := s.request(flow)
		wanted[src] = dst
		if err := out.send(s.requests[flow]); err != nil {
			return err
		}
	}
	deadline := time.Now().Add(patience)
	for arrived := 0; arrived < end-begin; {
		for dev, t := range taps {
			frames, err := t.receive(nil)
			if err != nil {
				return err
			}
			for _, f := range frames {
				if err := s.arrived(dev, f); err != nil {
					return err
				}
				a := answer(f)
				s.replies[dev] = append(s.replies[dev], a)
				if err := t.send(a); err != nil {
					return err
				}
			}
			arrived += len(frames)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d datagrams have arrived at backends", arrived, end-begin)
		}
	}
	for len(wanted) > 0 {
		frames, err := out.receive(nil)
		if err != nil {
			return err
		}
		for _, f := range frames {
			src, dst, _ := ends(f)
			if vip, is := wanted[dst]; !is || vip != src {
				return fmt.Errorf("the client has got an answer from %s for %s", src, dst)
			}
			delete(wanted, dst)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the client lacks %d of %d answers", len(wanted), end-begin)
		}
	}
	return nil
}

// arrived checks how a datagram arrives at a backend.
func (s *stream) arrived(dev string, f []byte) error {
	src, dst, _ := ends(f)
	translated := src.Addr() == peers[dev][s.family].Prev()
	wanted := s.path == pathMasquerade || s.path == pathRemote
	if to := dst.Addr(); translated != wanted || to != peers[dev][s.family] && to != peers[dev][s.family].Next() {
		return errors.New("a datagram arrives at " + dev + " from " + src.String() + " for " + dst.String())
	}
	return nil
}
