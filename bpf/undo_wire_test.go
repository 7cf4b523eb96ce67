// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/announce"
)

// Test runs show neither a packet whose checksum is partial nor what comes in
// again. So here packets really come in by devices of A or of B, and are captured
// where they leave.

// wires attaches the program of a node in this lab, and taps its devices.
func (l *lb) wires(live *lab, devices ...string) map[string]*tap {
	l.Helper()
	l.lab = live
	taps := map[string]*tap{}
	for _, dev := range devices {
		if dev != pods { // the program is on none of the pods' devices
			l.attach(dev)
		}
		taps[dev] = l.tap(dev)
	}
	return taps
}

// sendAs sends a packet whose checksum is complete, or left to the device.
func (t *tap) sendAs(p packet, partial bool) {
	t.l.Helper()
	if partial {
		t.sendPartial(p)
		return
	}
	t.send(p)
}

// receiveSummed receives the next packet, with the checksum that a device computes, and checks all sums.
func (t *tap) receiveSummed(partial bool) []byte {
	t.l.Helper()
	frame, sum := t.receive()
	if left := sum.to != 0; left != partial {
		t.l.Errorf("the checksum is left to the device: %t, want %t", left, partial)
	}
	if sum.to != 0 {
		complete(frame, sum.from, sum.to)
	}
	if err := checkSums(frame, 14); err != nil {
		t.l.Errorf("checksums: %v", err)
	}
	return frame
}

// TestAnnounceOnTheWire compares what A really sends.
func TestAnnounceOnTheWire(t *testing.T) {
	live, err := labWithNeighbours()
	if err != nil {
		t.Fatal(err)
	}
	for _, ip := range ipVersions {
		for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			for _, partial := range []bool{false, true} {
				for size := range 3 {
					if protocol == unix.IPPROTO_TCP && size > 0 {
						continue
					}
					t.Run(fmt.Sprintf("%s %s, %d bytes, partial %t", ip.name, protocolName(protocol), size, partial), func(t *testing.T) {
						n := newNodes(t)
						taps := n.a.wires(live, outside, inside)
						n.serve(ip, protocol)
						in := opening(protocol, ip.client, port(ip.vip, "80")).withSize(size)
						out := in.snat(ip.nodeIn, 0).to(ip.remote).hop()
						want := n.told(ip.client)
						taps[outside].sendAs(in, partial)
						frame := taps[inside].receiveSummed(partial)
						f, err := announce.Find(frame[14:])
						if err != nil {
							t.Fatalf("%v\n%s", err, strings.Join(dump(frame, false), "\n"))
						}
						n.a.wantMessage(f, want, want.Time, keyOfCluster)
						whole := frame
						frame = append(frame[:14:14], f.Rest...)
						taps[inside].compare(frame, out)
						if len(whole)-len(frame) != len(out.summed())%2+2+announce.Len {
							t.Errorf("%d bytes are behind the packet, want %d", len(whole)-len(frame), len(out.summed())%2+2+announce.Len)
						}
					})
				}
			}
		}
	}
}

// TestUndoOnTheWire compares what B's pod and A really get.
func TestUndoOnTheWire(t *testing.T) {
	live, err := labOfB()
	if err != nil {
		t.Fatal(err)
	}
	for _, ip := range ipVersions {
		for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			for leads, clients := range map[string]map[string]string{inside: routedClient, outside: farClient} {
				for _, partial := range []bool{false, true} {
					for size := range 3 {
						if protocol == unix.IPPROTO_TCP && size > 0 {
							continue
						}
						t.Run(fmt.Sprintf("%s %s, client %s, %d bytes, partial %t", ip.name, protocolName(protocol), leads, size, partial), func(t *testing.T) {
							n := newNodes(t)
							taps := n.b.wires(live, inside, outside, pods)
							f := n.flowFromA(ip, protocol, clients[ip.name])
							before := n.b.counters()
							get := func(to string, want packet) {
								t.Helper()
								taps[to].compare(taps[to].receiveSummed(partial), want)
							}
							in := f.opening().withSize(size)
							taps[inside].sendAs(in.within(f.message(), keyOfCluster), partial)
							get(pods, f.delivered(in).hop())
							re := answer(protocol, ip.remote, f.client)
							taps[pods].sendAs(re, partial)
							get(inside, re.to(f.source).hop())
							in = f.establishing()
							taps[inside].sendAs(in, partial)
							get(pods, f.delivered(in).hop())
							re = continuing(protocol, ip.remote, f.client)
							taps[pods].sendAs(re, partial)
							get(inside, re.to(f.source).hop())
							got := n.b.counters().minus(before)
							if got["flow_undone"] != 1 || got["undone"] != 4 {
								t.Errorf("counters %v, want flow_undone=1 undone=4", got)
							}
						})
					}
				}
			}
		}
	}
}

// TestUndoneFragmentsOnTheWire is about a datagram in pieces, of a flow that was announced
// ahead of it. The pieces stay in order, also where they come in again.
func TestUndoneFragmentsOnTheWire(t *testing.T) {
	live, err := labOfB()
	if err != nil {
		t.Fatal(err)
	}
	for _, ip := range ipVersions {
		for leads, clients := range map[string]map[string]string{inside: routedClient, outside: farClient} {
			t.Run(ip.name+", client "+leads, func(t *testing.T) {
				n := newNodes(t)
				taps := n.b.wires(live, inside, outside, pods)
				f := n.flowFromA(ip, unix.IPPROTO_UDP, clients[ip.name])
				taps[inside].send(f.opening().alone(f.message(), keyOfCluster))
				in := f.opening().withSize(3000).withID(0x4242)
				for _, piece := range [][2]int{{0, 1200}, {1200, 2400}, {2400, 0}} {
					taps[inside].send(in.fragment(piece[0], piece[1]))
				}
				var datagram []byte
				for range 3 {
					frame, _ := taps[pods].receive()
					ip := frame[14:]
					var head, at int
					var src netip.Addr
					if ip[0]>>4 == 4 {
						head, at, src = 20, int(binary.BigEndian.Uint16(ip[6:])&0x1fff)*8, netip.AddrFrom4([4]byte(ip[12:]))
					} else {
						head, at, src = 48, int(binary.BigEndian.Uint16(ip[42:])&0xfff8), netip.AddrFrom16([16]byte(ip[8:]))
					}
					if src != ap(f.client).Addr() {
						t.Errorf("a fragment comes from %v, want from %s", src, f.client)
					}
					if at != len(datagram) {
						t.Errorf("a fragment of offset %d comes, want %d", at, len(datagram))
					}
					datagram = append(datagram, ip[head:]...)
				}
				if want := f.delivered(in).layer4(); !bytes.Equal(datagram, want) {
					t.Errorf("the datagram has %d bytes that differ from what was sent, of %d", len(datagram), len(want))
				}
			})
		}
	}
}
