// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/kubernetes-sigs/blixt/operator/agent"
	"github.com/kubernetes-sigs/blixt/operator/bpfman"
	"github.com/kubernetes-sigs/blixt/operator/datapath"
	"github.com/kubernetes-sigs/blixt/operator/loader"
	"github.com/kubernetes-sigs/blixt/operator/standalone"
)

// status is what `blixt status` shows.
type status struct {
	Name    string      `json:"name"`
	Program loader.Info `json:"program"`
	agent.Status
	// Older are programs of other versions that serve the flows that they
	// have, and Ended is what became of the last one that does not.
	Older []older       `json:"older,omitempty"`
	Ended *bpfman.Ended `json:"ended,omitempty"`
}

// older is a program of another version.
type older struct {
	*bpfman.Older
	// Flows is how many it still has, nil: nobody can tell.
	Flows *uint64 `json:"flows"`
}

func statusCommand() *cobra.Command {
	var name, bpffs, runDir, output string
	c := &cobra.Command{
		Use:   "status",
		Short: "Show what is served: frontends, backends, shares, flows, counters",
		Long: `Reads the maps of a load balancer on this host, whether or not its process runs.
Shares of the ring are what a backend is to get of new connections; shares of
flows are what it got since it is one.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := readStatus(bpffs, runDir, name)
			if err != nil {
				return err
			}
			return printAs(c.OutOrStdout(), output, s, func(w io.Writer) { s.table(w) })
		},
	}
	f := c.Flags()
	f.StringVarP(&output, "output", "o", "table", "table, json or yaml")
	f.StringVar(&name, "name", loader.DefaultName, "of the load balancer")
	f.StringVar(&bpffs, "bpffs", loader.DefaultBPFFS, "BPF file system that it is pinned to")
	f.StringVar(&runDir, "run-dir", loader.DefaultRunDir, "directory of its notes")
	return c
}

func readStatus(bpffs, runDir, name string) (*status, error) {
	info, err := bpfman.Inspect(runDir, name)
	if errors.Is(err, fs.ErrNotExist) && !bpfman.Loaded(runDir, name) {
		info, err = loader.Inspect(bpffs, name)
		info.Image = loader.Image(runDir, name)
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("%w: run as root", err)
	}
	if err != nil {
		return nil, err
	}
	tables, err := datapath.Open(info.Dir)
	if err != nil {
		return nil, err
	}
	defer tables.Close()
	s, err := agent.ReadStatus(tables, standalone.StateFile(runDir, name))
	if err != nil {
		return nil, err
	}
	all := &status{Name: name, Program: info, Status: s}
	if info.Loader == "bpfman" {
		err = all.readOlder(runDir)
	}
	return all, err
}

func (s *status) readOlder(runDir string) error {
	replaced, ended, err := bpfman.Replaced(runDir, s.Name)
	if err != nil {
		return err
	}
	s.Ended = ended
	for _, o := range replaced {
		n, err := unfinished(o.Dir())
		if errors.Is(err, fs.ErrNotExist) { // gone, and nobody has noted it yet
			continue
		}
		it := older{Older: o}
		if err == nil {
			it.Flows = &n
		}
		s.Older = append(s.Older, it)
	}
	return nil
}

// printAs writes v as JSON or YAML, or calls table.
func printAs(w io.Writer, format string, v any, table func(io.Writer)) error {
	switch format {
	case "table":
		table(w)
		return nil
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(v)
	case "yaml":
		text, err := yaml.Marshal(v)
		if err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	}
	return fmt.Errorf("output %q: want table, json or yaml", format)
}

// table prints the status for people.
func (s *status) table(w io.Writer) {
	fmt.Fprintf(w, "Load balancer %s: program %d (tag %s), map layout %d, state %s", s.Name, s.Program.ProgramID, s.Program.ProgramTag, s.Layout, s.StateHash)
	if s.Applied != nil {
		fmt.Fprintf(w, " of %s", s.Applied.Local().Format(time.DateTime))
	}
	if s.Draining {
		fmt.Fprint(w, ", draining")
	}
	if s.Program.Image != "" {
		fmt.Fprint(w, "\nLoaded from ", s.Program.Image)
	}
	if s.Program.Loader == "bpfman" {
		fmt.Fprint(w, "\nLoaded by bpfman from ", s.Program.Digest)
	}
	fmt.Fprintf(w, "\nAttached to %s\nSNAT ports %s\n", links(s.Program.Links), s.SNAT)
	for _, o := range s.Older {
		fmt.Fprintln(w, o)
	}
	if s.Ended != nil {
		fmt.Fprintf(w, "Program %d (%s) was unloaded at %s: %s cut\n", s.Ended.Program, s.Ended.Digest, clock(s.Ended.Time), flows(s.Ended.Cut))
	}
	fmt.Fprintln(w)

	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FRONTEND\tROUTE\tBACKEND\tSTATE\tWEIGHT\tRING\tFLOWS\tNEW\tACTIVE")
	for _, f := range s.Frontends {
		route := f.Route
		if route == "" {
			route = "-"
		}
		first := fmt.Sprintf("%s\t%s", f.Frontend, route)
		for _, b := range f.Backends {
			where := b.State
			if b.Local {
				where += ", local"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%.4g\t%s\t%s\t%d\t%d\n", first, b.Address, where, b.Weight, percent(b.RingShare), percent(b.FlowShare), b.NewFlows, b.ActiveFlows)
			first = "\t"
		}
		if f.RejectShare > 0 || len(f.Backends) == 0 {
			fmt.Fprintf(t, "%s\t-\trefused\t\t%s\t\t%d\t\n", first, percent(f.RejectShare), f.Rejected)
		}
	}
	t.Flush()

	fmt.Fprintln(w)
	fmt.Fprintln(t, "TABLE\tUSED\tSIZE")
	for _, name := range slices.Sorted(maps.Keys(s.Tables)) {
		fmt.Fprintf(t, "%s\t%d\t%d\n", name, s.Tables[name].Used, s.Tables[name].Size)
	}
	t.Flush()

	fmt.Fprintln(w)
	fmt.Fprintln(t, "COUNTER\tPACKETS")
	for _, name := range slices.Sorted(maps.Keys(s.Counters)) {
		if n := s.Counters[name]; n > 0 {
			fmt.Fprintf(t, "%s\t%d\n", name, n)
		}
	}
	t.Flush()
}

func (o older) String() string {
	text := fmt.Sprintf("Before it, program %d (%s), %s left: ", o.Program, o.Digest, flows(o.Flows))
	if o.Since.IsZero() {
		return text + "serves until the new one does"
	}
	return text + fmt.Sprintf("drains since %s, at most until %s", clock(o.Since), clock(o.Until))
}

// flows counts in words; nil is what nobody knows.
func flows(n *uint64) string {
	if n == nil {
		return "an unknown number of flows"
	}
	return fmt.Sprintf("%d flows", *n)
}

func clock(t time.Time) string { return t.Local().Format(time.DateTime) }

func percent(share float64) string { return fmt.Sprintf("%.1f%%", 100*share) }

// links names the interfaces, and says where one has a direction only.
func links(all []loader.LinkInfo) string {
	directions := map[string][]string{}
	for _, l := range all {
		directions[l.Interface] = append(directions[l.Interface], fmt.Sprintf("%s link %d", l.Direction, l.ID))
	}
	if len(directions) == 0 {
		return "nothing"
	}
	var names []string
	for _, name := range slices.Sorted(maps.Keys(directions)) {
		names = append(names, fmt.Sprintf("%s (%s)", name, strings.Join(directions[name], ", ")))
	}
	return strings.Join(names, ", ")
}
