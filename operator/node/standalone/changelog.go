// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// changeLog tells what changed in what is served, in a few lines however much it is. The
// level debug has all of it.
type changeLog struct {
	mu sync.Mutex
	// last is the state that was served last; nil: none yet.
	last *lb.State
	// gone are backends that went since connections were last reset, some of them.
	gone []string
}

const (
	mostLines     = 8 // of one change
	mostNames     = 5 // in a list
	mostFrontends = 5 // that are told one by one at the start
)

// changed logs what differs from the state before.
func (l *changeLog) changed(now *lb.State) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last == nil {
		l.last = now
		logServed(now)
		return
	}
	changes := lb.Diff(l.last, now)
	l.last = now
	if changes.Empty() {
		return
	}
	for i, line := range changes.Lines(mostLines, mostNames) {
		logWithFields(slog.LevelInfo, "changed: "+line.Text, fieldsOf(line)...)
		if service := line.Service; len(line.Removed) > 0 && line.Gateway == "" && i < mostLines-1 && len(l.gone) < mostLines {
			l.gone = append(l.gone, fmt.Sprintf("%s of %s", phrase.Sample(line.Removed), service))
		}
	}
	if slog.Default().Enabled(context.Background(), slog.LevelDebug) {
		for _, line := range changes.Lines(0, 0) {
			logWithFields(slog.LevelDebug, "changed in full: "+line.Text, fieldsOf(line)...)
		}
	}
}

// fieldsOf returns a line for a log that has fields.
func fieldsOf(line lb.Line) (all []any) {
	add := func(name string, is bool, value any) {
		if is {
			all = append(all, name, value)
		}
	}
	add("service", line.Service != "", line.Service)
	add("gateway", line.Gateway != "", line.Gateway)
	add("frontends", line.Frontends > 0, line.Frontends)
	add("examples", len(line.Examples) > 0, line.Examples)
	add("added", len(line.Added) > 0, line.Added)
	add("removed", len(line.Removed) > 0, line.Removed)
	add("states", len(line.States) > 0, line.States)
	if w := line.Weight; w != nil {
		all = append(all, "weight", w.Is, "weightBefore", w.Was)
	}
	return all
}

// logWithFields logs a message that says all for people. A log for programs has the same as
// fields.
func logWithFields(level slog.Level, message string, fields ...any) {
	if _, is := slog.Default().Handler().(*slog.JSONHandler); !is {
		fields = nil
	}
	slog.Log(context.Background(), level, message, fields...)
}

// logServed logs what is served at the start: of few frontends each one.
func logServed(s *lb.State) {
	on := interfacesOf()
	at := func(a netip.Addr) string {
		if name := on(a); name != "" {
			return " on " + name
		}
		return ""
	}
	if len(s.Frontends) <= mostFrontends {
		for i := range s.Frontends {
			f := &s.Frontends[i]
			logWithFields(slog.LevelInfo, fmt.Sprintf("serving %s of %s%s: %s", f.Key(), f.Gateway, at(f.Addr), backendsText(f)),
				"frontend", f.Key().String(), "gateway", f.Gateway, "route", f.Route, "interface", on(f.Addr), "backends", len(f.Backends))
		}
		return
	}
	frontends := map[netip.Addr]int{}
	for i := range s.Frontends {
		frontends[s.Frontends[i].Addr]++
	}
	var names []string
	for _, a := range s.Addresses {
		if n := frontends[a.IP]; n > 0 {
			names = append(names, fmt.Sprintf("%s%s (%s)", a.IP, at(a.IP), phrase.Count(n, "frontend")))
		}
	}
	more := ""
	if n := len(names) - mostNames; n > 0 {
		names, more = names[:mostNames], fmt.Sprintf(" and %s", phrase.Count(n, "more address"))
	}
	logWithFields(slog.LevelInfo, fmt.Sprintf("serving %s at %s%s", phrase.Count(len(s.Frontends), "frontend"), strings.Join(names, ", "), more),
		"frontends", len(s.Frontends), "addresses", names)
}

// backendsText counts a frontend's backends.
func backendsText(f *lb.Frontend) string {
	counts := map[string]int{}
	for i := range f.Backends {
		b := &f.Backends[i]
		if b.Drained != nil {
			counts["drained"]++
		} else if s := b.State(); s != lb.StateServing {
			counts[s]++
		}
	}
	text := phrase.Count(len(f.Backends), "backend")
	for _, state := range []string{lb.StateDraining, lb.StateNotServing, lb.StateEjected, lb.StateTrial, lb.StateStandby, "drained"} {
		if n := counts[state]; n > 0 {
			text += fmt.Sprintf(", %d %s", n, state)
		}
	}
	return text
}

// interfacesOf returns a function that names the interface that has an address, or is in
// its network: an address of a Gateway may still be probed for. "": none.
func interfacesOf() func(netip.Addr) string {
	type network struct {
		netip.Prefix
		name string
	}
	var all []network
	interfaces, _ := net.Interfaces() // none: they are not named
	for _, i := range interfaces {
		addresses, _ := i.Addrs() // it may have gone
		for _, a := range addresses {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				all = append(all, network{p, i.Name})
			}
		}
	}
	return func(a netip.Addr) (name string) {
		bits := -1
		for _, n := range all {
			if n.Addr() == a {
				return n.name
			}
			if n.Contains(a) && n.Bits() > bits {
				name, bits = n.name, n.Bits()
			}
		}
		return name
	}
}

// swept logs how many flows have ended because their backend is gone.
func (l *changeLog) swept(flows int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if flows == 0 {
		return
	}
	of := ""
	if len(l.gone) > 0 {
		of = ": " + strings.Join(l.gone, ", ")
	}
	logWithFields(slog.LevelInfo, phrase.Count(flows, "flow")+" reset, as their backend is gone"+of, "flows", flows, "backends", l.gone)
	l.gone = nil
}
