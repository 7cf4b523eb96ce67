// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// The flows for which BenchmarkBegin has room, and those that begin in one turn.
const (
	roomForNew = 1 << 16
	newInTurn  = 1 << 13
)

// newFlowWorld has tables for roomForNew flows.
func newFlowWorld(b *testing.B) world {
	b.Helper()
	return newWorld(b, map[string]uint32{BlixtMapFlows: 2 * roomForNew, BlixtMapNewFlows: 2 * roomForNew, BlixtMapUdpFlows: 2 * roomForNew, BlixtMapRecorded: roomForNew},
		roomForNew, 1<<16)
}

// startNew is start, with more source ports and backends than flows need.
func (w world) startNew(b *testing.B, ip ipVersion, protocol uint8) *lb {
	b.Helper()
	l := w.start(b)
	l.serve(ip, protocol, local)
	l.must(w.objs.BlixtLayout2.Put(uint32(0), BlixtConfig{SnatMin: 1024, SnatMax: 65535}))
	return l
}

// BenchmarkBegin measures the first packet of a flow while its table is empty,
// half full, or full, so that another flow has to be evicted. The metrics are
// those of BenchmarkPacket; the floor inserts one entry into its LRU table,
// where a flow has two.
func BenchmarkBegin(b *testing.B) {
	w := newFlowWorld(b)
	for _, ip := range ipVersions {
		for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			for _, place := range []string{"local", "remote"} {
				for _, table := range []struct {
					name  string
					flows uint32 // in the table
				}{{"empty", 0}, {"half", roomForNew / 2}, {"full", 2 * roomForNew}} {
					b.Run(fmt.Sprintf("%s/%s%s/table=%s", place, protocolName(protocol), ip.name[2:], table.name), func(b *testing.B) {
						benchmarkBegin(b, w, ip, protocol, place == "remote", table.flows)
					})
				}
			}
		}
	}
}

func benchmarkBegin(b *testing.B, w world, ip ipVersion, protocol uint8, remotely bool, inTable uint32) {
	l := w.startNew(b, ip, protocol)
	vip, verdict := port(ip.vip, "80"), uint32(tcxNext)
	if remotely {
		var ids []uint32
		for i := range uint32(8) { // one backend has not enough ports
			ids = append(ids, 100+i)
			l.backend(100+i, addrPort(ap(ip.remote).Addr(), 8080+int(i)).String())
		}
		l.frontend(0, protocol, vip, ids...)
		verdict = redirect
	}
	f := w.floors
	f.reset()
	f.serve(protocol, vip, ip.local)
	p := opening(protocol, ip.client, vip)
	t := newTemplate(b, p, 1<<20)
	contenders := []contender{{"net", w.objs.Blixt, verdict}, {floorName, f.ConntrackForward, tcxNext}}
	fill := func() {
		for _, c := range contenders {
			if inTable > 0 {
				t.run(b, w.lab, hook{dev: outside}, c, inTable)
			}
		}
	}
	before := func() {
		deleteAll[BlixtFlowKey, BlixtFlow](l, l.NewFlows)
		deleteAll[BlixtFlowKey, BlixtFlow](l, l.UdpFlows)
		f.clear()
		fill()
	}
	if inTable > roomForNew { // it stays full
		fill()
		before = nil
	}
	t.measure(b, w.lab, hook{dev: outside}, newInTurn, before, contenders...)
}

// BenchmarkConnection measures each packet of a short connection to a backend on
// this node: of a handshake, of one segment each way, and of the end. Its backendRef
// is counted; with records=on a record is kept of each.
func BenchmarkConnection(b *testing.B) {
	w := newFlowWorld(b)
	for _, ip := range ipVersions {
		for _, records := range []bool{false, true} {
			b.Run(fmt.Sprintf("local/TCP%s/records=%v", ip.name[2:], records), func(b *testing.B) { benchmarkConnection(b, w, ip, records) })
		}
	}
}

func benchmarkConnection(b *testing.B, w world, ip ipVersion, records bool) {
	const inTurn = newInTurn / 2 // a ring buffer has room for as many records
	l := w.startNew(b, ip, unix.IPPROTO_TCP)
	l.setRef(7)
	vip := port(ip.vip, "80")
	if records {
		l.record(unix.IPPROTO_TCP, vip)
	}
	client := tcp(ip.client, vip)
	backend := tcp(ip.local, ip.client)
	var stages []*stage
	add := func(name string, p packet) {
		h, v := hook{dev: outside}, variety{}
		if p.src == backend.src {
			h, v = hook{dev: outside, egress: true, from: pods}, replyVariety(false)
		}
		stages = append(stages, &stage{name: name, hook: h, template: newTemplateOf(b, p, v, 1<<20)})
	}
	add("syn", client.segment(syn, 1000, 0, ""))
	add("syn-ack", backend.segment(syn|ack, 5000, 1001, ""))
	add("ack", client.segment(ack, 1001, 5001, ""))
	add("request", client.segment(ack|psh, 1001, 5001, "what"))
	add("response", backend.segment(ack|psh, 5001, 1005, "that"))
	add("fin", client.segment(ack|fin, 1005, 5005, ""))
	add("fin-ack", backend.segment(ack|fin, 5005, 1006, ""))
	add("last-ack", client.segment(ack, 1006, 5006, ""))
	rounds(b, func() {
		l.records() // so that there is room for those of this turn
		for _, s := range stages {
			s.without.add(s.template.run(b, w.lab, s.hook, contender{"harness", s.template.pass, tcxNext}, inTurn))
			s.with.add(s.template.run(b, w.lab, s.hook, contender{s.name, w.objs.Blixt, tcxNext}, inTurn))
		}
	})
	counts := l.counters()
	if n := uint64(b.N * inTurn); records && (counts["record_written"] < n || counts["record_lost"]+counts["record_no_room"] > 0) {
		b.Errorf("%d records were written, %d lost, %d flows found no room: want at least %d, 0 and 0", counts["record_written"], counts["record_lost"], counts["record_no_room"], n)
	}
	for _, counter := range []string{"flow_new", "flow_established", "flow_closed"} {
		if want := uint64(b.N * inTurn); counts[counter] < want {
			b.Errorf("%s is %d, want %d", counter, counts[counter], want)
		}
	}
	b.ReportMetric(0, "ns/op")
	sum := 0.0
	for _, s := range stages {
		each := float64(s.with-s.without) / inTurn
		b.ReportMetric(each, s.name+"-ns/packet")
		sum += each
	}
	b.ReportMetric(sum, "net-ns/connection")
}

// A stage is a packet of each connection.
type stage struct {
	name          string
	hook          hook
	template      *template
	with, without least
}

// BenchmarkBeginSettings measures the first packet of a flow to a backend on this node, as
// BenchmarkBegin does, by what the frontend's policies say of affinity and of ports.
func BenchmarkBeginSettings(b *testing.B) {
	w := newFlowWorld(b)
	for _, ip := range ipVersions {
		for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			for _, name := range []string{"none", "range=1", "range=16", "affinity=hash", "affinity=unknown", "affinity=remembered"} {
				b.Run(fmt.Sprintf("%s%s/%s", protocolName(protocol), ip.name[2:], name), func(b *testing.B) {
					l := w.startNew(b, ip, protocol)
					vip := port(ip.vip, "80")
					switch name {
					case "range=1", "range=16":
						vip = port(ip.vip, "10005")
						var ranges []BlixtPortRange
						for range map[string]int{"range=1": 0, "range=16": 15}[name] {
							ranges = append(ranges, BlixtPortRange{First: 1, Last: 2, Port: htons(1)})
						}
						l.mapped(ip.vip, protocol, 80, keepPort)
						l.ranges(ip.vip, protocol, append(ranges, BlixtPortRange{First: 10000, Last: 26383, Port: htons(80)})...)
					case "affinity=hash":
						l.frontendWith(BlixtFrontend{}, ip, protocol, local)
					case "affinity=unknown", "affinity=remembered":
						l.frontendWith(BlixtFrontend{Affinity: 77, AffinityTicks: 1 << 20}, ip, protocol, local)
					}
					if name == "affinity=remembered" { // another backend than the ring's
						l.backend(secondPod, ip.backendAddr(secondPod))
						l.giveBackend(secondPod, 0)
						l.keep(ip, secondPod, true)
						l.remember(ip, secondPod)
					}
					t := newTemplate(b, opening(protocol, ip.client, vip), 1<<20)
					before := func() {
						deleteAll[BlixtFlowKey, BlixtFlow](l, l.NewFlows)
						deleteAll[BlixtFlowKey, BlixtFlow](l, l.UdpFlows)
					}
					t.measure(b, w.lab, hook{dev: outside}, newInTurn, before, contender{"net", w.objs.Blixt, tcxNext})
				})
			}
		}
	}
}
