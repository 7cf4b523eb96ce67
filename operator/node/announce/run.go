// SPDX-License-Identifier: Apache-2.0

package announce

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Limits of probes, so that thousands of nodes cost little.
const (
	// probeEvery is the time between two probes: 200 a second. 1,000 nodes in four
	// forms take 20 s; what is due waits.
	probeEvery = 5 * time.Millisecond
	// probesAtOnce is below MAX_PROBES, of which an agent that was killed may have
	// left some.
	probesAtOnce = 128
	// changedEvery is the least time between two calls of Options.Changed, after which
	// flags of all backends are looked at.
	changedEvery = 250 * time.Millisecond
	// checkEvery is how often the maps are compared with the settings, and how often
	// it is logged who does not answer.
	checkEvery = time.Minute
)

// Probe sends a probe of one form to the node that has an endpoint, and waits for the
// answer. It returns an error if it could not be sent.
type Probe func(ctx context.Context, form lb.Forms, to netip.AddrPort) (answered bool, roundTrip time.Duration, err error)

// Run probes, and repairs the maps, until ctx ends. It works from what Set and
// SetState have told last, also while nobody tells anything new.
func (a *Announcer) Run(ctx context.Context) {
	a.clearProbes()
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { a.check(ctx) })
	all.Go(func() { a.tell(ctx) })
	free := make(chan struct{}, probesAtOnce)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-a.wake:
		}
		i, to, next := a.take()
		switch {
		case i == nil && next.IsZero():
			timer.Reset(time.Hour) // or until something wakes us
			continue
		case i == nil:
			timer.Reset(time.Until(next))
			continue
		}
		select {
		case free <- struct{}{}:
		case <-ctx.Done():
			return
		}
		all.Go(func() {
			a.probe(ctx, i, to)
			<-free
		})
		time.Sleep(probeEvery)
		timer.Reset(0) // the next one may be due
	}
}

func (a *Announcer) take() (*item, netip.AddrPort, time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.schedule.take(time.Now())
}

// probe probes one pair.
func (a *Announcer) probe(ctx context.Context, i *item, to netip.AddrPort) {
	answered, roundTrip, err := a.o.Probe(ctx, i.form, to)
	if ctx.Err() != nil {
		return
	}
	a.writing.Lock()
	a.logOnce(err != nil, "probe", "cannot probe other nodes", "error", err)
	a.writing.Unlock()
	a.mu.Lock()
	changed := a.schedule.result(i, time.Now(), answered, roundTrip, err)
	now := stateNames[i.state]
	a.mu.Unlock()
	if changed {
		a.o.Log.Debug("probes of another node", "node", i.node, "form", i.form.String(), "state", now)
		select {
		case a.changed <- struct{}{}:
		default:
		}
	}
	a.wakeUp()
}

// tell calls Changed after states of pairs have changed, which many may do at a time.
func (a *Announcer) tell(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.changed:
		}
		a.o.Changed()
		select {
		case <-ctx.Done():
			return
		case <-time.After(changedEvery):
		}
	}
}

// failing returns the names of nodes that do not answer in some form, in order.
func (a *Announcer) failing() []string {
	a.mu.RLock()
	defer a.mu.RUnlock()
	nodes := map[string]bool{}
	for _, i := range a.schedule.items {
		if i.endpoints != nil && i.state == bad {
			nodes[i.node] = true
		}
	}
	return slices.Sorted(maps.Keys(nodes))
}

// logFailing logs which nodes do not answer, unless it is as it was.
func (a *Announcer) logFailing(before []string) []string {
	now := a.failing()
	switch {
	case slices.Equal(before, now):
	case len(now) == 0:
		a.o.Log.Info("all other nodes answer probes")
	default:
		a.o.Log.Warn("some nodes do not answer probes of how clients are announced: their backends may see this node's address", "nodes", len(now), "examples", now[:min(len(now), 3)])
	}
	return now
}

// check repairs the maps at intervals: a write may have failed, and others may have
// written.
func (a *Announcer) check(ctx context.Context) {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	var failing []string
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		failing = a.logFailing(failing)
		a.mu.Lock()
		set := a.set
		a.rebuild(time.Now()) // forgets what was not used for long
		a.mu.Unlock()
		if !set {
			continue
		}
		err := a.writeMaps()
		a.writing.Lock()
		a.logOnce(err != nil, "maps", "cannot write how clients are announced", "error", err)
		a.writing.Unlock()
	}
}

// clearProbes removes what an earlier process has left.
func (a *Announcer) clearProbes() {
	if !a.tables.Announces() {
		return
	}
	keys, err := a.tables.Probes()
	for _, k := range keys {
		if err == nil {
			err = a.tables.DeleteProbe(k)
		}
	}
	if err != nil {
		a.o.Log.Warn("cannot remove old probes", "error", err)
	}
}
