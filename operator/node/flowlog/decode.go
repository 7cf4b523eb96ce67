// SPDX-License-Identifier: Apache-2.0

package flowlog

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"time"
	"unsafe"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/observe"
)

const (
	recordSize = int(unsafe.Sizeof(bpf.BlixtFlowRecord{}))
	packetSize = int(bpf.BlixtLimitRECORD_PACKET_LEN)
)

// decode reads what a ring buffer holds. It returns false for anything but what the
// contract says.
func decode(sample []byte) (e entry, valid bool) {
	if len(sample) < recordSize {
		return e, false
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&e.r)), recordSize), sample)
	switch bpf.BlixtRecordEvent(e.r.Event) {
	case bpf.BlixtRecordEventRECORD_END:
		return e, e.r.Began <= e.r.Ended
	case bpf.BlixtRecordEventRECORD_REJECTED, bpf.BlixtRecordEventRECORD_DROPPED:
		packet := sample[recordSize:]
		e.packet = string(packet[:min(len(packet), packetSize, int(e.r.Captured))])
		return e, true
	}
	return e, false
}

// reasonNames are those of why flows end, by number.
var reasonNames = map[bpf.BlixtEndReason]string{
	bpf.BlixtEndReasonRECORD_FIN: "fin", bpf.BlixtEndReasonRECORD_RESET: "reset", bpf.BlixtEndReasonRECORD_IDLE: "idle",
	bpf.BlixtEndReasonRECORD_UNANSWERED: "unanswered", bpf.BlixtEndReasonRECORD_REFUSED: "refused",
	bpf.BlixtEndReasonRECORD_BACKEND_GONE: "backend_gone", bpf.BlixtEndReasonRECORD_SOURCE_GONE: "source_gone",
	bpf.BlixtEndReasonRECORD_MOVED: "moved", bpf.BlixtEndReasonRECORD_REPLACED: "replaced",
	bpf.BlixtEndReasonRECORD_PROTECTED: "protected", bpf.BlixtEndReasonRECORD_EVICTED: "evicted",
	bpf.BlixtEndReasonRECORD_DENIED: "denied", bpf.BlixtEndReasonRECORD_MAX_AGE: "max_age",
}

// reasonOf returns the name of why a record was written.
func reasonOf(r *bpf.BlixtFlowRecord) string {
	if bpf.BlixtRecordEvent(r.Event) == bpf.BlixtRecordEventRECORD_END {
		if name, known := reasonNames[bpf.BlixtEndReason(r.Reason)]; known {
			return name
		}
		return fmt.Sprintf("reason_%d", r.Reason)
	}
	if names, err := datapath.CounterNames(); err == nil && int(r.Reason) < len(names) {
		return names[r.Reason]
	}
	return fmt.Sprintf("counter_%d", r.Reason)
}

// record returns what an entry tells.
func (l *Log) record(e *entry) *observe.Record {
	names, was := e.names, e.was
	if names == nil { // they may be known by now
		names, was = l.names.of(keyOf(&e.r))
	}
	out := recordOf(&e.r, e.time, names, was)
	out.Node, out.Seq = l.o.Node, e.seq
	switch bpf.BlixtRecordEvent(e.r.Event) {
	case bpf.BlixtRecordEventRECORD_END:
		out.Event, out.Reason = observe.EventEnd, reasonOf(&e.r)
	case bpf.BlixtRecordEventRECORD_REJECTED, bpf.BlixtRecordEventRECORD_DROPPED:
		out.Event, out.Reason = observe.EventRejected, reasonOf(&e.r)
		if bpf.BlixtRecordEvent(e.r.Event) == bpf.BlixtRecordEventRECORD_DROPPED {
			out.Event = observe.EventDropped
		}
		out.Start, out.Duration, out.In, out.Out = time.Time{}, 0, nil, nil
		out.Sampled, out.Packet = e.r.Sampled, hex.EncodeToString([]byte(e.packet))
	}
	if e.r.Ifindex != 0 {
		out.Interface = l.interfaceName(e.r.Ifindex)
	}
	return out
}

// keyOf returns the key of the frontend of a record.
func keyOf(r *bpf.BlixtFlowRecord) lb.Key {
	return lb.Key{Addr: datapath.FromAddr(r.Server), Port: datapath.FromPort(r.ServerPort), Protocol: lb.Protocol(r.Protocol)}
}

// recordOf returns what a record says of a flow whose last packet was seen at a time.
func recordOf(r *bpf.BlixtFlowRecord, last int64, names, was *lb.Frontend) *observe.Record {
	out := &observe.Record{
		V: observe.RecordVersion, Time: time.Unix(0, last).UTC().Truncate(time.Microsecond), Protocol: protocolName(r.Protocol),
		Client: endpointOf(r.Client, r.ClientPort), Server: endpointOf(r.Server, r.ServerPort),
		Connect: latency(r.Connect), RTT: latency(r.Rtt),
	}
	if r.Began != 0 {
		out.Start = time.Unix(0, last-int64(r.Ended-r.Began)).UTC().Truncate(time.Microsecond)
		out.Duration = out.Time.Sub(out.Start).Seconds()
		out.In, out.Out = &observe.Traffic{Packets: r.Packets[0], Bytes: r.Bytes[0]}, &observe.Traffic{Packets: r.Packets[1], Bytes: r.Bytes[1]}
	}
	switch bpf.BlixtRecordBy(r.By) {
	case bpf.BlixtRecordByRECORD_BY_CLIENT:
		out.EndedBy = "client"
	case bpf.BlixtRecordByRECORD_BY_BACKEND:
		out.EndedBy = "backend"
	}
	var backend netip.AddrPort
	if r.Backend != (bpf.BlixtAddr{}) {
		e := endpointOf(r.Backend, r.BackendPort)
		out.Backend, backend = &e, netip.AddrPortFrom(e.Address, e.Port)
	}
	if r.Snat != (bpf.BlixtAddr{}) && (r.Snat != r.Client || r.SnatPort != r.ClientPort) {
		e := endpointOf(r.Snat, r.SnatPort)
		out.SNAT = &e
	}
	if names != nil {
		out.Gateway, out.Listener, out.Route = names.Gateway, names.Listener, names.Route
		if out.Backend != nil {
			out.Service = serviceOf(backend, names, was)
		}
	}
	return out
}

func endpointOf(a bpf.BlixtAddr, port uint16) observe.Endpoint {
	return observe.Endpoint{Address: datapath.FromAddr(a), Port: datapath.FromPort(port)}
}

// latency returns seconds of units of 2^-20 s, to the microsecond.
func latency(units uint32) float64 {
	return (time.Duration(units) * time.Second >> 20).Round(time.Microsecond).Seconds()
}

func protocolName(p uint8) string {
	switch p {
	case 1:
		return "icmp"
	case 6:
		return "tcp"
	case 17:
		return "udp"
	case 58:
		return "icmpv6"
	}
	return fmt.Sprint(p)
}

func (l *Log) interfaceName(index uint32) string {
	if l.o.Interface != nil {
		if name := l.o.Interface(index); name != "" {
			return name
		}
	}
	return fmt.Sprintf("if%d", index) // as iproute2 shows interfaces of other namespaces
}

// flowRecord returns the record of an entry of a table of flows, of which there is
// no record.
func flowRecord(key bpf.BlixtFlowKey, f *bpf.BlixtFlow) bpf.BlixtFlowRecord {
	return bpf.BlixtFlowRecord{
		Client: key.Src, ClientPort: key.Sport, Server: key.Dst, ServerPort: key.Dport, Protocol: key.Protocol,
		Snat: f.Src, SnatPort: f.Sport, Backend: f.Dst, BackendPort: f.Dport,
		Frontend: f.Frontend, Ref: f.Ref, BackendId: f.Backend, Generation: f.Generation,
	}
}

// replyKey returns the key of a flow's reply entry.
func replyKey(key bpf.BlixtFlowKey, f *bpf.BlixtFlow) bpf.BlixtFlowKey {
	return bpf.BlixtFlowKey{Src: f.Dst, Dst: f.Src, Sport: f.Dport, Dport: f.Sport, Protocol: key.Protocol}
}
