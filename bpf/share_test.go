// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"golang.org/x/sys/unix"
)

// Numbers of established flows that have drifted below zero, as until the agent's
// next sweep, keep nobody from establishing flows.
func TestShareWithNumbersBelowZero(t *testing.T) {
	c := cases{}
	for _, ip := range ipVersions {
		c[ip.name] = func(l *lb) {
			l.must(l.BlixtLayout2.Put(uint32(0), BlixtConfig{SnatMin: snatMin, SnatMax: snatMax, FlowsNearlyFull: 3, FlowsShare: 2}))
			below := int32(-5)
			for _, element := range []uint32{0, 1} { // of all frontends, and of that with index 0
				l.must(l.Established.Put(element, uint32(below)))
			}
			l.serve(ip, unix.IPPROTO_TCP, local)
			l.openFlow(ip, unix.IPPROTO_TCP, true)
			var now uint32
			l.must(l.Established.Lookup(uint32(1), &now))
			if int32(now) != below+1 {
				l.Errorf("%d established flows, want %d", int32(now), below+1)
			}
		}
	}
	c.run(t)
}
