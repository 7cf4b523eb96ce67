// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// wantCounts wants these counters to rise, whatever the verdict.
func (r *result) wantCounts(counters string) { r.l.Helper(); r.wantVerdict(r.verdict, counters) }

// A logged record is one from a ring buffer, with the packet behind it.
type logged struct {
	BlixtFlowRecord
	packet []byte
}

// records takes all records out of the ring buffers.
func (l *lb) records() (all []logged) {
	l.Helper()
	for _, m := range []*ebpf.Map{l.FlowLog0, l.FlowLog1, l.FlowLog2, l.FlowLog3} {
		r, err := ringbuf.NewReader(m)
		l.must(err)
		r.SetDeadline(time.Now())
		for {
			raw, err := r.Read()
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			l.must(err)
			var one logged
			l.must(binary.Read(bytes.NewReader(raw.RawSample), binary.NativeEndian, &one.BlixtFlowRecord))
			switch want := binary.Size(one.BlixtFlowRecord); len(raw.RawSample) {
			case want:
			case want + int(BlixtLimitRECORD_PACKET_LEN):
				one.packet = raw.RawSample[want:][:one.Captured]
			default:
				l.Errorf("a record of %d bytes", len(raw.RawSample))
			}
			all = append(all, one)
		}
		l.must(r.Close())
	}
	return all
}

func (l *lb) clearRecords() {
	l.Helper()
	deleteAll[BlixtFlowKey, BlixtFlowRecord](l, l.Recorded)
	l.must(l.RecordedNumber.Put(uint32(0), uint32(0)))
	clear(l.memory(l.SlotCounts))
	clear(l.memory(l.RefStats))
	clear(l.memory(l.ClientRtt))
	for i := range l.DropSamples.MaxEntries() {
		l.must(l.DropSamples.Put(i, make([]BlixtDropSample, ebpf.MustPossibleCPU())))
	}
	l.records()
}

// record has flows of frontend 0 that begin from now on get records.
func (l *lb) record(protocol uint8, addr string) {
	l.Helper()
	k := BlixtFrontendKey{Addr: addrOf(ap(addr).Addr()), Port: htons(ap(addr).Port()), Protocol: protocol}
	var f BlixtFrontend
	l.must(l.Frontends.Lookup(k, &f))
	f.Flags |= uint32(BlixtFrontendFlagFRONTEND_RECORDS)
	l.must(l.Frontends.Put(k, f))
}

// recorded returns the number of flows that have a record, as counted; it wants as many elements.
func (l *lb) recorded() (n uint32) {
	l.Helper()
	l.must(l.RecordedNumber.Lookup(uint32(0), &n))
	elements := uint32(0)
	var k BlixtFlowKey
	var r BlixtFlowRecord
	each := l.Recorded.Iterate()
	for each.Next(&k, &r) {
		elements++
	}
	l.must(each.Err())
	if n != elements {
		l.Errorf("%d records are counted, and %d are there", n, elements)
	}
	return n
}

// describe tells what a record says of a flow, but for its times.
func (r logged) describe() string {
	endpoint := func(a BlixtAddr, p uint16) string {
		return netip.AddrPortFrom(netip.AddrFrom16(a.Bytes).Unmap(), htons(p)).String()
	}
	return fmt.Sprintf("event %d reason %d by %d, protocol %d, %s -> %s, %s -> %s, packets %d bytes %d, frontend %d ref %d backend %d",
		r.Event, r.Reason, r.By, r.Protocol, endpoint(r.Client, r.ClientPort), endpoint(r.Server, r.ServerPort), endpoint(r.Snat, r.SnatPort),
		endpoint(r.Backend, r.BackendPort), r.Packets, r.Bytes, r.Frontend, r.Ref, r.BackendId)
}

// wantEnd wants one record: that of the flow, ended so, with these packets and bytes.
func (c localFlow) wantEnd(reason BlixtEndReason, by BlixtRecordBy, snat string, packets, size [2]uint64) {
	c.Helper()
	got := c.records()
	if len(got) != 1 {
		c.Errorf("got %d records, want 1: %+v", len(got), got)
		return
	}
	want := logged{BlixtFlowRecord: BlixtFlowRecord{
		Event: uint8(BlixtRecordEventRECORD_END), Reason: uint8(reason), By: uint8(by), Protocol: c.protocol,
		Client: addrOf(ap(c.client).Addr()), ClientPort: htons(ap(c.client).Port()), Server: addrOf(ap(c.vip).Addr()), ServerPort: htons(ap(c.vip).Port()),
		Snat: addrOf(ap(snat).Addr()), SnatPort: htons(ap(snat).Port()), Backend: addrOf(ap(c.backend).Addr()), BackendPort: htons(ap(c.backend).Port()),
		Packets: packets, Bytes: size, Ref: 7, BackendId: local,
	}}
	if got, want := got[0].describe(), want.describe(); got != want {
		c.Errorf("record:\n got %s\nwant %s", got, want)
	}
	if r := got[0]; r.Began == 0 || r.Ended < r.Began || r.Ended-r.Began > uint64(time.Minute) {
		c.Errorf("it began at %d and ended at %d", r.Began, r.Ended)
	}
	if n := c.recorded(); n != 0 {
		c.Errorf("%d records are left", n)
	}
}

func length(packets ...packet) (n uint64) {
	for _, p := range packets {
		p.raw = true
		n += uint64(len(p.bytes()))
	}
	return n
}

// takeCounts adds to records what slots of flow_cache have counted, as the agent does for whoever asks.
func (l *lb) takeCounts() {
	l.Helper()
	counts, sets := l.memory(l.SlotCounts), l.memory(l.FlowCache)
	for i := 0; i < len(counts); i += 8 {
		n := binary.NativeEndian.Uint64(counts[i:])
		if n == 0 {
			continue
		}
		binary.NativeEndian.PutUint64(counts[i:], 0)
		var s BlixtCachedFlow
		l.must(binary.Read(bytes.NewReader(sets[i/8*128:][:128]), binary.NativeEndian, &s))
		k, direction := BlixtFlowKey{Src: s.Src, Dst: s.Dst, Sport: s.Sport, Dport: s.Dport, Protocol: s.Protocol}, 0
		if s.Flags&uint8(BlixtCachedFlagCACHED_REPLY) != 0 {
			k.Src, k.Dst, k.Sport, k.Dport, direction = s.ToDst, s.ToSrc, s.ToDport, s.ToSport, 1
		}
		if k.Protocol == 0 { // emptied, while its flow goes on
			k.Protocol = unix.IPPROTO_TCP
		}
		var r BlixtFlowRecord
		if err := l.Recorded.Lookup(k, &r); err != nil {
			l.Errorf("a slot has counted packets %#x of %+v, which has no record", n, k)
			continue
		}
		r.Packets[direction] += n >> BlixtLimitSLOT_PACKETS_SHIFT
		r.Bytes[direction] += n & (1<<BlixtLimitSLOT_PACKETS_SHIFT - 1)
		l.must(l.Recorded.Put(k, r))
	}
}

// allRecords describes all records, of flows that have ended and of others.
func (l *lb) allRecords() (all []string) {
	l.Helper()
	l.recorded()
	for _, r := range l.records() {
		all = append(all, r.describe())
	}
	var k BlixtFlowKey
	var r logged
	each := l.Recorded.Iterate()
	for each.Next(&k, &r.BlixtFlowRecord) {
		all = append(all, r.describe())
	}
	l.must(each.Err())
	slices.Sort(all)
	return all
}

func TestRecords(t *testing.T) {
	c := cases{}
	begin := func(l *lb, ip ipVersion, protocol uint8) localFlow {
		l.serve(ip, protocol, local)
		l.setRef(7)
		l.record(protocol, port(ip.vip, "80"))
		return localFlow{l, ip, protocol, port(ip.vip, "80"), ip.local, ip.client}
	}
	for _, ip := range ipVersions {
		tcpCase := func(name string, run func(c localFlow)) {
			c[ip.name+" TCP "+name] = func(l *lb) { run(begin(l, ip, unix.IPPROTO_TCP)) }
		}
		tcpCase("closed by the client", func(c localFlow) {
			c.open(true)
			if got := c.records(); len(got) > 0 || c.recorded() != 1 {
				c.Errorf("got records %+v of a flow that has not ended", got)
			}
			in := []packet{opening(c.protocol, c.client, c.vip), establishing(c.protocol, c.client, c.vip), c.clientPacket(ack|fin, 1001, 5001, ""), c.clientPacket(ack, 1002, 5002, "")}
			out := []packet{answer(c.protocol, c.backend, c.client), c.reply().segment(ack|fin, 5001, 1002, "")}
			c.fromClient(in[2], "forwarded")
			c.fromBackend(out[1])
			c.fromClient(in[3], "forwarded flow_closed record_written")
			c.wantEnd(BlixtEndReasonRECORD_FIN, BlixtRecordByRECORD_BY_CLIENT, c.client, [2]uint64{4, 2}, [2]uint64{length(in...), length(out...)})
			c.fromClient(in[3], "forwarded") // late: it writes nothing more
			c.fromBackend(out[1])
			if got := c.records(); len(got) > 0 {
				c.Errorf("late segments wrote %+v", got)
			}
		})
		tcpCase("closed by the backend", func(c localFlow) {
			c.open(true)
			in := []packet{opening(c.protocol, c.client, c.vip), establishing(c.protocol, c.client, c.vip), c.clientPacket(ack, 1001, 5002, ""), c.clientPacket(ack|fin, 1001, 5002, "")}
			out := []packet{answer(c.protocol, c.backend, c.client), c.reply().segment(ack|fin, 5001, 1001, ""), c.reply().segment(ack, 5002, 1002, "")}
			c.fromBackend(out[1])
			c.fromBackend(out[1]) // repeated
			c.fromClient(in[2], "forwarded")
			c.fromClient(in[3], "forwarded")
			c.fromBackendCounting(out[2], "replied flow_closed record_written")
			c.wantEnd(BlixtEndReasonRECORD_FIN, BlixtRecordByRECORD_BY_BACKEND, c.client, [2]uint64{4, 4}, [2]uint64{length(in...), length(out...) + length(out[1])})
		})
		tcpCase("reset by the client", func(c localFlow) {
			c.open(true)
			last := c.clientPacket(rst, 1001, 0, "")
			c.fromClient(last, "forwarded flow_closed record_written")
			c.wantEnd(BlixtEndReasonRECORD_RESET, BlixtRecordByRECORD_BY_CLIENT, c.client, [2]uint64{3, 1},
				[2]uint64{length(opening(c.protocol, c.client, c.vip), establishing(c.protocol, c.client, c.vip), last), length(answer(c.protocol, c.backend, c.client))})
		})
		tcpCase("a RST that its receiver does not obey ends nothing", func(c localFlow) {
			c.open(true)
			c.fromClient(c.clientPacket(rst, 1003, 0, ""), "forwarded")
			if got := c.records(); len(got) > 0 || c.recorded() != 1 {
				c.Errorf("got %+v", got)
			}
		})
		tcpCase("reset by the backend", func(c localFlow) {
			c.open(true)
			last := c.reply().segment(rst, 5001, 0, "")
			c.fromBackendCounting(last, "replied flow_closed record_written")
			c.wantEnd(BlixtEndReasonRECORD_RESET, BlixtRecordByRECORD_BY_BACKEND, c.client, [2]uint64{2, 2},
				[2]uint64{length(opening(c.protocol, c.client, c.vip), establishing(c.protocol, c.client, c.vip)), length(answer(c.protocol, c.backend, c.client), last)})
		})
		tcpCase("refused by the backend", func(c localFlow) {
			c.open(false)
			last := c.reply().segment(rst|ack, 0, 1001, "")
			c.fromBackendCounting(last, "replied flow_closed record_written")
			c.wantEnd(BlixtEndReasonRECORD_REFUSED, BlixtRecordByRECORD_BY_BACKEND, c.client, [2]uint64{1, 1},
				[2]uint64{length(opening(c.protocol, c.client, c.vip)), length(last)})
			c.fromClient(opening(c.protocol, c.client, c.vip), "flow_new forwarded")
			if n := c.recorded(); n != 1 {
				c.Errorf("the next connection has %d records, want 1", n)
			}
		})
		tcpCase("its backend is gone", func(c localFlow) {
			c.open(true)
			c.removeBackend(local)
			re := continuing(c.protocol, c.backend, c.client)
			c.egressForwarded(pods, re).toStack(re.from(c.vip).turnedIntoRST(), "reject_backend_gone record_written")
			c.wantEnd(BlixtEndReasonRECORD_BACKEND_GONE, BlixtRecordByRECORD_BY_NONE, c.client, [2]uint64{2, 1},
				[2]uint64{length(opening(c.protocol, c.client, c.vip), establishing(c.protocol, c.client, c.vip)), length(answer(c.protocol, c.backend, c.client))})
		})
		tcpCase("a flow that nobody has seen the end of is replaced", func(c localFlow) {
			c.open(false)
			l := c.lb
			l.must(l.NewFlows.Delete(keyOf(c.forward()))) // evicted
			l.must(l.NewFlows.Delete(keyOf(c.reply())))
			c.fromClient(opening(c.protocol, c.client, c.vip), "flow_new forwarded record_written")
			got := c.records()
			if len(got) != 1 || BlixtEndReason(got[0].Reason) != BlixtEndReasonRECORD_REPLACED {
				c.Errorf("got %+v, want one that is replaced", got)
			}
			if n := c.recorded(); n != 1 {
				c.Errorf("%d records, want that of the new flow", n)
			}
		})
		tcpCase("no room: one that is proven gets a record later", func(c localFlow) {
			c.must(c.RecordedNumber.Put(uint32(0), uint32(BlixtLimitMAX_RECORDED)/4*3))
			c.fromClient(opening(c.protocol, c.client, c.vip), "flow_new forwarded record_no_room")
			c.fromBackend(answer(c.protocol, c.backend, c.client))
			c.fromClient(establishing(c.protocol, c.client, c.vip), "forwarded flow_established")
			c.must(c.RecordedNumber.Put(uint32(0), uint32(1)))
			c.fromClient(c.clientPacket(ack, 1001, 5001, "more"), "forwarded")
			c.fromClient(c.clientPacket(rst, 1005, 0, ""), "forwarded flow_closed record_written")
			c.wantEnd(BlixtEndReasonRECORD_RESET, BlixtRecordByRECORD_BY_CLIENT, c.client, [2]uint64{3, 0},
				[2]uint64{length(establishing(c.protocol, c.client, c.vip), c.clientPacket(ack, 1001, 5001, "more"), c.clientPacket(rst, 1005, 0, "")), 0})
		})
		tcpCase("the table is full", func(c localFlow) {
			for i := range c.Recorded.MaxEntries() {
				c.must(c.Recorded.Put(BlixtFlowKey{Protocol: 1, Sport: uint16(i)}, BlixtFlowRecord{}))
			}
			c.must(c.RecordedNumber.Put(uint32(0), c.Recorded.MaxEntries()))
			c.fromClient(opening(c.protocol, c.client, c.vip), "flow_new forwarded record_no_room")
			c.fromBackend(answer(c.protocol, c.backend, c.client))
			c.fromClient(establishing(c.protocol, c.client, c.vip), "forwarded flow_established record_no_room")
			c.fromClient(c.clientPacket(rst, 1001, 0, ""), "forwarded flow_closed record_no_room")
			if got := c.records(); len(got) > 0 {
				c.Errorf("got %+v", got)
			}
		})
		tcpCase("connect and round trip are measured", func(c localFlow) {
			c.fromClient(opening(c.protocol, c.client, c.vip), "flow_new forwarded")
			time.Sleep(3 * time.Millisecond)
			c.fromBackend(answer(c.protocol, c.backend, c.client))
			time.Sleep(5 * time.Millisecond)
			c.fromClient(establishing(c.protocol, c.client, c.vip), "forwarded flow_established")
			c.fromClient(c.clientPacket(rst, 1001, 0, ""), "forwarded flow_closed record_written")
			got := c.records()
			if len(got) != 1 || got[0].Connect < 3<<20/1000 || got[0].Rtt < 5<<20/1000 || got[0].Connect > 60<<20 || got[0].Rtt > 60<<20 {
				c.Errorf("got %+v, want at least 3 and 5 ms", got)
			}
		})
		tcpCase("a frontend without records has none", func(c localFlow) {
			c.frontend(0, c.protocol, c.vip, local)
			c.open(true)
			c.fromClient(c.clientPacket(rst, 1001, 0, ""), "forwarded flow_closed")
			if got := c.records(); len(got) > 0 || c.recorded() > 0 {
				c.Errorf("got %+v", got)
			}
		})
		c[ip.name+" UDP idle"] = func(l *lb) {
			c := begin(l, ip, unix.IPPROTO_UDP)
			c.open(true)
			c.age(c.forward(), idleTicks+1)
			c.age(c.reply(), idleTicks+1)
			c.fromClient(opening(c.protocol, c.client, c.vip), "flow_expired flow_new forwarded record_written")
			got := c.records()
			if len(got) != 1 || BlixtEndReason(got[0].Reason) != BlixtEndReasonRECORD_IDLE || got[0].Packets != [2]uint64{2, 1} {
				c.Errorf("got %+v, want one of an idle flow with 2 and 1 packets", got)
			}
		}
		c[ip.name+" UDP unanswered"] = func(l *lb) {
			c := begin(l, ip, unix.IPPROTO_UDP)
			c.open(false)
			c.age(c.forward(), idleTicks+1)
			c.age(c.reply(), idleTicks+1)
			c.fromClient(opening(c.protocol, c.client, c.vip), "flow_expired flow_new forwarded record_written")
			if got := c.records(); len(got) != 1 || BlixtEndReason(got[0].Reason) != BlixtEndReasonRECORD_UNANSWERED {
				c.Errorf("got %+v, want an unanswered one", got)
			}
		}
		c[ip.name+" TCP of a backend elsewhere: the source that it sees"] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_TCP, remote)
			l.record(unix.IPPROTO_TCP, port(ip.vip, "80"))
			l.ingress(outside, opening(unix.IPPROTO_TCP, ip.client, port(ip.vip, "80"))).wantCounts("flow_new forwarded")
			var k BlixtFlowKey
			var r BlixtFlowRecord
			each := l.Recorded.Iterate()
			if !each.Next(&k, &r) || r.Snat != addrOf(ap(port(ip.nodeIn, "1")).Addr()) || r.SnatPort == 0 || r.Backend != addrOf(ap(ip.remote).Addr()) || r.BackendPort != htons(ap(ip.remote).Port()) {
				l.Errorf("got %+v", r)
			}
		}
	}
	c.run(t)
}

// What slots of flow_cache have served is in the record at the end.
func TestRecordsCountCachedPackets(t *testing.T) {
	for _, ip := range ipVersions {
		for _, end := range []string{"at once", "a tick later", "by the backend"} {
			t.Run(ip.name+", ended "+end, func(t *testing.T) {
				l := newLB(t)
				l.serve(ip, unix.IPPROTO_TCP, local)
				l.setRef(7)
				l.record(unix.IPPROTO_TCP, port(ip.vip, "80"))
				c := localFlow{l, ip, unix.IPPROTO_TCP, port(ip.vip, "80"), ip.local, ip.client}
				c.open(true)
				in := []packet{opening(c.protocol, c.client, c.vip), establishing(c.protocol, c.client, c.vip)}
				out := []packet{answer(c.protocol, c.backend, c.client)}
				cached := false
				for range 20 {
					in = append(in, c.clientPacket(ack, 1001, 5001, ""))
					c.fromClient(in[len(in)-1], "forwarded")
					out = append(out, c.reply().segment(ack, 5001, 1001, ""))
					c.fromBackend(out[len(out)-1])
					cached = cached || bytes.Count(l.memory(l.SlotCounts), []byte{0}) < len(l.memory(l.SlotCounts))
				}
				if !cached {
					t.Error("no packet was counted beside a slot")
				}
				last := c.clientPacket(rst, 1001, 0, "")
				switch end {
				case "a tick later":
					for before := l.tick(); l.tick() == before; {
						time.Sleep(10 * time.Millisecond)
					}
					in = append(in, c.clientPacket(ack, 1001, 5001, ""))
					c.fromClient(in[len(in)-1], "forwarded")
					fallthrough
				case "at once":
					in = append(in, last)
					c.fromClient(last, "forwarded flow_closed record_written")
					c.wantEnd(BlixtEndReasonRECORD_RESET, BlixtRecordByRECORD_BY_CLIENT, c.client, [2]uint64{uint64(len(in)), uint64(len(out))}, [2]uint64{length(in...), length(out...)})
				default:
					out = append(out, c.reply().segment(rst, 5001, 0, ""))
					c.fromBackendCounting(out[len(out)-1], "replied flow_closed record_written")
					c.wantEnd(BlixtEndReasonRECORD_RESET, BlixtRecordByRECORD_BY_BACKEND, c.client, [2]uint64{uint64(len(in)), uint64(len(out))}, [2]uint64{length(in...), length(out...)})
				}
				if bytes.Count(l.memory(l.SlotCounts), []byte{0}) < len(l.memory(l.SlotCounts)) {
					t.Error("counts are left beside slots")
				}
			})
		}
	}
}

// A full buffer costs records, nothing else.
func TestFullLogLosesRecords(t *testing.T) {
	l := newLB(t)
	ip := ipVersions[0]
	l.serve(ip, unix.IPPROTO_TCP, local)
	l.record(unix.IPPROTO_TCP, port(ip.vip, "80"))
	written, lost := 0, 0
	for i := range 4 * int(BlixtLimitFLOW_LOG_SIZE) / 160 {
		client := fmt.Sprintf("198.51.%d.%d:%d", i/200%200, 1+i%200, 1024+i)
		l.ingress(outside, opening(unix.IPPROTO_TCP, client, port(ip.vip, "80"))).wantCounts("flow_new forwarded")
		p := proto(unix.IPPROTO_TCP, ip.local, client).segment(rst|ack, 0, 1001, "")
		r := l.egressForwarded(pods, p)
		written += int(r.counts["record_written"])
		lost += int(r.counts["record_lost"])
		if r.counts["replied"] != 1 || r.counts["flow_closed"] != 1 {
			t.Fatalf("counts %v: want the packet to be sent", r.counts)
		}
		if lost > 100 {
			break
		}
	}
	if n := len(l.records()); lost == 0 || n != written {
		t.Errorf("%d records, %d counted as written, %d as lost", n, written, lost)
	}
	if n := l.recorded(); n != 0 {
		t.Errorf("%d records are left", n)
	}
}

func TestSamples(t *testing.T) {
	c := cases{}
	for _, ip := range ipVersions {
		c[ip.name+" rejected: as the packet came in"] = func(l *lb) {
			l.config(BlixtConfigFlagCONFIG_SAMPLE_DROPS)
			l.serve(ip, unix.IPPROTO_TCP)
			for _, in := range []packet{opening(unix.IPPROTO_TCP, ip.client, port(ip.vip, "80")), opening(unix.IPPROTO_TCP, ip.client, port(ip.vip, "81")), opening(unix.IPPROTO_UDP, ip.client, port(ip.vip, "80"))} {
				r := l.ingress(outside, in)
				if r.counts["record_written"] != 1 {
					l.Errorf("counts %v, want a record", r.counts)
				}
				l.wantSample(in, BlixtRecordEventRECORD_REJECTED, r)
			}
		}
		c[ip.name+" dropped"] = func(l *lb) {
			l.config(BlixtConfigFlagCONFIG_SAMPLE_DROPS)
			l.serve(ip, unix.IPPROTO_TCP, local)
			for _, in := range []packet{proto(unix.IPPROTO_TCP, ip.client, port(ip.vip, "80")).segment(rst, 1, 0, ""), withoutPorts(unix.IPPROTO_SCTP, ip.client, ip.vip)} {
				l.wantSample(in, BlixtRecordEventRECORD_DROPPED, l.ingress(outside, in))
			}
		}
		c[ip.name+" not asked for"] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_TCP, local)
			l.ingress(outside, withoutPorts(unix.IPPROTO_SCTP, ip.client, ip.vip)).dropped("drop_unsupported")
			if got := l.records(); len(got) > 0 {
				l.Errorf("got %+v", got)
			}
		}
		c[ip.name+" a flood is sampled, and hides no other reason"] = func(l *lb) {
			l.config(BlixtConfigFlagCONFIG_SAMPLE_DROPS)
			l.serve(ip, unix.IPPROTO_TCP, local)
			const flood = 500
			seen := uint32(0)
			for range flood {
				l.ingress(outside, withoutPorts(unix.IPPROTO_SCTP, ip.client, ip.vip))
			}
			got := l.records()
			for _, r := range got {
				seen += r.Sampled
			}
			skipped := l.skipped(BlixtCounterCOUNTER_DROP_UNSUPPORTED)
			if len(got) < 8 || len(got) > flood/2 || uint64(seen)+skipped != flood {
				l.Errorf("%d records stand for %d packets, %d are left out since: want 8 or some more, and %d in all", len(got), seen, skipped, flood)
			}
			in := proto(unix.IPPROTO_TCP, ip.client, port(ip.vip, "80")).segment(rst, 1, 0, "")
			l.wantSample(in, BlixtRecordEventRECORD_DROPPED, l.ingress(outside, in))
		}
	}
	c.run(t)
}

// skipped returns how many packets of a reason no record stands for yet.
func (l *lb) skipped(reason BlixtCounter) (n uint64) {
	l.Helper()
	var all []BlixtDropSample
	l.must(l.DropSamples.Lookup(uint32(reason), &all))
	for _, s := range all {
		n += s.Skipped
	}
	return n
}

// wantSample wants one record, of the packet as it came in.
func (l *lb) wantSample(in packet, event BlixtRecordEvent, r *result) {
	l.Helper()
	got := l.records()
	if len(got) != 1 {
		l.Errorf("got %d records, want 1: %+v", len(got), got)
		return
	}
	one := got[0]
	name := counterNames()[one.Reason]
	if BlixtRecordEvent(one.Event) != event || r.counts[name] != 1 || one.Sampled != 1 || one.Protocol != in.protocol || one.Ifindex != l.lab.devices[outside] {
		l.Errorf("record %+v, counts %v", one, r.counts)
	}
	if one.Client != addrOf(in.src.Addr()) || one.Server != addrOf(in.dst.Addr()) {
		l.Errorf("record of %v -> %v, want %v -> %v", one.Client, one.Server, in.src, in.dst)
	}
	in.raw = true
	if want := in.bytes(); !bytes.Equal(one.packet, want[:min(len(want), int(BlixtLimitRECORD_PACKET_LEN))]) {
		l.Errorf("packet\n got %x\nwant %x", one.packet, want)
	}
}
