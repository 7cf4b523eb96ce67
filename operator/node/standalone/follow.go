// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"context"
	"log/slog"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/node/hostnet"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// attach looks at the network and attaches the program to its interfaces. It returns
// nil if the network cannot be read. The caller holds r.reconciling.
func (r *runner) attach() *network {
	n, err := r.network.look()
	r.log.failure("network", err)
	if err != nil {
		return nil
	}
	if !n.Until.IsZero() {
		r.forget.Reset(time.Until(n.Until))
	}
	err = r.loaded.SetInterfaces(n.interfaces)
	r.log.failure("attach", err)
	if err == nil {
		r.setEgressLinks(n)
	}
	logInterfaces(r.interfaces, n.interfaces)
	r.interfaces, r.seen = n.interfaces, n.Snapshot
	r.log.each("interface", slog.LevelWarn, n.remarks())
	if r.findPeers(n) {
		r.setPeering()
	}
	return n
}

// logInterfaces logs where the program is to be, if that is not where it was.
func logInterfaces(before, now []hostnet.Interface) {
	added, removed := without(now, before), without(before, now)
	if len(added)+len(removed) > 0 {
		slog.Info("interfaces have the program", "added", phrase.Sample(added), "removed", phrase.Sample(removed), "interfaces", len(now))
	}
}

// without returns the names of those of all interfaces that are not among the others.
func without(all, others []hostnet.Interface) (names []string) {
	other := map[string]bool{}
	for _, i := range others {
		other[i.Name] = true
	}
	for _, i := range all {
		if !other[i.Name] {
			names = append(names, i.Name)
		}
	}
	return names
}

// followNetwork makes the kernel serve what the network asks for now. If it is only
// about interfaces, the files are not read: containers come and go.
func (r *runner) followNetwork(ctx context.Context) {
	if r.sameAddresses(ctx) {
		return
	}
	r.reconcile(ctx)
}

// sameAddresses attaches the program, and reports whether all addresses are as they
// were when the last state was made.
func (r *runner) sameAddresses(ctx context.Context) bool {
	r.reconciling.Lock()
	defer r.reconciling.Unlock()
	if ctx.Err() != nil {
		return true
	}
	n := r.attach()
	if n == nil || !n.SameAddresses(r.served) {
		return n == nil
	}
	// What else the kernel has removed with an interface is added again.
	r.log.failure("assign", r.vips.Follow(n.View))
	return true
}
