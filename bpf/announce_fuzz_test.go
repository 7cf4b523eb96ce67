// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/announce"
)

// A trial passes random messages to B, most of them genuine, and compares what B
// knows afterwards of the packet's tuple with the judge's verdict.
type trial struct {
	*nodes
	random *rand.Rand
	judge  *judge
	said   []string
}

func newTrial(t testing.TB, seed uint64) *trial {
	tr := &trial{nodes: newNodes(t), random: rand.New(rand.NewPCG(seed, 7)), judge: newJudge()}
	tr.b.key(1, nextKey)
	tr.judge.keys[1] = nextKey
	return tr
}

// shot returns a packet of a node's, or of somebody who pretends to be one, with a message.
func (tr *trial) shot() (frame []byte, what string) {
	r := tr.random
	one := func(n int) bool { return r.IntN(n) == 0 }
	ip, form := ipVersions[r.IntN(2)], forms[r.IntN(len(forms))]
	node := ip.nodeIn
	if one(3) {
		node = addressesOfD[ip.name]
	}
	if one(20) {
		node = map[string]string{"IPv4": "10.1.0.66", "IPv6": "fd00:1::66"}[ip.name]
	}
	i := r.IntN(6)
	source := port(node, fmt.Sprint(snatMin+i))
	// Mostly clients of their own, sometimes one that another tuple has.
	client := addrPort(ap(ip.client).Addr(), 40000+100*i+r.IntN(3))
	if one(4) {
		client = addrPort(ap(farClient[ip.name]).Addr(), 50000+r.IntN(3))
	}
	newest := tr.judge.peers[netip.MustParseAddr(node)]
	m := announce.Message{Client: client, Idle: uint8(r.IntN(18)), Boot: 100, Time: 1 << 20, Service: 0x5a17}
	if newest != nil && newest.heard {
		m.Boot, m.Time = newest.boot, newest.time
	}
	m.Time += r.Uint32N(3)
	key := keyOfCluster
	if one(4) {
		m.Key, key = 1, nextKey
	}
	switch r.IntN(12) {
	case 0:
		m.Time -= r.Uint32N(2 * replayWindow)
	case 1:
		m.Time += r.Uint32N(1 << 20) // hours
	case 2:
		m.Boot += uint16(r.Uint32N(5)) - 2
	case 3:
		m.Boot = uint16(r.Uint32())
	case 4:
		m.Key = uint8(r.Uint32N(4))
	case 5:
		key = foreignKey
	case 6:
		m.Flags = uint8(r.Uint32N(64)) // alone adds ALONE
	case 7:
		m.Kind = uint8(r.Uint32())
	case 8:
		m.Client = [...]netip.AddrPort{ap("0.0.0.0:1"), ap("127.0.0.1:7"), ap("[::]:5"), ap("224.0.0.1:9"), ap("198.51.100.9:0"), ap("[ff02::1]:3"), ap("[2001:db8:c::9]:77")}[r.IntN(7)]
	}
	f := undoneFlow{tr.nodes, ip, form.protocol, client.String(), source, node}
	frame = form.make(f, m, key).bytes()
	what = fmt.Sprintf("%s from %s: %v, key %x", form.name, source, m, key[0])
	for one(12) {
		at := 14 + r.IntN(len(frame)-14)
		if one(2) {
			at = len(frame) - 1 - r.IntN(announce.Len+2)
		}
		frame[at] ^= 1 << r.IntN(8)
		what += fmt.Sprintf(", byte %d changed", at)
		if one(2) {
			f.mendSum(frame, form)
		}
		mendIPv4(frame)
	}
	if one(40) {
		frame = frame[:len(frame)-1-r.IntN(44)]
		what += fmt.Sprintf(", cut after %d bytes", len(frame))
	}
	if one(40) {
		frame = append(frame, make([]byte, r.IntN(44))...)
		what += ", padded"
	}
	return frame, what
}

// mendIPv4 makes the checksum of an IPv4 header right, without which the packet is nobody's.
func mendIPv4(frame []byte) {
	if frame[14]>>4 != 4 {
		return
	}
	head := frame[14 : 14+max(20, int(frame[14]&15)*4)]
	head[10], head[11] = 0, 0
	sum := ^onesSum(head)
	head[10], head[11] = byte(sum>>8), byte(sum)
}

// client returns whom B takes for the client of a tuple.
func (tr *trial) client(t announce.Tuple) (c netip.AddrPort, undone bool) {
	tr.Helper()
	m, f := tr.b.flow(packet{src: t.Src, dst: t.Dst, protocol: t.Protocol})
	if m == nil || BlixtFlowFlag(f.Flags)&BlixtFlowFlagFLOW_UNDONE == 0 {
		return c, false
	}
	return netip.AddrPortFrom(netip.AddrFrom16(f.Src.Bytes).Unmap(), htons(f.Sport)), true
}

// run passes so many messages.
func (tr *trial) run(steps int) {
	tr.Helper()
	defer func() {
		if tr.Failed() {
			tr.Logf("what came in last:\n%s", strings.Join(tr.said[max(0, len(tr.said)-20):], "\n"))
		}
	}()
	for range steps {
		frame, what := tr.shot()
		if !tr.step(frame, what) {
			return
		}
	}
}

func (tr *trial) step(frame []byte, what string) bool {
	tr.Helper()
	f, why := tr.judge.verdict(frame[14:])
	if f.Tuple == (announce.Tuple{}) {
		f.Tuple, _ = announce.TupleOf(frame[14:])
	}
	before, was := tr.client(f.Tuple)
	if !was {
		delete(tr.judge.about, f.Tuple) // the program keeps the time of a message with the flow
		f, why = tr.judge.verdict(frame[14:])
	}
	entries := tr.b.undoneEntries()
	tr.said = append(tr.said, fmt.Sprintf("%s: %q, client before: %v", what, why, before))
	_, _, err := tr.b.run(hook{dev: inside}, frame, 0)
	tr.b.must(err)
	if why == "" {
		tr.judge.learn(f)
	}
	if f.Tuple == (announce.Tuple{}) {
		f.Tuple, _ = announce.TupleOf(frame[14:])
	}
	after, is := tr.client(f.Tuple)
	if why == "" && announcesClient(f) {
		if !is || after != f.Client {
			tr.Errorf("%s: the client is %v (undone %t), want %v", what, after, is, f.Client)
		}
	} else {
		if is && (!was || after != before) {
			tr.Errorf("%s: it is not to be believed (%s, flags %#x), but the client became %v (before: %v, undone %t)", what, why, f.Flags, after, before, was)
		}
		if n := tr.b.undoneEntries(); n > entries {
			tr.Errorf("%s: it is not to be believed (%s), but the number of entries rose from %d to %d", what, why, entries, n)
		}
	}
	return !tr.Failed()
}

// TestAnnouncementsAgainstTheModel passes random messages: B believes exactly those that the model believes.
func TestAnnouncementsAgainstTheModel(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) { newTrial(t, seed).run(500) })
	}
}

// FuzzAnnouncements does the same for any sequence of messages, and for any packet.
func FuzzAnnouncements(f *testing.F) {
	for i, form := range forms {
		for _, ip := range ipVersions {
			fl := undoneFlow{nil, ip, form.protocol, ip.client, port(ip.nodeIn, sourcePort), ip.nodeIn}
			f.Add(uint64(1000+i), form.make(fl, announce.Message{Client: ap(ip.client), Boot: 100, Time: 1 << 20, Service: 0x5a17}, keyOfCluster).bytes())
		}
	}
	f.Fuzz(func(t *testing.T, seed uint64, frame []byte) {
		tr := newTrial(t, seed)
		tr.run(50)
		if len(frame) < 14+20 || len(frame) > 3000 || frame[12] != 8 && frame[12] != 0x86 {
			return
		}
		frame = slices.Clone(frame)
		copy(frame, deviceMAC[:])
		if frame[12] = 8; frame[14]>>4 == 6 {
			frame[12] = 0x86
		}
		frame[13] = map[byte]byte{8: 0, 0x86: 0xdd}[frame[12]]
		tr.step(frame, "the fuzzer's packet")
	})
}

// Nothing that is not signed by a key of the cluster makes a flow, whoever it comes from.
func TestForgersMakeNoFlows(t *testing.T) {
	n := newNodes(t)
	r := rand.New(rand.NewPCG(5, 6))
	for i := range 20000 {
		ip, form := ipVersions[i%2], forms[r.IntN(len(forms))]
		f := n.flowFromA(ip, form.protocol, addrPort(ap(ip.client).Addr(), 1024+r.IntN(60000)).String())
		f.source = port(ip.nodeIn, fmt.Sprint(snatMin+r.IntN(snatMax-snatMin+1)))
		m := f.message()
		m.Flags = uint8(r.Uint32N(64))
		m.Boot = uint16(r.Uint32())
		var key announce.Key
		for j := range key {
			key[j] = byte(r.Uint32())
		}
		if form.protocol == unix.IPPROTO_UDP && r.IntN(2) == 0 {
			m.Flags = 0
		}
		if _, _, err := n.b.run(hook{dev: inside}, form.make(f, m, key).bytes(), 0); err != nil {
			t.Fatal(err)
		}
	}
	if got := n.b.undoneEntries(); got != 0 {
		t.Errorf("20,000 forged messages made %d entries, want 0", got)
	}
	if got := n.b.peerOf(ipVersions[0].nodeIn); got.Heard != 0 || got.Boot != 0 || got.Time != 0 {
		t.Errorf("forged messages count as the peer's: %+v", got)
	}
}
