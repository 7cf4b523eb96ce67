// SPDX-License-Identifier: Apache-2.0

package hostnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Way is how this host reaches an address.
type Way struct {
	// Index is the interface by which packets leave.
	Index int
	// Local reports that the address is one of this host.
	Local bool
}

// Ways looks up ways. Close it.
type Ways struct {
	fd  int
	buf []byte
}

// NewWays returns a Ways for the network namespace of the calling thread.
func NewWays() (*Ways, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	return &Ways{fd, make([]byte, dumpBuffer)}, nil
}

// Close releases what a Ways holds.
func (w *Ways) Close() { _ = unix.Close(w.fd) } // nothing was written

// Find asks the kernel for the way to an address, by all its rules and routes. vrf is the
// index of the VRF in which to look, 0: outside of all. Find returns the error that a
// socket would get, such as ENETUNREACH.
func (w *Ways) Find(to netip.Addr, vrf int) (Way, error) {
	body := make([]byte, unix.SizeofRtMsg)
	body[0], body[1] = unix.AF_INET, byte(to.BitLen())
	if to.Is6() {
		body[0] = unix.AF_INET6
	}
	body = appendAttribute(body, unix.RTA_DST, to.AsSlice())
	if vrf != 0 {
		body = appendAttribute(body, unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, uint32(vrf)))
	}
	if err := unix.Sendto(w.fd, request(unix.RTM_GETROUTE, 0, body), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return Way{}, fmt.Errorf("netlink: %w", err)
	}
	for {
		n, from, err := unix.Recvfrom(w.fd, w.buf, 0)
		if errors.Is(err, unix.EINTR) || err == nil && !fromKernel(from) {
			continue
		}
		if err != nil {
			return Way{}, fmt.Errorf("netlink: %w", err)
		}
		for m := range messages(w.buf[:n]) {
			if m.kind == unix.NLMSG_ERROR {
				return Way{}, unix.Errno(-int32(number(m.body)))
			}
			if m.kind == unix.RTM_NEWROUTE && len(m.body) >= unix.SizeofRtMsg {
				return parseWay(m.body)
			}
		}
	}
}

func parseWay(body []byte) (w Way, err error) {
	for kind, value := range attributes(body, unix.SizeofRtMsg) {
		if kind == unix.RTA_OIF {
			w.Index = int(number(value))
		}
	}
	switch body[7] { // rtm_type: IPv6 answers with a route of which nothing comes
	case unix.RTN_LOCAL:
		w.Local = true
	case unix.RTN_UNREACHABLE:
		return w, unix.EHOSTUNREACH
	case unix.RTN_PROHIBIT:
		return w, unix.EACCES
	case unix.RTN_BLACKHOLE, unix.RTN_THROW:
		return w, unix.ENETUNREACH
	}
	return w, nil
}
