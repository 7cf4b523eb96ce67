// SPDX-License-Identifier: Apache-2.0

package forge

import (
	"encoding/binary"
	"errors"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// Port is a device of a node, from which any frame can be sent.
type Port struct {
	fd        int
	mac, peer [6]byte
}

// packetIgnoreOutgoing is PACKET_IGNORE_OUTGOING: what a socket sends it does not see.
const packetIgnoreOutgoing = 23

// Open returns a port. Frames are for the peer, the next hop, by default.
func Open(n *lab.Node, dev string, peer [6]byte) (*Port, error) {
	p := &Port{peer: peer}
	err := n.Do(func() (err error) {
		ifc, err := net.InterfaceByName(dev)
		if err != nil {
			return err
		}
		copy(p.mac[:], ifc.HardwareAddr)
		p.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		all := uint16(unix.ETH_P_ALL)<<8 | unix.ETH_P_ALL>>8 // in network byte order
		return errors.Join(
			unix.SetsockoptInt(p.fd, unix.SOL_PACKET, packetIgnoreOutgoing, 1),
			unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
			unix.Bind(p.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: ifc.Index}))
	})
	return p, err
}

// Hardware returns the link-layer address of a node's device.
func Hardware(n *lab.Node, dev string) (address [6]byte, err error) {
	err = n.Do(func() error {
		ifc, err := net.InterfaceByName(dev)
		if err == nil {
			copy(address[:], ifc.HardwareAddr)
		}
		return err
	})
	return address, err
}

// Close ends it.
func (p *Port) Close() error { return unix.Close(p.fd) }

// Frame is an IP packet and how it is carried.
type Frame struct {
	IP []byte
	// To is the link-layer address of another than the next hop.
	To *[6]byte
	// Tag is the VLAN tag, with its EtherType; 0: none.
	Tag uint32
	// Pad is how many bytes follow the IP packet.
	Pad int
}

// Send sends a frame.
func (p *Port) Send(f Frame) error {
	to := p.peer
	if f.To != nil {
		to = *f.To
	}
	b := make([]byte, 0, 18+len(f.IP)+f.Pad)
	b = append(append(b, to[:]...), p.mac[:]...)
	if f.Tag != 0 {
		b = binary.BigEndian.AppendUint32(b, f.Tag)
	}
	kind := uint16(unix.ETH_P_IP)
	if f.IP[0]>>4 == 6 {
		kind = unix.ETH_P_IPV6
	}
	b = binary.BigEndian.AppendUint16(b, kind)
	b = append(append(b, f.IP...), make([]byte, f.Pad)...)
	_, err := unix.Write(p.fd, b)
	return err
}

// Receive returns the IP packets that have arrived for this device since the last call.
func (p *Port) Receive() (packets [][]byte, err error) {
	buffer := make([]byte, 1<<16)
	for {
		n, from, err := unix.Recvfrom(p.fd, buffer, 0)
		if errors.Is(err, unix.EAGAIN) {
			return packets, nil
		}
		if err != nil {
			return packets, err
		}
		a, is := from.(*unix.SockaddrLinklayer)
		kind := binary.BigEndian.Uint16(buffer[12:])
		if is && a.Pkttype == unix.PACKET_HOST && n > 14+20 && (kind == unix.ETH_P_IP || kind == unix.ETH_P_IPV6) {
			packets = append(packets, append([]byte{}, buffer[14:n]...))
		}
	}
}

// Await waits until a frame has arrived, or the limit is over.
func (p *Port) Await(limit time.Duration) {
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}, int(limit.Milliseconds()))
}
