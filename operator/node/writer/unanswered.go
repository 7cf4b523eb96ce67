// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"fmt"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// unanswered finds out how many flows of each backendRef have ended without an answer,
// which the program cannot see: those that began before the sweep, without those
// that were answered or refused by its end, and those that still wait for an answer. Flows
// that begin meanwhile make this too small, until the next sweep.
type unanswered struct {
	refs []refSweep // by id
}

type refSweep struct {
	key   uint64
	flows uint64 // that began before the sweep
	waits uint64
}

// newUnanswered must be called before the sweep begins.
func newUnanswered(flows datapath.Flows) (u unanswered, err error) {
	keys, err := flows.RefKeys()
	if err != nil {
		return u, fmt.Errorf("read ref_stats: %w", err)
	}
	for len(keys) > 0 && keys[len(keys)-1] == 0 {
		keys = keys[:len(keys)-1]
	}
	u.refs = make([]refSweep, len(keys))
	for id, key := range keys {
		if key != 0 {
			c, _ := flows.RefCounters(uint32(id), key)
			u.refs[id] = refSweep{key: key, flows: c.Flows}
		}
	}
	return u, nil
}

// has is told each entry. TCP: it is the forward entry that knows of an answer, UDP: the
// other one.
func (u *unanswered) has(e datapath.FlowEntry) {
	const tcp = datapath.FlowReply | datapath.FlowAnswered | datapath.FlowEstablished | datapath.FlowClosed | datapath.FlowGone
	f := e.Value
	waits := f.Flags&tcp == 0
	if lb.Protocol(e.Key.Protocol) == lb.UDP {
		waits = f.Flags&(datapath.FlowReply|datapath.FlowAnswered|datapath.FlowRefused) == datapath.FlowReply
	}
	if waits && f.Frontend != uint32(bpf.BlixtNoFlowOfNO_FRONTEND) && int(f.Ref) < len(u.refs) {
		u.refs[f.Ref].waits++
	}
}

// settle is called when all entries of all tables were seen. previous is what it returned
// after the sweep before: an entry that was moved while its table was read may not have been
// seen, so that only what two sweeps have found counts. What was found once stays.
func (u *unanswered) settle(flows datapath.Flows, previous map[uint32]refSweep) map[uint32]refSweep {
	found := map[uint32]refSweep{}
	for id, r := range u.refs {
		c, ok := flows.RefCounters(uint32(id), r.key)
		ended := int64(r.flows - c.Answered - c.Reset - c.Unreachable - r.waits)
		if r.key == 0 || !ok || ended <= 0 {
			continue
		}
		found[uint32(id)] = refSweep{key: r.key, flows: uint64(ended)}
		if p := previous[uint32(id)]; p.key == r.key {
			flows.SetUnanswered(uint32(id), r.key, min(p.flows, uint64(ended)))
		}
	}
	return found
}
