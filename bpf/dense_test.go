// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A denseFlow is a flow of which packets come without a pause while something
// changes. In the tick after the change at the latest, its packets get what the
// first packet after a pause would get.
type denseFlow struct {
	name   string
	hook   hook
	packet packet
	until  func(r *result) bool // what its packets get before the change
	then   func(r *result) bool // what they get from the next tick on
}

// gets reports whether a packet got a verdict, and raised one of the counters.
func gets(verdict uint32, counters ...string) func(r *result) bool {
	return func(r *result) bool {
		for _, c := range counters {
			if r.verdict == verdict && r.counts.String() == parseCounts(c).String() {
				return true
			}
		}
		return false
	}
}

// hasSource reports whether a packet was forwarded past the stack with the source address.
func hasSource(addr string) func(r *result) bool {
	source := netip.MustParseAddr(addr)
	at := 14 + 12
	if source.Is6() {
		at = 14 + 8
	}
	return func(r *result) bool {
		return r.verdict == redirect && r.counts["forwarded"] == 1 && string(r.out[at:at+len(source.AsSlice())]) == string(source.AsSlice())
	}
}

// A denseWorld has a frontend of its own for each flow, on port 3000 and above.
type denseWorld struct {
	*lb
	ip      ipVersion
	proto   uint8
	flows   []*denseFlow
	changes []func()
	index   *uint32
}

// add begins a flow of a client to a backend, and has its packets come. change is
// called later, and tells what it needs to know of frontend and backend by index and id.
func (w *denseWorld) add(name, client, vip, backend string, then func(r *result) bool, change func(index uint32, vip string)) {
	w.Helper()
	*w.index++
	n := *w.index
	vip = port(vip, fmt.Sprint(3000+n))
	w.backend(n, backend)
	w.frontend(n, w.proto, vip, n)
	send := func(h hook, p packet) *result {
		r, err := w.runRaw(h, p.bytes())
		w.must(err)
		return r
	}
	in := opening(w.proto, client, vip)
	r := send(hook{dev: outside}, in)
	if r.counts["flow_new"] != 1 {
		w.Fatalf("%s: no flow begins, counters %v", name, r.counts)
	}
	_, f := w.flow(in)
	source := addrPort(netip.AddrFrom16(f.Src.Bytes).Unmap(), int(htons(f.Sport))).String()
	h := hook{dev: inside}
	if BlixtFlowFlag(f.Flags)&BlixtFlowFlagFLOW_SNAT == 0 {
		h = hook{dev: outside, egress: true, from: pods}
	}
	re := answer(w.proto, backend, source)
	if r := send(h, re); r.counts["replied"] != 1 {
		w.Fatalf("%s: no answer, counters %v", name, r.counts)
	}
	in = establishing(w.proto, client, vip)
	if r := send(hook{dev: outside}, in); r.counts["forwarded"] != 1 {
		w.Fatalf("%s: not forwarded, counters %v", name, r.counts)
	}
	until := func(r *result) bool { return r.verdict != tcxDrop && r.counts.String() == "forwarded" }
	w.flows = append(w.flows, &denseFlow{w.ip.name + " " + protocolName(w.proto) + " " + name, hook{dev: outside}, in, until, then})
	w.changes = append(w.changes, func() { change(n, vip) })
}

// elsewhere gives the frontend another backend, on another node.
func (w *denseWorld) elsewhere(index uint32) {
	w.Helper()
	id := index + 128
	w.backend(id, w.ip.remote)
	w.publish(index, id)
}

func (w *denseWorld) populate() {
	ip, udp := w.ip, w.proto == unix.IPPROTO_UDP
	client := func(n int) string { return addrPort(ap(ip.client).Addr(), 50000+n).String() }
	moved := gets(redirect, "flow_new forwarded", "forwarded")
	noBackend := gets(redirect, "reject_backend_gone", "reject_no_backend")
	if udp {
		noBackend = gets(tcxDrop, "reject_no_backend")
	}
	for i, backend := range []string{ip.local, ip.remote} {
		w.add("backend "+backend+" withdrawn", client(i), ip.vip, backend, noBackend, func(n uint32, _ string) {
			w.publish(n)
			w.removeBackend(n)
		})
		w.add("policies cover the client of "+backend, addrPort(ap(ip.client).Addr().Next(), 50000+i).String(), ip.vip, backend,
			gets(tcxDrop, "drop_protected"), func(uint32, string) { w.protect(ap(ip.client).Addr().Next().String(), 1) })
	}
	w.add("entries deleted", client(2), ip.vip, ip.local, moved, func(n uint32, vip string) {
		w.elsewhere(n)
		for _, p := range []packet{proto(w.proto, client(2), vip), proto(w.proto, ip.local, client(2))} {
			m, _ := w.flow(p)
			w.must(m.Delete(keyOf(p)))
		}
	})
	w.add("no route", client(3), ip.vip, farBackend[ip.name], gets(redirect, "reject_unreachable"), func(uint32, string) {
		w.inLab(func() error { return deleteRoutes(prefixNet(farNetwork[ip.name])) })
	})
	narrowed := map[string]string{"IPv4": "10.77.0.10:8080", "IPv6": "[fd00:77::10]:8080"}[ip.name]
	network := map[string]string{"IPv4": "10.77.0.0/24", "IPv6": "fd00:77::/64"}[ip.name]
	w.routeBy(inside, network, viaInside[ip.name])
	w.add("smaller MTU", client(4), ip.vip, narrowed, gets(redirect, "reject_too_big"), func(uint32, string) {
		w.inLab(func() error {
			if err := deleteRoutes(prefixNet(network)); err != nil {
				return err
			}
			return w.lab.route(inside, routeSpec{dst: network, via: viaInside[ip.name], mtu: 1280})
		})
	})
	big := w.flows[len(w.flows)-1]
	big.packet = big.packet.withSize(1350)
	big.packet.df = true
	rerouted := map[string]string{"IPv4": "10.78.0.10:8080", "IPv6": "[fd00:78::10]:8080"}[ip.name]
	other := map[string]string{"IPv4": "10.78.0.0/24", "IPv6": "fd00:78::/64"}[ip.name]
	w.routeBy(inside, other, viaInside[ip.name])
	source := ip.nodeIn
	if udp {
		source = ip.nodePods
	}
	w.add("route by another device", client(5), ip.vip, rerouted, hasSource(source), func(uint32, string) {
		w.routeBy(pods, other, viaPods[ip.name])
	})
	if udp {
		w.add("backend does not serve", client(6), ip.vip, ip.local, moved, func(n uint32, _ string) {
			w.flag(n, BlixtBackendFlagBACKEND_NOT_SERVING)
			w.elsewhere(n)
		})
		w.add("the host listens", client(7), ip.nodeOut, ip.local, gets(tcxNext, "host_listens"), func(_ uint32, vip string) {
			w.socket(w.proto, vip, socketOptions{})
		})
	}
}

// TestChangesCountWithinATick changes all that may change about flows whose packets never pause.
func TestChangesCountWithinATick(t *testing.T) {
	l := newLB(t)
	l.renumberable()
	t.Cleanup(func() { // the next test has the first routes again
		for _, network := range []string{"10.77.0.0/24", "fd00:77::/64", "10.78.0.0/24", "fd00:78::/64"} {
			l.inLab(func() error { return deleteRoutes(prefixNet(network)) })
		}
	})
	for _, to := range []struct{ dev, addr string }{{inside, "10.1.0.77"}, {inside, "fd00:1::77"}, {inside, "10.1.0.10"}, {inside, "fd00:1::10"},
		{pods, "10.2.0.77"}, {pods, "fd00:2::77"}, {outside, "2001:db8::254"}} {
		n := &netlink.Neigh{LinkIndex: int(l.lab.devices[to.dev]), State: netlink.NUD_PERMANENT,
			IP: netip.MustParseAddr(to.addr).AsSlice(), HardwareAddr: farMAC[:]}
		l.inLab(func() error { return netlink.NeighSet(n) })
		t.Cleanup(func() { l.lab.do(func() { _ = netlink.NeighDel(n) }) })
	}
	var all []*denseFlow
	var changes []func()
	index := uint32(0)
	for _, ip := range ipVersions {
		l.address(ip.vip, true)
		l.address(ip.nodeOut, false)
		for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			w := &denseWorld{lb: l, ip: ip, proto: protocol, index: &index}
			w.populate()
			all, changes = append(all, w.flows...), append(changes, w.changes...)
		}
	}
	// each sends a packet of each flow.
	each := func(check func(f *denseFlow, r *result)) {
		for _, f := range all {
			r, err := l.runRaw(f.hook, f.packet.bytes())
			l.must(err)
			check(f, r)
		}
	}
	for range 5 {
		each(func(f *denseFlow, r *result) {
			if !f.until(r) {
				t.Errorf("%s, before: %v, counters %v", f.name, verdictNames[r.verdict], r.counts)
			}
		})
	}
	if t.Failed() {
		return
	}
	for _, change := range changes {
		change()
	}
	for changed := l.tick(); l.tick() == changed; {
		each(func(*denseFlow, *result) {})
	}
	for range 5 {
		each(func(f *denseFlow, r *result) {
			if !f.then(r) {
				t.Errorf("%s, in the tick after the change: %v, counters %v", f.name, verdictNames[r.verdict], r.counts)
			}
		})
	}
}

// What ends a flow ends it at once, however many of its packets were seen in the same tick.
func TestEndsCountAtOnce(t *testing.T) {
	c := cases{}
	const many = 5 // packets that are seen before
	for _, ip := range ipVersions {
		talking := func(name string, run func(f localFlow)) {
			c[ip.name+" TCP "+name] = func(l *lb) {
				l.serve(ip, unix.IPPROTO_TCP, local)
				f := l.openFlow(ip, unix.IPPROTO_TCP, true)
				for range many {
					f.fromClient(f.clientPacket(ack, 1001, 5001, ""), "forwarded")
					f.fromBackend(f.reply().segment(ack, 5001, 1001, ""))
				}
				l.publish(0, remote)
				run(f)
			}
		}
		again := func(f localFlow) {
			f.Helper()
			in := opening(f.protocol, f.client, f.vip).segment(syn, 777777, 0, "")
			out := in.snat(ip.nodeIn, 0).to(ip.remote)
			f.ingress(outside, in).redirected(out.hop(), "flow_new forwarded")
			f.ingress(inside, answer(f.protocol, ip.remote, out.src.String()).segment(syn|ack, 9000, 777778, "")).wantVerdict(redirect, "replied")
			in = f.clientPacket(ack, 777778, 9001, "")
			for i := range many {
				f.ingress(outside, in).redirected(in.from(out.src.String()).to(ip.remote).hop(), map[bool]string{true: "forwarded flow_established", false: "forwarded"}[i == 0])
			}
		}
		talking("a RST of the client", func(f localFlow) {
			f.fromClient(f.clientPacket(rst, 1001, 0, ""), "forwarded flow_closed")
			again(f)
		})
		talking("a RST of the backend", func(f localFlow) {
			f.fromBackendCounting(f.reply().segment(rst|ack, 5001, 1001, ""), "replied flow_closed")
			again(f)
		})
		talking("data, and a RST behind it", func(f localFlow) {
			f.fromClient(f.clientPacket(ack|psh, 1001, 5001, "hello"), "forwarded")
			f.fromClient(f.clientPacket(rst, 1006, 0, ""), "forwarded flow_closed")
			again(f)
		})
		talking("FINs of both", func(f localFlow) {
			f.fromClient(f.clientPacket(fin|ack, 1001, 5001, ""), "forwarded")
			f.fromBackend(f.reply().segment(ack, 5001, 1002, ""))
			f.fromBackend(f.reply().segment(fin|ack, 5001, 1002, ""))
			f.fromClient(f.clientPacket(ack, 1002, 5002, ""), "forwarded flow_closed")
			again(f)
		})
		talking("FINs of both behind data", func(f localFlow) {
			f.fromBackend(f.reply().segment(ack|psh, 5001, 1001, "hello"))
			f.fromBackend(f.reply().segment(fin|ack, 5006, 1001, ""))
			f.fromClient(f.clientPacket(ack, 1001, 5007, ""), "forwarded")
			f.fromClient(f.clientPacket(fin|ack, 1001, 5007, ""), "forwarded")
			f.fromBackendCounting(f.reply().segment(ack, 5007, 1002, ""), "replied flow_closed")
			again(f)
		})
		talking("a backend that has lost it begins anew", func(f localFlow) {
			f.fromClient(f.clientPacket(syn, 777777, 0, ""), "forwarded")
			f.fromBackend(f.reply().segment(syn|ack, 0x80000000, 777778, ""))
			for range many {
				f.fromClient(f.clientPacket(ack, 777778, 0x80000001, ""), "forwarded")
				f.fromBackend(f.reply().segment(ack, 0x80000001, 777778, ""))
			}
			f.fromClient(f.clientPacket(rst, 1001, 0, ""), "forwarded") // the number of before
			f.wantTable(f.forward(), "flows")
			f.fromClient(f.clientPacket(rst, 777778, 0, ""), "forwarded flow_closed")
			again(f)
		})
		talking("what comes late is still translated", func(f localFlow) {
			f.fromClient(f.clientPacket(rst, 1001, 0, ""), "forwarded flow_closed")
			for range many {
				f.fromBackend(f.reply().segment(ack|psh, 5001, 1001, "late"))
			}
			again(f)
			f.egressForwarded(pods, f.reply().segment(ack|psh, 5001, 1001, "too late")).wantVerdict(redirect, "drop_flow_gone")
		})
	}
	forEachProtocol(c, "the backend's generation", func(l *lb, ip ipVersion, proto uint8) {
		for id, other := range map[uint32]uint32{local: remote, remote: local} {
			l.clear()
			l.config(0)
			l.serve(ip, proto, id)
			in := l.dense(ip, proto, many)
			l.publish(0, other)
			l.removeBackend(id)
			r := l.ingress(outside, in)
			if proto == unix.IPPROTO_TCP {
				r.redirected(in.rstAnswer(rst, 5001, 0), "reject_backend_gone")
			} else {
				r.wantVerdict(map[uint32]uint32{local: tcxNext, remote: redirect}[other], "flow_new forwarded")
			}
		}
	})
	forEachProtocol(c, "its source port is another flow's", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, remote)
		l.ports(30000, 30000)
		in := l.dense(ip, proto, many)
		_, f := l.flow(in)
		re := answer(proto, ip.remote, addrPort(netip.MustParseAddr(ip.nodeIn), 30000).String())
		if proto == unix.IPPROTO_TCP {
			l.ingress(outside, in.segment(rst, 1001, 0, "")).wantVerdict(redirect, "forwarded flow_closed")
		} else { // what nobody has seen for long has expired
			l.age(in, idleTicks+2)
			l.age(re, idleTicks+2)
			l.forgetKept()
		}
		next := opening(proto, nthClient(ip, 1), port(ip.vip, "80"))
		l.ingress(outside, next).redirected(next.from(re.dst.String()).to(ip.remote).hop(), "flow_new forwarded")
		for range many {
			l.ingress(inside, re).redirected(re.from(port(ip.vip, "80")).to(next.src.String()).hop(), "replied")
		}
		if m, now := l.flow(in); m != nil && now.Sport == f.Sport && now.Src == f.Src {
			l.Errorf("the previous flow still has port %d", htons(now.Sport))
		}
	})
	forEachProtocol(c, "an answer by another device is no answer", func(l *lb, ip ipVersion, proto uint8) {
		l.severalNICs()
		l.attached(outside, inside, second, pods)
		out := l.begin(ip, proto, remote, ip.remote)
		re := answer(proto, ip.remote, out.src.String())
		l.at(inside, re).wantVerdict(redirect, "replied")
		l.ingress(outside, establishing(proto, ip.client, port(ip.vip, "80"))).wantVerdict(redirect, "forwarded"+andEstablished(proto))
		for range many {
			l.at(inside, re).wantVerdict(redirect, "replied")
			l.at(outside, re).untouched("wrong_device")
			l.at(second, re).untouched("wrong_device")
		}
	})
	forEachProtocol(c, "at another hook it is no packet of the flow", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		f := l.openFlow(ip, proto, true)
		for range many {
			f.fromBackend(answer(proto, ip.local, ip.client))
			l.ingress(pods, answer(proto, ip.local, ip.client)).untouched("not_ours")
		}
	})
	c.run(t)
}

// dense opens a flow of the client to its frontend's only backend, and has many packets
// of both directions come. It returns the client's packet.
func (l *lb) dense(ip ipVersion, proto uint8, many int) (in packet) {
	l.Helper()
	in = opening(proto, ip.client, port(ip.vip, "80"))
	l.ingress(outside, in)
	_, f := l.flow(in)
	h := hook{dev: inside}
	if BlixtFlowFlag(f.Flags)&BlixtFlowFlagFLOW_SNAT == 0 {
		h = hook{dev: outside, egress: true, from: pods}
	}
	re := answer(proto, addrPort(netip.AddrFrom16(f.Dst.Bytes).Unmap(), int(htons(f.Dport))).String(),
		addrPort(netip.AddrFrom16(f.Src.Bytes).Unmap(), int(htons(f.Sport))).String())
	in = establishing(proto, ip.client, port(ip.vip, "80"))
	for range many {
		if r := l.send(h, re); r.counts["replied"] != 1 {
			l.Fatalf("an answer gets %v", r.counts)
		}
		if r := l.ingress(outside, in); r.counts["forwarded"] != 1 {
			l.Fatalf("the client's packet gets %v", r.counts)
		}
	}
	return in
}
