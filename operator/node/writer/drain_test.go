// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"testing"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

func TestFlowsThatNeedTheirDataPlane(t *testing.T) {
	const fin, rst = bpf.BlixtFlowFlagFLOW_FIN, bpf.BlixtFlowFlagFLOW_RST
	linger := datapath.Ticks(Linger)
	for name, c := range map[string]struct {
		flow flowSpec
		want uint64
	}{
		"fresh":                             {flowSpec{}, 1},
		"silent, but not idle":              {flowSpec{forwardAge: testIdle, replyAge: testIdle}, 1},
		"idle":                              {flowSpec{forwardAge: testIdle + 1, replyAge: testIdle + 1}, 0},
		"the client has said all":           {flowSpec{forwardFlags: fin, forwardAge: 200, replyAge: 200}, 1},
		"the backend has said all":          {flowSpec{replyFlags: fin, forwardAge: 200, replyAge: 200}, 1},
		"half closed for too long":          {flowSpec{forwardFlags: fin, forwardAge: 225, replyAge: 225}, 0},
		"UDP":                               {flowSpec{udp: true}, 1},
		"UDP, idle":                         {flowSpec{udp: true, forwardAge: testIdle + 1, replyAge: testIdle + 1}, 0},
		"closed, the last ACK may be lost":  {flowSpec{forwardFlags: fin, replyFlags: fin, forwardAge: linger, replyAge: 1000}, 1},
		"closed":                            {flowSpec{forwardFlags: fin, replyFlags: fin, forwardAge: linger + 1, replyAge: 1000}, 0},
		"reset by the client":               {flowSpec{forwardFlags: rst, forwardAge: linger + 1, replyAge: 1000}, 0},
		"reset by the backend":              {flowSpec{replyFlags: rst, forwardAge: linger + 1, replyAge: 1000}, 0},
		"backend gone, nobody told":         {flowSpec{generation: 9, forwardAge: linger, replyAge: 1000}, 1},
		"backend gone, and nobody has come": {flowSpec{generation: 9, forwardAge: linger + 1, replyAge: 1000}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			fake := datapath.NewFake(testSizes)
			if err := fake.PutBackend(5, bpf.BlixtBackend{Generation: 12}); err != nil {
				t.Fatal(err)
			}
			c.flow.backend = 5
			if c.flow.generation == 0 {
				c.flow.generation = 12
			}
			addFlow(fake, c.flow)
			entries := len(fake.FlowTable)
			got, err := unfinished(fake, func() uint32 { return testNow })
			if err != nil || got != c.want {
				t.Errorf("%d flows (%v), want %d", got, err, c.want)
			}
			if len(fake.FlowTable) != entries {
				t.Error("counting has removed flows")
			}
		})
	}
}
