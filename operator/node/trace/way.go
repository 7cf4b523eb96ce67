// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"fmt"
	"net/netip"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/observe"
)

// way is enum way: its name, and the flags of the forward entry.
type way struct {
	name    string
	forward uint32
}

const (
	flowHost       = uint32(bpf.BlixtFlowFlagFLOW_HOST)
	flowReenter    = uint32(bpf.BlixtFlowFlagFLOW_REENTER)
	flowMasquerade = uint32(bpf.BlixtFlowFlagFLOW_MASQUERADE)
	wayFlags       = datapath.FlowSNAT | datapath.FlowStack | flowHost | flowReenter | flowMasquerade
)

var (
	wayLocal     = way{"local", datapath.FlowStack}
	wayRemote    = way{"remote", datapath.FlowSNAT}
	wayStack     = way{"stack", datapath.FlowStack | flowMasquerade}
	wayReenter   = way{"reenter", datapath.FlowSNAT | flowReenter}
	wayForwarded = way{"forwarded", datapath.FlowSNAT}
	wayHost      = way{"host", datapath.FlowSNAT | flowHost}
)

// wayOf returns the way of a forward entry. WAY_FORWARDED differs from WAY_REMOTE in
// the reply entry alone.
func wayOf(flags bpf.BlixtFlowFlag) way {
	for _, w := range []way{wayLocal, wayRemote, wayStack, wayReenter, wayHost} {
		if uint32(flags)&wayFlags == w.forward {
			return w
		}
	}
	return way{}
}

// routed is enum routed: what find_route returns.
type routed int

const (
	routedYes routed = iota
	routeLocal
	routeUnreachable
	routeProhibited
	routeTooBig
	routeForwardingOff
	routeBlackhole
	routeUnknown // no Network
)

// route is struct route.
type route struct {
	ifindex int
	via     netip.Addr
	mtu     int
	src     bpf.BlixtAddr
	silent  bool
}

// findRoute is find_route. Without src any source will do.
func (x *tracer) findRoute(src bpf.BlixtAddr, sport uint16) routed {
	n := x.o.Network
	if n == nil || x.in == 0 {
		return routeUnknown
	}
	fail := func(err error) routed {
		x.err = err
		return routeUnknown
	}
	forwards, err := n.Forwards(x.in, x.v6)
	if err != nil {
		return fail(err)
	}
	if !forwards {
		return routeForwardingOff
	}
	r, err := n.Route(RouteQuery{
		In: x.in, Src: datapath.FromAddr(src), Dst: datapath.FromAddr(x.to.Dst), Client: x.r.Client.Addr(), Protocol: x.protocol, Sport: datapath.FromPort(sport), Dport: datapath.FromPort(x.to.Dport),
	})
	if err != nil {
		return fail(err)
	}
	switch r.Kind {
	case RouteLocal, RouteNone:
		return routeLocal
	case RouteUnreachable:
		return routeUnreachable
	case RouteProhibited:
		return routeProhibited
	case RouteBlackhole:
		return routeBlackhole
	}
	x.route = route{ifindex: r.Ifindex, via: r.Via, mtu: r.MTU, src: datapath.ToAddr(r.Source)}
	if x.bytes > r.MTU {
		return routeTooBig
	}
	if x.route.silent, err = n.Silent(r.Ifindex, r.Via); err != nil {
		return fail(err)
	}
	if !r.Source.IsValid() { // configured_source
		x.route.src = x.config.Node4
		if x.v6 {
			x.route.src = x.config.Node6
		}
	}
	return routedYes
}

// unknownDevice is UNKNOWN_DEVICE.
const unknownDevice = -1

// findDevice is find_device of a packet from src, that comes in by `in`, to the client.
func (x *tracer) findDevice(in int, src bpf.BlixtAddr) int {
	n := x.o.Network
	forwards, err := n.Forwards(in, x.v6)
	if err != nil || !forwards {
		return unknownDevice
	}
	r, err := n.Route(RouteQuery{In: in, Src: datapath.FromAddr(src), Dst: x.r.Client.Addr()})
	if err != nil {
		return unknownDevice
	}
	if r.Kind != RouteUnicast {
		return 0
	}
	const linkHeaders = 14 + 4 // is_skb_forwardable: the packet may have them
	if _, mtu, err := n.Interface(r.Ifindex); err == nil && x.bytes > mtu+linkHeaders {
		return unknownDevice
	}
	if n.Stacked(r.Ifindex, x.in) {
		return x.in // the packet has come in for its MAC address
	}
	return r.Ifindex
}

// selectWay is select_way. It returns false if that is the end of the packet.
func (x *tracer) selectWay(flags uint16) (way, bool) {
	local, protected := flags&datapath.BackendLocal != 0, flags&datapath.BackendProtected != 0
	byStack := !x.egress && flags&(datapath.BackendStack|datapath.BackendProtected) != 0
	rc := x.findRoute(bpf.BlixtAddr{}, x.to.Sport)
	if rc == routeUnknown {
		return x.supposeWay(local, byStack), x.err == nil
	}
	if rc == routedYes {
		x.to.Ifindex = uint32(x.route.ifindex)
	}
	if local && x.egress && x.in != loopback {
		x.to.Src = x.key.Dst
		return wayReenter, true
	}
	hairpin := x.key.Src == x.to.Dst || rc == routedYes && x.route.ifindex == x.in
	throughStack := byStack || local && !x.egress && !hairpin
	if !x.egress {
		in, src := loopback, x.key.Dst
		if x.to.Ifindex != 0 {
			in = int(x.to.Ifindex)
		}
		if throughStack {
			src = x.to.Dst
		}
		back := x.findDevice(in, src)
		if back == 0 {
			x.drop(bpf.BlixtCounterCOUNTER_DROP_MARTIAN, "the host has no route to the client %s, or it is an address of the host: no answer would reach it", x.r.Client.Addr())
			return way{}, false
		}
		if throughStack && back != unknownDevice && back != x.in && !x.hasProgram(back) {
			throughStack = byStack || x.to.Ifindex == 0 || !x.hasProgram(int(x.to.Ifindex))
			if throughStack {
				name, _, _ := x.o.Network.Interface(back)
				x.note(fmt.Sprintf("The host routes the answers by %s, where the program is not attached: the client would get none.", name))
			}
		}
	}
	if throughStack {
		x.to.Src = x.key.Src
		if local && !hairpin {
			return wayLocal, true
		}
		return wayStack, true
	}
	w := wayRemote
	if x.host {
		w = wayHost
	} else if x.egress {
		w = wayForwarded
	}
	switch {
	case rc == routedYes && protected:
		x.reject(bpf.BlixtCounterCOUNTER_REJECT_PROTECTED, "the host's IPsec policies cover the backend, and this packet would leave past them")
		return way{}, false
	case rc == routedYes:
		x.to.Src = x.route.src
	case rc == routeLocal && local && x.host:
		x.to.Src, x.to.Ifindex = x.to.Dst, loopback
	default:
		x.unroutable(rc)
		return way{}, false
	}
	if x.to.Src == (bpf.BlixtAddr{}) {
		x.drop(bpf.BlixtCounterCOUNTER_DROP_NO_SOURCE, "the host has no address of this family to translate the source to")
		return way{}, false
	}
	return w, true
}

// supposeWay is what select_way comes to on a host that routes as one expects.
func (x *tracer) supposeWay(local, byStack bool) way {
	if byStack || local {
		x.to.Src = x.key.Src
		if local {
			return wayLocal
		}
		return wayStack
	}
	return wayRemote
}

// unroutable is reject_unroutable.
func (x *tracer) unroutable(rc routed) {
	backend := datapath.FromAddr(x.to.Dst)
	switch rc {
	case routeTooBig:
		if x.host && x.udp() { // may_split
			x.end(Forwarded, bpf.BlixtCounterCOUNTER_FRAGMENTED, "%d bytes are more than the path MTU of %d: the host's own datagram is sent in fragments", x.bytes, x.route.mtu)
			return
		}
		x.reject(bpf.BlixtCounterCOUNTER_REJECT_TOO_BIG, "%d bytes are more than the path MTU of %d, and the packet must not be fragmented", x.bytes, x.route.mtu)
	case routeForwardingOff:
		x.drop(bpf.BlixtCounterCOUNTER_DROP_FORWARDING_OFF, "IP forwarding is off at %s, by which the packet comes in", x.r.Interface)
	case routeBlackhole:
		x.drop(bpf.BlixtCounterCOUNTER_DROP_NO_ROUTE, "the route to the backend %s is a blackhole", backend)
	case routeLocal:
		x.reject(bpf.BlixtCounterCOUNTER_REJECT_UNREACHABLE, "the host has no route to the backend %s, or it is an address of the host", backend)
	case routeUnreachable:
		x.reject(bpf.BlixtCounterCOUNTER_REJECT_UNREACHABLE, "the route to the backend %s says that it is unreachable", backend)
	case routeProhibited:
		x.reject(bpf.BlixtCounterCOUNTER_REJECT_UNREACHABLE, "the route to the backend %s prohibits it", backend)
	}
}

// send is route_flow and what follows it: the packet gets the tuple x.to.
func (x *tracer) send() {
	if x.to.Src != x.key.Src || x.to.Sport != x.key.Sport {
		x.r.SNAT = &observe.Endpoint{Address: datapath.FromAddr(x.to.Src), Port: datapath.FromPort(x.to.Sport)}
	}
	rc := routeUnknown
	if x.to.Flags&(datapath.FlowStack|flowReenter) == 0 {
		x.hop(&rc)
		if rc != routedYes && rc != routeUnknown {
			return
		}
	} else {
		x.stackHop()
	}
	if x.err != nil || x.r.Counter != "" {
		return
	}
	why := "a new flow begins"
	if x.r.Flow != nil && x.r.Ended == "" {
		why = "it belongs to a flow"
	}
	x.end(Forwarded, bpf.BlixtCounterCOUNTER_FORWARDED, "%s", why)
}

// hop is the route of a packet that leaves past the stack. It sets *rc to anything but
// routedYes and routeUnknown if that is the end of the packet.
func (x *tracer) hop(rc *routed) {
	src := x.to.Src
	*rc = x.findRoute(src, x.to.Sport)
	switch {
	case *rc == routeUnknown:
	case *rc == routeLocal && x.host:
		*rc = routedYes
		x.r.NextHop = &Hop{Interface: "lo"}
	case *rc != routedYes:
		x.unroutable(*rc)
	default:
		if x.route.silent && !x.egress && x.isSilent() {
			if !x.due {
				x.note(fmt.Sprintf("The next hop %s does not answer. Of each flow one packet a second is rejected for that, and others are lost.", x.route.via))
				x.showHop(x.route)
				return
			}
			*rc = routeUnreachable
			x.reject(bpf.BlixtCounterCOUNTER_REJECT_UNREACHABLE, "the next hop %s does not answer", x.route.via)
			return
		}
		x.showHop(x.route)
	}
}

// stackHop shows where a packet goes that the host's stack forwards: that is its decision.
func (x *tracer) stackHop() {
	if x.o.Network == nil || x.in == 0 {
		return
	}
	if rc := x.findRoute(bpf.BlixtAddr{}, x.to.Sport); rc == routedYes || rc == routeTooBig {
		x.showHop(x.route)
	} else if rc == routeLocal {
		x.r.NextHop = &Hop{Interface: "lo", Via: datapath.FromAddr(x.to.Dst)}
	}
}

func (x *tracer) showHop(r route) {
	name, _, err := x.o.Network.Interface(r.ifindex)
	if err != nil {
		x.err = err
		return
	}
	x.r.NextHop = &Hop{Interface: name, Via: r.via, MTU: r.mtu, Silent: r.silent}
	if x.to.Flags&datapath.FlowSNAT != 0 && x.to.Flags&flowReenter == 0 && !x.hasProgram(r.ifindex) {
		x.note(fmt.Sprintf("The program has seen no packet at %s, by which the answers come: if it is not attached there, nobody translates them back.", name))
	}
}

// isSilent is is_silent in route.h.
func (x *tracer) isSilent() bool {
	if x.begins || x.hasProgram(loopback) {
		return false
	}
	s, found := find[bpf.BlixtSilence](x, bpf.BlixtMapSilentNeighbours, bpf.BlixtNextHop{Ifindex: uint32(x.route.ifindex), Addr: datapath.ToAddr(x.route.via)})
	if !found || x.now-s.Last > silenceForgottenTicks {
		return false
	}
	since := x.now - s.Asked
	return x.now-s.First >= silentTicks && (since <= silentTicks || s.Answered == 0 && since <= silenceForgottenTicks)
}
