// SPDX-License-Identifier: Apache-2.0

// Package hostsocket tells at which addresses and ports processes of this host wait for
// clients: listening TCP sockets, and UDP sockets that are not connected.
package hostsocket

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Socket waits for clients.
type Socket struct {
	Protocol lb.Protocol
	// Addr is unspecified if the socket is for all addresses: of both families, if it is
	// the one of IPv6 and Only6 is false.
	Addr  netip.AddrPort
	Only6 bool
	Inode uint32
}

// Gets reports whether the socket is for what comes to the frontend. exact: it is for that
// address alone.
func (s Socket) Gets(key lb.Key) (gets, exact bool) {
	if s.Protocol != key.Protocol || s.Addr.Port() != key.Port {
		return false, false
	}
	addr := s.Addr.Addr()
	if !addr.IsUnspecified() {
		return addr.Unmap() == key.Addr, true
	}
	return addr.Is6() == key.Addr.Is6() || addr.Is6() && !s.Only6, false
}

// The states of sockets that wait for clients, in the kernel's numbers.
const (
	tcpListen      = 10
	udpUnconnected = 7
)

// Sizes and offsets of struct inet_diag_req_v2 and inet_diag_msg (linux/inet_diag.h).
const (
	requestSize = 56
	messageSize = 72
	skV6Only    = 11 // INET_DIAG_SKV6ONLY
)

// request is an inet_diag_req_v2 for all sockets of a state.
type request struct{ family, protocol, state uint8 }

// Len returns the size of the request.
func (request) Len() int { return requestSize }

// Serialize returns the request as the kernel has it.
func (r request) Serialize() []byte {
	b := make([]byte, requestSize)
	b[0], b[1] = r.family, r.protocol
	binary.NativeEndian.PutUint32(b[4:], 1<<r.state)
	return b
}

// List returns the sockets of the calling thread's network namespace.
func List() ([]Socket, error) {
	var all []Socket
	for _, r := range []request{
		{unix.AF_INET, unix.IPPROTO_TCP, tcpListen}, {unix.AF_INET6, unix.IPPROTO_TCP, tcpListen},
		{unix.AF_INET, unix.IPPROTO_UDP, udpUnconnected}, {unix.AF_INET6, unix.IPPROTO_UDP, udpUnconnected},
	} {
		q := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
		q.AddData(r)
		messages, err := q.Execute(unix.NETLINK_INET_DIAG, 0)
		if err != nil {
			return nil, fmt.Errorf("list sockets: %w", err)
		}
		for _, m := range messages {
			if s, ok := parse(m, r.protocol); ok {
				all = append(all, s)
			}
		}
	}
	return all, nil
}

// parse reads an inet_diag_msg.
func parse(m []byte, protocol uint8) (Socket, bool) {
	if len(m) < messageSize {
		return Socket{}, false
	}
	s := Socket{Protocol: lb.TCP, Inode: binary.NativeEndian.Uint32(m[68:])}
	if protocol == unix.IPPROTO_UDP {
		s.Protocol = lb.UDP
	}
	addr := netip.AddrFrom4([4]byte(m[8:12]))
	if m[0] == unix.AF_INET6 {
		addr = netip.AddrFrom16([16]byte(m[8:24]))
	}
	s.Addr = netip.AddrPortFrom(addr, binary.BigEndian.Uint16(m[4:]))
	attrs, err := nl.ParseRouteAttr(m[messageSize:])
	if err != nil {
		return s, true
	}
	for _, a := range attrs {
		s.Only6 = s.Only6 || a.Attr.Type == skV6Only && len(a.Value) > 0 && a.Value[0] != 0
	}
	return s, true
}

// Owners returns a process for each of the sockets, as far as they can be seen: its name
// and number.
func Owners(inodes map[uint32]bool) map[uint32]string {
	owners := map[uint32]string{}
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, process := range processes {
		entries, err := os.ReadDir(filepath.Join(process, "fd"))
		if err != nil { // it has ended, or is none of ours
			continue
		}
		for _, e := range entries {
			link, err := os.Readlink(filepath.Join(process, "fd", e.Name()))
			if err != nil || !strings.HasPrefix(link, "socket:[") {
				continue
			}
			inode, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(link, "socket:["), "]"), 10, 32)
			if err != nil || !inodes[uint32(inode)] || owners[uint32(inode)] != "" {
				continue
			}
			name, err := os.ReadFile(filepath.Join(process, "comm"))
			if err == nil {
				owners[uint32(inode)] = fmt.Sprintf("%s (process %s)", strings.TrimSpace(string(name)), filepath.Base(process))
			}
		}
	}
	return owners
}
