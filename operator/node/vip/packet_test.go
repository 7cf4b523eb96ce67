// SPDX-License-Identifier: Apache-2.0

package vip

import (
	"net"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/net/bpf"
)

var ip4, ip6 = netip.MustParseAddr("192.0.2.100"), netip.MustParseAddr("2001:db8:1::12:3456")

// TestFramesAreWhatOthersUnderstand: as an independent decoder reads them, and as our own
// does.
func TestFramesAreWhatOthersUnderstand(t *testing.T) {
	a := layers.ARP{}
	for m, sender := range map[message]string{probe: "0.0.0.0", announcement: ip4.String()} {
		f := newFrame(m, ip4, ourMAC, false)
		if err := a.DecodeFromBytes(f.payload, gopacket.NilDecodeFeedback); err != nil {
			t.Fatal(err)
		}
		if net.IP(a.SourceProtAddress).String() != sender || net.IP(a.DstProtAddress).String() != ip4.String() ||
			string(a.SourceHwAddress) != ourMAC || a.Operation != layers.ARPRequest || f.to != broadcastMAC {
			t.Errorf("message %d is %+v to %x", m, a, f.to)
		}
	}
	for m, want := range map[message]struct{ from, to, mac string }{
		probe:        {"::", "ff02::1:ff12:3456", "\x33\x33\xff\x12\x34\x56"},
		announcement: {ip6.String(), "ff02::1", "\x33\x33\x00\x00\x00\x01"},
	} {
		f := newFrame(m, ip6, ourMAC, true)
		p := gopacket.NewPacket(f.payload, layers.LayerTypeIPv6, gopacket.Default)
		header := p.NetworkLayer().(*layers.IPv6)
		if header.SrcIP.String() != want.from || header.DstIP.String() != want.to || header.HopLimit != 255 || f.to != want.mac {
			t.Errorf("message %d has header %+v to %x", m, header, f.to)
		}
		if err := p.ErrorLayer(); err != nil {
			t.Error(err.Error())
		}
		if err := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6).SetNetworkLayerForChecksum(header); err != nil {
			t.Fatal(err)
		}
		if err, mistakes := p.VerifyChecksums(); err != nil || len(mistakes) > 0 {
			t.Errorf("checksum: %v, %v", mistakes, err)
		}
		if m == probe {
			if s := p.Layer(layers.LayerTypeICMPv6NeighborSolicitation).(*layers.ICMPv6NeighborSolicitation); s.TargetAddress.String() != ip6.String() || len(s.Options) > 0 {
				t.Errorf("solicitation is %+v", s)
			}
			continue
		}
		s := p.Layer(layers.LayerTypeICMPv6NeighborAdvertisement).(*layers.ICMPv6NeighborAdvertisement)
		if s.TargetAddress.String() != ip6.String() || !s.Override() || s.Solicited() || !s.Router() || len(s.Options) != 1 || string(s.Options[0].Data) != ourMAC {
			t.Errorf("advertisement is %+v", s)
		}
	}
}

func TestSignsAreRead(t *testing.T) {
	for _, c := range []struct {
		m    message
		kind sign
	}{{probe, asks}, {announcement, announces}} {
		if ip, mac, kind, ok := parseARP(newFrame(c.m, ip4, ourMAC, false).payload); !ok || ip != ip4 || mac != ourMAC || kind != c.kind {
			t.Errorf("ARP %d: %v %x %d %t", c.m, ip, mac, kind, ok)
		}
		if ip, mac, kind, ok := parseND(newFrame(c.m, ip6, ourMAC, false).payload, ourMAC); !ok || ip != ip6 || mac != ourMAC || kind != c.kind {
			t.Errorf("ND %d: %v %x %d %t", c.m, ip, mac, kind, ok)
		}
	}
	answer := newARP(announcement, ip4, ourMAC).payload
	answer[7], answer[arpTargetIP] = arpReply, 10
	if ip, _, kind, ok := parseARP(answer); !ok || ip != ip4 || kind != answers {
		t.Errorf("an answer is %v %d %t", ip, kind, ok)
	}
}

func TestNonsenseIsNoSign(t *testing.T) {
	arp := newFrame(announcement, ip4, ourMAC, false).payload
	nd := newFrame(announcement, ip6, ourMAC, false).payload
	for n := range len(arp) {
		if _, _, _, ok := parseARP(arp[:n]); ok {
			t.Errorf("%d bytes are ARP", n)
		}
	}
	for n := range ndOptions {
		if _, _, _, ok := parseND(nd[:n], ourMAC); ok {
			t.Errorf("%d bytes are neighbour discovery", n)
		}
	}
	for _, mac := range []string{"", "\x00\x00\x00\x00\x00\x00", broadcastMAC, allNodesMAC, "\x01\x00\x00\x00\x00\x00"} {
		if _, _, _, ok := parseND(nd, mac); ok {
			t.Errorf("MAC %x is that of a host", mac)
		}
	}
	far := append([]byte{}, nd...)
	far[7] = 64 // it has crossed a router
	if _, _, _, ok := parseND(far, ourMAC); ok {
		t.Error("a packet from elsewhere counts")
	}
}

// TestFilterPassesPacketsAboutOurAddressesOnly: also with as many addresses as it takes.
func TestFilterPassesPacketsAboutOurAddressesOnly(t *testing.T) {
	many := make([]uint32, filterLimit)
	for i := range many {
		many[i] = uint32(0x0a000000 + i)
	}
	last4, last6 := netip.AddrFrom4([4]byte{10, 0, byte((filterLimit - 1) >> 8), byte((filterLimit - 1) & 0xff)}), netip.MustParseAddr("2001:db8::a00:0")
	for name, c := range map[string]struct {
		filter []bpf.Instruction
		passes map[*frame]bool
	}{
		"ARP": {arpFilter(many), map[*frame]bool{
			ptr(newFrame(probe, last4, ourMAC, false)): true, ptr(newFrame(announcement, last4, ourMAC, false)): true,
			ptr(newFrame(probe, ip4, ourMAC, false)): false, ptr(newFrame(announcement, ip4, ourMAC, false)): false,
		}},
		"ND": {ndFilter(many), map[*frame]bool{
			ptr(newFrame(probe, last6, ourMAC, false)): true, ptr(newFrame(announcement, last6, ourMAC, false)): true,
			ptr(newFrame(probe, ip6, ourMAC, false)): false, {payload: append([]byte{}, make([]byte, 100)...)}: false,
		}},
		"too many": {arpFilter(append(many, 1)), map[*frame]bool{ptr(newFrame(probe, ip4, ourMAC, false)): true}},
	} {
		vm, err := bpf.NewVM(c.filter)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if raw, err := bpf.Assemble(c.filter); err != nil || len(raw) > 4096 {
			t.Errorf("%s: %d instructions, the kernel takes 4096 (%v)", name, len(raw), err)
		}
		for f, want := range c.passes {
			if n, err := vm.Run(f.payload); err != nil || n > 0 != want {
				t.Errorf("%s: %x passes: %t (%v), want %t", name, f.payload, n > 0, err, want)
			}
		}
	}
}

func ptr(f frame) *frame { return &f }

func FuzzParse(f *testing.F) {
	f.Add(newFrame(announcement, ip4, ourMAC, false).payload)
	f.Add(newFrame(announcement, ip6, ourMAC, false).payload)
	f.Fuzz(func(t *testing.T, p []byte) {
		if _, mac, _, ok := parseARP(p); ok && len(mac) != 6 {
			t.Errorf("a MAC of %d bytes", len(mac))
		}
		parseND(p, ourMAC)
	})
}
