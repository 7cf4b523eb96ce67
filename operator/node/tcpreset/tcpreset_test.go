// SPDX-License-Identifier: Apache-2.0

package tcpreset

import (
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

func TestRST(t *testing.T) {
	for _, c := range []struct {
		from, to string
		first    gopacket.Decoder
	}{
		{"192.0.2.1:80", "198.51.100.7:40000", layers.LayerTypeIPv4},
		{"[2001:db8::1]:80", "[2001:db8:c::7]:40000", layers.LayerTypeIPv6},
	} {
		from, to := netip.MustParseAddrPort(c.from), netip.MustParseAddrPort(c.to)
		p := gopacket.NewPacket(rst(from, to, 0xfedcba98), c.first, gopacket.Default)
		tcp, ok := p.TransportLayer().(*layers.TCP)
		if !ok || p.ErrorLayer() != nil {
			t.Fatalf("not a TCP packet: %v", p)
		}
		src, dst := p.NetworkLayer().NetworkFlow().Endpoints()
		if src.String() != from.Addr().String() || dst.String() != to.Addr().String() || uint16(tcp.SrcPort) != from.Port() || uint16(tcp.DstPort) != to.Port() {
			t.Errorf("the packet is from %s:%d to %s:%d, want %s to %s", src, tcp.SrcPort, dst, tcp.DstPort, from, to)
		}
		if !tcp.RST || tcp.ACK || tcp.SYN || tcp.FIN || tcp.Seq != 0xfedcba98 {
			t.Errorf("not the RST with number %#x: %+v", uint32(0xfedcba98), tcp)
		}
		if got := checksum(from.Addr().AsSlice(), to.Addr().AsSlice(), []byte{0, 6, 0, tcpLen}, tcp.Contents); got != 0 {
			t.Errorf("checksum: %#x is left", got)
		}
	}
}
