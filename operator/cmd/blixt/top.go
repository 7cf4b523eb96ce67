// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
	"github.com/kubernetes-sigs/blixt/operator/node/standalone"
	"github.com/kubernetes-sigs/blixt/operator/node/top"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
	"github.com/kubernetes-sigs/blixt/operator/observe"
	"github.com/kubernetes-sigs/blixt/operator/observe/dial"
)

// topKinds are what blixt top shows, in this order.
var topKinds = []string{"frontends", "backends", "clients"}

func topCommand() *cobra.Command {
	var o topOptions
	var source mapsFlags
	c := &cobra.Command{
		Use:       "top [frontends|backends|clients]...",
		Short:     "Show who is busy: frontends, backends and clients, by their rates",
		ValidArgs: topKinds,
		Args:      cobra.OnlyValidArgs,
		Long: `Reads the counters twice and shows the rates between. On a terminal it goes on until it is
interrupted. Clients are those with most flows in the tables: established TCP and UDP
flows, and TCP connections that are opening. Their packets are not counted one by one.

Of several nodes the sum is shown.`,
		Example: `  blixt top
  blixt top clients --limit 20
  blixt top --watch=false -o json | jq .frontends`,
		RunE: func(c *cobra.Command, args []string) error {
			if !c.Flags().Changed("watch") {
				o.watch = o.output == "table" && isTerminal(c.OutOrStdout())
			}
			if o.interval < leastInterval {
				return fmt.Errorf("--interval %s: want at least %s", o.interval, leastInterval)
			}
			if o.number < 1 {
				return fmt.Errorf("--limit %d: want at least 1", o.number)
			}
			if o.kinds = args; len(args) == 0 {
				o.kinds = topKinds
			}
			read, end, err := o.reader(c.Context(), &source)
			if err != nil {
				return err
			}
			defer end()
			return o.show(c.Context(), c.OutOrStdout(), read)
		},
	}
	f := c.Flags()
	o.output.add(f)
	source.add(c)
	f.BoolVarP(&o.watch, "watch", "w", false, "show it again and again (default: on a terminal)")
	f.DurationVar(&o.interval, "interval", 2*time.Second, "time between two looks")
	f.IntVar(&o.number, "limit", 10, "how many of each are shown")
	return c
}

type topOptions struct {
	kinds    []string
	watch    bool
	interval time.Duration
	number   int
	// count has flows of backends counted, beside those that the last sweep knows.
	count  bool
	output format
}

// isTerminal reports whether out shows what is written to it on a terminal.
func isTerminal(out io.Writer) bool {
	t, is := out.(*terminal)
	if !is {
		return false
	}
	f, is := t.out.(*os.File)
	return is && term.IsTerminal(int(f.Fd()))
}

// readReports reads what nodes report, by the names of nodes.
type readReports func(context.Context) (map[string]top.Report, error)

// clients is how many clients a node is asked for: those with most flows in all have
// most on some node.
func (o *topOptions) clients() int {
	if !slices.Contains(o.kinds, "clients") {
		return 0
	}
	return 10 * o.number
}

// reader returns the function that reads, and one that ends it.
func (o *topOptions) reader(ctx context.Context, source *mapsFlags) (readReports, func(), error) {
	conn, dir, stateFile, err := source.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	if conn != nil {
		return func(ctx context.Context) (map[string]top.Report, error) {
			all := map[string]top.Report{}
			err := conn.Ask(ctx, observe.Query{Status: &observe.StatusQuery{Clients: o.clients(), Count: o.count}}, func(node string, piece json.RawMessage) error {
				var r top.Report
				if err := json.Unmarshal(piece, &r); err != nil {
					return fmt.Errorf("read the answer of %s: %w", node, err)
				}
				all[node] = r
				return nil
			})
			return all, err
		}, func() { _ = conn.Close() }, nil
	}
	tables, err := datapath.Open(dir)
	if err != nil {
		return nil, nil, err
	}
	return func(context.Context) (map[string]top.Report, error) {
		s, err := writer.ReadStatus(tables, stateFile)
		r := top.Report{Status: s}
		if n := o.clients(); err == nil && n > 0 {
			err = r.AddClients(tables, n)
		}
		if err == nil && o.count {
			err = r.CountRemaining(tables)
		}
		return map[string]top.Report{"": r}, err
	}, func() { _ = tables.Close() }, nil
}

// show shows what is read, once or again and again. Nodes that do not answer are named,
// and the others are shown.
func (o *topOptions) show(ctx context.Context, out io.Writer, read readReports) error {
	was := map[string]top.Sample{}
	for looks := 1; ; looks++ {
		reports, err := read(ctx)
		if err != nil && (len(reports) == 0 || !isOfNodes(err)) {
			return err
		}
		now := time.Now()
		var views []top.View
		is := map[string]top.Sample{}
		for _, node := range slices.Sorted(maps.Keys(reports)) {
			is[node] = top.Sample{Time: now, Report: reports[node]}
			if w, known := was[node]; known {
				views = append(views, top.New(&w, is[node], 0))
			} else {
				views = append(views, top.New(nil, is[node], 0))
			}
		}
		was = is
		v := top.Merge(views, o.number)
		o.keep(&v)
		if o.watch || looks == 2 {
			if failed := o.print(out, &v, err); failed != nil || !o.watch {
				return errors.Join(failed, err)
			}
		}
		if !sleep(ctx, o.interval) {
			return nil
		}
	}
}

// isOfNodes reports whether an error says only that some nodes have not answered.
func isOfNodes(err error) bool {
	_, is := errors.AsType[*observe.NodesError](err)
	return is
}

// keep leaves out the kinds that are not wanted.
func (o *topOptions) keep(v *top.View) {
	wants := func(kind string) bool { return slices.Contains(o.kinds, kind) }
	if !wants("frontends") {
		v.Frontends = nil
	}
	if !wants("backends") {
		v.Backends = nil
	}
	if !wants("clients") {
		v.Clients, v.ClientsLost = nil, 0
	}
}

// print prints a view; failed is what some nodes have answered.
func (o *topOptions) print(out io.Writer, v *top.View, failed error) error {
	if o.output != "table" {
		return o.output.print(out, v, nil)
	}
	var text strings.Builder
	if o.watch {
		printer{&text}.printf("%s, every %s\n", v.Time.Format(time.TimeOnly), o.interval)
		if failed != nil {
			printer{&text}.printf("%s\n", failed)
		}
	}
	if err := v.Text(&text); err != nil {
		return err
	}
	if o.watch {
		return redraw(out, text.String())
	}
	_, err := io.WriteString(out, text.String())
	return err
}

// mapsFlags select whose maps are read: those in a directory, those of a load balancer on
// this host, or those of the nodes of a cluster, which are asked.
type mapsFlags struct {
	dir, bpffs string
	target     targetFlags
}

func (m *mapsFlags) add(c *cobra.Command) {
	f := c.Flags()
	m.target.add(f)
	f.StringVar(&m.dir, "maps", "", "directory of the maps' pins")
	f.StringVar(&m.bpffs, "bpffs", loader.DefaultBPFFS, "BPF file system that the maps of a load balancer on this host are pinned to")
	for _, other := range []string{"name", "bpffs", "run-dir", "node", "kubeconfig", "context", "namespace"} {
		if f.Lookup(other) != nil {
			c.MarkFlagsMutuallyExclusive("maps", other)
		}
	}
}

// open returns a connection to who is asked: the process of a load balancer on this host,
// or the nodes of a cluster. Where no process answers on this host, or --maps or --bpffs
// says so, it returns the directory of the maps instead, and the file with their names,
// if there is one.
func (m *mapsFlags) open(ctx context.Context) (conn *dial.Conn, dir, stateFile string, err error) {
	if m.dir != "" {
		return nil, m.dir, "", nil
	}
	t := &m.target
	if t.given("node", "kubeconfig", "context", "namespace") {
		conn, err = t.dial(ctx)
		return conn, "", "", err
	}
	if !t.given("bpffs") && t.onHost() {
		if conn, err = t.dial(ctx); err == nil {
			return conn, "", "", nil
		}
	}
	info, lacks := inspect(m.bpffs, t.runDir, t.name)
	switch {
	case lacks == nil:
		return nil, info.Dir, standalone.StateFile(t.runDir, t.name), nil
	case err != nil: // why the process does not answer
		return nil, "", "", err
	case t.given("name", "run-dir", "bpffs") || !t.hasCluster():
		return nil, "", "", lacks
	}
	conn, err = t.dial(ctx)
	return conn, "", "", err
}

// hasCluster reports whether a cluster can be found without a flag that names one.
func (t *targetFlags) hasCluster() bool {
	_, err := t.cluster.config()
	return err == nil
}
