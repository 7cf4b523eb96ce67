// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/announce"
)

// TestProbes is about a packet of A's agent by which it learns whether messages get to B and back.
func TestProbes(t *testing.T) {
	c := nodeCases{}
	for form, name := range map[BlixtProbeForm]string{BlixtProbeFormPROBE_WITHIN: "within", BlixtProbeFormPROBE_ALONE: "alone"} {
		probing := func(n *nodes, ip ipVersion, proto uint8) (p packet, k BlixtFlowKey) {
			p = opening(proto, port(ip.nodeIn, sourcePort), ip.remote)
			k = keyOf(p)
			k.Src = BlixtAddr{}
			n.a.interested(addrOf(p.src.Addr()), BlixtInterestFlagINTEREST_FROM)
			n.a.must(n.a.Probes.Put(k, BlixtProbe{Form: uint32(form), Src: addrOf(p.src.Addr())}))
			return p, k
		}
		answered := func(n *nodes, k BlixtFlowKey) uint32 {
			var v BlixtProbe
			n.a.must(n.a.Probes.Lookup(k, &v))
			return v.Answered
		}
		c.each(name+": B answers in place of the pod", func(n *nodes, ip ipVersion, proto uint8) {
			p, k := probing(n, ip, proto)
			r := n.a.egressHost(inside, p)
			r.wantVerdict(redirect, "")
			m := r.message()
			flags := uint8(announce.Probe)
			if form == BlixtProbeFormPROBE_ALONE {
				flags |= announce.Alone
			}
			n.a.wantMessage(m, announce.Message{Flags: flags, Boot: bootOfA, Client: m.Client, Idle: m.Idle}, r.began, keyOfCluster)
			if err := checkSums(r.out, 14); err != nil {
				n.Errorf("the probe: %v", err)
			}
			in := p
			if form == BlixtProbeFormPROBE_ALONE {
				in.payload = nil
			}
			back := n.b.sendFrame(hook{dev: inside}, in, toNode(r.out))
			back.wantVerdict(redirect, "probe_answered")
			a := back.message()
			n.b.wantMessage(a, announce.Message{Flags: announce.Probe | announce.Answer | announce.Alone, Boot: bootOfB, Client: a.Client, Idle: a.Idle}, m.Time, keyOfCluster)
			if a.Time != m.Time {
				n.Errorf("the answer has time %#x, want that of the probe, %#x", a.Time, m.Time)
			}
			if a.Src != m.Dst || a.Dst != m.Src {
				n.Errorf("the answer goes from %v to %v, want from %v to %v", a.Src, a.Dst, m.Dst, m.Src)
			}
			if err := checkSums(back.out, 14); err != nil {
				n.Errorf("the answer: %v", err)
			}
			if proto == unix.IPPROTO_TCP {
				if got := back.out[len(back.out)-announce.Len-7]; got != rst|ack {
					n.Errorf("flags of the answer %#x, want RST and ACK", got)
				}
			}
			if got := n.b.undoneEntries() + count(n.b.NewFlows) + count(n.b.UdpFlows); got != 0 {
				n.Errorf("the probe made %d entries at B, want 0", got)
			}
			n.a.sendFrame(hook{dev: inside}, in.reversed(), toNode(back.out)).dropped("")
			if answered(n, k) != 1 {
				n.Error("A does not know of the answer")
			}
		})
		c.each(name+": a probe of nobody's is none", func(n *nodes, ip ipVersion, proto uint8) {
			p, k := probing(n, ip, proto)
			frame := n.a.egressHost(inside, p).out
			frame[len(frame)-1] ^= 1
			if proto == unix.IPPROTO_TCP && form == BlixtProbeFormPROBE_ALONE {
				mendFrame(frame)
			}
			r, err := n.b.runRaw(hook{dev: inside}, toNode(frame))
			n.b.must(err)
			if r.counts["probe_answered"] != 0 || r.verdict == redirect {
				n.Errorf("B does %s with a forged probe, counters %v", verdictNames[r.verdict], r.counts)
			}
			if answered(n, k) != 0 {
				n.Error("A takes it for answered")
			}
		})
		c.each(name+": a forged answer is none", func(n *nodes, ip ipVersion, proto uint8) {
			p, k := probing(n, ip, proto)
			m := n.a.egressHost(inside, p).message()
			fake := announce.Message{Flags: announce.Probe | announce.Answer, Time: m.Time, Boot: bootOfB}
			re := p.reversed()
			if proto == unix.IPPROTO_TCP {
				re = re.segment(rst|ack, 0, 1001, "")
			}
			_, err := n.a.runRaw(hook{dev: inside}, re.alone(fake, foreignKey).bytes())
			n.a.must(err)
			if answered(n, k) != 0 {
				n.Error("A believes an answer of another key")
			}
			_, err = n.a.runRaw(hook{dev: inside}, re.alone(fake, keyOfCluster).bytes())
			n.a.must(err)
			if answered(n, k) != 1 {
				n.Error("A does not believe the answer of the cluster's key")
			}
		})
	}
	c.each("another socket's packet is none", func(n *nodes, ip ipVersion, proto uint8) {
		p := opening(proto, port(ip.nodeIn, sourcePort), ip.remote)
		n.a.interested(addrOf(p.src.Addr()), BlixtInterestFlagINTEREST_FROM)
		n.a.egressHost(inside, p).untouched("not_ours")
	})
	c.run(t)
}
