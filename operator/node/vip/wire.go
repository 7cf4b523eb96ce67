// SPDX-License-Identifier: Apache-2.0

package vip

import (
	"encoding/binary"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A flood of packets about our addresses costs no more than burst packets in each
// burstTime.
const (
	burst     = 200
	burstTime = 20 * time.Millisecond
	// filterLimit is how many addresses a filter of the kernel tells apart. Where
	// there are more, all packets about addresses come to us.
	filterLimit = 1000
)

// wire sends and receives ARP and neighbour discovery on all interfaces.
type wire struct {
	arp, nd *os.File
}

// openWire calls hear with each packet that shows something about an address, until close
// is called. It needs CAP_NET_RAW.
func openWire(hear func(ip netip.Addr, mac string, kind sign, index int)) (*wire, error) {
	w := &wire{}
	for file, protocol := range map[**os.File]uint16{&w.arp: unix.ETH_P_ARP, &w.nd: unix.ETH_P_IPV6} {
		f, err := openPacket(protocol)
		if err != nil {
			w.close()
			return nil, err
		}
		*file = f
	}
	go receive(w.arp, func(p []byte, from unix.SockaddrLinklayer) {
		if ip, mac, kind, ok := parseARP(p); ok {
			hear(ip, mac, kind, from.Ifindex)
		}
	})
	go receive(w.nd, func(p []byte, from unix.SockaddrLinklayer) {
		if ip, mac, kind, ok := parseND(p, string(from.Addr[:6])); ok {
			hear(ip, mac, kind, from.Ifindex)
		}
	})
	return w, nil
}

// openPacket opens a socket that receives nothing until its filter is set and it is bound.
func openPacket(protocol uint16) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("open packet socket", err)
	}
	if err = setFilter(fd, []bpf.Instruction{bpf.RetConstant{}}); err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: bigEndian(protocol)})
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("bind packet socket", err)
	}
	return os.NewFile(uintptr(fd), "packet"), nil
}

// bigEndian returns a number whose bytes in memory are in the network's order.
func bigEndian(n uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, n))
}

func (w *wire) close() {
	for _, f := range []*os.File{w.arp, w.nd} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// send sends a frame on an interface.
func (w *wire) send(f frame, index int) error {
	file := w.arp
	if f.protocol == unix.ETH_P_IPV6 {
		file = w.nd
	}
	to := &unix.SockaddrLinklayer{Protocol: bigEndian(f.protocol), Ifindex: index, Halen: 6}
	copy(to.Addr[:], f.to)
	var sent error
	if err := control(file, func(fd int) { sent = unix.Sendto(fd, f.payload, 0, to) }); err != nil {
		return err
	}
	return os.NewSyscallError("send", sent)
}

// control calls f with the file's descriptor.
func control(file *os.File, f func(fd int)) error {
	c, err := file.SyscallConn()
	if err != nil {
		return err
	}
	return c.Control(func(fd uintptr) { f(int(fd)) })
}

// receive calls each with each packet until the file is closed.
func receive(file *os.File, each func([]byte, unix.SockaddrLinklayer)) {
	c, err := file.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, 512)
	for n, began := 0, time.Now(); ; n++ {
		if n == burst {
			if rest := burstTime - time.Since(began); rest > 0 {
				time.Sleep(rest)
			}
			n, began = 0, time.Now()
		}
		var size int
		var from unix.Sockaddr
		var failed error
		if c.Read(func(fd uintptr) bool {
			size, from, failed = unix.Recvfrom(int(fd), buf, 0)
			return failed != unix.EAGAIN
		}) != nil {
			return // closed
		}
		if link, is := from.(*unix.SockaddrLinklayer); failed == nil && is {
			each(buf[:size], *link)
		}
	}
}

// listenFor has only packets about these addresses received.
func (w *wire) listenFor(addresses []netip.Addr) error {
	var arp, nd []uint32
	for _, ip := range addresses {
		if ip.Is4() {
			arp = append(arp, binary.BigEndian.Uint32(ip.AsSlice()))
		} else {
			nd = append(nd, binary.BigEndian.Uint32(ip.AsSlice()[12:]))
		}
	}
	for file, filter := range map[*os.File][]bpf.Instruction{w.arp: arpFilter(arp), w.nd: ndFilter(nd)} {
		var failed error
		if err := control(file, func(fd int) { failed = setFilter(fd, filter) }); err != nil {
			return err
		}
		if failed != nil {
			return os.NewSyscallError("set filter of packets", failed)
		}
	}
	return nil
}

var acceptAll = bpf.RetConstant{Val: 0xffff}

// arpFilter accepts ARP whose sender or target is one of the addresses.
func arpFilter(addresses []uint32) []bpf.Instruction {
	if len(addresses) > filterLimit {
		return []bpf.Instruction{acceptAll}
	}
	filter := oneOf(arpSenderIP, addresses)
	return append(append(filter, oneOf(arpTargetIP, addresses)...), bpf.RetConstant{})
}

// ndFilter accepts neighbour solicitations and advertisements whose target may be one of
// the addresses: it looks at the last four bytes.
func ndFilter(addresses []uint32) []bpf.Instruction {
	filter := []bpf.Instruction{
		bpf.LoadAbsolute{Off: 6, Size: 1},
		bpf.JumpIf{Val: unix.IPPROTO_ICMPV6, SkipTrue: 1},
		bpf.RetConstant{},
		bpf.LoadAbsolute{Off: ip6HeaderLen, Size: 1},
		bpf.JumpIf{Val: icmp6Solicit, SkipTrue: 2},
		bpf.JumpIf{Val: icmp6Advertise, SkipTrue: 1},
		bpf.RetConstant{},
	}
	if len(addresses) > filterLimit {
		return append(filter, acceptAll)
	}
	return append(append(filter, oneOf(ndTarget+12, addresses)...), bpf.RetConstant{})
}

// oneOf accepts packets that have one of the values at an offset.
func oneOf(offset uint32, values []uint32) []bpf.Instruction {
	filter := []bpf.Instruction{bpf.LoadAbsolute{Off: offset, Size: 4}}
	for _, v := range values {
		filter = append(filter, bpf.JumpIf{Val: v, SkipFalse: 1}, acceptAll)
	}
	return filter
}

func setFilter(fd int, filter []bpf.Instruction) error {
	raw, err := bpf.Assemble(filter)
	if err != nil {
		return err
	}
	program := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		program[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
}
