// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// forbidFragments has a UDP socket never fragment, and queue the ICMP errors about its
// packets.
func forbidFragments(c syscall.Conn, family int) error {
	if family == 6 {
		return set(c, unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO, unix.IPV6_RECVERR, 1)
	}
	return set(c, unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO, unix.IP_RECVERR, 1)
}

// set sets options of a socket, given as pairs of number and value.
func set(c syscall.Conn, level int, options ...int) error {
	return onSocket(c, func(fd int) (err error) {
		for i := 0; i < len(options) && err == nil; i += 2 {
			err = unix.SetsockoptInt(fd, level, options[i], options[i+1])
		}
		return err
	})
}

// onSocket calls f with the socket's descriptor.
func onSocket(c syscall.Conn, f func(fd int) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var of error
	if err := raw.Control(func(fd uintptr) { of = f(int(fd)) }); err != nil {
		return err
	}
	return of
}

// pathMTU returns the path MTU that a connected socket has learned.
func pathMTU(c syscall.Conn, family int) (mtu int, err error) {
	err = onSocket(c, func(fd int) (err error) {
		if family == 6 {
			mtu, err = unix.GetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_MTU)
		} else {
			mtu, err = unix.GetsockoptInt(fd, unix.SOL_IP, unix.IP_MTU)
		}
		return err
	})
	return mtu, err
}

// report is an ICMP error that a socket has received.
type report struct {
	errno syscall.Errno
	mtu   uint32
	// to is the destination of the packet that caused the error.
	to netip.AddrPort
	// from is who has sent the error.
	from netip.Addr
}

var errNoReport = errors.New("no ICMP error has reached the socket")

// takeReport returns the oldest ICMP error in a socket's error queue.
func takeReport(c syscall.Conn) (r report, err error) {
	err = onSocket(c, func(fd int) error {
		data, control := make([]byte, 1<<16), make([]byte, 512)
		_, size, _, from, err := unix.Recvmsg(fd, data, control, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			return errNoReport
		}
		if err != nil {
			return err
		}
		switch a := from.(type) {
		case *unix.SockaddrInet4:
			r.to = netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
		case *unix.SockaddrInet6:
			r.to = netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
		}
		messages, err := unix.ParseSocketControlMessage(control[:size])
		if err != nil {
			return err
		}
		for _, m := range messages {
			four := m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_RECVERR
			six := m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_RECVERR
			if (four || six) && len(m.Data) >= 16 { // struct sock_extended_err
				r.errno = syscall.Errno(binary.NativeEndian.Uint32(m.Data))
				r.mtu = binary.NativeEndian.Uint32(m.Data[8:])
				switch at := m.Data[16:]; { // a struct sockaddr_in or sockaddr_in6
				case four && len(at) >= 8:
					r.from, _ = netip.AddrFromSlice(at[4:8])
				case six && len(at) >= 24:
					r.from, _ = netip.AddrFromSlice(at[8:24])
				}
				return nil
			}
		}
		return fmt.Errorf("error message without sock_extended_err: %v", messages)
	})
	return r, err
}
