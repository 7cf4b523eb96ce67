// SPDX-License-Identifier: Apache-2.0

package hostnet

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// parseLink returns the interface of RTM_NEWLINK or RTM_DELLINK. It returns false for
// messages about something else: a port of a bridge, or what only a wireless driver
// has to say.
func parseLink(body []byte) (i Interface, ok bool) {
	if len(body) < unix.SizeofIfInfomsg || body[0] != unix.AF_UNSPEC {
		return i, false
	}
	i.Index = int(int32(binary.NativeEndian.Uint32(body[4:])))
	flags := binary.NativeEndian.Uint32(body[8:])
	i.Up, i.Carrier = flags&unix.IFF_UP != 0, flags&unix.IFF_LOWER_UP != 0
	asks := flags&(unix.IFF_NOARP|unix.IFF_LOOPBACK|unix.IFF_POINTOPOINT) == 0
	for kind, value := range attributes(body, unix.SizeofIfInfomsg) {
		switch kind {
		case unix.IFLA_ADDRESS:
			if asks && len(value) == 6 {
				i.MAC = string(value)
			}
		case unix.IFLA_IFNAME:
			i.Name = text(value)
		case unix.IFLA_MASTER:
			i.Master = int(number(value))
		case unix.IFLA_LINK:
			i.Parent = int(number(value))
		case unix.IFLA_LINKINFO:
			for kind, value := range attributes(value, 0) {
				if kind == unix.IFLA_INFO_KIND {
					i.Kind = text(value)
				}
			}
		case unix.IFLA_XDP:
			for kind, value := range attributes(value, 0) {
				if kind == unix.IFLA_XDP_PROG_ID {
					i.XDP = number(value)
				}
			}
		case unix.IFLA_PROP_LIST:
			for kind, value := range attributes(value, 0) {
				if kind == unix.IFLA_ALT_IFNAME {
					i.AltNames = append(i.AltNames, text(value))
				}
			}
		}
	}
	if i.Kind != "vlan" { // of a veth it is the peer, in whichever namespace
		i.Parent = 0
	}
	return i, i.Name != ""
}

// Attributes of an address that package unix does not name.
const (
	ifaFlags      = 8
	ifaRtPriority = 9
	ifaProto      = 11
)

// parseAddress returns the address of RTM_NEWADDR or RTM_DELADDR.
func parseAddress(body []byte) (a Address, ok bool) {
	if len(body) < unix.SizeofIfAddrmsg {
		return a, false
	}
	bits := int(body[1])
	a.Flags, a.Scope = uint32(body[2]), body[3]
	a.Index = int(binary.NativeEndian.Uint32(body[4:]))
	var local, address netip.Addr
	for kind, value := range attributes(body, unix.SizeofIfAddrmsg) {
		switch kind {
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(value)
		case unix.IFA_ADDRESS:
			address, _ = netip.AddrFromSlice(value)
		case ifaFlags:
			a.Flags = number(value)
		case ifaRtPriority:
			a.Metric = number(value)
		case ifaProto:
			if len(value) > 0 {
				a.Protocol = value[0]
			}
		}
	}
	if !address.IsValid() {
		address = local
	}
	if a.IP = local; !a.IP.IsValid() { // IPv6 names it by IFA_ADDRESS alone
		a.IP = address
	}
	network, err := address.Prefix(bits)
	a.Network = network
	return a, a.IP.IsValid() && err == nil
}

// rtaNexthop is RTA_NH_ID, which package unix does not name.
const rtaNexthop = 30

// route is a default route.
type route struct {
	indexes []int  // the interfaces that it uses
	nexthop uint32 // the nexthop object that it uses, 0: none
}

// parseDefault returns the route of RTM_NEWROUTE if it is a default one by which
// packets leave. zero reports whether its destination begins at address 0: IPv4 lists
// such routes first.
func parseDefault(body []byte) (r route, ok, zero bool) {
	if len(body) < unix.SizeofRtMsg {
		return r, false, true
	}
	zero = true
	for kind, value := range attributes(body, unix.SizeofRtMsg) {
		switch kind {
		case unix.RTA_DST:
			dst, _ := netip.AddrFromSlice(value)
			zero = dst.IsUnspecified()
		case unix.RTA_OIF:
			r.indexes = append(r.indexes, int(number(value)))
		case rtaNexthop:
			r.nexthop = number(value)
		case unix.RTA_MULTIPATH:
			for len(value) >= unix.SizeofRtNexthop {
				n := int(binary.NativeEndian.Uint16(value))
				if n < unix.SizeofRtNexthop || n > len(value) {
					break
				}
				r.indexes = append(r.indexes, int(number(value[4:])))
				value = value[min((n+3)&^3, len(value)):]
			}
		}
	}
	return r, body[1] == 0 && body[7] == unix.RTN_UNICAST, zero
}

// parseNexthop returns the id of a nexthop object, and the interface that it uses or
// the ids of those that it groups.
func parseNexthop(body []byte) (id uint32, index int, group []uint32) {
	const header = 8 // struct nhmsg
	for kind, value := range attributes(body, header) {
		switch kind {
		case unix.NHA_ID:
			id = number(value)
		case unix.NHA_OIF:
			index = int(number(value))
		case unix.NHA_GROUP:
			for ; len(value) >= 8; value = value[8:] { // struct nexthop_grp
				group = append(group, number(value))
			}
		}
	}
	return id, index, group
}
