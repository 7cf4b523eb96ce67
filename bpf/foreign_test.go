// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// A node carries far more packets of others than of ours. Nothing of them may change.

// namesake returns another address that is taken for `addr` at first sight.
func namesake(r *rand.Rand, addr string) netip.Addr {
	a := netip.MustParseAddr(addr)
	want := InterestHash(addrOf(a))
	b := a.AsSlice()
	for {
		if a.Is4() { // some address of 100.64.0.0/10, which nobody here has
			binary.BigEndian.PutUint32(b, 100<<24|64<<16|r.Uint32N(1<<22))
		} else {
			copy(b, netip.MustParseAddr("2001:db8:abcd::").AsSlice())
			binary.BigEndian.PutUint64(b[8:], r.Uint64())
		}
		if other, _ := netip.AddrFromSlice(b); InterestHash(addrOf(other)) == want {
			return other
		}
	}
}

func TestPacketsOfOthersBesideOurs(t *testing.T) {
	c := cases{}
	for _, ip := range ipVersions {
		c[ip.name] = func(l *lb) {
			r := rand.New(rand.NewPCG(4, 2))
			for i, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
				l.serve(ip, protocol, local)
				l.frontend(uint32(1+i), protocol, port(ip.vip, "81"), remote)
			}
			l.address(ip.nodeOut, false)
			f := localFlow{l, ip, unix.IPPROTO_UDP, port(ip.vip, "80"), ip.local, ip.client}
			f.open(true)
			in := opening(unix.IPPROTO_UDP, ip.client, port(ip.vip, "81"))
			out := in.snat(ip.nodeIn, 0).to(ip.remote)
			l.ingress(outside, in).redirected(out.hop(), "flow_new forwarded")
			// Who looks like an address of ours, and a stranger, which nobody looks like.
			var strangers []netip.Addr
			for _, ours := range []string{ip.vip, ip.shared, ip.nodeIn, ip.nodeOut, ap(ip.local).Addr().String(), ap(ip.remote).Addr().String(), ap(ip.client).Addr().String()} {
				strangers = append(strangers, namesake(r, ours))
			}
			strangers = append(strangers, netip.MustParseAddr(map[string]string{"IPv4": "100.64.0.1", "IPv6": "2001:db8:abcd::1"}[ip.name]))
			ports := []uint16{80, 81, 8080, 40000, 41000, snatMin + 1, out.src.Port(), 791, uint16(r.Uint32())}
			hooks := []hook{{dev: outside}, {dev: inside}, {dev: pods}, {dev: outside, egress: true, from: pods}, {dev: inside, egress: true, from: outside}}
			for range 300 {
				from := netip.AddrPortFrom(strangers[r.IntN(len(strangers))], ports[r.IntN(len(ports))])
				to := netip.AddrPortFrom(strangers[r.IntN(len(strangers))], ports[r.IntN(len(ports))])
				var p packet
				switch n := r.IntN(10); {
				case n < 4:
					p = udp(from.String(), to.String()).withSize(r.IntN(1000))
				case n < 8:
					p = tcp(from.String(), to.String()).segment(uint8(r.Uint32()), r.Uint32(), r.Uint32(), "of others")
				case n < 9:
					p = echo(from.Addr().String(), to.Addr().String())
				default:
					p = withoutPorts(unix.IPPROTO_SCTP, from.String(), to.Addr().String())
				}
				if r.IntN(10) == 0 && len(p.payload) > 200 {
					p.df = false
					p = []packet{p.fragment(0, 64), p.fragment(64, 0)}[r.IntN(2)]
				}
				if r.IntN(10) == 0 {
					p.tos, p.ttl = uint8(r.Uint32()), 1
				}
				l.send(hooks[r.IntN(len(hooks))], p).untouched("not_ours")
				if t.Failed() {
					return
				}
				// Ours are served beside them.
				f.fromClient(udp(f.client, f.vip), "forwarded")
				f.fromBackend(udp(f.backend, f.client))
				l.ingress(inside, udp(ip.remote, out.src.String())).wantVerdict(redirect, "replied")
			}
		}
	}
	c.run(t)
}

// TestThousandPods has a thousand containers of this host, each with a flow of its own.
func TestThousandPods(t *testing.T) {
	const many = 1000
	objs, err := load(func(spec *ebpf.CollectionSpec) {
		shrinkTables(spec)
		for _, table := range []string{"backends", "backend_flows"} {
			spec.Maps[table].MaxEntries = 4096
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = objs.Close() })
	live, err := newLab(func(l *lab) error {
		if err := l.configure(); err != nil {
			return err
		}
		return l.route(pods, routeSpec{dst: "10.2.0.0/16"})
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, ip := range ipVersions {
		t.Run(ip.name, func(t *testing.T) {
			l := startLB(t, objs, nil)
			l.lab = live
			before := l.counters()
			l.address(ip.vip, true)
			var ids []uint32
			pod := func(i int) string {
				a := ap(ip.local).Addr().AsSlice()
				binary.BigEndian.PutUint16(a[len(a)-2:], uint16(0x0100+i)) // IPv4: of 10.2.0.0/16
				addr, _ := netip.AddrFromSlice(a)
				return addrPort(addr, 8080).String()
			}
			for i := range many {
				id := uint32(i + 1)
				l.backend(id, pod(i))
				l.local(id)
				ids = append(ids, id)
			}
			l.frontend(0, unix.IPPROTO_TCP, port(ip.vip, "80"), ids...)
			l.attached(pods)
			run := func(h hook, p, want packet) {
				t.Helper()
				verdict, out, err := l.run(h, p.bytes(), 0)
				if err != nil || verdict != tcxNext || string(out) != string(want.bytes()) {
					t.Fatalf("%v -> %v: verdict %d, error %v\n%s", p.src, p.dst, int32(verdict), err, diff(want.bytes(), out, false))
				}
			}
			used := map[string]bool{}
			for i := range 2 * many {
				client := addrPort(ap(ip.client).Addr(), 20000+i).String()
				in := opening(unix.IPPROTO_TCP, client, port(ip.vip, "80"))
				if _, _, err := l.run(hook{dev: outside}, in.bytes(), 0); err != nil {
					t.Fatal(err)
				}
				_, f := l.flow(in)
				backend := addrPort(netip.AddrFrom16(f.Dst.Bytes).Unmap(), int(htons(f.Dport))).String()
				used[backend] = true
				from := hook{dev: outside, egress: true, from: pods}
				re := answer(unix.IPPROTO_TCP, backend, client)
				run(from, re, re.from(port(ip.vip, "80")))
				for n := range 3 {
					in = in.segment(ack|psh, 1001+5*uint32(n), 5001, "hello")
					in.tcpOption = nil
					run(hook{dev: outside}, in, in.to(backend))
					re = re.segment(ack, 5001, 1006+5*uint32(n), "")
					re.tcpOption = nil
					run(from, re, re.from(port(ip.vip, "80")))
				}
			}
			if len(used) < many/2 {
				t.Errorf("%d containers have flows, want most of %d", len(used), many)
			}
			want := parseCounts(fmt.Sprintf("flow_new=%d flow_established=%[1]d forwarded=%d replied=%[2]d not_ours", 2*many, 8*many))
			if diff := cmp.Diff(want, l.counters().minus(before)); diff != "" { // not_ours is that of attached
				t.Errorf("counters (-want +got):\n%s", diff)
			}
		})
	}
}
