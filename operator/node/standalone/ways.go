// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/hostnet"
)

const (
	// waysEvery is how often to look up the ways to backends: not every route's change
	// is an event.
	waysEvery = 10 * time.Second
	// waysAtOnce is how many are looked up then. It takes about 5 ms.
	waysAtOnce = 1000
)

// ways knows what is wrong with the ways to backends on other machines.
type ways struct {
	// next is the backend to begin with.
	next int
	// faults are what was wrong last, by backend.
	faults map[netip.Addr]fault
	// example is the backend that a fault's message names, as long as it has that.
	example map[fault]netip.Addr
}

// fault is what is wrong with a way.
type fault struct {
	// unreachable is the error of the kernel, nil: there is a way.
	unreachable error
	// elsewhere is the interface by which answers come in, without the program; with
	// unreachable it is the VRF in which there is a way.
	elsewhere string
}

// watchWays logs what is wrong with the ways to backends: a second after a change, and
// now and then.
func (r *runner) watchWays(ctx context.Context) {
	w := ways{}
	var state *lb.State
	var network *hostnet.Snapshot
	var last time.Time
	for pause(ctx, time.Second) {
		r.reconciling.Lock()
		changed := state != r.paths.wanted || network != r.seen
		state, network = r.paths.wanted, r.seen
		attached := r.interfaces
		r.reconciling.Unlock()
		if state == nil || !changed && time.Since(last) < waysEvery {
			continue
		}
		last = time.Now()
		lines, err := w.look(remote(state), network, attached)
		r.log.failure("look up ways to backends", err)
		r.log.each("way", slog.LevelWarn, lines)
	}
}

// remote returns the addresses of backends on other machines.
func remote(state *lb.State) (addresses []netip.Addr) {
	for _, f := range state.Frontends {
		for _, b := range f.Backends {
			if !b.Local {
				addresses = append(addresses, b.Addr.Addr())
			}
		}
	}
	slices.SortFunc(addresses, netip.Addr.Compare)
	return slices.Compact(addresses)
}

// look looks up the ways to some of the backends, the next ones the next time. It returns
// a message for each fault that one of them has.
func (w *ways) look(backends []netip.Addr, s *hostnet.Snapshot, attached []hostnet.Interface) ([]string, error) {
	kernel, err := hostnet.NewWays()
	if err != nil {
		return nil, err
	}
	defer kernel.Close()
	before := w.faults
	w.faults = map[netip.Addr]fault{}
	for i, b := range backends {
		since := i - w.next
		if since < 0 {
			since += len(backends)
		}
		f, known := before[b]
		if since < waysAtOnce {
			f, known = findFault(kernel.Find, b, s, attached)
		}
		if known {
			w.faults[b] = f
		}
	}
	w.next += waysAtOnce
	if w.next >= len(backends) {
		w.next = 0
	}
	return w.messages(), nil
}

// messages returns a message for each fault. It names the same backend as long as that
// has the fault: another message would be news.
func (w *ways) messages() (lines []string) {
	example := map[fault]netip.Addr{}
	for b, f := range w.faults {
		if e, is := example[f]; !is || b == w.example[f] || e != w.example[f] && b.Less(e) {
			example[f] = b
		}
	}
	w.example = example
	for f, b := range example {
		lines = append(lines, f.message(b))
	}
	slices.Sort(lines)
	return lines
}

func (f fault) message(b netip.Addr) string {
	switch {
	case f.unreachable == nil:
		return fmt.Sprintf("answers of backends such as %s come in by interface %s, which does not have the program: clients do not get them; name it with --interface", b, f.elsewhere)
	case f.elsewhere != "":
		return fmt.Sprintf("backends such as %s are reached in VRF %s only (%v outside): they serve only clients whose packets come in there", b, f.elsewhere, f.unreachable)
	}
	return fmt.Sprintf("backends such as %s cannot be reached: %v; see ip route get %s", b, f.unreachable, b)
}

// findFault returns what is wrong with the way to a backend. find is that of
// hostnet.Ways.
func findFault(find func(netip.Addr, int) (hostnet.Way, error), b netip.Addr, s *hostnet.Snapshot, attached []hostnet.Interface) (f fault, wrong bool) {
	way, err := find(b, 0)
	if err == nil {
		i, there := s.ByIndex(way.Index) // it is new, or gone, if it is not there
		return fault{elsewhere: i.Name}, there && !way.Local && !covered(i, attached)
	}
	for _, vrf := range s.Interfaces {
		if vrf.Kind != "vrf" {
			continue
		}
		if _, failed := find(b, vrf.Index); failed == nil {
			return fault{err, vrf.Name}, true
		}
	}
	return fault{unreachable: err}, true
}

// covered reports whether the program sees what comes in by an interface: it is attached
// there, to the interface below, or to the ports.
func covered(i hostnet.Interface, attached []hostnet.Interface) bool {
	return slices.ContainsFunc(attached, func(a hostnet.Interface) bool {
		return a.Index == i.Index || a.Index == i.Parent || a.Master == i.Index
	})
}
