// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Goal is a number that a figure has to reach.
type Goal struct {
	What string
	// Measured returns the number, and false where it was not measured.
	Measured func(*Result) (float64, bool)
	// Must is to be reached, and Aim is better. Rate says that more is better.
	Must, Aim func(*Result) (float64, bool)
	Rate      bool
}

// Outcome is what became of a goal.
type Outcome struct {
	What                string
	Measured, Must, Aim float64
	Reached             string // aim, must or no
}

type measured = func(*Result) (float64, bool)

func exactly(x float64) measured { return func(*Result) (float64, bool) { return x, true } }

// ratio returns the ratio of the best ones.
func ratio(part, name, unit, to string) measured {
	return func(r *Result) (float64, bool) {
		f, _ := r.Figure(part, name, unit)
		x, is := f.Ratios[to]
		return x.Best, is
	}
}

func value(part, name, unit string, scale float64) measured {
	return func(r *Result) (float64, bool) {
		f, is := r.Figure(part, name, unit)
		return f.Best * scale, is
	}
}

func plus(m measured, x float64) measured {
	return func(r *Result) (float64, bool) {
		y, is := m(r)
		return x + y, is
	}
}

func times(m measured, x float64) measured {
	return func(r *Result) (float64, bool) {
		y, is := m(r)
		return x * y, is
	}
}

const perPacket = "ns/packet"

// Goals returns all goals, in the order in which they are told.
func Goals() (goals []Goal) {
	lower := func(what string, m, must, aim measured) { goals = append(goals, Goal{what, m, must, aim, false}) }
	higher := func(what string, m, must, aim measured) { goals = append(goals, Goal{what, m, must, aim, true}) }
	to := func(name, base string) measured { return ratio(Live, name, perPacket, base) }

	empty := to("empty", "forward")
	lower("what is not Blixt's, to forwarding", to("miss", "forward"), plus(empty, 0.10), plus(empty, 0.05))
	for _, reply := range []string{"", ", reply"} {
		lower("local"+reply+", to forwarding", to("local"+reply, "forward to 2"+reply), exactly(1.30), exactly(1.15))
		lower("local"+reply+", to nftables", to("local"+reply, "nft"+reply), exactly(0.92), exactly(0.80))
		lower("remote"+reply+", to forwarding", to("remote"+reply, "forward to 2"+reply), exactly(0.88), exactly(0.75))
		lower("remote"+reply+", to nftables", to("remote"+reply, "nft"+reply), exactly(0.65), exactly(0.55))
	}
	for _, name := range []string{"local", "remote"} {
		four := to(name, "forward to 2")
		lower(name+", IPv6, to forwarding: within 10 % of IPv4", to(name+", IPv6", "forward to 2, IPv6"), times(four, 1.1), four)
	}
	for _, name := range []string{"local", "remote"} {
		higher("bulk TCP, "+name+", to forwarding", ratio(TCP, name+", bulk", "MB/s", "forward, bulk"), exactly(0.97), exactly(1))
		higher("connections/s, "+name+", to forwarding: not below nftables", ratio(TCP, name+", connections", "1/s", "forward, connections"),
			ratio(TCP, "nft, connections", "1/s", "forward, connections"), exactly(0.95))
	}
	lower("micro: ns of what is not Blixt's, 1K flows", value(Micro, "Packet/miss/TCPv4/flows=1024", "net-ns/packet", 1), exactly(21), exactly(11))
	for _, goal := range []struct {
		flows     string
		must, aim float64
	}{{"1024", 1.3, 0.8}, {"65536", 1.7, 1}} {
		lower("micro: local, "+goal.flows+" flows, to the floor", value(Micro, "Packet/local/TCPv4/flows="+goal.flows, "ratio", 1), exactly(goal.must), exactly(goal.aim))
	}
	lower("publishing one change among 100 backends, ms", value(Publish, "Publish/backends=100", "ns/op", 1e-6), exactly(1), exactly(0.5))
	lower("loading 4,096 frontends into empty maps, ms", value(Publish, "PublishAll/frontends=4096/backends=10", "ns/op", 1e-6), exactly(500), exactly(500))
	for _, edit := range []string{"endpoint", "listener"} {
		lower("a file's change until the maps have it, 4,032 listeners, "+edit+", ms", value(Publish, "PublishFile/listeners=4032/"+edit, "ns/op", 1e-6), exactly(100), exactly(100))
	}
	return goals
}

// Outcomes returns what became of the goals that were measured.
func (r *Result) Outcomes() (all []Outcome) {
	for _, g := range Goals() {
		x, is := g.Measured(r)
		must, known := g.Must(r)
		aim, _ := g.Aim(r)
		if !is || !known {
			continue
		}
		o := Outcome{g.What, x, must, aim, "no"}
		reaches := func(goal float64) bool { return x <= goal != g.Rate || x == goal }
		switch {
		case reaches(aim):
			o.Reached = "aim"
		case reaches(must):
			o.Reached = "must"
		}
		all = append(all, o)
	}
	return all
}

// PrintGoals prints what became of the goals.
func (r *Result) PrintGoals(w io.Writer) error {
	outcomes := r.Outcomes()
	if len(outcomes) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "%-62s\tmeasured\tmust\taim\treached\t\n", "goal")
	for _, o := range outcomes {
		fmt.Fprintf(t, "%-62s\t%s\t%s\t%s\t%s\t\n", o.What, number(o.Measured), number(o.Must), number(o.Aim), o.Reached)
	}
	return t.Flush()
}
