// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Network is what a trace asks the kernel of the host about.
type Network interface {
	// Route returns the route of a packet that comes in by an interface.
	Route(RouteQuery) (Route, error)
	// Rules reports whether rules choose among tables of routes. Then what Route returns is
	// the nearest that the kernel tells.
	Rules(v6 bool) bool
	// Forwards reports whether IP forwarding is on for what comes in by an interface.
	Forwards(ifindex int, v6 bool) (bool, error)
	// Silent reports whether the hardware address of a neighbour is not known.
	Silent(ifindex int, neighbour netip.Addr) (bool, error)
	// HasSocket reports whether a socket of the host is for what the client sends.
	HasSocket(protocol lb.Protocol, client, server netip.AddrPort, ifindex int) (bool, error)
	// Interface returns the name and the MTU of an interface.
	Interface(ifindex int) (name string, mtu int, err error)
	// Stacked reports whether an interface is on top of another one: a bridge, a bond, a VLAN.
	Stacked(upper, lower int) bool
	// Index returns the index of an interface.
	Index(name string) (int, error)
}

// RouteQuery is a question to the FIB.
type RouteQuery struct {
	In           int        // the interface that the packet comes in by
	Src, Dst     netip.Addr // Src may be invalid: any
	Client       netip.Addr // who sends it, if that is known
	Protocol     lb.Protocol
	Sport, Dport uint16
	out          int // the interface that it leaves by, if that is known
}

// RouteKind is what the FIB says of a destination.
type RouteKind string

// The kinds.
const (
	RouteUnicast     RouteKind = "unicast"
	RouteLocal       RouteKind = "local" // an address of this host
	RouteNone        RouteKind = "none"  // no route at all
	RouteUnreachable RouteKind = "unreachable"
	RouteProhibited  RouteKind = "prohibited"
	RouteBlackhole   RouteKind = "blackhole"
)

// Route is the answer.
type Route struct {
	Kind    RouteKind
	Ifindex int
	// Via is the next hop: the destination itself, if that is on the link.
	Via netip.Addr
	// MTU is that of the path.
	MTU int
	// Source is the host's address on this route.
	Source netip.Addr
}

// Host is the network of this process's host. Which rules choose routes is read when it
// is made.
type Host struct {
	rules map[bool]rules // by family: IPv6
}

// rules are what chooses tables of routes, besides the kernel's own rules: by the
// interface that a packet comes in by, by its source, or anything.
type rules struct {
	any, byInterface bool
	sources          []netip.Prefix
}

// NewHost returns the network of the calling thread's namespace.
func NewHost() (*Host, error) {
	h := &Host{rules: map[bool]rules{}}
	for family, v6 := range map[int]bool{unix.AF_INET: false, unix.AF_INET6: true} {
		all, err := netlink.RuleList(family)
		if err != nil {
			return nil, fmt.Errorf("list routing rules: %w", err)
		}
		var has rules
		for _, r := range all {
			own := r.Table == unix.RT_TABLE_LOCAL || r.Table == unix.RT_TABLE_MAIN || r.Table == unix.RT_TABLE_DEFAULT
			interfaces := r.IifName != "" || r.Table == 0 // of VRFs: the rule names no table
			has.any = has.any || !own || r.Src != nil || r.Dst != nil || r.OifName != "" || r.Mark != 0 || interfaces
			has.byInterface = has.byInterface || interfaces
			if r.Src != nil {
				addr, _ := netip.AddrFromSlice(r.Src.IP)
				bits, _ := r.Src.Mask.Size()
				has.sources = append(has.sources, netip.PrefixFrom(addr.Unmap(), bits))
			}
		}
		h.rules[v6] = has
	}
	return h, nil
}

// IsHost reports whether this process is in a network where packets pass a program: in an
// agent's container it is in another one than the maps are of.
func IsHost() bool {
	interfaces, err := net.Interfaces()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(interfaces, func(i net.Interface) bool {
		at, err := link.QueryPrograms(link.QueryOptions{Target: i.Index, Attach: ebpf.AttachTCXIngress})
		return err == nil && len(at.Programs) > 0
	})
}

// Rules implements Network.
func (h *Host) Rules(v6 bool) bool { return h.rules[v6].any }

// Route implements Network. The program asks the FIB, without a check of the source.
// The nearest that rtnetlink offers is the host's own view. Only where rules choose
// tables does it matter who sends, and by which interface: then the kernel is asked
// about a packet that comes in first. It wants to know from whom: where the program
// names no source, the client may stand for that if no rule is about it.
func (h *Host) Route(q RouteQuery) (Route, error) {
	rules := h.rules[q.Dst.Is6()]
	ofClient := func(p netip.Prefix) bool { return p.Contains(q.Client) }
	if !q.Src.IsValid() && rules.byInterface && q.Client.IsValid() && !slices.ContainsFunc(rules.sources, ofClient) {
		from := q
		from.Src = q.Client
		if r, err := getRoute(from, true, true); err == nil && r.Kind == RouteUnicast {
			return r.withSource(q)
		}
	}
	if rules.any && q.Src.IsValid() {
		if r, err := getRoute(q, true, true); err == nil && r.Kind == RouteUnicast {
			return r, nil // otherwise the kernel may only dislike the source
		}
	}
	if q.Src.IsValid() {
		if r, err := getRoute(q, true, false); err == nil && r.Kind == RouteUnicast {
			return r, nil
		}
	}
	return getRoute(q, false, false)
}

// withSource returns the route of a packet that comes in with the host's address on it,
// which the kernel does not name of such: that of the host's own route if it is the same
// one, or on the way to the next hop.
func (r Route) withSource(q RouteQuery) (Route, error) {
	own, err := getRoute(q, false, false)
	if err != nil || own.Kind == RouteUnicast && own.Ifindex == r.Ifindex && own.Via == r.Via {
		return own, err
	}
	hop, err := getRoute(RouteQuery{Dst: r.Via, out: r.Ifindex}, false, false)
	r.Source = hop.Source
	return r, err
}

// Attributes of a route that name what layer 4 has (linux/rtnetlink.h).
const (
	rtaIPProto = 27
	rtaSport   = 28
	rtaDport   = 29
)

func getRoute(q RouteQuery, src, in bool) (Route, error) {
	family, bits := unix.AF_INET, uint8(32)
	if q.Dst.Is6() {
		family, bits = unix.AF_INET6, 128
	}
	req := nl.NewNetlinkRequest(unix.RTM_GETROUTE, 0)
	m := &nl.RtMsg{RtMsg: unix.RtMsg{Family: uint8(family), Dst_len: bits}}
	add := []*nl.RtAttr{nl.NewRtAttr(unix.RTA_DST, q.Dst.AsSlice())}
	if src {
		m.Src_len = bits
		add = append(add, nl.NewRtAttr(unix.RTA_SRC, q.Src.AsSlice()))
	}
	if in {
		add = append(add, nl.NewRtAttr(unix.RTA_IIF, binary.NativeEndian.AppendUint32(nil, uint32(q.In))))
	}
	if q.out != 0 {
		add = append(add, nl.NewRtAttr(unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, uint32(q.out))))
	}
	if q.Protocol != 0 {
		add = append(add, nl.NewRtAttr(rtaIPProto, []byte{uint8(q.Protocol)}),
			nl.NewRtAttr(rtaSport, binary.BigEndian.AppendUint16(nil, q.Sport)), nl.NewRtAttr(rtaDport, binary.BigEndian.AppendUint16(nil, q.Dport)))
	}
	req.AddData(m)
	for _, a := range add {
		req.AddData(a)
	}
	answers, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWROUTE)
	switch {
	case errors.Is(err, unix.EINVAL):
		return Route{Kind: RouteBlackhole}, nil
	case errors.Is(err, unix.EHOSTUNREACH):
		return Route{Kind: RouteUnreachable}, nil
	case errors.Is(err, unix.EACCES):
		return Route{Kind: RouteProhibited}, nil
	case errors.Is(err, unix.ENETUNREACH):
		return Route{Kind: RouteNone}, nil
	case err != nil:
		return Route{}, fmt.Errorf("ask the FIB for %s: %w", q.Dst, err)
	case len(answers) != 1:
		return Route{}, fmt.Errorf("ask the FIB for %s: %d answers", q.Dst, len(answers))
	}
	return parseRoute(answers[0], q.Dst)
}

// Metrics of a route.
const (
	rtaxLock = 1
	rtaxMTU  = 2
)

func parseRoute(b []byte, dst netip.Addr) (Route, error) {
	m := nl.DeserializeRtMsg(b)
	attrs, err := nl.ParseRouteAttr(b[m.Len():])
	if err != nil {
		return Route{}, fmt.Errorf("parse the FIB's answer: %w", err)
	}
	r := Route{Via: dst, Kind: RouteUnicast}
	if m.Type != unix.RTN_UNICAST {
		r.Kind = RouteLocal
		if kind, ok := map[uint8]RouteKind{unix.RTN_BLACKHOLE: RouteBlackhole, unix.RTN_UNREACHABLE: RouteUnreachable, unix.RTN_PROHIBIT: RouteProhibited, unix.RTN_THROW: RouteNone}[m.Type]; ok {
			r.Kind = kind
		}
	}
	var locked, metric uint32
	for _, a := range attrs {
		switch a.Attr.Type {
		case unix.RTA_OIF:
			r.Ifindex = int(binary.NativeEndian.Uint32(a.Value))
		case unix.RTA_GATEWAY:
			r.Via, _ = netip.AddrFromSlice(a.Value)
		case unix.RTA_VIA:
			if len(a.Value) > 2 {
				r.Via, _ = netip.AddrFromSlice(a.Value[2:])
			}
		case unix.RTA_PREFSRC:
			r.Source, _ = netip.AddrFromSlice(a.Value)
		case unix.RTA_METRICS:
			metrics, err := nl.ParseRouteAttr(a.Value)
			if err != nil {
				return Route{}, fmt.Errorf("parse the metrics of a route: %w", err)
			}
			for _, x := range metrics {
				switch x.Attr.Type {
				case rtaxLock:
					locked = binary.NativeEndian.Uint32(x.Value)
				case rtaxMTU:
					metric = binary.NativeEndian.Uint32(x.Value)
				}
			}
		}
	}
	if r.Kind != RouteUnicast {
		return r, nil
	}
	out, err := netlink.LinkByIndex(r.Ifindex)
	if err != nil {
		return Route{}, fmt.Errorf("interface %d of a route: %w", r.Ifindex, err)
	}
	r.MTU = out.Attrs().MTU
	// For IPv4 the kernel heeds the MTU of a route of what it forwards only if that is locked.
	if metric > 0 && (dst.Is6() || locked&(1<<rtaxMTU) != 0 || forwardsByPathMTU()) {
		r.MTU = int(metric)
	}
	return r, nil
}

// forwardsByPathMTU reports whether net.ipv4.ip_forward_use_pmtu is set.
func forwardsByPathMTU() bool {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward_use_pmtu")
	return err == nil && strings.TrimSpace(string(text)) != "0"
}

// Forwards implements Network.
func (h *Host) Forwards(ifindex int, v6 bool) (bool, error) {
	in, err := net.InterfaceByIndex(ifindex)
	if err != nil {
		return false, err
	}
	family := "ipv4"
	if v6 {
		family = "ipv6"
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/sys/net/%s/conf/%s/forwarding", family, in.Name))
	if errors.Is(err, os.ErrNotExist) { // the family is off
		return false, nil
	}
	return strings.TrimSpace(string(text)) != "0", err
}

// Silent implements Network.
func (h *Host) Silent(ifindex int, neighbour netip.Addr) (bool, error) {
	out, err := netlink.LinkByIndex(ifindex)
	if err != nil {
		return false, fmt.Errorf("interface %d: %w", ifindex, err)
	}
	if out.Attrs().RawFlags&unix.IFF_NOARP != 0 {
		return false, nil
	}
	family := unix.AF_INET
	if neighbour.Is6() {
		family = unix.AF_INET6
	}
	all, err := netlink.NeighList(ifindex, family)
	if err != nil {
		return false, fmt.Errorf("list neighbours of %s: %w", out.Attrs().Name, err)
	}
	const valid = unix.NUD_PERMANENT | unix.NUD_NOARP | unix.NUD_REACHABLE | unix.NUD_PROBE | unix.NUD_STALE | unix.NUD_DELAY
	return !slices.ContainsFunc(all, func(n netlink.Neigh) bool {
		ip, _ := netip.AddrFromSlice(n.IP)
		return ip.Unmap() == neighbour && n.State&valid != 0
	}), nil
}

// Interface implements Network.
func (h *Host) Interface(ifindex int) (string, int, error) {
	i, err := net.InterfaceByIndex(ifindex)
	if err != nil {
		return "", 0, fmt.Errorf("interface %d: %w", ifindex, err)
	}
	return i.Name, i.MTU, nil
}

// Index implements Network.
func (h *Host) Index(name string) (int, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return 0, fmt.Errorf("interface %s: %w", name, err)
	}
	return i.Index, nil
}

// Stacked implements Network.
func (h *Host) Stacked(upper, lower int) bool {
	on, err := netlink.LinkByIndex(lower)
	if err != nil {
		return false
	}
	over, err := netlink.LinkByIndex(upper)
	return err == nil && (on.Attrs().MasterIndex == upper || over.Type() == "vlan" && over.Attrs().ParentIndex == lower)
}

// socketRequest is an inet_diag_req_v2 for the socket that gets a packet (linux/inet_diag.h).
type socketRequest struct {
	protocol      lb.Protocol
	local, remote netip.AddrPort
	ifindex       int
}

func (socketRequest) Len() int { return 56 }

func (r socketRequest) Serialize() []byte {
	b := make([]byte, r.Len())
	b[0], b[1] = unix.AF_INET, uint8(r.protocol)
	if r.local.Addr().Is6() {
		b[0] = unix.AF_INET6
	}
	binary.NativeEndian.PutUint32(b[4:], 0xffffffff) // any state
	binary.BigEndian.PutUint16(b[8:], r.local.Port())
	binary.BigEndian.PutUint16(b[10:], r.remote.Port())
	copy(b[12:], r.local.Addr().AsSlice())
	copy(b[28:], r.remote.Addr().AsSlice())
	binary.NativeEndian.PutUint32(b[44:], uint32(r.ifindex))
	binary.NativeEndian.PutUint64(b[48:], ^uint64(0)) // no cookie
	return b
}

// timeWait is the state of a socket that only waits for late segments.
const timeWait = 6

// HasSocket implements Network. It is find_socket in hostsockets.h: the kernel looks
// the socket up as it does for a packet.
func (h *Host) HasSocket(protocol lb.Protocol, client, server netip.AddrPort, ifindex int) (bool, error) {
	state, err := socketState(protocol, server, client, ifindex)
	if err == nil && state == timeWait && protocol == lb.TCP {
		// A SYN begins another connection than the one in TIME_WAIT, which hides whether anybody listens.
		state, err = socketState(protocol, server, netip.AddrPortFrom(client.Addr(), 0), ifindex)
	}
	return state != 0, err
}

func socketState(protocol lb.Protocol, local, remote netip.AddrPort, ifindex int) (uint8, error) {
	port := local.Port()
	ask := func(local, remote netip.AddrPort) ([]byte, error) {
		req := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, 0)
		req.AddData(socketRequest{protocol, local, remote, ifindex})
		answers, err := req.Execute(unix.NETLINK_INET_DIAG, 0)
		if errors.Is(err, unix.ENOENT) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("look up a socket: %w", err)
		}
		for _, a := range answers {
			if len(a) >= 72 && binary.BigEndian.Uint16(a[4:]) == port {
				return a, nil
			}
		}
		return nil, nil
	}
	a, err := ask(local, remote)
	if err == nil && a == nil && protocol == lb.UDP {
		a, err = ask(remote, local) // older kernels have the two the other way round for UDP
	}
	if a == nil {
		return 0, err
	}
	return a[1], err
}
