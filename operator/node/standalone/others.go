// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/others"
)

// othersEvery is how often to look for other load balancers and for ports that the
// host has got.
const othersEvery = 10 * time.Second

// watchOthers reconciles when what other load balancers serve changes, and says when
// somebody else has got ports of ours.
func (r *runner) watchOthers(ctx context.Context) {
	for pause(ctx, cmp.Or(r.othersEvery, othersEvery)) {
		if r.lookAtOthers() {
			r.reconcile(ctx)
		}
	}
}

// lookAtOthers reports whether others serve something else than when the last state was made.
func (r *runner) lookAtOthers() bool {
	r.reconciling.Lock()
	defer r.reconciling.Unlock()
	if r.Others != nil {
		// This looks at every interface, which costs in proportion: reconcile asks only those that were found.
		found, err := r.Others.Find()
		r.log.failure("others", err)
		if err != nil {
			return false
		}
		r.others = found
	}
	err := errors.Join(CheckHostPorts(r.SNATPorts), checkOthersPorts(r.loaded.SNATPorts(), r.others))
	if err != nil {
		err = fmt.Errorf("connections may hang: %w", err)
	}
	r.log.failure("ports", err)
	t, err := r.taken()
	return err == nil && !t.equal(r.takenBefore)
}

// taken is what other load balancers on this host serve, and may keep.
type taken struct {
	frontends map[lb.Key]string // the load balancer
	addresses map[netip.Addr]string
}

func (t taken) equal(o taken) bool {
	return maps.Equal(t.frontends, o.frontends) && maps.Equal(t.addresses, o.addresses)
}

// taken returns what others serve. Of what we serve as well, those keep it that were
// loaded first.
func (r *runner) taken() (t taken, err error) {
	t = taken{map[lb.Key]string{}, map[netip.Addr]string{}}
	if len(r.others) == 0 {
		return t, nil
	}
	ours := others.Open(r.loaded.Dir())
	if ours == nil {
		return t, nil
	}
	defer ours.Close()
	frontends, addresses, err := ours.Serves()
	for _, d := range r.others {
		theirs, alone, e := d.Serves()
		err = errors.Join(err, e)
		first := d.ID() < ours.ID()
		for k := range theirs {
			if first || !frontends[k] {
				t.frontends[k] = d.String()
			}
		}
		for a := range alone {
			if first || !addresses[a] {
				t.addresses[a] = d.String()
			}
		}
	}
	return t, err
}

// withoutTaken returns the state without what another load balancer on this host
// serves: who has it keeps it. Our program is in front of theirs, so without this it
// would take over their clients, or reject them. What is left out is said once.
func (r *runner) withoutTaken(s lb.State) lb.State {
	t, err := r.taken()
	r.log.failure("what others serve", err)
	r.takenBefore = t
	if len(t.frontends)+len(t.addresses) == 0 {
		r.log.each("taken", slog.LevelWarn, nil)
		return s
	}
	var lines []string
	left := s
	left.Addresses, left.Frontends = slices.Clone(s.Addresses), nil
	for _, f := range s.Frontends {
		by := cmp.Or(t.frontends[f.Key()], t.addresses[f.Addr])
		if by == "" {
			left.Frontends = append(left.Frontends, f)
			continue
		}
		lines = append(lines, fmt.Sprintf("%s of Gateway %s is not served: another load balancer on this host (%s) has it. Stop that one, or use another address or port", f.Key(), f.Gateway, by))
	}
	left.Addresses = slices.DeleteFunc(left.Addresses, func(a lb.Address) bool {
		return t.addresses[a.IP] != "" || !slices.ContainsFunc(left.Frontends, func(f lb.Frontend) bool { return f.Addr == a.IP })
	})
	r.log.each("taken", slog.LevelWarn, lines)
	return left
}
