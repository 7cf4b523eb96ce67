// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// TestHostPorts is about connections of the host itself from ports that flows
// use, too: masquerading (kube-proxy's, for one) chooses among all ports.
func TestHostPorts(t *testing.T) {
	c := cases{}
	leaves := func(l *lb, p packet) *result { // the host's own packet, or one that it has masqueraded
		l.Helper()
		return l.send(hook{dev: inside, egress: true, from: pods}, p)
	}
	forEachProtocol(c, "a flow was there first", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, remote)
		vip := port(ip.vip, "80")
		in := opening(proto, ip.client, vip)
		source := in.snat(ip.nodeIn, 0).src.String()
		l.ingress(outside, in).redirected(in.from(source).to(ip.remote).hop(), "flow_new forwarded")

		own := opening(proto, source, ip.remote)
		moved := own.snat(ip.nodeIn, 0)
		if moved.src == own.src {
			moved = own.snat(ip.nodeIn, 1)
		}
		for range 2 { // the second is a repetition
			leaves(l, own).toStack(own.from(moved.src.String()), "host_translated")
		}
		re := answer(proto, ip.remote, moved.src.String())
		if proto == unix.IPPROTO_TCP { // half evicted: it does not leave with the tuple of the other flow
			l.must(l.NewFlows.Delete(keyOf(re)))
			leaves(l, own).toStack(own.from(moved.src.String()), "host_translated")
		}
		l.ingress(inside, re).toStack(re.to(source), "host_translated")
		re = answer(proto, ip.remote, source)
		l.ingress(inside, re).redirected(re.from(vip).to(ip.client).hop(), "replied")
		on := establishing(proto, source, ip.remote)
		leaves(l, on).toStack(on.from(moved.src.String()), "host_translated"+andEstablished(proto))
		l.wantTable(on, livesIn(proto))
		leaves(l, on).toStack(on.from(moved.src.String()), "host_translated")
		in = establishing(proto, ip.client, vip)
		l.ingress(outside, in).redirected(in.from(source).to(ip.remote).hop(), "forwarded"+andEstablished(proto))

		// The translation does not end with the backend.
		l.removeBackend(remote)
		leaves(l, on).toStack(on.from(moved.src.String()), "host_translated")
		if proto == unix.IPPROTO_TCP { // the host uses the port again
			leaves(l, on.segment(rst, 1001, 0, "")).toStack(on.from(moved.src.String()).segment(rst, 1001, 0, ""), "host_translated flow_closed")
			leaves(l, own).untouched("not_ours") // the frontend's flow has ended
			l.wantTable(on, "none")
		}
	})
	forEachProtocol(c, "the host was there first", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, remote)
		vip := port(ip.vip, "80")
		in := opening(proto, ip.client, vip)
		own := opening(proto, in.snat(ip.nodeIn, 0).src.String(), ip.remote)
		for range 2 {
			leaves(l, own).untouched("not_ours")
		}
		l.ingress(outside, in).redirected(in.snat(ip.nodeIn, 1).to(ip.remote).hop(), "flow_new forwarded")
		l.ingress(inside, answer(proto, ip.remote, own.src.String())).untouched("not_ours")
		leaves(l, establishing(proto, own.src.String(), ip.remote)).untouched("not_ours")
		re := answer(proto, ip.remote, in.snat(ip.nodeIn, 1).src.String())
		l.ingress(inside, re).redirected(re.from(vip).to(ip.client).hop(), "replied")
	})
	forEachProtocol(c, "a connection that the host has closed frees its port", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, remote)
		in := opening(proto, ip.client, port(ip.vip, "80"))
		own := opening(proto, in.snat(ip.nodeIn, 0).src.String(), ip.remote)
		re := answer(proto, ip.remote, own.src.String())
		const lasts = 120_000_000_000 >> 30 // HOST_TICKS
		leaves(l, own).untouched("not_ours")
		l.ingress(inside, re).untouched("not_ours")
		if proto == unix.IPPROTO_TCP {
			leaves(l, establishing(proto, own.src.String(), ip.remote)).untouched("not_ours")
			l.ageHostPort(re, lasts+1) // an open connection lasts longer
			l.ingress(outside, in).redirected(in.snat(ip.nodeIn, 1).to(ip.remote).hop(), "flow_new forwarded")
			deleteAll[BlixtFlowKey, BlixtFlow](l, l.NewFlows) // TCP only
			leaves(l, own).untouched("not_ours")
			fin := establishing(proto, own.src.String(), ip.remote).segment(fin|ack, 1001, 5001, "")
			leaves(l, fin).untouched("not_ours")
		}
		l.ageHostPort(re, lasts+1)
		l.ingress(outside, in).redirected(in.snat(ip.nodeIn, 0).to(ip.remote).hop(), "flow_new forwarded")
	})
	forEachProtocol(c, "where ports are scarce, connections of the host keep theirs", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, remote)
		l.ports(snatMin, snatMin)
		own := opening(proto, port(ip.nodeIn, "30000"), ip.remote)
		leaves(l, own).untouched("not_ours")
		in := opening(proto, ip.client, port(ip.vip, "80"))
		l.ingress(outside, in).wantVerdict(redirect, "reject_ports_exhausted")
		if proto == unix.IPPROTO_TCP { // whoever forges a RST of the other side gains nothing
			re := answer(proto, ip.remote, own.src.String())
			l.ingress(inside, re).untouched("not_ours")
			leaves(l, establishing(proto, own.src.String(), ip.remote)).untouched("not_ours")
			l.ingress(inside, re.segment(rst, 5001, 0, "")).untouched("not_ours")
			l.ingress(inside, re.segment(fin|ack, 5001, 1001, "")).untouched("not_ours")
			l.ageHostPort(re, 7440_000_000_000>>30) // HOST_TCP_TICKS
			l.ingress(outside, in).wantVerdict(redirect, "reject_ports_exhausted")
			l.ageHostPort(re, 2)
			l.ingress(outside, in).redirected(in.from(own.src.String()).to(ip.remote).hop(), "flow_new forwarded")
		}
	})
	forEachProtocol(c, "a connection of the host that nobody answers frees its port", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, remote)
		l.ports(snatMin, snatMin)
		own := opening(proto, port(ip.nodeIn, "30000"), ip.remote)
		leaves(l, own).untouched("not_ours")
		if proto == unix.IPPROTO_TCP { // it is refused
			l.ingress(inside, own.reversed().segment(rst|ack, 0, 1001, "")).untouched("not_ours")
		}
		l.ageHostPort(own.reversed(), 120_000_000_000>>30+1)
		in := opening(proto, ip.client, port(ip.vip, "80"))
		l.ingress(outside, in).redirected(in.from(own.src.String()).to(ip.remote).hop(), "flow_new forwarded")
	})
	forEachProtocol(c, "a client's packet behind us and what is not from this host do not change", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		client := addrPort(ap(ip.client).Addr(), snatMin+5).String()
		a := localFlow{l, ip, proto, port(ip.vip, "80"), ip.local, client}
		a.open(true)
		behind := opening(proto, client, ip.local)
		l.send(hook{dev: pods, egress: true, from: outside}, behind).untouched("not_ours")
		a.fromClient(establishing(proto, client, a.vip), "forwarded")

		vip := port(ip.shared, "30001")
		l.frontend(1, proto, vip, remote)
		l.egressForwarded(pods, opening(proto, vip, ip.client)).untouched("not_ours")
		l.wantTable(opening(proto, ip.client, vip), "none")
	})
	c.run(t)
}

// ageHostPort moves the last packet of a reservation into the past, by ticks.
func (l *lb) ageHostPort(answer packet, ticks uint32) {
	l.Helper()
	for _, m := range []*ebpf.Map{l.HostPorts, l.MasqueradedPorts} {
		var h BlixtHostPort
		if m.Lookup(keyOf(answer), &h) == nil {
			h.LastSeen -= ticks
			l.must(m.Put(keyOf(answer), h))
			return
		}
	}
	l.Fatalf("no reservation of %v -> %v to age", answer.src, answer.dst)
}
