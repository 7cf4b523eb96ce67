// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubernetes-sigs/blixt/operator/observe"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

func flowsCommand() *cobra.Command {
	var target targetFlags
	var q flowsFlags
	c := &cobra.Command{
		Use:   "flows [ADDRESS|ADDRESS:PORT|PREFIX|:PORT]...",
		Short: "Show who talks to whom: flows that last, and those that have ended",
		Long: `Asks the load balancer of this host, or all nodes of a cluster, for flows. An
argument selects flows with that client, frontend, translated source or backend. Of
several options all must hold; of several values of one, any.

Flows that last are in the tables of each node. Those that have ended are remembered
if their Gateway records flows (flowRecords in its BlixtGatewayConfig; blixt run
--flow-records), and with them when they began, their bytes, and who ended them. Each
node remembers the last 65,536 flows whose clients have proven to be there, 8,192 other
attempts, and 4,096 packets that were rejected or dropped. How far that goes back, and
what was lost, is written to the standard error.

Times are RFC 3339, 2006-01-02 15:04:05, 15:04:05 or 15:04 of the last 24 hours, or a
duration before now, such as 10m.`,
		Example: `  blixt flows 10.0.0.5:14211 --at 09:12    # who was behind this address and port?
  blixt flows -f --route prod/web
  blixt flows --client 198.51.100.0/24 --since 10m -o json
  blixt flows --reason unanswered --reason 'reject_*' --node worker-1`,
		RunE: func(c *cobra.Command, args []string) error {
			query, err := q.query(args, time.Now())
			if err != nil {
				return err
			}
			conn, err := target.dial(c.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			return showFlows(c.Context(), conn, query, flowsOutput{c.OutOrStdout(), c.ErrOrStderr(), q.output == "json", time.Local})
		},
	}
	f := c.Flags()
	target.add(f)
	f.BoolVarP(&q.follow, "follow", "f", false, "go on with flows that end, and packets that are rejected or dropped, as they come")
	f.StringVar(&q.since, "since", "", "only what was there at this time or later")
	f.StringVar(&q.until, "until", "", "only what was there at this time or earlier")
	f.StringVar(&q.at, "at", "", "only what was there at this time: within the minute or second that it names")
	f.StringSliceVar(&q.clients, "client", nil, "address, address:port, prefix or :port of the client")
	f.StringSliceVar(&q.servers, "server", nil, "the same of the frontend")
	f.StringSliceVar(&q.snats, "snat", nil, "the same of the source that the backend sees")
	f.StringSliceVar(&q.backends, "backend", nil, "the same of the backend")
	f.StringSliceVar(&q.filter.Gateways, "gateway", nil, "Gateway: namespace/name, or name")
	f.StringSliceVar(&q.filter.Routes, "route", nil, "route: kind/namespace/name, namespace/name, or name")
	f.StringSliceVar(&q.filter.Services, "service", nil, "Service of the backend: namespace/name, or name")
	f.StringSliceVar(&q.filter.Protocols, "protocol", nil, "tcp, udp, icmp, icmpv6, or a number")
	f.StringSliceVar(&q.filter.Reasons, "reason", nil, "why a flow has ended (fin, reset, idle, unanswered, refused, ...) or a packet was rejected or dropped (drop_no_route, ...); a * at the end stands for anything")
	f.StringSliceVar(&q.events, "event", nil, "open, end, rejected or dropped")
	f.BoolVar(&q.open, "open", true, "show flows that have not ended, too")
	f.IntVar(&q.last, "last", -1, "how many of the newest each node sends, 0: all that it remembers, and the 16,384 open flows of the latest packets (default 1000, with --follow 10)")
	f.Lookup("last").DefValue = "0" // it is said above
	f.VarP(&q.output, "output", "o", "table, or json: one object a line")
	c.MarkFlagsMutuallyExclusive("at", "since")
	c.MarkFlagsMutuallyExclusive("at", "until")
	c.MarkFlagsMutuallyExclusive("follow", "until")
	return c
}

// linesFormat is the flag for the format of an output that has no end.
type linesFormat string

func (f *linesFormat) String() string { return cmp.Or(string(*f), "table") }
func (f *linesFormat) Type() string   { return "format" }
func (f *linesFormat) Set(text string) error {
	if text != "table" && text != "json" {
		return errors.New("want table or json")
	}
	*f = linesFormat(text)
	return nil
}

// flowsFlags are those of blixt flows that make the question.
type flowsFlags struct {
	filter                            observe.Filter
	since, until, at                  string
	clients, servers, snats, backends []string
	events                            []string
	follow, open                      bool
	last                              int
	output                            linesFormat
}

func (q *flowsFlags) query(ends []string, now time.Time) (out observe.FlowsQuery, err error) {
	f := q.filter
	for flag, it := range map[string]struct {
		texts []string
		to    *[]observe.Match
	}{
		"argument": {ends, &f.Ends}, "--client": {q.clients, &f.Clients}, "--server": {q.servers, &f.Servers},
		"--snat": {q.snats, &f.SNATs}, "--backend": {q.backends, &f.Backends},
	} {
		for _, text := range it.texts {
			m, err := observe.ParseMatch(text)
			if err != nil {
				return out, fmt.Errorf("%s %w", flag, err)
			}
			*it.to = append(*it.to, m)
		}
	}
	for _, text := range q.events {
		if e := observe.Event(text); e != observe.EventOpen && e != observe.EventEnd && e != observe.EventRejected && e != observe.EventDropped {
			return out, fmt.Errorf("--event %q: want open, end, rejected or dropped", text)
		}
		f.Events = append(f.Events, observe.Event(text))
	}
	if f.Since, _, err = parseTime("--since", q.since, now); err != nil {
		return out, err
	}
	if f.Until, _, err = parseTime("--until", q.until, now); err != nil {
		return out, err
	}
	if q.at != "" {
		var width time.Duration
		if f.Since, width, err = parseTime("--at", q.at, now); err != nil {
			return out, err
		}
		f.Until = f.Since.Add(width - 1)
	}
	if !f.Since.IsZero() && !f.Until.IsZero() && f.Until.Before(f.Since) {
		return out, errors.New("--until is before --since")
	}
	for i, p := range f.Protocols {
		f.Protocols[i] = strings.ToLower(p)
	}
	last := q.last
	switch {
	case last < 0 && q.follow:
		last = 10
	case last < 0:
		last = 1000
	}
	return observe.FlowsQuery{Filter: f, Follow: q.follow, Last: last, Open: q.open}, nil
}

// parseTime parses a time, "" being the zero Time, and returns how long the shortest time
// is that the text names.
func parseTime(flag, text string, now time.Time) (time.Time, time.Duration, error) {
	if text == "" {
		return time.Time{}, 0, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), time.Second, nil
	}
	for _, it := range []struct {
		layout string
		width  time.Duration
	}{
		{time.RFC3339Nano, time.Second}, {time.DateTime, time.Second}, {"2006-01-02T15:04:05", time.Second},
		{"2006-01-02 15:04", time.Minute}, {"2006-01-02T15:04", time.Minute}, {time.DateOnly, 24 * time.Hour},
	} {
		if t, err := time.ParseInLocation(it.layout, text, now.Location()); err == nil {
			return t, it.width, nil
		}
	}
	for layout, width := range map[string]time.Duration{time.TimeOnly: time.Second, "15:04": time.Minute} {
		t, err := time.ParseInLocation(layout, text, now.Location())
		if err != nil {
			continue
		}
		t = time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), t.Second(), 0, now.Location())
		if t.After(now) {
			t = t.AddDate(0, 0, -1)
		}
		return t, width, nil
	}
	return time.Time{}, 0, fmt.Errorf("%s %q: want a time, such as 15:04, 15:04:05, 2006-01-02 15:04:05 or 2006-01-02T15:04:05Z, or a duration before now, such as 10m", flag, text)
}

// flowsOutput is where and how flows are shown.
type flowsOutput struct {
	out, notes io.Writer
	json       bool
	place      *time.Location
}

// showFlows asks and shows what comes: in order, unless there is no end to it.
func showFlows(ctx context.Context, a observe.Asker, q observe.FlowsQuery, o flowsOutput) error {
	var all []*observe.Record
	memories := map[string]*observe.Memory{}
	err := a.Ask(ctx, observe.Query{Flows: &q}, func(node string, text json.RawMessage) error {
		var p observe.FlowsPiece
		if err := json.Unmarshal(text, &p); err != nil {
			return fmt.Errorf("node %s answers in a way that this version does not know: %w", node, err)
		}
		switch {
		case p.Memory != nil && (q.Follow || p.Memory.Missed > 0):
			o.note(node, p.Memory)
		case p.Memory != nil:
			memories[node] = p.Memory
		case p.Record != nil:
			p.Node = cmp.Or(p.Node, node)
			if q.Follow {
				return o.show(p.Record)
			}
			all = append(all, p.Record)
		}
		return nil
	})
	if q.Follow && ctx.Err() != nil { // that is how it ends
		return nil
	}
	slices.SortStableFunc(all, func(a, b *observe.Record) int { return a.Time.Compare(b.Time) })
	for _, r := range withoutTwins(all) {
		if err := o.show(r); err != nil {
			return err
		}
	}
	for _, node := range slices.Sorted(maps.Keys(memories)) {
		o.note(node, memories[node])
	}
	return err
}

// withoutTwins leaves out open flows that have ended while the answer was made. Their
// starts may differ by what the node's clock was adjusted meanwhile.
func withoutTwins(all []*observe.Record) []*observe.Record {
	type flow struct {
		node, protocol string
		client, server observe.Endpoint
	}
	of := func(r *observe.Record) flow { return flow{r.Node, r.Protocol, r.Client, r.Server} }
	ended := map[flow][]time.Time{}
	for _, r := range all {
		if r.Event == observe.EventEnd {
			ended[of(r)] = append(ended[of(r)], r.Start)
		}
	}
	return slices.DeleteFunc(all, func(r *observe.Record) bool {
		return r.Event == observe.EventOpen && slices.ContainsFunc(ended[of(r)], func(start time.Time) bool {
			return start.Sub(r.Start).Abs() < time.Second
		})
	})
}

func (o flowsOutput) show(r *observe.Record) error {
	line := r.Text(o.place)
	if o.json {
		text, err := json.Marshal(r)
		if err != nil {
			return err
		}
		line = phrase.Printable(string(text))
	}
	_, err := fmt.Fprintln(o.out, line)
	return err
}

func (o flowsOutput) note(node string, m *observe.Memory) {
	printer{o.notes}.printf("%s %s\n", cmp.Or(node, "this host"), m.Text(o.place))
}
