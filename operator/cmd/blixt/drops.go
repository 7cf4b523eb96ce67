// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubernetes-sigs/blixt/operator/observe"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

func dropsCommand() *cobra.Command {
	var target targetFlags
	var output format
	var last int
	var explain bool
	c := &cobra.Command{
		Use:   "drops [REASON]...",
		Short: "Show why packets are rejected and dropped, which ones, and what to do about it",
		Long: `Asks the load balancer of this host, or all nodes of a cluster, for the packets that
it rejects or drops: how many by reason since the program was loaded, and the last ones
of each reason. Only samples have a line. A * at the end of a reason stands for
anything.

With --explain the command asks nobody, and says of each reason what happens, why, what
to do and whether it is bad; and of the other counters that blixt status shows.`,
		Example: `  blixt drops
  blixt drops drop_no_route --last 16 -o json
  blixt drops 'reject_*' --node worker-1
  blixt drops --explain drop_no_route`,
		RunE: func(c *cobra.Command, args []string) error {
			if explain {
				return explainCounters(c.OutOrStdout(), args)
			}
			for _, reason := range args {
				if !slices.ContainsFunc(observe.Reasons, func(r observe.Reason) bool { return observe.HasReason(reason, r.Name) }) {
					return fmt.Errorf("no reason %q: the reasons are %s", reason, strings.Join(reasonNames(), ", "))
				}
			}
			conn, err := target.dial(c.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			all, err := askDrops(c.Context(), conn, observe.DropsQuery{Reasons: args, Last: last})
			printed := output.print(c.OutOrStdout(), map[string]any{"reasons": all}, func(w io.Writer) { dropsTable(w, all, time.Local) })
			return cmp.Or(err, printed)
		},
	}
	f := c.Flags()
	target.add(f)
	f.IntVar(&last, "last", 3, "how many of the last packets of each reason a node sends, 0: all that it remembers, which is 16")
	output.add(f)
	f.BoolVar(&explain, "explain", false, "explain reasons, and other counters, instead of asking for packets")
	return c
}

func reasonNames() (names []string) {
	for _, r := range observe.Reasons {
		names = append(names, r.Name)
	}
	return names
}

// dropsOf is a reason on all nodes.
type dropsOf struct {
	observe.DropsOf
	// Nodes are the packets by node.
	Nodes map[string]uint64 `json:"nodes,omitempty"`
	What  string            `json:"what,omitempty"`
	Cause string            `json:"cause,omitempty"`
	Cure  string            `json:"cure,omitempty"`
	Bad   string            `json:"bad,omitempty"`
}

// askDrops returns the reasons by number of packets. With an error it returns what has
// come.
func askDrops(ctx context.Context, a observe.Asker, q observe.DropsQuery) ([]*dropsOf, error) {
	all := []*dropsOf{}
	err := a.Ask(ctx, observe.Query{Drops: &q}, func(node string, text json.RawMessage) error {
		var p observe.DropsOf
		if err := json.Unmarshal(text, &p); err != nil {
			return fmt.Errorf("node %s answers in a way that this version does not know: %w", node, err)
		}
		i := slices.IndexFunc(all, func(d *dropsOf) bool { return d.Reason == p.Reason })
		if i < 0 {
			d := &dropsOf{DropsOf: observe.DropsOf{Reason: p.Reason}, Nodes: map[string]uint64{}}
			if r := observe.ReasonOf(p.Reason); r != nil {
				d.What, d.Cause, d.Cure, d.Bad = r.What, r.Cause, r.Cure, r.Bad
			}
			i, all = len(all), append(all, d)
		}
		d := all[i]
		d.Packets, d.LeftOut = d.Packets+p.Packets, d.LeftOut+p.LeftOut
		if node != "" {
			d.Nodes[node] += p.Packets
		}
		for _, r := range p.Last {
			r.Node = cmp.Or(r.Node, node)
			d.Last = append(d.Last, r)
		}
		return nil
	})
	for _, d := range all {
		slices.SortStableFunc(d.Last, func(a, b observe.Record) int { return a.Time.Compare(b.Time) })
	}
	slices.SortStableFunc(all, func(a, b *dropsOf) int {
		return cmp.Or(cmp.Compare(b.Packets, a.Packets), cmp.Compare(a.Reason, b.Reason))
	})
	return all, err
}

// dropsTable prints reasons for people.
func dropsTable(out io.Writer, all []*dropsOf, place *time.Location) {
	w := printer{out}
	if len(all) == 0 {
		w.printf("No packet was rejected or dropped.\n")
	}
	for i, d := range all {
		if i > 0 {
			w.printf("\n")
		}
		w.printf("%s: %s", d.Reason, phrase.Number(int(d.Packets)))
		if n := len(d.Nodes); n > 1 {
			w.printf(", on %d nodes", n)
		}
		w.printf("\n")
		printReason(w, d.What, d.Cause, d.Cure, d.Bad)
		for _, r := range d.Last {
			w.printf("  %s\n", r.Text(place))
		}
		if d.LeftOut > 0 {
			w.printf("  %s packets between these have no line.\n", phrase.Number(int(d.LeftOut)))
		}
	}
}

// printReason prints what is known of a reason.
func printReason(w printer, what, cause, cure, bad string) {
	for _, it := range [][2]string{{"What: ", what}, {"Cause:", cause}, {"Cure: ", cure}, {"Bad?  ", bad}} {
		if it[1] != "" {
			w.printf("  %s %s\n", it[0], it[1])
		}
	}
}

// explainCounters prints what is known of the counters that one of the patterns means; none
// mean the reasons.
func explainCounters(out io.Writer, patterns []string) error {
	w := printer{out}
	found := 0
	begin := func(name string) bool {
		if !slices.ContainsFunc(patterns, func(p string) bool { return observe.HasReason(p, name) }) {
			return false
		}
		if found++; found > 1 {
			w.printf("\n")
		}
		w.printf("%s\n", name)
		return true
	}
	if len(patterns) == 0 {
		patterns = []string{"reject_*", "drop_*"}
	}
	for _, r := range observe.Reasons {
		if begin(r.Name) {
			printReason(w, r.What, r.Cause, r.Cure, r.Bad)
		}
	}
	for _, c := range observe.Counters {
		if begin(c.Name) {
			w.printf("  Counts:  %s\n", c.What)
			if c.Watch != "" {
				w.printf("  If many: %s\n", c.Watch)
			}
		}
	}
	if found == 0 {
		names := reasonNames()
		for _, c := range observe.Counters {
			names = append(names, c.Name)
		}
		return fmt.Errorf("no counter %q: the counters are %s", strings.Join(patterns, " "), strings.Join(names, ", "))
	}
	return nil
}
