// SPDX-License-Identifier: Apache-2.0

// Package trace tells where a packet would go: by the same look-ups as the data plane,
// in the same order, against its maps and the host's FIB. No packet is sent, and nothing
// is written. It is bpf/blixt.bpf.c from handle_ports on, of what a client sends first:
// a SYN or a datagram.
package trace

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/clock"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/observe"
)

// Options are what a trace may use besides the maps.
type Options struct {
	// Network is the host's; nil: this process is not in it.
	Network Network
	// Frontends have the names of what is served; none: they are not known.
	Frontends []*lb.Frontend
	// ticks returns the time of the data plane; nil: now.
	ticks func() uint32
	// from is where the packet comes from that the interface of the query sends; nil: it
	// comes in there.
	from *int // an interface; 0: a socket of this host
}

// Run traces the packet of a query through the data plane whose maps are pinned in dir.
func Run(dir string, q observe.TraceQuery, o Options) (*Result, error) {
	t, err := Open(dir)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	return t.Trace(q, o)
}

// Trace traces the packet of a query. An error is one of the query, or of reading.
func (t *Tables) Trace(q observe.TraceQuery, o Options) (*Result, error) {
	if o.ticks == nil {
		o.ticks = ticks
	}
	x := &tracer{tables: t, o: o, now: o.ticks(), r: &Result{Client: q.Client, Server: q.Server, Protocol: q.Protocol}}
	if err := x.accept(q); err != nil {
		return nil, err
	}
	names, err := datapath.CounterNames()
	if err != nil {
		return nil, err
	}
	x.config, _ = find[datapath.Config](x, bpf.LayoutMap, uint32(0))
	if err := x.locate(q.Interface); err != nil {
		return nil, err
	}
	x.handle()
	if x.err != nil {
		return nil, x.err
	}
	x.r.Counter = names[x.counter]
	return x.r, nil
}

// ticks returns the time by the data plane's clock.
func ticks() uint32 { return uint32(clock.Monotonic() >> datapath.TickShift) }

// tracer is one packet: struct packet of packet.h.
type tracer struct {
	tables *Tables
	o      Options
	now    uint32
	config datapath.Config
	r      *Result
	err    error // the first one of reading

	protocol lb.Protocol
	v6       bool
	key      datapath.FlowKey
	bytes    int
	in       int // the interface that sees it; 0: not known
	egress   bool
	host     bool // a socket of this host sends it
	shared   bool // its destination is an address that the host shares

	frontend    *bpf.BlixtFrontend
	service     map[netip.AddrPort]string
	to          datapath.Flow // its forward entry
	unannounced bool
	charged     bool // the flow takes the place of one that policies have charged
	counter     bpf.BlixtCounter
	due         bool // the first packet of its flow in this tick
	begins      bool // the first packet of its flow
	route       route
	forgotten   datapath.FlowKey // of the reply entry that goes with the flow that has ended
}

// accept checks a query.
func (x *tracer) accept(q observe.TraceQuery) error {
	switch q.Protocol {
	case "tcp":
		x.protocol = lb.TCP
	case "udp":
		x.protocol = lb.UDP
	default:
		return fmt.Errorf("protocol %q: want tcp or udp", q.Protocol)
	}
	client, server := q.Client.Addr(), q.Server.Addr()
	if !client.IsValid() || !server.IsValid() || client.Is4() != server.Is4() || client.Is4In6() || server.Is4In6() {
		return fmt.Errorf("client %s and server %s: want two addresses of one family", client, server)
	}
	if client.Zone() != "" || server.Zone() != "" {
		return fmt.Errorf("client %s and server %s: no zones: name the interface instead", client, server)
	}
	x.v6 = client.Is6()
	least := 28
	if x.protocol == lb.TCP {
		least += 12
	}
	if x.v6 {
		least += 20
	}
	x.bytes = max(q.Bytes, least)
	if q.Bytes < 0 || x.bytes > 65535 {
		return fmt.Errorf("%d bytes: want 0 to 65535", q.Bytes)
	}
	x.key = datapath.FlowKey{Src: datapath.ToAddr(client), Dst: datapath.ToAddr(server), Sport: datapath.ToPort(q.Client.Port()), Dport: datapath.ToPort(q.Server.Port()), Protocol: uint8(x.protocol)}
	return nil
}

// locate finds the hook that sees the packet.
func (x *tracer) locate(name string) error {
	n := x.o.Network
	if n == nil {
		x.r.Hook = "ingress"
		x.note("The routes of the host are not known here: which interface, source address and next hop a packet gets. Run the command on the host itself.")
		return x.err
	}
	if n.Rules(x.v6) {
		x.note("Rules choose among tables of routes here (ip rule): compare what is said of routes with ip route get.")
	}
	if name != "" {
		in, err := n.Index(name)
		if err != nil {
			return err
		}
		x.in, x.egress = in, x.o.from != nil
		x.host = x.egress && *x.o.from == 0
	} else if err := x.guess(n); err != nil {
		return err
	}
	x.r.Hook = "ingress"
	if x.egress {
		x.r.Hook = "egress"
	}
	if x.in != 0 {
		x.r.Interface, _, x.err = n.Interface(x.in)
	}
	return x.err
}

// guess takes the interface of the route to the client. A client of this host, or behind
// an interface without the program, is seen where its packet leaves.
func (x *tracer) guess(n Network) error {
	back, err := n.Route(RouteQuery{Dst: x.r.Client.Addr()})
	if err != nil {
		return err
	}
	x.in, x.host = back.Ifindex, back.Kind == RouteLocal
	if !x.host && back.Kind != RouteUnicast {
		x.note(fmt.Sprintf("The host has no route to the client (%s): name the interface that it comes in by.", back.Kind))
		return nil
	}
	if !x.host && x.hasProgram(x.in) {
		return nil
	}
	out, err := n.Route(RouteQuery{Dst: x.r.Server.Addr()})
	if err != nil {
		return err
	}
	switch {
	case x.host && out.Ifindex != 0:
		x.in, x.egress = out.Ifindex, true
		if out.Kind == RouteLocal {
			x.in = loopback
		}
	case out.Kind == RouteUnicast && x.hasProgram(out.Ifindex):
		x.in, x.egress = out.Ifindex, true
	}
	if !x.hasProgram(x.in) {
		name, _, _ := n.Interface(x.in)
		x.note(fmt.Sprintf("The program has seen no packet at %s yet, by which this one comes: is it attached there?", name))
	}
	return nil
}

const loopback = 1

func (x *tracer) note(text string) {
	if !slices.Contains(x.r.Notes, text) {
		x.r.Notes = append(x.r.Notes, text)
	}
}

func (x *tracer) udp() bool { return x.protocol == lb.UDP }

// end is the verdict.
func (x *tracer) end(v Verdict, c bpf.BlixtCounter, why string, args ...any) {
	x.r.Verdict, x.counter, x.r.Why = v, c, fmt.Sprintf(why, args...)
}

func (x *tracer) pass(c bpf.BlixtCounter, why string)              { x.end(Passed, c, "%s", why) }
func (x *tracer) drop(c bpf.BlixtCounter, why string, args ...any) { x.end(Dropped, c, why, args...) }

// reject is the end of a packet that is answered, with RST or an ICMP error.
func (x *tracer) reject(c bpf.BlixtCounter, why string, args ...any) {
	if !x.host && x.protected(x.key.Src) {
		x.drop(bpf.BlixtCounterCOUNTER_DROP_PROTECTED, "the host's IPsec policies cover the client, so it gets no answer in clear text")
		return
	}
	x.end(Rejected, c, why, args...)
}

func (x *tracer) draining() bool { return x.config.Flags&datapath.ConfigDrain != 0 }

// protected is is_protected in ipsec.h.
func (x *tracer) protected(client bpf.BlixtAddr) bool {
	p, found := find[uint32](x, bpf.BlixtMapProtectedClients, bpf.BlixtClientPrefix{Bits: 128, Addr: client})
	return found && p != 0
}

// concerns is what serve_quickly_at asks first.
func (x *tracer) concerns() bool {
	all, found := find[[]byte](x, bpf.BlixtMapInterest, uint32(0))
	if !found {
		return true
	}
	to, from := bpf.BlixtInterestFlag(all[bpf.InterestHash(x.key.Dst)]), bpf.BlixtInterestFlag(all[bpf.InterestHash(x.key.Src)])
	return to&datapath.InterestVIP != 0 || x.egress && from&datapath.InterestFrom != 0
}

// handle is handle_ports.
func (x *tracer) handle() {
	address, ours := find[bpf.BlixtAddress](x, bpf.BlixtMapAddresses, x.key.Dst)
	frontend, port, served := x.findFrontend(address)
	if ours {
		x.r.Address = &Address{Exclusive: address.Flags&datapath.AddressExclusive != 0}
		x.shared = !x.r.Address.Exclusive
	}
	if ours && served {
		x.frontend = &frontend
		x.r.Frontend = x.named(frontend.Index, port)
	}
	if !x.concerns() {
		x.pass(bpf.BlixtCounterCOUNTER_NOT_OURS, "nothing is served at this address, and no flow goes there")
		return
	}

	f, table := x.findEntry(ours)
	if f != nil {
		x.r.Flow = x.describe(f, table)
		if f.Flags&datapath.FlowReply != 0 || f.Frontend == uint32(bpf.BlixtNoFlowOfNO_FRONTEND) {
			x.pass(bpf.BlixtCounterCOUNTER_NOT_OURS, "the tables have a flow of another kind with this tuple: an answer of a backend, or of another node or of the host itself")
			x.note("Where packets of such a flow go is not traced.")
			return
		}
		if !x.yields(f) {
			if x.serve(f, false) {
				return
			}
			f = nil
		}
	}
	switch {
	case !ours:
		x.pass(bpf.BlixtCounterCOUNTER_NOT_OURS, "nothing is served at this address")
	case x.frontend != nil:
		x.handleFrontend(f)
	case x.shared:
		x.pass(bpf.BlixtCounterCOUNTER_NOT_OURS, "no frontend has this port, and the host shares the address: it is the host's")
	default:
		x.rejectUnserved()
	}
}

// named returns the frontend with this port with its names.
func (x *tracer) named(index uint32, port uint16) *Frontend {
	f := &Frontend{Index: index}
	for _, s := range x.o.Frontends {
		if s.Addr != x.r.Server.Addr() || s.Port != port || s.Protocol != x.protocol {
			continue
		}
		f.Gateway, f.Listener, f.Route = s.Gateway, s.Listener, s.Route
		x.service = map[netip.AddrPort]string{}
		for _, b := range s.Backends {
			x.service[b.Addr] = b.Service
		}
	}
	return f
}

// findEntry returns the entry of the packet's tuple, and its table.
func (x *tracer) findEntry(ours bool) (*datapath.Flow, string) {
	tables := []string{bpf.BlixtMapFlows, bpf.BlixtMapNewFlows}
	if x.udp() {
		tables = []string{bpf.BlixtMapUdpFlows}
	}
	if !x.udp() && !ours && !x.egress && !x.inRange(x.key.Dport) { // may_be_new
		tables = tables[:1]
	}
	for _, name := range tables {
		if f, found := find[datapath.Flow](x, name, x.key); found {
			return &f, name
		}
	}
	return nil, ""
}

// describe returns a flow for people.
func (x *tracer) describe(f *datapath.Flow, table string) *Flow {
	flags, state := bpf.BlixtFlowFlag(f.Flags), "new"
	answered := flags&bpf.BlixtFlowFlagFLOW_ANSWERED != 0
	if x.udp() {
		reply, found := x.findFlow(peerKey(x.key, f))
		answered = found && bpf.BlixtFlowFlag(reply.Flags)&bpf.BlixtFlowFlagFLOW_ANSWERED != 0
	}
	switch {
	case flags&bpf.BlixtFlowFlagFLOW_CLOSED != 0:
		state = "closed"
	case flags&bpf.BlixtFlowFlagFLOW_ESTABLISHED != 0:
		state = "established"
	case answered:
		state = "answered"
	}
	d := &Flow{Table: table, State: state, Backend: f.Backend, Idle: (time.Duration(x.silent(f)) << datapath.TickShift).Seconds()}
	if f.Src != x.key.Src || f.Sport != x.key.Sport {
		d.SNAT = &observe.Endpoint{Address: datapath.FromAddr(f.Src), Port: datapath.FromPort(f.Sport)}
	}
	return d
}

// rejectUnserved is reject_unserved.
func (x *tracer) rejectUnserved() {
	switch {
	case x.draining():
		x.pass(bpf.BlixtCounterCOUNTER_DRAINED, "this program drains, and leaves what it does not know to the next one")
	case x.isMartian():
	default:
		x.reject(bpf.BlixtCounterCOUNTER_REJECT_UNSERVED, "no frontend has this port, and the address is Blixt's alone")
	}
}

// isMartian is is_martian. If so, it is the end of the packet.
func (x *tracer) isMartian() bool {
	client := x.r.Client.Addr()
	martian := client.IsMulticast() || client.IsUnspecified() || !x.v6 && (client.As4()[0] == 0 || client.As4()[0] >= 224)
	if !martian && !x.host {
		own, found := find[bpf.BlixtAddress](x, bpf.BlixtMapAddresses, x.key.Src)
		martian = client.IsLoopback() || x.key.Src == x.key.Dst || found && own.Flags&datapath.AddressExclusive != 0
		if x.v6 && !martian { // is_loopback: ::/96
			martian = [12]byte(x.key.Src.Bytes[:12]) == [12]byte{}
		}
	}
	if martian {
		x.drop(bpf.BlixtCounterCOUNTER_DROP_MARTIAN, "no sender outside this host can have the address %s", client)
	}
	return martian
}

// clientHash is client_hash in ring.h.
func clientHash(key datapath.FlowKey, seed uint64) uint32 {
	src0, src1 := binary.NativeEndian.Uint64(key.Src.Bytes[:8]), binary.NativeEndian.Uint64(key.Src.Bytes[8:])
	h := (src0 ^ seed) * 0xff51afd7ed558ccd
	h ^= h >> 33
	h = ((h + seed) ^ src1) * 0xc4ceb9fe1a85ec53
	h ^= h >> 33
	h = ((h + seed) ^ uint64(key.Sport)) * 0xff51afd7ed558ccd
	h ^= h >> 33
	h = (h + seed) * 0xc4ceb9fe1a85ec53
	return uint32(h >> 32)
}

// selectBackend is select_backend in affinity.h.
func (x *tracer) selectBackend(f *bpf.BlixtFrontend) Ring {
	word, _ := find[uint64](x, bpf.BlixtMapPublished, f.Index)
	ref := datapath.RingRef(word)
	r := Ring{Size: ref.Size()}
	if r.Size > 0 {
		r.Slot = uint32(uint64(x.ringHash(f)) * uint64(r.Size) >> 32)
		slot := ref.Offset() + r.Slot
		two, _ := find[uint64](x, bpf.BlixtMapRings, slot/2)
		r.Backend = uint32(two >> (slot & 1 * 32))
	}
	if f.Affinity != 0 {
		r.Backend = x.remembered(f, r.Backend)
	}
	return r
}

// handleFrontend is handle_frontend. f is the flow that yields to the packet, or nil.
func (x *tracer) handleFrontend(f *datapath.Flow) {
	ring := x.selectBackend(x.frontend)
	x.r.Ring = &ring
	if f != nil && !closed(f) && bpf.BlixtFlowFlag(f.Flags)&bpf.BlixtFlowFlagFLOW_ADOPTED == 0 && (f.Backend == ring.Backend || x.draining()) {
		if x.serve(f, x.changePort(f)) {
			return
		}
	} else if f != nil {
		x.r.Ended = "a SYN of the client begins another connection in place of this one"
		x.forget(f)
		x.charged = x.isAdmitted(f)
	}
	if x.draining() {
		x.pass(bpf.BlixtCounterCOUNTER_DRAINED, "this program drains, and leaves new flows to the next one")
		return
	}
	if x.shared && x.isForHost() {
		return
	}
	if x.isMartian() {
		return
	}
	if !x.admit() {
		return
	}
	if ring.Backend == datapath.BackendReject {
		x.rejectNoBackend(ring)
		return
	}
	x.beginFlow(ring)
}

// isForHost is is_for_host. If so, it is the end of the packet.
func (x *tracer) isForHost() bool {
	if x.o.Network == nil {
		x.note("The host shares the address. Whether one of its sockets gets the packet is not known here.")
		return false
	}
	found, err := x.o.Network.HasSocket(x.protocol, x.r.Client, x.r.Server, x.in)
	if err != nil {
		x.err = err
		return true
	}
	if found {
		x.pass(bpf.BlixtCounterCOUNTER_HOST_LISTENS, "a socket of the host has the port: ss -lntup names its process")
		return true
	}
	if x.inRange(x.key.Dport) && x.reserved(x.key) {
		x.pass(bpf.BlixtCounterCOUNTER_NOT_OURS, "a connection that the host masquerades has the tuple")
		return true
	}
	return false
}

// rejectNoBackend is reject_no_backend.
func (x *tracer) rejectNoBackend(ring Ring) {
	why := "the frontend has no backend"
	if ring.Size > 0 {
		why = "the ring refuses this client: it has the share of a backendRef without endpoints, or of one that is invalid"
	}
	if x.udp() || bpf.BlixtFrontendFlag(x.frontend.Flags)&bpf.BlixtFrontendFlagFRONTEND_DROP_NO_BACKEND != 0 { // not answered
		x.end(Rejected, bpf.BlixtCounterCOUNTER_REJECT_NO_BACKEND, "%s", why)
		return
	}
	x.reject(bpf.BlixtCounterCOUNTER_REJECT_NO_BACKEND, "%s", why)
}

// show fills Result.Backend: the flow goes to this port of it.
func (x *tracer) show(id uint32, b datapath.Backend, port uint16) {
	own := netip.AddrPortFrom(datapath.FromAddr(b.Addr), datapath.FromPort(b.Port))
	x.r.Backend = &Backend{
		ID: id, Address: netip.AddrPortFrom(own.Addr(), datapath.FromPort(port)), Generation: b.Generation, Ref: b.Ref,
		Local: b.Flags&datapath.BackendLocal != 0, Draining: b.Flags&datapath.BackendNotServing != 0,
	}
	x.r.Backend.Service = x.service[own]
}

// beginFlow is begin_flow.
func (x *tracer) beginFlow(ring Ring) {
	b, found := find[datapath.Backend](x, bpf.BlixtMapBackends, ring.Backend)
	if !found || b.Generation&1 == 0 || b.Frontend != x.frontend.Index {
		x.rejectNoBackend(Ring{})
		x.r.Why = "the ring names a backend that is gone: a newer ring is about to be published"
		return
	}
	port := x.backendPort(b)
	if port == 0 {
		x.rejectNoBackend(Ring{})
		x.r.Why = "the port is so far above the listener's that it would lead beyond the last port of the backend"
		return
	}
	x.show(ring.Backend, b, port)
	if x.v6 && x.r.Client.Addr().IsLinkLocalUnicast() && !x.host {
		x.drop(bpf.BlixtCounterCOUNTER_DROP_MARTIAN, "nothing may be forwarded from the link-local address %s", x.r.Client.Addr())
		return
	}
	if !x.host && x.protected(x.key.Src) {
		x.drop(bpf.BlixtCounterCOUNTER_DROP_PROTECTED, "the host's IPsec policies cover the client, so it gets no answer in clear text")
		return
	}
	x.to = datapath.Flow{
		Sport: x.key.Sport, Dst: b.Addr, Dport: port, Backend: ring.Backend, Generation: b.Generation, Frontend: x.frontend.Index,
		LastSeen: x.now, IdleTicks: x.frontend.IdleTicks,
	}
	way, ok := x.selectWay(b.Flags)
	if !ok {
		return
	}
	x.r.Way = way.name
	x.to.Flags = way.forward
	if way == wayRemote || way == wayForwarded {
		x.announce(b.Flags)
	}
	if !x.insert() {
		return
	}
	x.due, x.begins = true, true
	x.send()
}

// announce is what begin_flow does about announcements.
func (x *tracer) announce(flags uint16) {
	c, _ := find[datapath.AnnounceConfig](x, bpf.BlixtMapAnnouncing, uint32(0))
	x.r.Announced = c.Flags&datapath.AnnouncingTell != 0 && flags&(datapath.BackendHearsWithin|datapath.BackendHearsAlone) != 0 && x.to.Src != x.key.Src
	if x.r.Announced {
		x.to.Flags |= uint32(bpf.BlixtFlowFlagFLOW_ANNOUNCED)
	}
	room := ipv6MinMTU
	if !x.route.silent {
		room = x.route.mtu
	}
	fits := x.bytes+tailLen+1 <= room
	x.unannounced = x.udp() && !(x.r.Announced && flags&datapath.BackendHearsWithin != 0 && fits)
}
