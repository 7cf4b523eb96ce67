// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// connecting are the ports from which Blixt and its host connect, unless they are told otherwise.
// At the host's own addresses a listener can have one of them, and a range none.
var connecting = []gateway.ReservedRange{
	{First: lb.DefaultSNATPorts.First, Last: lb.DefaultSNATPorts.Last, Use: "connections to servers (--snat-ports)"},
	{First: 32768, Last: 60999, Use: "connections that the host begins (net.ipv4.ip_local_port_range)"},
}

// meets returns the first of the reserved ranges with a port of the frontend, or nil.
func (f *Frontend) meets(reserved []gateway.ReservedRange) *gateway.ReservedRange {
	i := slices.IndexFunc(reserved, func(r gateway.ReservedRange) bool {
		return (r.Protocol == 0 || strings.EqualFold(r.Protocol.String(), string(f.Protocol))) && r.First <= max(f.Port, f.EndPort) && f.Port <= r.Last
	})
	if i < 0 {
		return nil
	}
	return &reserved[i]
}

// reserved reports whether the host needs ports of a frontend at all of its addresses.
func (b *builder) reserved(f *Frontend) bool {
	if len(f.Addresses) > 0 || !b.options.WriteClass {
		return false
	}
	if r := f.meets(gateway.StandaloneReservedPorts()); r != nil {
		f.Note(f.Place, Lost, "%s is not served: at the host's own addresses %s is for %s: give it an address of its own", f.title(), r, r.Use)
		return true
	}
	if r := f.meets(connecting); r != nil && f.EndPort > f.Port {
		f.Note(f.Place, Lost, "%s is not served: at the host's own addresses %s is for %s, and no range can have a part of it: name an address that nobody has by --address", f.title(), r, r.Use)
		return true
	}
	return false
}

// maxSplit is how many ports of a range get a listener each.
const maxSplit = 64

// split returns the plan with a frontend for each port of a range that the host's own addresses
// cannot have as such. Limits hold for a range as a whole, so that one with limits stays.
func (p *Plan) split(o Options) *Plan {
	if !o.WriteClass || len(o.Addresses) > 0 {
		return p
	}
	with := *p
	with.Frontends = nil
	for i := range p.Frontends {
		f := p.Frontends[i]
		r := f.meets(slices.Concat(gateway.StandaloneReservedPorts(), connecting))
		if r == nil || f.EndPort <= f.Port || f.EndPort-f.Port >= maxSplit || !f.everywhere() || f.Policy.Limits != nil || f.Unserved || len(with.Frontends) > maxFrontends {
			with.Frontends = append(with.Frontends, f)
			continue
		}
		f.Notes = slices.Clone(f.Notes)
		f.Note(f.Place, Changed, "%s: each port gets a listener, as at the host's own addresses %s is for %s, and no range can have a part of it", f.title(), r, r.Use)
		with.Frontends = append(with.Frontends, f.each()...)
	}
	return &with
}

// each returns a frontend for each port of a range. They share a Gateway.
func (f *Frontend) each() (all []Frontend) {
	for more := range f.EndPort - f.Port + 1 {
		one := *f
		one.Gateway, one.Port, one.EndPort, one.Backends = cmp.Or(f.Gateway, f.Name), f.Port+more, 0, slices.Clone(f.Backends)
		one.Backends = slices.DeleteFunc(one.Backends, func(s Backend) bool { return int(s.Port)+int(more) > math.MaxUint16 })
		for i := range one.Backends {
			if one.Backends[i].Port != 0 {
				one.Backends[i].Port += more
			}
		}
		all = append(all, one)
	}
	return all
}
