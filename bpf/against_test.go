// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

var against = flag.String("against", "", "with -bench=Against: the object `files` to compare with, separated by commas")

// An object is a loaded program with its maps. Its layout may be another one:
// so only packets fill its flow tables, and of values only as much is written
// as its maps have room for.
type object struct {
	testing.TB
	lab *lab
	c   *ebpf.Collection
}

func loadObject(b *testing.B, lab *lab, spec *ebpf.CollectionSpec) object {
	b.Helper()
	c, err := ebpf.NewCollection(spec)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	return object{b, lab, c}
}

func (o object) put(table string, key, value any) {
	o.Helper()
	m := o.c.Maps[table]
	if m == nil {
		return
	}
	var v bytes.Buffer
	if err := binary.Write(&v, binary.NativeEndian, value); err != nil {
		o.Fatal(err)
	}
	if err := m.Put(key, v.Bytes()[:m.ValueSize()]); err != nil {
		o.Fatalf("%s: %v", table, err)
	}
}

// serve gives the VIP's ports 80 and 81 a backend on this node and one elsewhere.
func (o object) serve(ip ipVersion, protocol uint8) {
	o.Helper()
	config := BlixtConfig{SnatMin: 1024, SnatMax: 61000, UnservedUdp: [4]uint64{^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)}} // the VIP is exclusive
	o.put(LayoutPrefix+"1", uint32(0), config)
	o.put(LayoutMap, uint32(0), config)
	vip := ap(port(ip.vip, "80")).Addr()
	o.put("addresses", addrOf(vip), BlixtAddress{Flags: uint32(BlixtAddressFlagADDRESS_EXCLUSIVE)})
	if m := o.c.Maps[BlixtMapInterest]; m != nil {
		bits := make([]byte, BlixtLimitINTEREST_SIZE)
		bits[InterestHash(addrOf(vip))] = byte(BlixtInterestFlagINTEREST_VIP)
		for a := range hostAddresses {
			bits[InterestHash(addrOf(a))] |= byte(BlixtInterestFlagINTEREST_HOST)
		}
		o.put(BlixtMapInterest, uint32(0), bits)
	}
	for i, backend := range []string{ip.local, ip.remote} {
		id := uint32(i + 1)
		b := BlixtBackend{Addr: addrOf(ap(backend).Addr()), Port: htons(ap(backend).Port()), Generation: 1, Frontend: uint32(i)}
		if i == 0 {
			b.Flags = uint16(BlixtBackendFlagBACKEND_LOCAL)
		}
		o.put("backends", id, b)
		o.put("rings", uint32(i), uint64(id))
		o.put("published", uint32(i), uint64(2*i)|1<<24|1<<44)
		o.put("frontends", BlixtFrontendKey{Addr: addrOf(vip), Port: htons(uint16(80 + i)), Protocol: protocol},
			BlixtFrontend{Index: uint32(i), IdleTicks: 1 << 30})
	}
}

func (o object) send(h hook, p packet) []byte {
	o.Helper()
	l := lb{TB: o.TB, lab: o.lab, BlixtObjects: &BlixtObjects{BlixtPrograms: BlixtPrograms{Blixt: o.c.Programs["blixt"]}}}
	_, out, err := l.run(h, p.bytes(), 0)
	if err != nil {
		o.Fatal(err)
	}
	return out
}

// BenchmarkAgainst compares the program with other objects, in turns: what a
// packet of an established flow costs, the least of 20 rounds each.
func BenchmarkAgainst(b *testing.B) {
	if *against == "" {
		b.Skip("needs -against=FILE")
	}
	lab, err := sharedLab()
	if err != nil {
		b.Fatal(err)
	}
	for _, ip := range ipVersions {
		for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			for _, flows := range []uint32{1, 1 << 10, 1 << 14} {
				compare(b, lab, ip, protocol, flows)
			}
		}
	}
}

func compare(b *testing.B, lab *lab, ip ipVersion, protocol uint8, flows uint32) {
	const rounds, packets = 20, 10000
	b.Run(fmt.Sprintf("%s%s/flows=%d", protocolName(protocol), ip.name[2:], flows), func(b *testing.B) {
		var objects []object
		for file := range strings.SplitSeq(*against, ",") {
			spec, err := ebpf.LoadCollectionSpec(file)
			if err != nil {
				b.Fatal(err)
			}
			objects = append(objects, loadObject(b, lab, spec))
		}
		ours, err := LoadBlixt()
		if err != nil {
			b.Fatal(err)
		}
		objects = append(objects, loadObject(b, lab, ours))
		toLocal := establishing(protocol, ip.client, port(ip.vip, "80"))
		toRemote := establishing(protocol, ip.client, port(ip.vip, "81"))
		missed := toLocal.to(map[string]string{"IPv4": "203.0.113.99:80", "IPv6": "[2001:db8:f::99]:80"}[ip.name])
		for _, o := range objects {
			o.serve(ip, protocol)
			for i := range flows {
				client := clientOf(ip, i)
				for j, vip := range []string{toLocal.dst.String(), toRemote.dst.String()} {
					out := o.send(hook{dev: outside}, opening(protocol, client, vip))
					if j == 0 {
						o.send(hook{dev: outside, egress: true, from: pods}, answer(protocol, ip.local, client))
					} else {
						o.send(hook{dev: inside}, answer(protocol, ip.remote, sourceOf(out, ip)))
					}
					o.send(hook{dev: outside}, establishing(protocol, client, vip))
				}
			}
		}
		for _, path := range []struct {
			name    string
			packet  packet
			hook    hook
			verdict uint32
		}{
			{"miss", missed, hook{dev: outside}, tcxNext},
			{"local", toLocal, hook{dev: outside}, tcxNext},
			{"remote", toRemote, hook{dev: outside}, redirect},
			{"local-reply", continuing(protocol, ip.local, clientOf(ip, 0)), hook{dev: outside, egress: true, from: pods}, tcxNext},
			{"left-alone", continuing(protocol, ip.local, ip.client), hook{dev: outside, egress: true, from: pods}, tcxNext},
		} {
			leaves := path.hook.egress
			if leaves && flows != 1 {
				continue // the template varies the source, here the backend
			}
			b.Run(path.name, func(b *testing.B) {
				t := newTemplate(b, path.packet, flows)
				if leaves {
					t.fixed()
				}
				programs := []*ebpf.Program{t.pass}
				for _, o := range objects {
					programs = append(programs, o.c.Programs["blixt"])
				}
				times := make([][]float64, len(programs))
				for round := range rounds + 1 {
					for _, i := range rand.Perm(len(programs)) {
						each, verdict, err := t.time(lab, path.hook, programs[i], packets)
						if want := path.verdict; err != nil || i > 0 && verdict != want {
							b.Fatalf("verdict %d, want %d; error %v", int32(verdict), int32(want), err)
						}
						if round > 0 {
							times[i] = append(times[i], float64(each)/packets)
						}
					}
				}
				net := func(i int) float64 { return slices.Min(times[i]) - slices.Min(times[0]) }
				ours := net(len(objects))
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(ours, "ns")
				for i := range objects[1:] {
					b.ReportMetric(net(i+1), fmt.Sprintf("ns-of-%d", i+1))
					b.ReportMetric(ours/net(i+1), fmt.Sprintf("ratio-to-%d", i+1))
				}
			})
		}
	})
}

// clientOf returns the client of flow i, as the template numbers them.
func clientOf(ip ipVersion, i uint32) string {
	a := ap(ip.client).Addr().AsSlice()
	a[len(a)-1] += byte(i / portsEach)
	return netip.AddrPortFrom(must(netip.AddrFromSlice(a)), uint16(1024+i%portsEach)).String()
}

func must[T any](v T, ok bool) T {
	if !ok {
		panic("not an address")
	}
	return v
}

// sourceOf returns the source of a translated frame.
func sourceOf(frame []byte, ip ipVersion) string {
	at, size, ports := 14+12, 4, 14+20
	if ip.name == "IPv6" {
		at, size, ports = 14+8, 16, 14+40
	}
	addr, _ := netip.AddrFromSlice(frame[at : at+size])
	return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(frame[ports:])).String()
}
