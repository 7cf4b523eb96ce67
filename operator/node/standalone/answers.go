// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"

	"github.com/kubernetes-sigs/blixt/operator/node/flowlog"
	"github.com/kubernetes-sigs/blixt/operator/node/metrics"
	"github.com/kubernetes-sigs/blixt/operator/node/top"
	"github.com/kubernetes-sigs/blixt/operator/node/trace"
	"github.com/kubernetes-sigs/blixt/operator/observe"
)

// answers answers questions to this host.
func (r *runner) answers() observe.Answerer {
	return observe.Answers{
		Flows: r.flows.Flows, Drops: r.flows.Drops,
		Trace: trace.Answer(func() (dir string, o trace.Options, err error) {
			p := r.ours.Load()
			if p == nil {
				return "", o, errNothingServed
			}
			o.Frontends, _, _ = p.writer.Frontends(0)
			o.Network, err = trace.NewHost()
			return p.dir, o, err
		}),
		Status: top.Answer(func(read func(top.Node) error) error {
			err := errNothingServed
			failed := r.readMaps(func(d metrics.DataPlane) error {
				err = read(top.Node{Writer: d.Writer, Tables: d.Tables})
				return nil
			})
			return cmp.Or(failed, err)
		}),
	}
}

var errNothingServed = errors.New("nothing is served yet")

// newFlowLog returns the memory of flows, which outlives programs.
func newFlowLog(o Options) *flowlog.Log {
	return flowlog.New(flowlog.Options{Node: o.NodeName, Lines: o.FlowLines, Interface: interfaceNames(), Log: slog.Default()})
}

// interfaceNames returns a function that returns the name of an interface, and remembers
// those that are gone.
func interfaceNames() func(index uint32) string {
	var mu sync.Mutex
	known := map[uint32]string{}
	return func(index uint32) string {
		mu.Lock()
		defer mu.Unlock()
		name, is := known[index]
		if !is {
			if i, err := net.InterfaceByIndex(int(index)); err == nil {
				name = i.Name
				known[index] = name
			}
		}
		return name
	}
}

// readRecords remembers the records of a plane's flows until ctx ends. Without them the
// host serves as it does with them.
func (p *plane) readRecords(ctx context.Context) {
	if p.flows == nil {
		return
	}
	if err := p.flows.Read(ctx, flowlog.Source{Maps: p.tables, Frontends: p.writer.Frontends}); err != nil {
		slog.Error("records of flows are not read", "maps", p.dir, "error", err)
	}
}

// writeFlows writes lines for flows until the function that it returns is called: longer
// than anything serves.
func (r *runner) writeFlows() (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { r.flows.Run(ctx) })
	return func() {
		cancel()
		done.Wait()
	}
}
