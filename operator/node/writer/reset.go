// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"net/netip"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// Reset is a RST: who gets it believes that From has sent it.
type Reset struct {
	From, To netip.AddrPort
	Seq      uint32
}

// update gives the entries the numbers of packets that they have not seen.
func (f *flow) update(flows datapath.Flows) (err error) {
	f.out.Next, f.out.Ack, err = flows.LatestNumbers(datapath.FlowEntry{Key: f.forward, Value: f.out})
	if err == nil {
		f.back.Next, f.back.Ack, err = flows.LatestNumbers(datapath.FlowEntry{Key: f.reply, Value: f.back})
	}
	return err
}

// resets returns the RSTs that end an established flow at both ends, as each end
// knows the other one. A receiver wants exactly the number that it expects next
// (RFC 5961, 3.2): that is what it has acknowledged, or, if its acknowledgement
// is still to come, what its peer has sent.
func (f flow) resets() []Reset {
	if f.out.Flags&f.back.Flags&datapath.FlowEstablished == 0 {
		return nil
	}
	server := Reset{From: addrPort(f.out.Src, f.out.Sport), To: addrPort(f.out.Dst, f.out.Dport)}
	client := Reset{From: addrPort(f.forward.Dst, f.forward.Dport), To: addrPort(f.forward.Src, f.forward.Sport)}
	var all []Reset
	for _, end := range []struct {
		Reset
		acknowledged, sent uint32
	}{{server, f.back.Ack, f.out.Next}, {client, f.out.Ack, f.back.Next}} {
		end.Seq = end.acknowledged
		all = append(all, end.Reset)
		if end.sent != end.acknowledged {
			end.Seq = end.sent
			all = append(all, end.Reset)
		}
	}
	return all
}

func addrPort(a bpf.BlixtAddr, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(datapath.FromAddr(a), datapath.FromPort(port))
}
