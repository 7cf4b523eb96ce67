// SPDX-License-Identifier: Apache-2.0

// Command bench measures what Blixt costs, beside what else does the same job. `make
// bench` runs it.
package main

//go:generate go run . -document ../../docs

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/bench/live"
	"github.com/kubernetes-sigs/blixt/e2e/bench/report"
	"github.com/kubernetes-sigs/blixt/e2e/bench/tcp"
	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// options are what to measure, and where the figures go.
type options struct {
	live    live.Options
	tcp     tcp.Options
	parts   []part
	out     string
	compare string
}

func main() {
	o := options{tcp: tcp.Options{Proxies: true}}
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	binary := flag.String("blixt", "", "the blixt to measure (default: built from this source)")
	flag.IntVar(&o.live.Rounds, "rounds", 60, "live: bursts of each variant")
	flag.IntVar(&o.live.Burst, "burst", 30000, "live: packets of a burst")
	flag.IntVar(&o.live.Most, "most", 0, "live: only variants of at most so many flows (default: any)")
	only := flag.String("only", "", `live: variants to measure, by the beginnings of their names with semicolons between: "forward;local"`)
	flag.IntVar(&o.tcp.Rounds, "tcp-rounds", 8, "tcp: how often each way is measured")
	flag.DurationVar(&o.tcp.For, "tcp-for", 500*time.Millisecond, "tcp: and for how long")
	wanted := flag.String("part", "all", "parts to measure, with commas between: "+strings.Join(names, ","))
	flag.StringVar(&o.out, "out", "", "file for the figures, as JSON; parts that are not measured stay as they are there")
	flag.StringVar(&o.compare, "compare", "", "file of an earlier run to compare with")
	document := flag.String("document", "", "directory of documents: measure nothing, make performance.md there of its figures")
	flag.Parse()
	if *document != "" {
		if err := report.Document(*document); err != nil {
			fail(err)
		}
		return
	}
	if *only != "" {
		o.live.Only = strings.Split(*only, ";")
	}
	if *wanted == "all" {
		*wanted = strings.Join(names, ",")
	}
	for name := range strings.SplitSeq(*wanted, ",") {
		i := slices.Index(names, name)
		if i < 0 {
			fail(fmt.Errorf("there is no part %q; there are %s", name, strings.Join(names, ", ")))
		}
		o.parts = append(o.parts, parts[i])
	}
	if err := run(o, *binary); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func run(o options, binary string) error {
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
	if binary == "" && slices.ContainsFunc(o.parts, func(p part) bool { return p.blixt }) {
		if binary, err = lab.Build(dir); err != nil {
			return err
		}
	}
	o.live.Binary, o.tcp.Binary = binary, binary
	log := func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	o.live.Log, o.tcp.Log = log, log
	r.Machine = report.ThisMachine()
	for _, p := range o.parts {
		log("%s ...", p.name)
		samples, err := p.run(o)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		r.Add(p.name, report.Figures(samples))
	}
	for _, p := range o.parts {
		if err := r.Table(os.Stdout, p.name); err != nil {
			return err
		}
		fmt.Println()
	}
	if err := r.PrintGoals(os.Stdout); err != nil {
		return err
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
