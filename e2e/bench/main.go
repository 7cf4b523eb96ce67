// SPDX-License-Identifier: Apache-2.0

// Command bench measures what Blixt costs, beside what else does the same job. `make
// bench` runs it.
package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/kubernetes-sigs/blixt/e2e/bench/live"
	"github.com/kubernetes-sigs/blixt/e2e/bench/report"
	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// options are what to measure, and where the figures go.
type options struct {
	live    live.Options
	parts   []string
	out     string
	compare string
}

// parts are all parts, in their order.
var parts = []string{report.Live}

func main() {
	var o options
	flag.StringVar(&o.live.Binary, "blixt", "", "the blixt to measure (default: built from this source)")
	flag.IntVar(&o.live.Rounds, "rounds", 60, "live: bursts of each variant")
	flag.IntVar(&o.live.Burst, "burst", 30000, "live: packets of a burst")
	only := flag.String("only", "", `live: variants to measure, by the beginnings of their names with semicolons between: "forward;local"`)
	part := flag.String("part", "all", "parts to measure, with commas between: "+strings.Join(parts, ","))
	flag.StringVar(&o.out, "out", "", "file for the figures, as JSON; parts that are not measured stay as they are there")
	flag.StringVar(&o.compare, "compare", "", "file of an earlier run to compare with")
	flag.Parse()
	if *only != "" {
		o.live.Only = strings.Split(*only, ";")
	}
	o.parts = strings.Split(*part, ",")
	if *part == "all" {
		o.parts = parts
	}
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(o options) error {
	for _, p := range o.parts {
		if !slices.Contains(parts, p) {
			return fmt.Errorf("there is no part %q; there are %s", p, strings.Join(parts, ", "))
		}
	}
	var old *report.Result
	if o.compare != "" { // read first: it may be the file that is written
		var err error
		if old, err = report.Read(o.compare); err != nil {
			return err
		}
	}
	r := &report.Result{}
	if o.out != "" {
		if earlier, err := report.Read(o.out); err == nil {
			r = earlier
		}
	}
	dir, err := os.MkdirTemp("", "blixt-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if o.live.Binary == "" {
		if o.live.Binary, err = lab.Build(dir); err != nil {
			return err
		}
	}
	r.Machine = report.ThisMachine()
	o.live.Log = func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	for _, p := range o.parts {
		variants, err := live.Run(o.live)
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		r.Add(p, report.Figures(live.Samples(variants)))
		if err := r.Table(os.Stdout, p); err != nil {
			return err
		}
	}
	if old != nil {
		fmt.Println()
		if err := r.Compare(os.Stdout, old); err != nil {
			return err
		}
	}
	if o.out != "" {
		return r.Write(o.out)
	}
	return nil
}
