// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"maps"
	"slices"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Hearing is which messages that announce clients get to a backend's node: see
// bpf/announce.h.
type Hearing struct {
	// Within are those in a flow's first packet.
	Within bool
	// Alone are those that are packets of their own.
	Alone bool
}

// Hears returns what gets to the node of a backend, by the protocol of its
// frontend. known is false if nobody has found out yet: then the tables keep what
// they have.
type Hears func(lb.Protocol, lb.Backend) (h Hearing, known bool)

const hearingFlags = BackendHearsWithin | BackendHearsAlone

// flags returns the flags of a backend that stand for h.
func (h Hearing) flags() (flags uint16) {
	if h.Within {
		flags |= BackendHearsWithin
	}
	if h.Alone {
		flags |= BackendHearsAlone
	}
	return flags
}

// HearingOf returns the reverse.
func HearingOf(flags uint16) Hearing {
	return Hearing{Within: flags&BackendHearsWithin != 0, Alone: flags&BackendHearsAlone != 0}
}

// SetHears sets what decides on Hearing; nil: no backend hears. HearsChanged tells
// when it decides otherwise.
func (t *Target) SetHears(f Hears) {
	t.hears = f
	t.HearsChanged()
}

// HearsChanged has the next plan look at the flags of all backends that a decision of
// Hears concerns.
func (t *Target) HearsChanged() { t.staleFlags = true }

// flagsOf returns the flags that a backend is to have, instead of those that it has.
func (t *Target) flagsOf(f *lb.Frontend, b lb.Backend, have uint16) uint16 {
	flags := backendFlags(b) | healthFlags(f, &b)
	// The host's own NAT chooses the source of what passes through its stack, so
	// nobody could tell whose packets these are.
	if !f.PreserveClient || b.Local || b.ThroughStack || t.hears == nil {
		return flags
	}
	h, known := t.hears(f.Protocol, b)
	if !known {
		return flags | have&hearingFlags
	}
	return flags | h.flags()
}

// hearing plans the flags of backends of frontends that are not planned otherwise.
func (p *planner) hearing() {
	for _, key := range slices.SortedFunc(maps.Keys(p.have.Frontends), lb.Key.Compare) {
		s := p.have.Frontends[key]
		if s.Source == nil || !s.Source.PreserveClient || p.plan.served[key] != nil {
			continue
		}
		if _, wanted := p.target.frontends[key]; !wanted {
			continue
		}
		for _, b := range s.Source.Backends {
			p.change(s.IDs[keyOf(b)], s.Source, b)
		}
	}
}
