// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/top"
	"github.com/kubernetes-sigs/blixt/operator/observe"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

func backendsCommand() *cobra.Command {
	var o backendsOptions
	var source mapsFlags
	var addresses []string
	c := &cobra.Command{
		Use:   "backends",
		Short: "List backends: their frontends, states, shares and flows",
		Long: `Lists the backends of a load balancer on this host, or of a cluster: one row for each
address in each Service, and with -o wide one for each frontend of it. WANTED is the share of
new flows that a backend is to have, SEEN what it has had since it was added. A state is
serving; draining, if it keeps its flows and gets no new ones; not-serving, if it does not keep
its UDP flows either; or drained, if somebody has drained it by hand (blixt drain). Of several
nodes the sum is shown.`,
		Example: `  blixt backends
  blixt backends --service default/web -o wide
  blixt backends --address 10.0.0.0/24
  blixt backends --drained -o json | jq -r '.[].address'`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if o.interval < 0 || o.interval > 0 && o.interval < leastInterval {
				return fmt.Errorf("--interval %s: want at least %s, or 0 for no rates", o.interval, leastInterval)
			}
			for _, text := range addresses {
				m, err := observe.ParseMatch(text)
				if err != nil {
					return err
				}
				o.addresses = append(o.addresses, m)
			}
			read, end, err := (&topOptions{count: true}).reader(c.Context(), &source)
			if err != nil {
				return err
			}
			defer end()
			return o.show(c.Context(), c.OutOrStdout(), read)
		},
	}
	f := c.Flags()
	o.output.addWide(f)
	source.add(c)
	f.StringSliceVar(&o.services, "service", nil, "backends of this Service only: namespace/name or name; may be repeated")
	f.StringSliceVar(&o.gateways, "gateway", nil, "backends of this Gateway only: namespace/name or name; may be repeated")
	f.StringSliceVar(&addresses, "address", nil, "backends with this address, address:port, prefix or :port only; may be repeated")
	f.BoolVar(&o.drained, "drained", false, "backends only that somebody has drained by hand")
	f.DurationVar(&o.interval, "interval", time.Second, "time between two looks, from which rates come; 0: no rates")
	return c
}

type backendsOptions struct {
	services, gateways []string
	addresses          []observe.Match
	drained            bool
	interval           time.Duration
	output             format
}

// show shows what is read. Nodes that do not answer are named, and the others are shown.
func (o *backendsOptions) show(ctx context.Context, out io.Writer, read readReports) error {
	was := map[string]top.Sample{}
	for looks := 1; ; looks++ {
		reports, err := read(ctx)
		if err != nil && (len(reports) == 0 || !isOfNodes(err)) {
			return err
		}
		if looks == 1 && o.interval > 0 {
			for node, r := range reports {
				was[node] = top.Sample{Time: time.Now(), Report: r}
			}
			if !sleep(ctx, o.interval) {
				return ctx.Err()
			}
			continue
		}
		rows := o.rows(was, reports, time.Now())
		return errors.Join(o.output.print(out, rows, func(out io.Writer) { o.table(out, rows) }), err)
	}
}

// backendRow is a backend in a Service.
type backendRow struct {
	Address string `json:"address"`
	Service string `json:"service,omitempty"`
	// State is serving if it does in any frontend; drained goes beyond draining.
	State       string      `json:"state"`
	Drained     *lb.Drained `json:"drained,omitempty"`
	Ejected     *lb.Ejected `json:"ejected,omitempty"`
	Local       bool        `json:"local,omitempty"`
	ActiveFlows uint64      `json:"activeFlows"`
	NewFlows    uint64      `json:"newFlows"`
	Connections top.Rate    `json:"connectionsPerSecond"`
	// Wanted is the mean of its frontends, Seen its part of what all of them have had.
	Wanted    float64           `json:"wanted"`
	Seen      float64           `json:"seen"`
	Frontends []backendFrontend `json:"frontends"`
}

// backendFrontend is a backend in a frontend. Of several nodes, flows are the sum and
// Wanted is the mean.
type backendFrontend struct {
	Frontend    string   `json:"frontend"`
	Gateway     string   `json:"gateway,omitempty"`
	Listener    string   `json:"listener,omitempty"`
	Route       string   `json:"route,omitempty"`
	State       string   `json:"state"`
	Weight      float64  `json:"weight"`
	Wanted      float64  `json:"wanted"`
	Seen        float64  `json:"seen"`
	ActiveFlows uint64   `json:"activeFlows"`
	NewFlows    uint64   `json:"newFlows"`
	Connections top.Rate `json:"connectionsPerSecond"`
	// Nodes is how many nodes of a cluster have it.
	Nodes int `json:"nodes,omitempty"`
}

// rows returns the backends that are wanted, by Service and address.
func (o *backendsOptions) rows(was map[string]top.Sample, now map[string]top.Report, at time.Time) []*backendRow {
	type frontendKey struct{ address, service, frontend string }
	all := map[[2]string]*backendRow{}
	parts := map[frontendKey]*backendFrontend{}
	totals := map[string]uint64{} // new flows of frontends
	for node, report := range now {
		rates := map[string]top.Rate{}
		if before, is := was[node]; is {
			for _, b := range top.New(&before, top.Sample{Time: at, Report: report}, 0).Backends {
				rates[b.Frontend+" "+b.Backend] = b.Connections
			}
		}
		for _, f := range report.Frontends {
			for _, b := range f.Backends {
				totals[f.Frontend] += b.NewFlows
				if !o.wants(f.Gateway, b.Service, b.Address, b.Drained) {
					continue
				}
				row := all[[2]string{b.Address, b.Service}]
				if row == nil {
					row = &backendRow{Address: b.Address, Service: b.Service, State: b.State}
					all[[2]string{b.Address, b.Service}] = row
				}
				rate := rates[f.Frontend+" "+b.Address]
				if b.State == lb.StateServing {
					row.State = b.State
				}
				row.Ejected = cmp.Or(row.Ejected, b.Ejected)
				row.Drained, row.Local = cmp.Or(row.Drained, b.Drained), row.Local || b.Local
				row.ActiveFlows, row.NewFlows, row.Connections = row.ActiveFlows+b.ActiveFlows, row.NewFlows+b.NewFlows, top.Add(row.Connections, rate)
				key := frontendKey{b.Address, b.Service, f.Frontend}
				p := parts[key]
				if p == nil {
					p = &backendFrontend{Frontend: f.Frontend, Gateway: f.Gateway, Listener: f.Listener, Route: f.Route, State: b.State, Weight: b.Weight}
					parts[key] = p
				}
				if b.State == lb.StateServing {
					p.State = b.State
				}
				p.Nodes++
				p.Wanted += b.RingShare
				p.ActiveFlows, p.NewFlows, p.Connections = p.ActiveFlows+b.ActiveFlows, p.NewFlows+b.NewFlows, top.Add(p.Connections, rate)
			}
		}
	}
	for key, p := range parts {
		p.Wanted /= float64(p.Nodes)
		if total := totals[p.Frontend]; total > 0 {
			p.Seen = float64(p.NewFlows) / float64(total)
		}
		if _, host := now[""]; host {
			p.Nodes = 0
		}
		row := all[[2]string{key.address, key.service}]
		row.Frontends = append(row.Frontends, *p)
	}
	rows := make([]*backendRow, 0, len(all))
	for _, row := range all {
		total := uint64(0)
		for _, f := range row.Frontends {
			row.Wanted += f.Wanted / float64(len(row.Frontends))
			total += totals[f.Frontend]
		}
		if total > 0 {
			row.Seen = float64(row.NewFlows) / float64(total)
		}
		slices.SortFunc(row.Frontends, func(a, b backendFrontend) int { return strings.Compare(a.Frontend, b.Frontend) })
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b *backendRow) int {
		x, _ := netip.ParseAddrPort(a.Address)
		y, _ := netip.ParseAddrPort(b.Address)
		return cmp.Or(strings.Compare(a.Service, b.Service), x.Compare(y))
	})
	return rows
}

// wants reports whether a backend of a frontend is wanted.
func (o *backendsOptions) wants(gateway, service, address string, drained *lb.Drained) bool {
	named := func(wanted []string, full string) bool {
		return len(wanted) == 0 || slices.ContainsFunc(wanted, func(name string) bool {
			return name != "" && (full == name || strings.HasSuffix(full, "/"+name))
		})
	}
	at, _ := netip.ParseAddrPort(address)
	return named(o.gateways, gateway) && named(o.services, service) && (drained != nil || !o.drained) &&
		(len(o.addresses) == 0 || slices.ContainsFunc(o.addresses, func(m observe.Match) bool {
			return (!m.Prefix.IsValid() || m.Prefix.Contains(at.Addr())) && (m.Port == 0 || m.Port == at.Port())
		}))
}

// table prints the rows for people.
func (o *backendsOptions) table(out io.Writer, rows []*backendRow) {
	if len(rows) == 0 {
		printer{out}.printf("No such backend.\n")
		return
	}
	t, flush := newTable(out)
	if o.output == wide {
		t.printf("BACKEND\tSERVICE\tFRONTEND\tGATEWAY\tROUTE\tSTATE\tWEIGHT\tWANTED\tSEEN\tFLOWS\tNEW\tCONN/S\n")
	} else {
		t.printf("BACKEND\tSERVICE\tFRONTENDS\tSTATE\tWEIGHT\tWANTED\tSEEN\tFLOWS\tNEW\tCONN/S\n")
	}
	for _, r := range rows {
		service := cmp.Or(r.Service, "-")
		if o.output == wide {
			for _, f := range r.Frontends {
				t.printf("%s\t%s\t%s\t%s\t%s\t%s\t%.4g\t%s\t%s\t%d\t%d\t%s\n", r.Address, service, f.Frontend, cmp.Or(f.Gateway, "-"), cmp.Or(f.Route, "-"),
					r.stateText(f.State, true), f.Weight, percent(f.Wanted), percent(f.Seen), f.ActiveFlows, f.NewFlows, top.Number(f.Connections))
			}
			continue
		}
		names := make([]string, len(r.Frontends))
		for i, f := range r.Frontends {
			names[i] = f.Frontend
		}
		frontends := names[0]
		if n := len(names) - 1; n > 0 {
			frontends += fmt.Sprintf(" and %s more", phrase.Number(n))
		}
		t.printf("%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\n", r.Address, service, frontends, r.stateText(r.State, false),
			r.weight(), percent(r.Wanted), percent(r.Seen), r.ActiveFlows, r.NewFlows, top.Number(r.Connections))
	}
	flush()
}

// stateText returns a state in words, in full with who has drained it, or why it is ejected.
func (r *backendRow) stateText(state string, full bool) string {
	switch {
	case r.Drained != nil && full:
		state = "drained " + r.Drained.String()
	case r.Drained != nil:
		state = "drained"
	case r.Ejected != nil && full && state != lb.StateStandby:
		state = r.Ejected.String()
	}
	if r.Local {
		state += ", local"
	}
	return state
}

// weight returns that in all frontends, or the word that they differ.
func (r *backendRow) weight() string {
	for _, f := range r.Frontends[1:] {
		if f.Weight != r.Frontends[0].Weight {
			return "differs"
		}
	}
	return fmt.Sprintf("%.4g", r.Frontends[0].Weight)
}
