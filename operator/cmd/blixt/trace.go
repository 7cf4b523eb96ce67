// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kubernetes-sigs/blixt/operator/node/trace"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
	"github.com/kubernetes-sigs/blixt/operator/observe"
)

func traceCommand() *cobra.Command {
	var source mapsFlags
	var q observe.TraceQuery
	var output format
	c := &cobra.Command{
		Use:   "trace CLIENT:PORT ADDRESS:PORT[/tcp|/udp]",
		Short: "Show where a connection would go, and why, without sending a packet",
		Long: `Looks up what the data plane would for the first packet of a client, a SYN or a
datagram: address, frontend, flow, slot of the ring, backend, source, next hop. The maps
and the routes of this host are read, and nothing is written or sent.

An open connection is found, too: where its packets go is where the flow says.
With --bytes a packet of that size is traced, which must not be fragmented.

Nodes of a cluster are asked with --node. Agents are not in the network of their node: they
do not know its routes, and say so.`,
		Example: `  blixt trace 203.0.113.7:40000 192.0.2.10:443
  blixt trace 203.0.113.7:5353 192.0.2.10:53/udp --bytes 1400
  blixt trace '[2001:db8::7]:40000' '[2001:db8:f::1]:443' -o json | jq .backend`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			var err error
			if q.Client, q.Server, q.Protocol, err = parseTuple(args[0], args[1]); err != nil {
				return err
			}
			conn, dir, stateFile, err := source.open(c.Context())
			if err != nil {
				return err
			}
			if conn != nil {
				defer conn.Close()
				return askTrace(c.Context(), c.OutOrStdout(), conn, q, &output)
			}
			r, err := traceMaps(dir, stateFile, q)
			if err != nil {
				return err
			}
			return printTrace(c.OutOrStdout(), &output, "", r)
		},
	}
	f := c.Flags()
	output.add(f)
	f.StringVar(&q.Interface, "interface", "", "interface that the packet comes in by (default: that of the route to the client)")
	f.IntVar(&q.Bytes, "bytes", 0, "size of the packet from its IP header on (default: as small as can be)")
	source.add(c)
	return c
}

// printTrace prints what a node says.
func printTrace(out io.Writer, output *format, node string, r *trace.Result) (err error) {
	printed := output.print(out, r, func(out io.Writer) {
		if node != "" {
			printer{out}.printf("Node %s\n", node)
		}
		err = r.Text(out)
		if node != "" {
			printer{out}.printf("\n")
		}
	})
	return errors.Join(printed, err)
}

// askTrace asks a process of this host, or the nodes of a cluster.
func askTrace(ctx context.Context, out io.Writer, who observe.Asker, q observe.TraceQuery, output *format) error {
	return who.Ask(ctx, observe.Query{Trace: &q}, func(node string, piece json.RawMessage) error {
		var r trace.Result
		if err := json.Unmarshal(piece, &r); err != nil {
			return fmt.Errorf("read the answer of %s: %w", node, err)
		}
		r.Node = node
		return printTrace(out, output, node, &r)
	})
}

// parseTuple parses the arguments of trace.
func parseTuple(client, server string) (c, s netip.AddrPort, protocol string, err error) {
	server, protocol, _ = strings.Cut(server, "/")
	if protocol = strings.ToLower(protocol); protocol == "" {
		protocol = "tcp"
	}
	if c, err = netip.ParseAddrPort(client); err == nil {
		s, err = netip.ParseAddrPort(server)
	}
	if err != nil {
		err = fmt.Errorf("%w: want ADDRESS:PORT, of IPv6 [ADDRESS]:PORT", err)
	}
	return netip.AddrPortFrom(c.Addr().Unmap(), c.Port()), netip.AddrPortFrom(s.Addr().Unmap(), s.Port()), protocol, err
}

// traceMaps traces by the maps in a directory. Names are those of the writer's state
// file, if there is one.
func traceMaps(dir, stateFile string, q observe.TraceQuery) (*trace.Result, error) {
	record, err := writer.LoadRecord(stateFile)
	if err != nil {
		return nil, err
	}
	var o trace.Options
	if trace.IsHost() {
		if o.Network, err = trace.NewHost(); err != nil {
			return nil, err
		}
	}
	for i := range record.State.Frontends {
		o.Frontends = append(o.Frontends, &record.State.Frontends[i])
	}
	r, err := trace.Run(dir, q, o)
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w: run as root", err)
	}
	return r, err
}
