// SPDX-License-Identifier: Apache-2.0

package live

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// only returns the variants that were asked for, and those that say what the generator
// costs.
func (o Options) only(all []wish) (some []wish) {
	for _, w := range all {
		wanted := w.path == pathDrop || len(o.Only) == 0
		for _, prefix := range o.Only {
			wanted = wanted || strings.HasPrefix(w.name(), prefix)
		}
		if wanted && (o.Most == 0 || w.flows <= o.Most) {
			some = append(some, w)
		}
	}
	return some
}

// count remembers what Blixt has counted.
func (b *bench) count() (err error) {
	for _, r := range b.rigs {
		if r.blixt == nil {
			continue
		}
		if r.before, err = r.blixt.Status(); err != nil {
			return err
		}
	}
	return nil
}

// check fails unless all packets have taken the path that their variant names.
func (b *bench) check() error {
	var errs []error
	for _, r := range b.rigs {
		for s, variants := range r.through {
			var sent uint64
			for _, v := range variants {
				sent += v.sent
			}
			// Neighbour discovery may add some.
			got, err := s.packets()
			if err == nil && (got < sent || got > sent+sent/1000+10) {
				err = fmt.Errorf("%s: of %d packets %d have arrived", variants[0].Name, sent, got)
			}
			errs = append(errs, err)
		}
		if r.blixt != nil {
			errs = append(errs, r.checkBlixt())
		}
	}
	return errors.Join(errs...)
}

// checkBlixt compares what Blixt has counted with what was sent.
func (r *rig) checkBlixt() error {
	after, err := r.blixt.Status()
	if err != nil {
		return err
	}
	counts := map[string]uint64{}
	add := func(status lab.Status, sign uint64) {
		for _, f := range status.Frontends {
			counts[f.Frontend] += sign * f.Packets
			counts[f.Frontend+" replies"] += sign * f.ReplyPackets
		}
		for name, n := range status.Counters {
			counts[name] += sign * n
		}
	}
	add(after, 1)
	add(r.before, ^uint64(0))
	wanted := map[string]uint64{}
	for _, variants := range r.through {
		for _, v := range variants {
			key := "not_ours"
			if v.stream.path != pathMiss {
				key = netip.AddrPortFrom(vips[v.Family], map[path]uint16{pathLocal: portLocal, pathRemote: portRemote}[v.stream.path]).String() + "/udp"
				if v.Reply {
					key += " replies"
				}
			}
			wanted[key] += v.sent
		}
	}
	for key, sent := range wanted {
		got := counts[key]
		// What is not ours is counted at both hooks, or at one of them.
		if key == "not_ours" && got >= sent || key != "not_ours" && got == sent {
			continue
		}
		return fmt.Errorf("of %d packets Blixt has counted %d as %q", sent, got, key)
	}
	for name, n := range counts {
		if n > 0 && (strings.HasPrefix(name, "drop_") || strings.HasPrefix(name, "reject_")) {
			return fmt.Errorf("%d packets are counted as %s", n, name)
		}
	}
	return nil
}
