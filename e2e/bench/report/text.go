// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// round leaves four digits: what is behind them is noise.
func round(x float64) float64 {
	y, err := strconv.ParseFloat(strconv.FormatFloat(x, 'g', 4, 64), 64)
	if err != nil || math.IsInf(x, 0) || math.IsNaN(x) {
		return 0
	}
	return y
}

// number returns a number for people.
func number(x float64) string {
	switch {
	case math.Abs(x) >= 100:
		return strconv.FormatFloat(x, 'f', 0, 64)
	case math.Abs(x) >= 10:
		return strconv.FormatFloat(x, 'f', 1, 64)
	}
	return strconv.FormatFloat(x, 'f', 2, 64)
}

// bases returns what a part's figures are compared with, in the order of their names.
func bases(figures []Figure) []string {
	all := map[string]bool{}
	for _, f := range figures {
		for to := range f.Ratios {
			all[base(to)] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// base is what a figure's name begins with.
func base(name string) string {
	b, _, _ := strings.Cut(name, ",")
	return b
}

// Table prints a part's figures, each with its ratios as best/median.
func (r *Result) Table(w io.Writer, part string) error {
	var figures []Figure
	for _, f := range r.Figures {
		if f.Part == part {
			figures = append(figures, f)
		}
	}
	if len(figures) == 0 {
		return nil
	}
	if part == Micro || part == Publish || part == Memory {
		return metrics(w, part, figures)
	}
	columns := bases(figures)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	head := []string{part, "unit", "best", "median"}
	for _, c := range columns {
		head = append(head, "to "+c)
	}
	row := func(cells []string) {
		// The first column is not aligned to the right.
		fmt.Fprintf(t, "%-34s\t%s\t\n", cells[0], strings.Join(cells[1:], "\t"))
	}
	row(head)
	for _, f := range figures {
		cells := []string{f.Name, f.Unit, number(f.Best), number(f.Median)}
		for _, c := range columns {
			cell := ""
			for to, ratio := range f.Ratios {
				if base(to) == c {
					cell = number(ratio.Best) + " / " + number(ratio.Median)
				}
			}
			cells = append(cells, cell)
		}
		row(cells)
	}
	return t.Flush()
}

// metrics prints a row for each case of each benchmark, with a column for each
// unit that its benchmark has.
func metrics(w io.Writer, part string, figures []Figure) error {
	var benchmarks []string
	of := map[string][]Figure{}
	for _, f := range figures {
		name, _, _ := strings.Cut(f.Name, "/")
		if of[name] == nil {
			benchmarks = append(benchmarks, name)
		}
		of[name] = append(of[name], f)
	}
	if part != Micro { // few cases each, of the same units
		benchmarks, of = []string{part}, map[string][]Figure{part: figures}
	}
	for i, name := range benchmarks {
		if i > 0 {
			fmt.Fprintln(w)
		}
		if err := benchmark(w, name, of[name]); err != nil {
			return err
		}
	}
	return nil
}

func benchmark(w io.Writer, title string, figures []Figure) error {
	var names, units []string
	of := map[[2]string]float64{}
	for _, f := range figures {
		if !slices.Contains(names, f.Name) {
			names = append(names, f.Name)
		}
		if !slices.Contains(units, f.Unit) {
			units = append(units, f.Unit)
		}
		of[[2]string{f.Name, f.Unit}] = f.Best
	}
	slices.Sort(units)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "%-50s\t%s\t\n", title, strings.Join(units, "\t"))
	for _, name := range names {
		fmt.Fprintf(t, "%-50s\t", name)
		for _, unit := range units {
			if x, is := of[[2]string{name, unit}]; is {
				fmt.Fprint(t, number(x))
			}
			fmt.Fprint(t, "\t")
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

// Compare prints what differs from an earlier run: ratios where there are some, as
// they depend less on the machine's mood.
func (r *Result) Compare(w io.Writer, old *Result) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "%-34s\tunit\tbefore\tnow\tchange\t\n", "compared")
	row := func(name, unit string, before, now float64) {
		if before != 0 {
			fmt.Fprintf(t, "%-34s\t%s\t%s\t%s\t%+.0f %%\t\n", name, unit, number(before), number(now), 100*(now/before-1))
		}
	}
	for _, f := range r.Figures {
		o, is := old.Figure(f.Part, f.Name, f.Unit)
		if !is {
			continue
		}
		row(f.Name, f.Unit, o.Best, f.Best)
		for _, to := range slices.Sorted(maps.Keys(f.Ratios)) {
			row("  to "+to, "", o.Ratios[to].Best, f.Ratios[to].Best)
		}
	}
	return t.Flush()
}
