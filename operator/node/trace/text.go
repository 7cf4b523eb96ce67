// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/kubernetes-sigs/blixt/operator/observe"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// ways say in words what becomes of packets: the table in bpf/way.h.
var ways = map[string]string{
	wayLocal.name:     "to a backend of this node, through its stack; the backend sees the client",
	wayRemote.name:    "to another host, past the stack, with a source of this host",
	wayStack.name:     "through this host's stack, whose NAT translates the source",
	wayReenter.name:   "turned around at the interface by which it was leaving, to a backend of this node",
	wayForwarded.name: "to another host, where it was leaving, with a source of this host",
	wayHost.name:      "from a socket of this host, with a source of this host",
}

// Text prints a result for people.
func (r *Result) Text(out io.Writer) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(what, format string, args ...any) {
		for i, a := range args {
			if s, ok := a.(string); ok {
				args[i] = phrase.Printable(s)
			}
		}
		fmt.Fprintf(t, "%s\t%s\n", what, fmt.Sprintf(format, args...))
	}
	seen := r.Hook
	if r.Interface != "" {
		seen = r.Hook + " of " + r.Interface
	}
	line("PACKET", "%s %s -> %s, seen at %s", r.Protocol, r.Client.String(), r.Server.String(), seen)
	switch a := r.Address; {
	case a == nil:
		line("ADDRESS", "not served")
	case a.Exclusive:
		line("ADDRESS", "served by Blixt alone")
	default:
		line("ADDRESS", "shared with the host")
	}
	if f := r.Frontend; f != nil {
		names := []string{fmt.Sprintf("index %d", f.Index)}
		for _, n := range []struct{ what, name string }{{"Gateway ", f.Gateway}, {"listener ", f.Listener}, {"", f.Route}} {
			if n.name != "" {
				names = append(names, n.what+n.name)
			}
		}
		line("FRONTEND", "%s", strings.Join(names, ", "))
	} else if r.Address != nil {
		line("FRONTEND", "none has this port")
	}
	if f := r.Flow; f != nil {
		from := ""
		if f.SNAT != nil {
			from = fmt.Sprintf(", with source %s", endpoint(*f.SNAT))
		}
		line("FLOW", "%s, in %s, to backend %d%s, client silent for %.0fs", f.State, f.Table, f.Backend, from, f.Idle)
		if r.Ended != "" {
			line("", "over: %s", r.Ended)
		}
	} else if r.Frontend != nil {
		line("FLOW", "none: this client is new")
	}
	if g := r.Ring; g != nil && g.Size > 0 {
		line("RING", "slot %d of %d", g.Slot, g.Size)
	}
	if b := r.Backend; b != nil {
		text := fmt.Sprintf("%s, id %d, generation %d", b.Address, b.ID, b.Generation)
		for _, n := range []struct {
			is   bool
			text string
		}{{b.Service != "", "Service " + b.Service}, {b.Local, "on this node"}, {b.Draining, "not serving any more"}} {
			if n.is {
				text += ", " + n.text
			}
		}
		line("BACKEND", "%s", text)
	}
	if r.Way != "" {
		line("WAY", "%s: %s", r.Way, ways[r.Way])
	}
	if r.SNAT != nil {
		text := "source becomes " + endpoint(*r.SNAT)
		if r.Announced {
			text += "; the backend's node is told the client, and undoes it"
		}
		line("SNAT", "%s", text)
	}
	if h := r.NextHop; h != nil {
		text := "by " + h.Interface
		if h.Via.IsValid() {
			text = h.Via.String() + " " + text
		}
		if h.MTU > 0 {
			text += fmt.Sprintf(", MTU %d", h.MTU)
		}
		if h.Silent {
			text += ", hardware address not known yet"
		}
		line("NEXT HOP", "%s", text)
	}
	line("VERDICT", "%s: %s (%s)", strings.ToUpper(string(r.Verdict)), r.Why, r.Counter)
	if reason := observe.ReasonOf(r.Counter); reason != nil {
		line("CURE", "%s", reason.Cure)
	}
	for _, n := range r.Notes {
		line("NOTE", "%s", n)
	}
	return t.Flush()
}

// endpoint returns an address and a port; a port of 0 is not known.
func endpoint(e observe.Endpoint) string {
	switch {
	case !e.Address.IsValid() && e.Port == 0:
		return "an address of the host"
	case !e.Address.IsValid():
		return fmt.Sprintf("an address of the host, port %d", e.Port)
	case e.Port == 0:
		return fmt.Sprintf("%s, with a port of ours", e.Address)
	}
	return e.String()
}
