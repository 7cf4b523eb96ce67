// SPDX-License-Identifier: Apache-2.0

package hostnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"golang.org/x/sys/unix"
)

// This file is as much of rtnetlink(7) as the package needs. What a general library
// parses of an interface takes ten times the time.

// errInterrupted means that something changed while the kernel listed it.
var errInterrupted = errors.New("the list changed while it was read")

// dumpBuffer is what a reply of the kernel may fill.
const dumpBuffer = 64 << 10

// message is one netlink message.
type message struct {
	kind  uint16
	flags uint16
	body  []byte
}

// messages parses what one call of recvfrom has returned.
func messages(buf []byte) iter.Seq[message] {
	return func(yield func(message) bool) {
		for len(buf) >= unix.SizeofNlMsghdr {
			n := int(binary.NativeEndian.Uint32(buf))
			if n < unix.SizeofNlMsghdr || n > len(buf) {
				return
			}
			m := message{binary.NativeEndian.Uint16(buf[4:]), binary.NativeEndian.Uint16(buf[6:]), buf[unix.SizeofNlMsghdr:n]}
			if !yield(m) {
				return
			}
			buf = buf[min((n+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1), len(buf)):]
		}
	}
}

// attributes parses the attributes behind a header of so many bytes.
func attributes(body []byte, header int) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		if len(body) < header {
			return
		}
		for rest := body[header:]; len(rest) >= unix.SizeofRtAttr; {
			n := int(binary.NativeEndian.Uint16(rest))
			if n < unix.SizeofRtAttr || n > len(rest) {
				return
			}
			const flags = unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER
			if !yield(binary.NativeEndian.Uint16(rest[2:])&^uint16(flags), rest[unix.SizeofRtAttr:n]) {
				return
			}
			rest = rest[min((n+unix.RTA_ALIGNTO-1)&^(unix.RTA_ALIGNTO-1), len(rest)):]
		}
	}
}

// text returns a string that ends with a zero.
func text(value []byte) string { return unix.ByteSliceToString(value) }

// number returns a number of 32 bits.
func number(value []byte) uint32 {
	if len(value) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(value)
}

// request returns a request.
func request(kind, flags uint16, body []byte) []byte {
	buf := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(body))
	binary.NativeEndian.PutUint32(buf, uint32(unix.SizeofNlMsghdr+len(body)))
	binary.NativeEndian.PutUint16(buf[4:], kind)
	binary.NativeEndian.PutUint16(buf[6:], unix.NLM_F_REQUEST|flags)
	return append(buf, body...)
}

// appendAttribute appends an attribute whose value has a multiple of four bytes.
func appendAttribute(body []byte, kind uint16, value []byte) []byte {
	body = binary.NativeEndian.AppendUint16(body, uint16(unix.SizeofRtAttr+len(value)))
	return append(binary.NativeEndian.AppendUint16(body, kind), value...)
}

// dump calls each with the messages of a list until it returns false. It returns
// errInterrupted if the list changed meanwhile: something may be missing.
func dump(kind uint16, body []byte, each func(message) bool) (err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer unix.Close(fd) // ends a list that is not read to its end
	// The kernel then obeys the filter of the request.
	if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1); err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	if err := unix.Sendto(fd, request(kind, unix.NLM_F_DUMP, body), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	buf := make([]byte, dumpBuffer)
	interrupted := false
	for {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("netlink: %w", err)
		}
		if !fromKernel(from) {
			continue
		}
		for m := range messages(buf[:n]) {
			interrupted = interrupted || m.flags&unix.NLM_F_DUMP_INTR != 0
			if m.kind == unix.NLMSG_DONE || m.kind == unix.NLMSG_ERROR {
				if errno := -int32(number(m.body)); errno > 0 {
					return fmt.Errorf("netlink: %w", unix.Errno(errno))
				}
			}
			if m.kind == unix.NLMSG_DONE {
				if interrupted {
					return errInterrupted
				}
				return nil
			}
			if !each(m) {
				return nil
			}
		}
	}
}

// fromKernel reports whether the kernel has sent a message, and not another process.
func fromKernel(from unix.Sockaddr) bool {
	nl, ok := from.(*unix.SockaddrNetlink)
	return ok && nl.Pid == 0
}
