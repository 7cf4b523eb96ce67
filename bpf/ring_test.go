// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"golang.org/x/sys/unix"
)

// Nodes with one seed choose the same backend for a client. Whoever does not
// know the seed cannot choose a port for a backend.
func TestSeedChoosesTheBackend(t *testing.T) {
	const clients = 128
	// firstHalf tells which clients get a slot in the first half of a ring.
	firstHalf := func(ip ipVersion, seed uint64) (chosen [clients]bool) {
		l := newLB(t)
		l.must(l.BlixtLayout2.Put(uint32(0), BlixtConfig{SnatMin: snatMin, SnatMax: snatMax, Seed: seed}))
		l.serve(ip, unix.IPPROTO_TCP, uint32(BlixtBackendIdBACKEND_REJECT), local)
		for i := range chosen {
			in := opening(unix.IPPROTO_TCP, ip.client, port(ip.vip, "80"))
			in.src = addrPort(in.src.Addr(), 1024+i)
			if chosen[i] = seededHash(in.src, seed)>>31 == 0; chosen[i] {
				l.ingress(outside, in).redirected(in.rstAnswer(rst|ack, 0, 1001), "reject_no_backend")
			} else {
				l.ingress(outside, in).toStack(in.to(ip.local), "flow_new forwarded")
			}
		}
		return chosen
	}
	for _, ip := range ipVersions {
		a, b, other := firstHalf(ip, 0x0123456789abcdef), firstHalf(ip, 0x0123456789abcdef), firstHalf(ip, 0x0123456789abcdee)
		if a != b {
			t.Errorf("%s: two nodes with one seed differ", ip.name)
		}
		moved := 0
		for i := range a {
			if a[i] != other[i] {
				moved++
			}
		}
		if moved < clients/4 || moved > clients*3/4 {
			t.Errorf("%s: with another seed %d of %d clients have another backend, want about half", ip.name, moved, clients)
		}
	}
}
