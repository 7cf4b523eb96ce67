// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/manifest"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// desired is what the files and the host's network ask for.
type desired struct {
	state    lb.State
	problems []gateway.Problem
	ignored  []manifest.Object
}

// read turns the files into a state. It returns manifest.Errors if one of them is
// invalid; what is served should then stay as it is.
func (r *runner) read(n *network) (*desired, error) {
	set, err := manifest.Read(r.Dir)
	if err != nil {
		return nil, err
	}
	own := r.vips.own(n.addresses)
	t := gateway.Translate(set.Objects, gateway.Options{
		HostAddresses:    own,
		DefaultAddresses: r.defaultAddresses(n, own),
		ReservedPorts:    gateway.StandaloneReservedPorts(),
		Incumbents:       r.incumbents,
		LastGood:         r.lastGood,
	})
	r.incumbents, r.lastGood = &t.Incumbents, t.LastGood
	endpoints := gateway.IndexEndpoints(set.EndpointSlices, nil)
	res := gateway.Resolve(&t.Unresolved, endpoints, gateway.ResolveOptions{
		NodeName:      r.NodeName,
		HostAddresses: own,
	})
	return &desired{
		state:    res.State,
		problems: slices.Concat(t.Problems(), res.Problems(), gateway.Unserved(t.Frontends, endpoints)),
		ignored:  set.Ignored,
	}, nil
}

// defaultAddresses returns the addresses for Gateways that ask for none: those of
// interfaces with a default route, or else all of the host.
func (r *runner) defaultAddresses(n *network, own []netip.Addr) []netip.Addr {
	if primary := r.vips.own(n.primary); len(primary) > 0 {
		return primary
	}
	return own
}

// reconcile reads the network and the files and makes the kernel serve them. Each
// problem is logged once; the last good configuration goes on serving.
func (r *runner) reconcile(ctx context.Context) {
	r.reconciling.Lock()
	defer r.reconciling.Unlock()
	if ctx.Err() != nil {
		return
	}
	n, err := readNetwork(r.Interfaces)
	r.log.failure("network", err)
	if err != nil {
		return
	}
	r.interfaces = n.interfaces
	r.log.failure("attach", r.loaded.SetInterfaces(n.interfaces))
	for _, w := range n.warnings() {
		r.log.once(w, slog.LevelWarn, w)
	}

	d, err := r.read(n)
	if err != nil {
		r.log.failure("files", fmt.Errorf("the last good configuration goes on serving:\n%w", err))
		return
	}
	r.log.failure("files", nil)
	r.logProblems(d)
	r.log.failure("assign", r.vips.assign(d.state.Addresses, n))
	backends := 0
	for _, f := range d.state.Frontends {
		backends += len(f.Backends)
	}
	r.frontends.Store(int64(len(d.state.Frontends)))
	r.backends.Store(int64(backends))
	r.send(ctx, d.state)
}

// applied is called by the writer of our program after each state that it has tried
// to write. It must not lock r.reconciling: reconcile may be waiting for the writer.
func (r *runner) applied(result writer.Result, err error) {
	if err != nil {
		r.log.failure("apply", fmt.Errorf("the last good configuration goes on serving: %w", err))
		return
	}
	r.log.failure("apply", nil)
	if !result.Done {
		return
	}
	r.log.failure("tables", leftOut(result.LeftOut))
	select {
	case <-r.ready:
	default:
		close(r.ready)
		result.Changed = true // so that the first state is logged even if the maps held it
	}
	if result.Changed {
		slog.Info("serving", "frontends", r.frontends.Load(), "backends", r.backends.Load(), "state", result.StateHash, "took", result.Duration.Round(100*time.Microsecond))
	}
}

// leftOut returns an error for what does not fit, nil for nil.
func leftOut(full *lb.TableFull) error {
	if full == nil {
		return nil
	}
	return fmt.Errorf("not all fits: %s. Serve less, or use bytecode with a larger table", full)
}

// logProblems logs what is wrong with objects, each problem once while it lasts.
func (r *runner) logProblems(d *desired) {
	var lines []string
	for _, p := range d.problems {
		lines = append(lines, p.Object+": "+p.Message)
	}
	r.log.each("problem", slog.LevelWarn, lines)
	lines = nil
	for _, o := range d.ignored {
		lines = append(lines, fmt.Sprintf("%s:%d: %s is ignored: Blixt does not read this kind", o.File, o.Line, o))
	}
	r.log.each("ignored", slog.LevelInfo, lines)
}
