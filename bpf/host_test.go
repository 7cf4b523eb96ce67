// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestHostKeepsApart is about connections of the host itself from ports that flows
// get too: what masquerades, kube-proxy for one, chooses among all ports.
func TestHostKeepsApart(t *testing.T) {
	c := cases{}
	leaves := func(l *lb, p packet) *result { // the host's own, or masqueraded by it
		l.Helper()
		return l.send(hook{dev: inside, egress: true, from: pods}, p)
	}
	everywhere(c, "a flow was there first", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, remote)
		vip := port(w.vip, "80")
		in := opening(proto, w.client, vip)
		source := in.snat(w.nodeIn, 0).src.String()
		l.ingress(outside, in).redirected(in.from(source).to(w.remote).hop(), "flow_new forwarded")

		own := opening(proto, source, w.remote)
		moved := own.snat(w.nodeIn, 0)
		if moved.src == own.src {
			moved = own.snat(w.nodeIn, 1)
		}
		for range 2 { // repeated
			leaves(l, own).next(own.from(moved.src.String()), "host_translated")
		}
		re := answer(proto, w.remote, moved.src.String())
		l.ingress(inside, re).next(re.to(source), "host_translated")
		re = answer(proto, w.remote, source)
		l.ingress(inside, re).redirected(re.from(vip).to(w.client).hop(), "replied")
		on := second(proto, source, w.remote)
		leaves(l, on).next(on.from(moved.src.String()), "host_translated flow_established")
		l.wantIn(on, "flows")
		leaves(l, on).next(on.from(moved.src.String()), "host_translated")
		in = second(proto, w.client, vip)
		l.ingress(outside, in).redirected(in.from(source).to(w.remote).hop(), "forwarded flow_established")

		// It does not depend on the backend's staying one.
		l.gone(remote)
		leaves(l, on).next(on.from(moved.src.String()), "host_translated")
		if proto == unix.IPPROTO_TCP { // the port is used again
			leaves(l, on.segment(rst, 1001, 0, "")).next(on.from(moved.src.String()).segment(rst, 1001, 0, ""), "host_translated")
			leaves(l, own).untouched("not_ours") // the flow is gone
			l.wantIn(on, "none")
		}
	})
	everywhere(c, "the host was there first", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, remote)
		vip := port(w.vip, "80")
		in := opening(proto, w.client, vip)
		own := opening(proto, in.snat(w.nodeIn, 0).src.String(), w.remote)
		for range 2 {
			leaves(l, own).untouched("not_ours")
		}
		l.ingress(outside, in).redirected(in.snat(w.nodeIn, 1).to(w.remote).hop(), "flow_new forwarded")
		l.ingress(inside, answer(proto, w.remote, own.src.String())).untouched("not_ours")
		leaves(l, second(proto, own.src.String(), w.remote)).untouched("not_ours")
		re := answer(proto, w.remote, in.snat(w.nodeIn, 1).src.String())
		l.ingress(inside, re).redirected(re.from(vip).to(w.client).hop(), "replied")
	})
	everywhere(c, "what the host has ended keeps no port", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, remote)
		in := opening(proto, w.client, port(w.vip, "80"))
		own := opening(proto, in.snat(w.nodeIn, 0).src.String(), w.remote)
		re := answer(proto, w.remote, own.src.String())
		const lasts = 120_000_000_000 >> 30 // HOST_TICKS
		leaves(l, own).untouched("not_ours")
		l.ingress(inside, re).untouched("not_ours")
		if proto == unix.IPPROTO_TCP {
			l.age(re, lasts+1) // it lasts longer than that
			l.ingress(outside, in).redirected(in.snat(w.nodeIn, 1).to(w.remote).hop(), "flow_new forwarded")
			empty[BlixtFlowKey, BlixtFlow](l, l.NewFlows)
			leaves(l, own).untouched("not_ours")
			fin := second(proto, own.src.String(), w.remote).segment(fin|ack, 1001, 5001, "")
			leaves(l, fin).untouched("not_ours")
		}
		l.age(re, lasts+1)
		l.ingress(outside, in).redirected(in.snat(w.nodeIn, 0).to(w.remote).hop(), "flow_new forwarded")
	})
	everywhere(c, "where ports are scarce the host's live connections keep theirs", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, remote)
		l.must(l.BlixtLayout1.Put(uint32(0), BlixtConfig{SnatMin: snatMin, SnatMax: snatMin}))
		own := opening(proto, port(w.nodeIn, "30000"), w.remote)
		leaves(l, own).untouched("not_ours")
		in := opening(proto, w.client, port(w.vip, "80"))
		l.ingress(outside, in).dropped("drop_ports_exhausted")
		if proto == unix.IPPROTO_TCP {
			re := answer(proto, w.remote, own.src.String()).segment(rst, 5001, 0, "")
			l.ingress(inside, re).untouched("not_ours")
			l.ingress(outside, in).redirected(in.from(own.src.String()).to(w.remote).hop(), "flow_new forwarded")
		}
	})
	everywhere(c, "a client's packet behind us, and another program's answer, stay as they are", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, local)
		client := addrPort(ap(w.client).Addr(), snatMin+5).String()
		a := conversation{l, w, proto, port(w.vip, "80"), w.local, client}
		a.open(true)
		behind := opening(proto, client, w.local)
		l.send(hook{dev: pods, egress: true, from: outside}, behind).untouched("not_ours")
		a.there(second(proto, client, a.vip), "forwarded")

		vip := port(w.shared, "30001")
		l.frontend(1, proto, vip, remote)
		l.forwarded(pods, opening(proto, vip, w.client)).untouched("not_ours")
		l.wantIn(opening(proto, w.client, vip), "none")
	})
	c.run(t)
}
