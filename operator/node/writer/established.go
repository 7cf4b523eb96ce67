// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// established checks the numbers of established flows that the data plane keeps,
// during a sweep. They may drift: a process that has removed a flow may be
// killed before it counts that.
//
// Flows come and go while the sweep counts. The number that it finds is one that
// there was at some time, so a right number of the data plane is below it at one
// time of the sweep, or above it at another. Only what lies outside of all that
// the data plane has said is drift, and is corrected by an addition: what the
// data plane counts at the same time is not lost.
type established struct {
	flows           datapath.Flows
	found           []int64 // by the sweep; by element of datapath.Flows.Established
	lowest, highest []int64 // of the data plane, during the sweep
}

func newEstablished(flows datapath.Flows) *established {
	e := &established{flows: flows}
	for _, n := range flows.Established() {
		e.lowest = append(e.lowest, int64(int32(n)))
	}
	e.highest = append(e.highest, e.lowest...)
	e.found = make([]int64, len(e.lowest))
	return e
}

// elements returns which elements a forward entry counts in. Flows of the host
// itself have no frontend, and count among all flows only.
func (e *established) elements(f datapath.FlowEntry) []int {
	own := int64(f.Value.Frontend) + 1
	switch {
	case lb.Protocol(f.Key.Protocol) == lb.UDP:
		return nil
	case own >= int64(len(e.found)):
		return []int{0}
	}
	return []int{0, int(own)}
}

// has counts an entry that the sweep has found and left.
func (e *established) has(f datapath.FlowEntry) {
	if f.Value.Flags&datapath.FlowReply == 0 {
		for _, i := range e.elements(f) {
			e.found[i]++
		}
	}
}

// removed counts that the sweep has removed the flow of an entry.
func (e *established) removed(f datapath.FlowEntry) {
	for _, i := range e.elements(f) {
		e.flows.AddEstablished(i, -1)
	}
}

// look reads what the data plane says now.
func (e *established) look() {
	for i, n := range e.flows.Established() {
		e.lowest[i] = min(e.lowest[i], int64(int32(n)))
		e.highest[i] = max(e.highest[i], int64(int32(n)))
	}
}

// correct removes the drift.
func (e *established) correct() {
	e.look()
	for i, n := range e.found {
		switch {
		case n < e.lowest[i]:
			e.flows.AddEstablished(i, int32(n-e.lowest[i]))
		case n > e.highest[i]:
			e.flows.AddEstablished(i, int32(n-e.highest[i]))
		}
	}
}
