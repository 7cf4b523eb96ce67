// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"cmp"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/node/writer"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// Report is what is known of the agent of an application on a node.
type Report struct {
	Node, Application string
	Pod               string // namespace/name
	// Connected is false for an agent that has left: the kernel goes on
	// serving what the report says.
	Connected   bool
	LastContact time.Time
	Kernel      string
	Layout      int
	// Version and StateHash are what the maps hold, and AckedAt is when the
	// operator heard of it first.
	Version             writer.Version
	AckedAt             time.Time
	StateHash           string
	Frontends, Backends int
	// Flows at the last count; while draining, those that would break without
	// the application.
	Flows    uint64
	Draining bool
	// SNAT are the source ports that the program uses.
	SNAT writer.PortRange
	// PacketsSeenAt is when the program was last known to see packets.
	PacketsSeenAt time.Time
	// HeartbeatLost says that it has seen none, at ingress or at egress, for
	// too long: a link is missing, or the program.
	HeartbeatLost bool
	// Error says why the maps do not hold the newest version that the agent
	// has, such as a table that is full.
	Error string
	// Drift says that another writer changed the maps, and when.
	Drift  string
	Tables map[string]writer.Use
}

// read takes over what an agent says. old is what was known of it, or nil.
func (r *Report) read(st *wire.Status, now time.Time, old *Report) {
	r.LastContact, r.AckedAt = now, now
	r.Version = writer.Version{Epoch: st.Holds.GetEpoch(), Sequence: st.Holds.GetSequence()}
	if old != nil && old.Version == r.Version {
		r.AckedAt = old.AckedAt
	}
	r.StateHash = clip(st.StateHash)
	r.Frontends, r.Backends, r.Flows = int(st.Frontends), int(st.Backends), st.Flows
	r.Draining, r.SNAT = st.Draining, writer.PortRange{Min: uint16(st.Snat.GetMin()), Max: uint16(st.Snat.GetMax())}
	r.PacketsSeenAt = now.Add(-time.Duration(min(st.PacketsAge, uint64(maxAge/time.Millisecond))) * time.Millisecond)
	r.HeartbeatLost, r.Error, r.Drift = st.HeartbeatLost, clip(st.Error), clip(st.Drift)
	r.Tables = make(map[string]writer.Use, len(st.Tables))
	for name, use := range st.Tables {
		if len(r.Tables) < maxTables {
			r.Tables[clip(name)] = writer.Use{Used: int(use.GetUsed()), Size: int(use.GetSize())}
		}
	}
}

// Limits of what an agent can say.
const (
	maxText   = 1000
	maxTables = 32
	maxAge    = 10 * 365 * 24 * time.Hour
)

// clip keeps what is stored of an agent's words short.
func clip(text string) string {
	if len(text) <= maxText {
		return text
	}
	return strings.ToValidUTF8(text[:maxText], "") + "…"
}

// same tells whether nothing differs that somebody would want to know at once.
func (r Report) same(o Report) bool {
	for _, v := range []*Report{&r, &o} {
		v.LastContact, v.PacketsSeenAt, v.Flows, v.Tables = time.Time{}, time.Time{}, 0, nil
	}
	return reflect.DeepEqual(r, o)
}

// Reports returns what is known of each agent of the nodes and applications
// that there are, sorted by node and application. Those that never came are
// not there.
func (s *Server) Reports() []Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Report, 0, len(s.reports))
	for _, r := range s.reports {
		all = append(all, *r)
	}
	slices.SortFunc(all, func(a, b Report) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Application, b.Application))
	})
	return all
}

// Changed has a value after reports have changed, one for many changes. That
// time has passed, flows have come or tables have filled, is none.
func (s *Server) Changed() <-chan struct{} { return s.changed }

func (s *Server) tell() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}
