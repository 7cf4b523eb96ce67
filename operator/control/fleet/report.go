// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"cmp"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// readStatus copies an agent's status into its report. old is the agent's
// previous report, or nil.
func readStatus(r *lb.Report, st *wire.Status, now time.Time, old *lb.Report) {
	r.LastContact, r.AckedAt = now, now
	r.Version = lb.Version{Epoch: st.Holds.GetEpoch(), Sequence: st.Holds.GetSequence()}
	if old != nil && old.Version == r.Version {
		r.AckedAt = old.AckedAt
	}
	r.StateHash = clip(st.StateHash)
	r.Frontends, r.Backends, r.Flows = count(uint64(st.Frontends)), count(uint64(st.Backends)), min(st.Flows, math.MaxInt64)
	r.Draining, r.SNAT = st.Draining, lb.PortRange{First: uint16(st.Snat.GetMin()), Last: uint16(st.Snat.GetMax())}
	ago := func(age uint64) time.Time {
		return now.Add(-time.Duration(min(age, uint64(maxAge/time.Millisecond))) * time.Millisecond)
	}
	r.PacketsSeenAt, r.AnsweredElsewhereAt = ago(st.PacketsAge), time.Time{}
	if st.ElsewhereAge != nil {
		r.AnsweredElsewhereAt = ago(*st.ElsewhereAge)
	}
	r.HeartbeatLost, r.Error, r.Drift = st.HeartbeatLost, clip(st.Error), clip(st.Drift)
	r.TableFull = nil
	if f := st.TableFull; f != nil {
		r.TableFull = &lb.TableFull{
			Table: clip(f.Table), Size: count(f.Size), Needed: count(f.Needed),
			Frontends: count(f.Frontends), Reduced: count(f.Reduced), Gateways: f.Gateways,
			PolicyTable: clip(f.PolicyTable), Policies: f.Policies, Refusing: count(f.Refusing),
		}
		for _, text := range f.Examples[:min(lb.MaxExamples, len(f.Examples))] {
			r.TableFull.Examples = append(r.TableFull.Examples, clip(text))
		}
	}
	r.HostListens = readKeys(st.HostListens)
	r.Announcing = readAnnouncing(st.Announcing)
	r.Tables = make(map[string]lb.Use, len(st.Tables))
	for name, use := range st.Tables {
		if len(r.Tables) < maxTables {
			r.Tables[clip(name)] = lb.Use{Used: count(use.GetUsed()), Size: count(use.GetSize())}
		}
	}
}

// readKeys returns the keys that are valid, sorted, and no more than
// lb.MaxHostListens.
func readKeys(list []*wire.Key) (keys []lb.Key) {
	for _, k := range list[:min(len(list), lb.MaxHostListens)] {
		d := &wire.Decoder{}
		if key := d.Key(k); d.Err == nil {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, lb.Key.Compare)
	return slices.Compact(keys)
}

// count is a number of things as a status can have it: the API server would refuse
// one that is too large, or negative.
func count(n uint64) int { return int(min(n, math.MaxInt32)) }

// Limits of what is stored of a status.
const (
	maxText   = 1000
	maxTables = 32
	maxAge    = 10 * 365 * 24 * time.Hour
)

// clip limits a text to maxText bytes.
func clip(text string) string {
	if len(text) <= maxText {
		return text
	}
	return strings.ToValidUTF8(text[:maxText], "") + "…"
}

// sameReport reports whether a and b are equal, apart from the fields that
// change constantly: whoever waits for changes is not woken for those.
func sameReport(a, b lb.Report) bool {
	for _, r := range []*lb.Report{&a, &b} {
		r.LastContact, r.PacketsSeenAt, r.AnsweredElsewhereAt, r.Flows, r.Tables = time.Time{}, time.Time{}, time.Time{}, 0, nil
		r.Announcing = withoutCounts(r.Announcing)
	}
	return reflect.DeepEqual(a, b)
}

// Reports returns the report of each agent that has joined and whose node and
// application still exist, sorted by node and application.
func (s *Server) Reports() []lb.Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]lb.Report, 0, len(s.reports))
	for _, r := range s.reports {
		report := *r
		s.completeReport(&report)
		all = append(all, report)
	}
	slices.SortFunc(all, func(a, b lb.Report) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Application, b.Application))
	})
	return all
}

// Changed receives a value after reports have changed: one value for any number
// of changes. Changes of times, flows and tables' use do not count.
func (s *Server) Changed() <-chan struct{} { return s.changed }

func (s *Server) notify() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}
