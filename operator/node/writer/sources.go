// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"bytes"
	"sort"
	"sync"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// sourceList answers what a set of sources says of an address, as `sources` does: by its
// longest prefix. It is made of runs of addresses, so a look-up is a binary search.
type sourceList struct {
	entries  func() []datapath.SourceEntry // in order of their addresses, with the shorter prefix first
	made     sync.Once
	starts   [][16]byte // of runs
	verdicts []uint32   // of the same; 0: no prefix has it
}

// make makes the runs.
func (l *sourceList) make() {
	type open struct {
		last    [16]byte
		verdict uint32
	}
	var around []open // prefixes that have the address that is looked at, the longest last
	l.begin([16]byte{}, 0)
	close := func() {
		top := around[len(around)-1]
		around = around[:len(around)-1]
		verdict := uint32(0)
		if len(around) > 0 {
			verdict = around[len(around)-1].verdict
		}
		if next, ok := after(top.last); ok {
			l.begin(next, verdict)
		}
	}
	for _, e := range l.entries() {
		first, last := e.Key.Addr.Bytes, lastOf(e.Key)
		for len(around) > 0 && bytes.Compare(around[len(around)-1].last[:], first[:]) < 0 {
			close()
		}
		verdict := e.Verdict
		if verdict == uint32(bpf.BlixtSourceVerdictSOURCE_UNLISTED) {
			verdict = 0
		}
		around = append(around, open{last, verdict})
		l.begin(first, verdict)
	}
	for len(around) > 0 {
		close()
	}
}

// begin has a run begin at an address.
func (l *sourceList) begin(first [16]byte, verdict uint32) {
	if n := len(l.starts); n > 0 && l.starts[n-1] == first {
		l.verdicts[n-1] = verdict
		return
	}
	l.starts, l.verdicts = append(l.starts, first), append(l.verdicts, verdict)
}

// lastOf returns the last address of a prefix.
func lastOf(k bpf.BlixtSourceKey) [16]byte {
	last := k.Addr.Bytes
	for bit := int(k.Bits) - 32; bit < 128; bit++ {
		last[bit/8] |= 0x80 >> (bit % 8)
	}
	return last
}

// after returns the next address; false: there is none.
func after(a [16]byte) ([16]byte, bool) {
	for i := len(a) - 1; i >= 0; i-- {
		if a[i]++; a[i] != 0 {
			return a, true
		}
	}
	return a, false
}

// refuses reports whether new flows from the source are refused.
func (l *sourceList) refuses(source *[16]byte, onlyAllowed bool) bool {
	l.made.Do(l.make)
	run := sort.Search(len(l.starts), func(i int) bool { return bytes.Compare(l.starts[i][:], source[:]) > 0 }) - 1
	switch l.verdicts[run] {
	case uint32(bpf.BlixtSourceVerdictSOURCE_ALLOWED):
		return false
	case 0:
		return onlyAllowed
	}
	return true
}
