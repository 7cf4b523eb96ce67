// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	cluster "github.com/kubernetes-sigs/blixt/operator/admin/overview"
	"github.com/kubernetes-sigs/blixt/operator/finding"
	"github.com/kubernetes-sigs/blixt/operator/node/overview"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// statusLines is how many lines an overview has: as many as fit on a screen.
const statusLines = 20

// well is an overview of a host or of a cluster.
type well struct {
	Verdict  finding.Level     `json:"verdict"`
	Findings []finding.Finding `json:"findings"`
	// One of these is set.
	Host    *overview.Host   `json:"host,omitempty"`
	Cluster *cluster.Cluster `json:"cluster,omitempty"`
}

func newWell(findings []finding.Finding) *well {
	if findings == nil {
		findings = []finding.Finding{}
	}
	return &well{Verdict: finding.Verdict(findings), Findings: findings}
}

// errSaid is the error of a command that has printed what is wrong: only its exit code
// tells more.
var errSaid = errors.New("all is not well")

// err returns an error with the exit code of what was found: 1 if something has failed,
// 2 if something could not be read. nil: all is well.
func (w *well) err() error {
	switch w.Verdict {
	case finding.Failed:
		return &exitError{1, errSaid}
	case finding.Unknown:
		return &exitError{unreachable, errSaid}
	}
	return nil
}

// print prints it for people, what is wrong first: all of it if wide, else what fits.
func (w *well) print(out io.Writer, wide bool) {
	p := printer{out}
	p.printf("%s\n", w.headline())
	var below strings.Builder
	w.tables(printer{&below}, wide)
	room := statusLines - 3 - strings.Count(below.String(), "\n")
	if len(w.Findings) > 0 {
		p.printf("\n")
		findingLines(p, w.Findings, room, wide)
	}
	if below.Len() > 0 {
		fmt.Fprintf(out, "\n%s", below.String())
	}
}

// headline says in a line whether all is well.
func (w *well) headline() string {
	warnings := finding.Count(w.Findings, finding.Warning)
	with := ""
	if warnings > 0 {
		with = ", " + phrase.Count(warnings, "warning")
	}
	unknown := finding.Count(w.Findings, finding.Unknown)
	if unknown > 0 && w.Verdict == finding.Failed {
		with += fmt.Sprintf(", %d unknown", unknown)
	}
	switch w.Verdict {
	case finding.Failed:
		return fmt.Sprintf("NOT WELL: %d failed%s", finding.Count(w.Findings, finding.Failed), with)
	case finding.Unknown:
		return fmt.Sprintf("CANNOT TELL: %d unknown%s", unknown, with)
	}
	return "WELL" + with
}

// longestSeen is how long an observation may be where there is little room.
const longestSeen = 300

// findingLines prints findings and their remedies in at most so many lines, and how many
// are left out; with wide all of them.
func findingLines(p printer, all []finding.Finding, room int, wide bool) {
	t, flush := newTable(p)
	lines := 0
	for i, f := range all {
		needs := 1
		if f.Remedy != "" {
			needs++
		}
		last := i == len(all)-1
		if !wide && i > 0 && (lines+needs > room || !last && lines+needs > room-1) {
			t.printf("and %d more: blixt status -o wide shows all\n", len(all)-i)
			break
		}
		lines += needs
		seen := f.Seen
		if !wide {
			seen = phrase.Clip(seen, longestSeen)
		}
		t.printf("%s\t%s\t%s\n", f.Verdict, cmp.Or(f.Object, f.Check), seen)
		if f.Remedy != "" {
			t.printf("\t\t→ %s\n", f.Remedy)
		}
	}
	flush()
}

func (w *well) tables(p printer, wide bool) {
	if w.Host != nil {
		hostTable(p, w.Host, wide)
	}
	if w.Cluster != nil {
		clusterTables(p, w.Cluster, wide)
	}
}

// mostInstances is how many load balancers a short overview shows.
const mostInstances = 6

func hostTable(p printer, h *overview.Host, wide bool) {
	if len(h.Instances) == 0 {
		return
	}
	t, flush := newTable(p)
	t.printf("NAME\tPROCESS\tSINCE\tFRONTENDS\tBACKENDS\tFLOWS\tNEW\tIN\tOUT\tLOST")
	if wide {
		t.printf("\tVERSION\tLOADER\tPROGRAM\tINTERFACES\tCHANGED\tFILES")
	}
	t.printf("\n")
	for n, i := range h.Instances {
		if n == mostInstances && !wide {
			t.printf("and %d more\n", len(h.Instances)-n)
			break
		}
		instanceRow(t, &i, wide)
	}
	flush()
	var policies []writer.PolicyStatus
	for _, i := range h.Instances {
		if i.Program != nil {
			policies = append(policies, i.Program.Policies...)
		}
	}
	if len(policies) > 0 {
		p.printf("\n")
		policyTable(p, policies, map[bool]int{false: mostPolicies}[wide])
	}
}

// mostPolicies is how many policies a short overview shows.
const mostPolicies = 3

func instanceRow(t printer, i *overview.Instance, wide bool) {
	process, since, version, files := "none", "-", "-", "-"
	if i.Process != nil {
		process = "runs"
		if i.Process.PID != 0 {
			process = fmt.Sprint(i.Process.PID)
		}
		if h := i.Says; h != nil {
			since, version, files = clock(h.Started), cmp.Or(h.Version, "-"), cmp.Or(strings.Join(h.Files, " "), "-")
		}
	}
	row := []string{i.Name, process, since}
	p := i.Program
	if p == nil {
		row = append(row, "-", "-", "-", "-", "-", "-", "-")
	} else {
		row = append(row, fmt.Sprint(p.Frontends), fmt.Sprint(p.Backends), fmt.Sprint(p.Flows))
		row = append(row, rateColumns(p.Rates)...)
	}
	if wide {
		row = append(row, version)
		if p == nil {
			row = append(row, "-", "-", "-", "-")
		} else {
			changed := "-"
			if p.Applied != nil {
				changed = clock(*p.Applied)
			}
			id := "-"
			if p.ID != 0 {
				id = fmt.Sprint(p.ID)
			}
			row = append(row, cmp.Or(p.Loader, "-"), id, cmp.Or(strings.Join(p.Interfaces, " "), "none"), changed)
		}
		row = append(row, files)
	}
	for n := range row {
		row[n] = phrase.Printable(row[n])
	}
	fmt.Fprintln(t, strings.Join(row, "\t"))
}

// rateColumns are new flows, bytes in and out, and packets that were lost.
func rateColumns(r *overview.Rates) []string {
	if r == nil {
		return []string{"-", "-", "-", "-"}
	}
	lost := 0.0
	for _, name := range slices.Sorted(maps.Keys(r.Lost)) { // in order, so that the sum is always the same
		lost += r.Lost[name]
	}
	return []string{rate(r.NewFlows, ""), rate(r.BytesIn, "B"), rate(r.BytesOut, "B"), rate(lost, "")}
}

// rate returns a number by second, such as 1.2 MB/s.
func rate(n float64, unit string) string {
	for _, prefix := range []string{"", "k", "M", "G"} {
		if n < 1000 {
			return rateText(n, prefix+unit)
		}
		n /= 1000
	}
	return rateText(n, "T"+unit)
}

func rateText(n float64, unit string) string {
	text := fmt.Sprintf("%.3g", n)
	if n >= 100 {
		text = fmt.Sprintf("%.0f", n)
	}
	if unit != "" {
		text += " " + unit
	}
	return text + "/s"
}

// leastInterval is how often a host or a cluster may be looked at.
const leastInterval = 100 * time.Millisecond

// hostEvery is the time between two looks at a host.
const hostEvery = time.Second

// viewOptions are those of blixt status that concern the overview.
type viewOptions struct {
	watch    bool
	interval time.Duration
	output   format
}

// host shows the overview of a host.
func (o *viewOptions) host(ctx context.Context, out io.Writer, r *overview.Reader) error {
	o.interval = cmp.Or(o.interval, hostEvery)
	read := func(context.Context) (*well, error) {
		h := r.Read()
		w := newWell(h.Check())
		w.Host = h
		return w, nil
	}
	if !o.watch && len(r.Names()) > 0 { // rates need two looks
		r.Read()
		if !sleep(ctx, o.interval) {
			return ctx.Err()
		}
	}
	return o.show(ctx, out, read)
}

// show shows what is read, once or again and again.
func (o *viewOptions) show(ctx context.Context, out io.Writer, read func(context.Context) (*well, error)) error {
	for {
		w, err := read(ctx)
		if err != nil && (!o.watch || ctx.Err() != nil) {
			return err
		}
		if err != nil { // it may come back
			w = newWell([]finding.Finding{{Check: "read", Verdict: finding.Unknown, Seen: err.Error()}})
		}
		if !o.watch {
			if err := o.output.print(out, w, func(out io.Writer) { w.print(out, o.output == wide) }); err != nil {
				return err
			}
			return w.err()
		}
		var text strings.Builder
		printer{&text}.printf("%s, every %s\n", time.Now().Format(time.TimeOnly), o.interval)
		w.print(&text, o.output == wide)
		if err := redraw(out, text.String()); err != nil {
			return err
		}
		if !sleep(ctx, o.interval) {
			return nil
		}
	}
}

// sleep waits. It returns false if the context ends before.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
