// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/announce"
)

// A packet that has no room for a message is sent behind one. TestAnnounceAhead
// compares what really leaves A.
func TestAnnounceAhead(t *testing.T) {
	live, err := labWithNeighbours()
	if err != nil {
		t.Fatal(err)
	}
	for _, ip := range ipVersions {
		vip := port(ip.vip, "80")
		withData := opening(unix.IPPROTO_TCP, ip.client, vip)
		withData.payload = []byte("GET / HTTP/1.1\r\n\r\n")
		datagram := opening(unix.IPPROTO_UDP, ip.client, vip)
		header := 28
		if ip.name == "IPv6" {
			header = 48
		}
		pieces := datagram.withSize(1200).withID(77)
		pieces.df = false
		for name, c := range map[string]struct {
			in    []packet
			flags uint8 // of the message
			tcp   uint8 // flags of the segment with the message
		}{
			"SYN with data": {[]packet{withData}, announce.Opens | announce.Alone, syn},
			"segment of a connection that is not known": {[]packet{withData.segment(ack|psh, 1001, 5001, "GET")}, announce.Alone, ack},
			"datagram as large as the MTU":              {[]packet{datagram.withSize(1500 - header)}, announce.Alone, 0},
			"datagram that leaves 41 bytes":             {[]packet{datagram.withSize(1500 - header - 41)}, announce.Alone, 0},
			"datagram in fragments":                     {[]packet{pieces.fragment(0, 800), pieces.fragment(800, 0)}, announce.Alone, 0},
		} {
			for variant := range 3 {
				partial, back := variant == 1, variant == 2 // back: by the device that the packet came in by
				if partial && c.in[0].piece != nil {
					continue
				}
				t.Run(ip.name+" "+name+[]string{"", ", partial", ", by the same device"}[variant], func(t *testing.T) {
					n := newNodes(t)
					taps := n.a.wires(live, outside, inside)
					n.a.egressLinks(outside, inside)
					n.serve(ip, c.in[0].protocol)
					backend, source, leaves := ip.remote, ip.nodeIn, inside
					if back {
						backend, source, leaves = addrPort(ap(ip.client).Addr().Next(), 8080).String(), ip.nodeOut, outside
						n.a.backend(remote, backend)
						n.a.hears(remote, BlixtBackendFlagBACKEND_HEARS_WITHIN|BlixtBackendFlagBACKEND_HEARS_ALONE)
					}
					began := announce.Now()
					before := n.a.counters()
					for i, in := range c.in {
						if in.protocol == unix.IPPROTO_TCP && in.flags&syn == 0 {
							in.tcpOption = nil
						}
						out := in.snat(source, 0).to(backend).hop()
						taps[outside].sendAs(in, partial)
						if i == 0 {
							message, sum := taps[leaves].receive()
							if sum.to != 0 {
								complete(message, sum.from, sum.to)
							}
							if err := checkSums(message, 14); err != nil {
								t.Errorf("sums of the message: %v", err)
							}
							f, err := announce.Find(message[14:])
							if err != nil {
								t.Fatalf("the first packet is no message: %v\n%s", err, strings.Join(dump(message, false), "\n"))
							}
							n.a.wantMessage(f, announce.Message{Flags: c.flags, Client: ap(ip.client), Idle: 6, Boot: bootOfA}, began, keyOfCluster)
							if f.Tuple != (announce.Tuple{Src: out.src, Dst: out.dst, Protocol: out.protocol}) {
								t.Errorf("the message is about %v, want %v", f.Tuple, out)
							}
							if in.protocol == unix.IPPROTO_TCP {
								l4 := message[14+len(out.ipBytes())-len(out.layer4()):]
								if l4[13] != c.tcp {
									t.Errorf("flags of the segment with the message %#x, want %#x", l4[13], c.tcp)
								}
								if got := string(l4[4:8]); got != string(out.layer4()[4:8]) {
									t.Errorf("sequence number of the message % x, want that of the packet, % x", got, out.layer4()[4:8])
								}
							}
						}
						frame, sum := taps[leaves].receive()
						if sum.to != 0 {
							complete(frame, sum.from, sum.to)
						}
						if in.piece != nil {
							if got := len(frame) - 14; got != len(out.ipBytes()) {
								t.Errorf("a fragment of %d bytes has left, want %d", got, len(out.ipBytes()))
							}
							continue
						}
						taps[leaves].compare(frame, out)
					}
					if name == "SYN with data" { // and nothing else has left
						reset := c.in[0].segment(rst, c.in[0].seq+1, 0, "")
						taps[outside].send(reset)
						if frame, _ := taps[leaves].receive(); frame[len(frame)-len(reset.layer4())+13]&rst == 0 {
							t.Errorf("behind the packet another one has left:\n%s", strings.Join(dump(frame, false), "\n"))
						}
					}
					if got := n.a.counters().minus(before); got["announced"] != 1 || got["flow_new"] != 1 {
						t.Errorf("counters %v, want announced and flow_new", got)
					}
				})
			}
		}
	}
}

// Where nothing may go ahead, such packets are sent as they are.
func TestAnnounceNotAhead(t *testing.T) {
	c := nodeCases{}
	c.each("a datagram with options of its own", func(n *nodes, ip ipVersion, proto uint8) {
		n.serve(ip, proto)
		n.a.hears(remote, BlixtBackendFlagBACKEND_HEARS_WITHIN)
		in := opening(proto, ip.client, port(ip.vip, "80")).within(about(ip.client), foreignKey)
		out := in.snat(ip.nodeIn, 0).to(ip.remote).hop()
		n.a.ingress(outside, in).redirected(out, "flow_new forwarded")
	}, unix.IPPROTO_UDP)
	c.each("to a node that hears within packets only", func(n *nodes, ip ipVersion, proto uint8) {
		n.serve(ip, proto)
		n.a.egressLinks(outside, inside)
		n.a.hears(remote, BlixtBackendFlagBACKEND_HEARS_WITHIN)
		in := opening(proto, ip.client, port(ip.vip, "80")).withSize(1430)
		n.a.ingress(outside, in).redirected(in.snat(ip.nodeIn, 0).to(ip.remote).hop(), "flow_new forwarded")
	})
	c.each("which was announced within is asked about no more if its node stops to hear", func(n *nodes, ip ipVersion, proto uint8) {
		n.serve(ip, proto)
		in := opening(proto, ip.client, port(ip.vip, "80"))
		out := in.snat(ip.nodeIn, 0).to(ip.remote).hop()
		n.a.ingress(outside, in).announces(out, n.told(ip.client), "flow_new forwarded announced")
		n.a.hears(remote, 0)
		n.a.ingress(outside, in).redirected(out, "forwarded")
	})
	c.run(t)
}

// What follows a packet in its frame is not what the message follows.
func TestMessageOverwritesPadding(t *testing.T) {
	c := nodeCases{}
	for _, padding := range []int{1, 7, 18, 60} {
		c.each(string(rune('a'+padding))+": bytes behind the packet", func(n *nodes, ip ipVersion, proto uint8) {
			n.serve(ip, proto)
			for size := range 2 {
				in := opening(proto, addrPort(ap(ip.client).Addr(), 41000+size).String(), port(ip.vip, "80")).withSize(size)
				if proto == unix.IPPROTO_TCP {
					in.payload = nil
				}
				in.padding = padding
				frame := in.bytes()
				for i := range padding {
					frame[len(frame)-1-i] = 0xa5
				}
				r := n.a.sendFrame(hook{dev: outside}, in, frame)
				out := in.snat(ip.nodeIn, 0).to(ip.remote).hop()
				out.padding = 0
				m := n.told(in.src.String())
				r.announces(out, m, "flow_new forwarded announced")
			}
		})
	}
	c.run(t)
}
