// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/announce"
)

// How much older than a peer's newest message another one may be, in units of its time.
const replayWindow = 64_000_000_000 >> 24

// A judge knows which messages node B has to believe. It shares no code with the program.
type judge struct {
	keys  [4]announce.Key
	peers map[netip.Addr]*judgedPeer
	about map[announce.Tuple]announce.Message // the newest one
}

type judgedPeer struct {
	heard bool
	boot  uint16
	time  uint32
}

func newJudge() *judge {
	j := &judge{keys: [4]announce.Key{keyOfCluster}, peers: map[netip.Addr]*judgedPeer{}, about: map[announce.Tuple]announce.Message{}}
	for _, ip := range ipVersions {
		j.peers[netip.MustParseAddr(ip.nodeIn)] = &judgedPeer{}
		j.peers[netip.MustParseAddr(addressesOfD[ip.name])] = &judgedPeer{}
	}
	return j
}

// verdict returns why a message is not to be believed, or "". It does not change what the judge knows.
func (j *judge) verdict(ip []byte) (f announce.Found, why string) {
	f, err := announce.Find(ip)
	peer := j.peers[f.Src.Addr()]
	port := f.Src.Port()
	switch {
	case err != nil:
		return f, err.Error()
	case f.Off != 0:
		return f, "the checksum of its surplus area is wrong"
	case peer == nil:
		return f, "its sender is no peer"
	case (port < snatMin || port > snatMax) && (port < 600 || port >= 1024):
		return f, "no node translates to its port"
	case j.keys[f.Key] == announce.Key{}:
		return f, "no such key"
	case !f.Genuine(j.keys[f.Key]):
		return f, "its key is another one"
	case (f.Flags&announce.Alone != 0) != f.Alone:
		return f, "it is not where it says"
	case peer.heard && int16(f.Boot-peer.boot) < 0:
		return f, "its sender has booted since"
	case peer.heard && f.Boot == peer.boot && int32(f.Time-peer.time) <= -replayWindow:
		return f, "it is old"
	}
	if last, known := j.about[f.Tuple]; known && last.Boot == f.Boot && int32(f.Time-last.Time) < 0 {
		return f, "there is a newer one about its tuple"
	}
	return f, ""
}

// announcesClient reports whether a message that is believed says who the client is, and that is a host elsewhere.
func announcesClient(f announce.Found) bool {
	client := f.Client.Addr()
	return f.Flags&(announce.Ask|announce.Plain|announce.Probe|announce.Answer) == 0 && client.Is4() == f.Dst.Addr().Is4() && client.IsGlobalUnicast() && f.Client.Port() != 0
}

// learn takes in a message that is believed. Questions and answers to probes say nothing about time.
func (j *judge) learn(f announce.Found) {
	if f.Flags&(announce.Ask|announce.Answer) != 0 {
		return
	}
	p := j.peers[f.Src.Addr()]
	if !p.heard || f.Boot != p.boot || int32(f.Time-p.time) > 0 {
		*p = judgedPeer{true, f.Boot, f.Time}
	}
	if announcesClient(f) {
		j.about[f.Tuple] = f.Message
	}
}

// A form is a place of a message, and a packet that has it there.
type form struct {
	name     string
	protocol uint8
	make     func(f undoneFlow, m announce.Message, key announce.Key) packet
}

var forms = []form{
	{"behind a SYN", unix.IPPROTO_TCP, func(f undoneFlow, m announce.Message, key announce.Key) packet {
		return f.opening().within(m, key)
	}},
	{"behind a datagram", unix.IPPROTO_UDP, func(f undoneFlow, m announce.Message, key announce.Key) packet {
		return f.opening().within(m, key)
	}},
	{"behind an odd datagram", unix.IPPROTO_UDP, func(f undoneFlow, m announce.Message, key announce.Key) packet {
		return f.opening().withSize(7).within(m, key)
	}},
	{"alone in a segment", unix.IPPROTO_TCP, func(f undoneFlow, m announce.Message, key announce.Key) packet {
		return f.establishing().alone(m, key)
	}},
	{"alone in a datagram", unix.IPPROTO_UDP, func(f undoneFlow, m announce.Message, key announce.Key) packet {
		return f.opening().alone(m, key)
	}},
}

// eachForm adds a case for each IP version and each place of a message.
func (c nodeCases) eachForm(name string, run func(f undoneFlow, form form)) {
	for _, ip := range ipVersions {
		for _, form := range forms {
			c[ip.name+" "+form.name+": "+name] = func(n *nodes) { run(n.flowFromA(ip, form.protocol, ip.client), form) }
		}
	}
}

// hear passes a frame to B as it comes in by the device of the nodes.
func (f undoneFlow) hear(frame []byte) *result {
	f.Helper()
	r, err := f.b.runRaw(hook{dev: inside}, frame)
	f.b.must(err)
	return r
}

// entries returns the number of entries in B's flow tables that undo something.
func (l *lb) undoneEntries() (n int) {
	l.Helper()
	var k BlixtFlowKey
	var f BlixtFlow
	for _, m := range l.flowTables() {
		entries := m.Iterate()
		for entries.Next(&k, &f) {
			if BlixtFlowFlag(f.Flags)&BlixtFlowFlagFLOW_UNDONE != 0 {
				n++
			}
		}
		l.must(entries.Err())
	}
	return n
}

// wantForged checks that a frame has made no flow, and has not left as a packet of the client's.
func (f undoneFlow) wantForged(what string, frame []byte) {
	f.Helper()
	r := f.hear(frame)
	if n := f.b.undoneEntries(); n != 0 {
		f.Errorf("%s: %d entries undo its source, want none", what, n)
	}
	f.wantNotFrom(what, r, f.client)
	if r.counts["flow_undone"] != 0 || r.counts["undone"] != 0 {
		f.Errorf("%s: counters %v, want no flow", what, r.counts)
	}
}

// wantNotFrom checks that the packet that has passed does not have this source.
func (f undoneFlow) wantNotFrom(what string, r *result, client string) {
	f.Helper()
	if r.verdict == tcxDrop || len(r.out) < 14+20 {
		return
	}
	tuple, err := announce.TupleOf(r.out[14:])
	if err == nil && tuple.Src.Addr() == ap(client).Addr() {
		f.Errorf("%s: the packet has left from %v:\n%s", what, tuple.Src, strings.Join(dump(r.out, false), "\n"))
	}
}

// TestForgedAnnouncements is about messages that no node of the cluster has signed, or not for this packet.
func TestForgedAnnouncements(t *testing.T) {
	c := nodeCases{}
	c.eachForm("genuine ones are believed", func(f undoneFlow, form form) {
		f.hear(form.make(f, f.message(), keyOfCluster).bytes())
		f.wantUndone(true)
	})
	c.eachForm("each bit is signed", func(f undoneFlow, form form) {
		frame := form.make(f, f.message(), keyOfCluster).bytes()
		for at := len(frame) - announce.Len; at < len(frame); at++ {
			for bit := range 8 {
				forged := slices.Clone(frame)
				forged[at] ^= 1 << bit
				f.mendSum(forged, form)
				f.wantForged(fmt.Sprintf("bit %d of byte %d changed", bit, at-len(frame)+announce.Len), forged)
			}
		}
	})
	c.eachForm("each bit of the tuple is signed", func(f undoneFlow, form form) {
		frame := form.make(f, f.message(), keyOfCluster).bytes()
		size := 4
		if f.ip.name == "IPv6" {
			size = 16
		}
		l4 := 14 + 20 + (size-4)/12*20
		for at := l4 - 2*size; at < l4+4; at++ {
			for bit := range 8 {
				forged := slices.Clone(frame)
				forged[at] ^= 1 << bit
				mendFrame(forged)
				f.wantForged(fmt.Sprintf("bit %d of byte %d of the tuple changed", bit, at-l4+2*size), forged)
			}
		}
	})
	c.eachForm("signed by another key", func(f undoneFlow, form form) {
		f.wantForged("another key", form.make(f, f.message(), foreignKey).bytes())
		f.wantForged("a key of zeros", form.make(f, f.message(), announce.Key{}).bytes())
		for i := uint8(1); i < 4; i++ { // there are no such keys
			m := f.message()
			m.Key = i
			f.wantForged(fmt.Sprintf("key %d", i), form.make(f, m, keyOfCluster).bytes())
			f.wantForged(fmt.Sprintf("key %d, of zeros", i), form.make(f, m, announce.Key{}).bytes())
		}
	})
	c.eachForm("from no peer", func(f undoneFlow, form form) {
		f.b.must(f.b.Peers.Delete(addrOf(ap(f.source).Addr())))
		f.wantForged("not a peer", form.make(f, f.message(), keyOfCluster).bytes())
	})
	c.eachForm("from a port to which no node translates", func(f undoneFlow, form form) {
		for _, p := range []int{0, 1, 599, 1024, snatMin - 1, snatMax + 1, 65535} {
			f.source = addrPort(ap(f.source).Addr(), p).String()
			f.wantForged(fmt.Sprintf("port %d", p), form.make(f, f.message(), keyOfCluster).bytes())
		}
	})
	c.eachForm("from a privileged port", func(f undoneFlow, form form) {
		f.source = addrPort(ap(f.source).Addr(), 700).String()
		f.client = addrPort(ap(f.client).Addr(), 700).String()
		f.hear(form.make(f, f.message(), keyOfCluster).bytes())
		f.wantUndone(true)
	})
	c.eachForm("about nobody", func(f undoneFlow, form form) {
		bad := []string{"0.0.0.0:40000", "127.0.0.1:40000", "224.0.0.1:40000", "255.255.255.255:40000", "198.51.100.7:0"}
		if f.ip.name == "IPv6" {
			bad = []string{"[::]:40000", "[::1]:40000", "[ff02::1]:40000", "198.51.100.7:40000", "[2001:db8:c::7]:0"}
		} else {
			bad = append(bad, "[2001:db8:c::7]:40000")
		}
		for _, client := range bad {
			m := f.message()
			m.Client = ap(client)
			f.wantForged("about "+client, form.make(f, m, keyOfCluster).bytes())
		}
	})
	c.eachForm("this node does not undo", func(f undoneFlow, form form) {
		f.b.announcing(bootOfB, 0, BlixtAnnouncingFlagANNOUNCING_TELL)
		f.wantForged("not undoing", form.make(f, f.message(), keyOfCluster).bytes())
	})
	c.eachForm("of another version", func(f undoneFlow, form form) {
		p := form.make(f, f.message(), keyOfCluster)
		frame := p.bytes()
		at := len(frame) - announce.Len
		frame[at+3] = 0x18 // signed as the receiver would check it
		message := frame[at:]
		tuple, err := announce.TupleOf(frame[14:])
		f.b.must(err)
		announce.Sign(keyOfCluster, tuple, message)
		f.mendSum(frame, form)
		f.wantForged("version 2", frame)
	})
	c.run(t)
}

// mendSum makes the checksum right that covers the message: of the surplus area, or of a segment with options.
func (f undoneFlow) mendSum(frame []byte, form form) {
	if form.name == "alone in a segment" {
		mendFrame(frame)
		return
	}
	at := len(frame) - announce.Len - 2
	odd := 0
	if form.name == "behind an odd datagram" {
		odd = 1
	}
	binary.BigEndian.PutUint16(frame[at:], 0)
	area := binary.BigEndian.AppendUint16(slices.Clone(frame[at:]), uint16(announce.Len+2+odd))
	check := ^onesSum(area)
	if check == 0 {
		check = 0xffff
	}
	binary.BigEndian.PutUint16(frame[at:], check)
}

// mendFrame makes the checksums of IPv4 and of layer 4 right. A surplus area adds up to zero as it is.
func mendFrame(frame []byte) {
	ip := frame[14:]
	head, protocol := 20, ip[9]
	var src, dst netip.Addr
	if ip[0]>>4 == 6 {
		head, protocol = 40, ip[6]
		src, dst = netip.AddrFrom16([16]byte(ip[8:])), netip.AddrFrom16([16]byte(ip[24:]))
	} else {
		src, dst = netip.AddrFrom4([4]byte(ip[12:])), netip.AddrFrom4([4]byte(ip[16:]))
		ip[10], ip[11] = 0, 0
		binary.BigEndian.PutUint16(ip[10:], ^onesSum(ip[:20]))
	}
	l4, at := ip[head:], 16
	if protocol == unix.IPPROTO_UDP {
		at = 6
	}
	l4[at], l4[at+1] = 0, 0
	check := ^onesSum(append(pseudoHeader(src, dst, protocol, len(l4)), l4...))
	binary.BigEndian.PutUint16(l4[at:], check)
}

// TestReplayedAnnouncements is about messages that are genuine, and late.
func TestReplayedAnnouncements(t *testing.T) {
	c := nodeCases{}
	// other is another flow of A's, about which the newest message was.
	other := func(f undoneFlow, m announce.Message) {
		f.Helper()
		o := f
		o.source, o.client = addrPort(ap(f.source).Addr(), 30050).String(), addrPort(ap(f.client).Addr(), 40050).String()
		m.Client = ap(o.client)
		o.hear(forms[0].make(undoneFlow{f.nodes, f.ip, unix.IPPROTO_TCP, o.client, o.source, o.peer}, m, keyOfCluster).bytes())
		if f.b.undoneEntries() == 0 {
			f.Fatal("the newest message is not believed")
		}
		deleteAll[BlixtFlowKey, BlixtFlow](f.b, f.b.NewFlows)
	}
	for _, at := range []struct {
		name     string
		ago      int
		boot     int
		believed bool
	}{
		{"64 s older than the newest", replayWindow - 2, 0, true},
		{"more than 64 s older than the newest", replayWindow + 2, 0, false},
		{"70 s older", replayWindow + 360, 0, false},
		{"half of all time older", 1 << 30, 0, false},
		{"newer", -100, 0, true},
		{"much newer", -1 << 20, 0, true},
		{"of the boot before", 0, -1, false},
		{"of the boot before, newer", -100, -1, false},
		{"of a boot half the circle ago", 0, -32767, false},
		{"of the next boot, whose time begins anew", 1 << 20, 1, true},
		{"of a boot that is ahead by less than half of the circle", 1 << 20, 32767, true},
	} {
		late := func(boot uint16) func(f undoneFlow, form form) {
			return func(f undoneFlow, form form) {
				m := f.message()
				m.Boot = boot
				other(f, m)
				m.Time -= uint32(at.ago)
				m.Boot += uint16(at.boot)
				frame := form.make(f, m, keyOfCluster).bytes()
				if at.believed {
					f.hear(frame)
					f.wantUndone(true)
				} else {
					f.wantForged(at.name, frame)
				}
			}
		}
		c.eachForm(at.name, late(bootOfA))
		for _, boot := range []uint16{0, 1, 32768, 65535} { // in the circle
			c[fmt.Sprintf("%s, newest of boot %d", at.name, boot)] = func(n *nodes) {
				late(boot)(n.flowFromA(ipVersions[0], unix.IPPROTO_UDP, ipVersions[0].client), forms[1])
			}
		}
	}
	c.eachForm("older than the boot that is known of the peer", func(f undoneFlow, form form) {
		f.b.peer(f.ip.nodeIn, 100)
		m := f.message()
		m.Boot = 99
		f.wantForged("boot 99 of 100", form.make(f, m, keyOfCluster).bytes())
		m.Boot = 101
		f.hear(form.make(f, m, keyOfCluster).bytes())
		f.wantUndone(true)
	})
	c.eachForm("time goes around", func(f undoneFlow, form form) {
		m := f.message()
		m.Time = 5
		other(f, m)
		m.Time = ^uint32(0) - 100
		f.hear(form.make(f, m, keyOfCluster).bytes())
		f.wantUndone(true)
	})
	c.eachForm("about a tuple time goes only forward", func(f undoneFlow, form form) {
		m := f.message()
		f.hear(form.make(f, m, keyOfCluster).bytes())
		f.wantUndone(true)
		old := m
		old.Time -= 10
		old.Client = addrPort(ap(f.client).Addr(), 41111)
		f.hear(form.make(f, old, keyOfCluster).bytes())
		f.wantUndone(true) // still the same client
		f.hear(form.make(f, m, keyOfCluster).bytes())
		f.wantUndone(true)
		m.Time += 10
		f.client = addrPort(ap(f.client).Addr(), 42222).String()
		m.Client = ap(f.client)
		f.hear(form.make(f, m, keyOfCluster).bytes())
		f.wantUndone(true) // the new one
	})
	c.run(t)
}
