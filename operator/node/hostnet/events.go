// SPDX-License-Identifier: Apache-2.0

package hostnet

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// errLost means that events were lost: more came than there was room for, or one was
// larger than the buffer.
var errLost = errors.New("events of the network were lost")

// events is a subscription to the kernel's events about the network.
type events struct {
	file *os.File
	raw  syscall.RawConn
	buf  []byte
}

// groups are what to subscribe to.
var groups = []int{
	unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
	unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_NEXTHOP,
}

// room is how many bytes of events may wait to be received.
const room = 8 << 20

func subscribe() (e *events, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	e = &events{file: os.NewFile(uintptr(fd), "rtnetlink"), buf: make([]byte, dumpBuffer)}
	defer func() {
		if err != nil {
			e.close()
		}
	}()
	if e.raw, err = e.file.SyscallConn(); err != nil {
		return nil, err
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, room) != nil { // it takes CAP_NET_ADMIN
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, room) // the default does, too
	}
	program := defaultRoutesOnly()
	if err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}); err != nil {
		return nil, fmt.Errorf("netlink: filter of events: %w", err)
	}
	// Without a port of its own a socket gets no events.
	if err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	for _, group := range groups {
		if err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group); err != nil {
			return nil, fmt.Errorf("netlink: subscribe to events: %w", err)
		}
	}
	return e, nil
}

// defaultRoutesOnly is a filter that the kernel runs for each event. It keeps routes to
// other destinations away: a router may change thousands of them a second.
func defaultRoutesOnly() []unix.SockFilter {
	const (
		kind      = 4                        // nlmsg_type, in the host's order
		dstLength = unix.SizeofNlMsghdr + 1  // rtm_dst_len
		load16    = unix.BPF_LD | unix.BPF_H // in the network's order
		load8     = unix.BPF_LD | unix.BPF_B
		equal     = unix.BPF_JMP | unix.BPF_JEQ
	)
	swapped := func(v uint16) uint32 {
		return uint32(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, v)))
	}
	return []unix.SockFilter{
		{Code: load16 | unix.BPF_ABS, K: kind},
		{Code: equal, K: swapped(unix.RTM_NEWROUTE), Jt: 1},
		{Code: equal, K: swapped(unix.RTM_DELROUTE), Jf: 2},
		{Code: load8 | unix.BPF_ABS, K: dstLength},
		{Code: equal, K: 0, Jf: 1},
		{Code: unix.BPF_RET, K: math.MaxUint32},
		{Code: unix.BPF_RET, K: 0},
	}
}

// receive returns messages. It returns EAGAIN if there are none, and errLost if some
// were lost.
func (e *events) receive() ([]byte, error) {
	var n int
	var err error
	closed := e.raw.Control(func(fd uintptr) {
		for {
			var from unix.Sockaddr
			n, from, err = unix.Recvfrom(int(fd), e.buf, unix.MSG_TRUNC)
			switch {
			case errors.Is(err, unix.EINTR):
			case errors.Is(err, unix.ENOBUFS), err == nil && n > len(e.buf):
				n, err = 0, errLost
				return
			case err == nil && !fromKernel(from):
			default:
				return
			}
		}
	})
	if closed != nil {
		return nil, closed
	}
	return e.buf[:max(n, 0)], err
}

// wait calls receive when there are events, until it returns true. It returns false at
// a time, or when the context ends.
func (e *events) wait(ctx context.Context, until time.Time, receive func() bool) bool {
	if err := e.file.SetReadDeadline(until); err != nil {
		return false
	}
	stop := context.AfterFunc(ctx, func() { _ = e.file.SetReadDeadline(time.Unix(1, 0)) }) // it may be closed
	defer stop()
	return e.raw.Read(func(uintptr) bool { return receive() }) == nil
}

func (e *events) close() { _ = e.file.Close() } // nothing was written
