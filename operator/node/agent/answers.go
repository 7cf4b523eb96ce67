// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"

	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/flowlog"
	"github.com/kubernetes-sigs/blixt/operator/node/top"
	"github.com/kubernetes-sigs/blixt/operator/node/trace"
	"github.com/kubernetes-sigs/blixt/operator/observe"
)

// Answerer answers questions to this node.
func (a *Agent) Answerer() observe.Answerer {
	return observe.Answers{
		Flows: a.flows.Flows, Drops: a.flows.Drops,
		// An agent is not in the network of its node, and asks for no routes.
		Trace: trace.Answer(func() (string, trace.Options, error) {
			frontends, _, _ := a.writer.Frontends(0)
			return a.o.MapsDir, trace.Options{Frontends: frontends}, nil
		}),
		Status: top.Answer(func(read func(top.Node) error) error {
			return read(top.Node{Writer: a.writer, Tables: a.o.Tables})
		}),
	}
}

// readRecords remembers the records of flows until ctx ends. Without them the node serves
// as it does with them.
func (a *Agent) readRecords(ctx context.Context) {
	maps, has := a.o.Tables.(datapath.Records)
	if !has { // those of a test
		return
	}
	if err := a.flows.Read(ctx, flowlog.Source{Maps: maps, Frontends: a.writer.Frontends}); err != nil {
		a.o.Log.Error("records of flows are not read", "error", err)
	}
}
