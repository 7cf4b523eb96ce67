// SPDX-License-Identifier: Apache-2.0

package page

import (
	"math"
	"unicode/utf8"

	"github.com/kubernetes-sigs/blixt/operator/node/top"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// What a node may report at most. More is a mistake, or an attack: sums of it would overflow,
// and one number that is none would leave all readers without a page.
const (
	mostCounted  = 1 << 50 // flows
	mostMoved    = 1 << 62 // packets and bytes
	mostWeight   = 1e9
	mostSeconds  = 1e12
	longestName  = 600 // bytes: kind/namespace/name have 2*253 and some
	mostCounters = 1000
)

// sane returns the sample with reports that are sane.
func (s *Sample) sane() *Sample {
	out := *s
	out.Reports = make(map[string]top.Report, len(s.Reports))
	for node, r := range s.Reports {
		out.Reports[node] = sane(r)
	}
	return &out
}

// sane returns a report of which every number can be added up and shown, and no name is
// larger than any has to be.
func sane(r top.Report) top.Report {
	frontends := make([]writer.FrontendStatus, len(r.Frontends))
	for i, f := range r.Frontends {
		for _, name := range []*string{&f.Frontend, &f.Gateway, &f.Listener, &f.Route} {
			*name = clip(*name)
		}
		f.RejectShare = share(f.RejectShare)
		f.NewFlows, f.ActiveFlows, f.Rejected = min(f.NewFlows, mostCounted), min(f.ActiveFlows, mostCounted), min(f.Rejected, mostCounted)
		f.Packets, f.Bytes = min(f.Packets, mostMoved), min(f.Bytes, mostMoved)
		f.ReplyPackets, f.ReplyBytes = min(f.ReplyPackets, mostMoved), min(f.ReplyBytes, mostMoved)
		f.MoreBackends = max(f.MoreBackends, 0)
		f.Backends, f.Services = saneBackends(f.Backends), saneServices(f.Services)
		frontends[i] = f
	}
	r.Frontends = frontends
	if r.Totals != nil {
		t := *r.Totals
		t.Frontends, t.Backends, t.Refusing = max(t.Frontends, 0), max(t.Backends, 0), max(t.Refusing, 0)
		t.NewFlows, t.ActiveFlows, t.Rejected = min(t.NewFlows, mostCounted), min(t.ActiveFlows, mostCounted), min(t.Rejected, mostCounted)
		r.Totals = &t
	}
	refs := make([]top.Ref, len(r.Refs))
	for i, ref := range r.Refs {
		for _, name := range []*string{&ref.Gateway, &ref.Route, &ref.Service, &ref.Protocol} {
			*name = clip(*name)
		}
		ref.Flows, ref.Refused, ref.Unanswered = min(ref.Flows, mostCounted), min(ref.Refused, mostCounted), min(ref.Unanswered, mostCounted)
		ref.ConnectSum = between(ref.ConnectSum, mostSeconds)
		connects := make([]uint64, len(ref.Connects))
		for k, n := range ref.Connects {
			connects[k] = min(n, mostCounted)
		}
		ref.Connects = connects
		refs[i] = ref
	}
	r.Refs = refs
	counters := make(map[string]uint64, len(r.Counters))
	for name, n := range r.Counters {
		if len(name) <= longestName && len(counters) < mostCounters {
			counters[name] = min(n, mostMoved)
		}
	}
	r.Counters = counters
	return r
}

func saneBackends(all []writer.BackendStatus) []writer.BackendStatus {
	out := make([]writer.BackendStatus, len(all))
	for i, b := range all {
		b.Address, b.Service, b.State = clip(b.Address), clip(b.Service), clip(b.State)
		b.Weight, b.RingShare = between(b.Weight, mostWeight), share(b.RingShare)
		b.NewFlows, b.ActiveFlows = min(b.NewFlows, mostCounted), min(b.ActiveFlows, mostCounted)
		out[i] = b
	}
	return out
}

func saneServices(all []writer.ServiceStatus) []writer.ServiceStatus {
	if all == nil { // a node of an earlier version says nothing
		return nil
	}
	out := make([]writer.ServiceStatus, len(all))
	for i, s := range all {
		s.Service, s.RingShare = clip(s.Service), share(s.RingShare)
		s.Ready, s.Draining = max(s.Ready, 0), max(s.Draining, 0)
		s.NewFlows, s.ActiveFlows = min(s.NewFlows, mostCounted), min(s.ActiveFlows, mostCounted)
		out[i] = s
	}
	return out
}

// between returns a number from 0 to most; 0 for what is no number.
func between(f, most float64) float64 {
	if math.IsNaN(f) {
		return 0
	}
	return min(max(f, 0), most)
}

func share(f float64) float64 { return between(f, 1) }

// clip returns the beginning of a name that is too long.
func clip(name string) string {
	if len(name) <= longestName {
		return name
	}
	end := longestName
	for end > 0 && !utf8.RuneStart(name[end]) {
		end--
	}
	return name[:end] + "…"
}

// keepShares has shares that nodes do not agree on stay from 0 to 1.
func (v *View) keepShares() {
	for g := range v.Gateways {
		for l := range v.Gateways[g].Listeners {
			of := &v.Gateways[g].Listeners[l]
			of.RejectShare = share(of.RejectShare)
			for s := range of.Services {
				service := &of.Services[s]
				service.Wanted, service.Seen = share(service.Wanted), share(service.Seen)
				for b := range service.Backends {
					one := &service.Backends[b]
					one.Wanted, one.Seen = share(one.Wanted), share(one.Seen)
				}
			}
		}
	}
}
