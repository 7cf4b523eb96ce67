// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/node/prober"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// healthEvery is how often the operator hears how flows of backends begin, and what checks find.
const healthEvery = time.Second

// judged is what the agent has to do with the health of backends: it observes, checks, and obeys the
// operator, which decides for all nodes.
type judged struct {
	probes *prober.Prober

	// Only the stream uses these.
	checkers  []string
	failovers gateway.Failovers
}

// setEjected has what the operator has decided take effect.
func (a *Agent) setEjected(m *wire.Ejected) {
	a.resolve.Ejected, a.judged.checkers = wire.DecodeEjected(m)
	if a.replica.Version != nil {
		a.replica.resolve(a.resolve)
	}
}

// setChecks has those backends checked that are this node's to check. Which they are does not depend on
// where endpoints are: so all nodes agree.
func (a *Agent) setChecks(ctx context.Context) {
	var u gateway.Unresolved
	for _, f := range a.replica.Unresolved.Frontends {
		if f.Health != nil && f.Health.Active != nil {
			u.Frontends = append(u.Frontends, f)
		}
	}
	var targets []prober.Target
	if len(u.Frontends) > 0 && len(a.judged.checkers) > 0 {
		r := gateway.Resolve(&u, a.replica.Endpoints, gateway.ResolveOptions{Ejected: a.resolve.Ejected})
		for _, t := range prober.Targets(r.State.Frontends) {
			if wire.Checks(a.o.Node, a.judged.checkers, t.Key) {
				targets = append(targets, t)
			}
		}
	}
	a.judged.probes.Set(ctx, targets)
}

// mayGiveBack resolves again if a group of backends has been available for long enough to serve again. It reports
// whether it has.
func (a *Agent) mayGiveBack(now time.Time) bool {
	wake := a.judged.failovers.Wake()
	if a.replica.Version == nil || wake.IsZero() || now.Before(wake) {
		return false
	}
	a.replica.resolve(a.resolve)
	return true
}

// reportHealth has the stream send what the node knows, until ctx ends.
func (a *Agent) reportHealth(ctx context.Context, reports chan<- *wire.Health) {
	tick := time.NewTicker(healthEvery)
	defer tick.Stop()
	told := false // of anything
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		flows, results := a.writer.Health(), a.judged.probes.Results()
		any := len(flows)+len(results) > 0
		if !any && !told {
			continue
		}
		told = any
		for _, m := range wire.EncodeHealth(flows, results) {
			select {
			case reports <- m:
			case <-ctx.Done():
				return
			}
		}
	}
}
