// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"

	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/flowlog"
	"github.com/kubernetes-sigs/blixt/operator/observe"
)

// Answerer answers questions to this node.
func (a *Agent) Answerer() observe.Answerer {
	return observe.Answers{Flows: a.flows.Flows, Drops: a.flows.Drops}
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
