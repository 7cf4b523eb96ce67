// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/standalone"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
	"github.com/kubernetes-sigs/blixt/operator/observe"
	"github.com/kubernetes-sigs/blixt/operator/observe/dial"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// served is what a load balancer on this host serves.
type served struct {
	// status is nil if nothing is loaded.
	status *writer.Status
	// runs is true if its process has answered.
	runs bool
}

// servedBackend is a backend of a frontend.
type servedBackend struct {
	writer.BackendStatus
	at       netip.AddrPort
	frontend *writer.FrontendStatus
}

// look asks the process what it serves. Where none answers, the maps tell.
func (d *drainer) look(ctx context.Context) (served, error) {
	if s, err := askCounted(ctx, standalone.SocketFile(d.runDir, d.name)); err == nil {
		return served{s, true}, nil
	} else if ctx.Err() != nil {
		return served{}, ctx.Err()
	}
	info, lacks := inspect(d.bpffs, d.runDir, d.name)
	if lacks != nil {
		return served{}, nil //nolint:nilerr // nothing is loaded
	}
	tables, err := datapath.Open(info.Dir)
	if err != nil {
		return served{}, err
	}
	defer tables.Close()
	s, err := writer.ReadStatus(tables, standalone.StateFile(d.runDir, d.name))
	if err == nil {
		err = s.CountRemaining(tables)
	}
	return served{&s, false}, err
}

// answerPatience is how long a process may take to answer.
const answerPatience = 5 * time.Second

// askCounted asks the process at a socket for its status, with flows that are counted now.
func askCounted(ctx context.Context, socket string) (*writer.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	conn, err := dial.Dial(ctx, dial.Target{Socket: socket})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var s writer.Status
	err = conn.Ask(ctx, observe.Query{Status: &observe.StatusQuery{Count: true}}, func(_ string, piece json.RawMessage) error {
		return json.Unmarshal(piece, &s)
	})
	return &s, err
}

// all are all backends of all frontends.
func (s served) all() iter.Seq[servedBackend] {
	return func(yield func(servedBackend) bool) {
		if s.status == nil {
			return
		}
		for i := range s.status.Frontends {
			f := &s.status.Frontends[i]
			for _, b := range f.Backends {
				at, err := netip.ParseAddrPort(b.Address)
				if err == nil && !yield(servedBackend{b, at, f}) {
					return
				}
			}
		}
	}
}

// of are the backends that some addresses name, of which port 0 stands for all.
func (s served) of(targets []netip.AddrPort) iter.Seq[servedBackend] {
	wanted := map[netip.AddrPort]bool{}
	for _, at := range targets {
		wanted[at] = true
	}
	return func(yield func(servedBackend) bool) {
		for b := range s.all() {
			if (wanted[b.at] || wanted[netip.AddrPortFrom(b.at.Addr(), 0)]) && !yield(b) {
				return
			}
		}
	}
}

// targets returns what arguments name: an address with or without a port as it is, and the
// backends that are in a prefix. unknown permits addresses that are no backend's.
func (s served) targets(args []string, unknown bool) ([]netip.AddrPort, error) {
	var all []netip.AddrPort
	for _, arg := range args {
		m, err := parseDrainArgument(arg)
		if err != nil {
			return nil, err
		}
		if m.Prefix.IsSingleIP() {
			at := netip.AddrPortFrom(m.Prefix.Addr(), m.Port)
			if found := slices.Collect(s.of([]netip.AddrPort{at})); len(found) == 0 && !unknown {
				return nil, fmt.Errorf("%s is no backend%s; --force notes it nevertheless", arg, s.similar(at))
			}
			all = append(all, at)
			continue
		}
		found := map[netip.AddrPort]bool{}
		for b := range s.all() {
			if m.Prefix.Contains(b.at.Addr()) {
				found[b.at] = true
			}
		}
		if len(found) == 0 {
			return nil, fmt.Errorf("no backend is in %s: blixt backends lists them", arg)
		}
		all = slices.AppendSeq(all, maps.Keys(found))
	}
	slices.SortFunc(all, netip.AddrPort.Compare)
	return slices.DeleteFunc(slices.Compact(all), func(at netip.AddrPort) bool {
		whole := netip.AddrPortFrom(at.Addr(), 0)
		return at != whole && slices.Contains(all, whole)
	}), nil
}

// parseDrainArgument parses ADDRESS, ADDRESS:PORT or PREFIX.
func parseDrainArgument(text string) (observe.Match, error) {
	m, err := observe.ParseMatch(text)
	a := m.Prefix.Addr()
	switch {
	case err != nil || !m.Prefix.IsValid():
		return m, fmt.Errorf("%q: want an address, address:port, or a prefix: 10.0.0.2, 10.0.0.2:8080, [2001:db8::2]:8080 or 10.0.0.0/24", text)
	case strings.Contains(text, "%") || m.Prefix.IsSingleIP() && (a.IsUnspecified() || a.IsMulticast()):
		return m, fmt.Errorf("%q can be no backend", text)
	case m.Port == 0 && strings.HasSuffix(text, ":0") && strings.Count(text, ":") == 1:
		return m, fmt.Errorf("%q: want a port from 1 to 65535", text)
	}
	return m, nil
}

// similar says which backends are like an address that is none.
func (s served) similar(at netip.AddrPort) string {
	likeness := map[netip.AddrPort]int{}
	for b := range s.all() {
		mine, theirs := at.Addr().String(), b.at.Addr().String()
		n := 0
		for n < min(len(mine), len(theirs)) && mine[n] == theirs[n] {
			n++
		}
		if b.at.Addr() == at.Addr() {
			n += 100
		}
		if b.at.Port() == at.Port() {
			n++
		}
		likeness[b.at] = n
	}
	if len(likeness) == 0 {
		return ": the load balancer has none"
	}
	order := slices.SortedFunc(maps.Keys(likeness), func(a, b netip.AddrPort) int {
		return cmp.Or(cmp.Compare(likeness[b], likeness[a]), a.Compare(b))
	})
	var names []string
	for _, like := range order[:min(len(order), 3)] {
		names = append(names, like.String())
	}
	text := ". Backends are " + strings.Join(names, ", ")
	if more := len(order) - len(names); more > 0 {
		text += fmt.Sprintf(" and %s more (blixt backends)", phrase.Number(more))
	}
	return text
}

// last returns which frontends nobody would serve any more if targets were drained beside
// what is.
func (s served) last(set lb.DrainedSet, targets []netip.AddrPort) []string {
	if s.status == nil {
		return nil
	}
	next := maps.Clone(set)
	for _, at := range targets {
		next[at] = &lb.Drained{}
	}
	lacking := map[string][]string{} // frontends by backends
	for i := range s.status.Frontends {
		f := &s.status.Frontends[i]
		var last []string
		left := false
		for _, b := range f.Backends {
			at, err := netip.ParseAddrPort(b.Address)
			if err != nil || b.State != lb.StateServing || set.Of(at) != nil {
				continue
			}
			last = append(last, b.Address)
			left = left || next.Of(at) == nil
		}
		if len(last) > 0 && !left {
			key := phrase.Sample(last) + " would be the last"
			lacking[key] = append(lacking[key], f.Frontend)
		}
	}
	var all []string
	for _, key := range slices.Sorted(maps.Keys(lacking)) {
		all = append(all, key+" of "+phrase.Sample(lacking[key]))
	}
	if len(all) > 5 {
		all = append(all[:5], fmt.Sprintf("and %d more", len(all)-5))
	}
	return all
}

// drainedBy returns what of a set arguments name; without any, all.
func drainedBy(set lb.DrainedSet, args []string) (all []netip.AddrPort, err error) {
	if len(args) == 0 {
		return slices.SortedFunc(maps.Keys(set), netip.AddrPort.Compare), nil
	}
	for _, arg := range args {
		m, err := parseDrainArgument(arg)
		if err != nil {
			return nil, err
		}
		found := false
		for at := range set {
			if m.Prefix.Contains(at.Addr()) && (m.Port == 0 || m.Port == at.Port()) {
				all, found = append(all, at), true
			}
		}
		whole := netip.AddrPortFrom(m.Prefix.Addr(), 0)
		switch {
		case found:
		case m.Prefix.IsSingleIP() && set[whole] != nil:
			return nil, fmt.Errorf("%s is drained with all ports of its address: blixt undrain %s", arg, whole.Addr())
		case len(set) == 0:
			return nil, fmt.Errorf("%s is not drained: nothing is", arg)
		default:
			var names []string
			for at := range set {
				names = append(names, standalone.DrainedName(at))
			}
			return nil, fmt.Errorf("%s is not drained, but %s", arg, phrase.Sample(names))
		}
	}
	slices.SortFunc(all, netip.AddrPort.Compare)
	return slices.Compact(all), nil
}
