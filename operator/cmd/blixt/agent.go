// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/node/agent"
	"github.com/kubernetes-sigs/blixt/operator/node/confine"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/metrics"
	"github.com/kubernetes-sigs/blixt/operator/scrape"
)

func agentCommand() *cobra.Command {
	o := agent.Options{Layout: bpf.Layout}
	var dir string
	var e endpoints
	var logs logFlags
	var flowLog string
	c := &cobra.Command{
		Use:   "agent --maps DIR --operator HOST:PORT --application NAME",
		Short: "Keep the maps of a node's data plane as the operator wants them",
		Long: `Receives from the operator what to serve, writes it to the pinned maps of a data
plane that bpfman has loaded, and reports to the operator what the maps hold. If the
operator cannot be reached, the kernel continues to serve.

Needs Linux 5.19, the right to read and write the maps' pins, and no capability.
It confines itself by Landlock and seccomp, in addition to the chart's profile.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			log, err := logs.logger(os.Stderr)
			if err != nil {
				return err
			}
			var name unix.Utsname
			if err := unix.Uname(&name); err != nil {
				return err
			}
			o.Kernel = unix.ByteSliceToString(name.Release[:])
			if o.Node == "" {
				return errors.New("no name of the node: set NODE_NAME, or --node-name")
			}
			switch flowLog {
			case "":
			case "-":
				o.FlowLines = os.Stdout
			default:
				return errors.New("--flow-log: an agent may write no file: want - for standard output")
			}
			o.Log = log
			return runAgent(c.Context(), o, dir, e)
		},
	}
	f := c.Flags()
	f.StringVar(&dir, "maps", "", "directory of the maps' pins (required)")
	f.StringVar(&o.Operator, "operator", "", "host and port of the operator; its certificate must be for this host (required)")
	f.StringVar(&o.Application, "application", "", "ClusterBpfApplication that the maps belong to (required)")
	f.StringVar(&o.Node, "node-name", os.Getenv("NODE_NAME"), "name of this node (default $NODE_NAME)")
	f.StringVar(&o.TokenFile, "token-file", "/var/run/secrets/blixt/token", "file of the token by which this agent authenticates itself to the operator")
	f.StringVar(&o.CAFile, "ca-file", "/var/run/secrets/blixt/ca.crt", "file of the CA certificates with which this agent verifies the operator's")
	f.StringVar(&e.health, "listen", ":8081", "address of /healthz and /readyz")
	f.StringVar(&e.metrics, "metrics-address", ":8082", "address of /metrics, 0: none")
	f.StringVar(&e.tokenFile, "metrics-token-file", "/var/run/secrets/blixt/metrics/token", "file of the bearer token that whoever reads /metrics must have; empty: everybody may")
	f.Var(&o.RouteMetrics, "route-metrics", "frontends and backendRefs that have metrics of their own: all; seen: those of which this node has seen a packet; or off")
	f.IntVar(&o.PeerMetrics, "peer-metrics", metrics.DefaultPeers, "other nodes that have metrics of their own, some 20 each. If there are more, those that do not answer come first. 0: none")
	f.StringVar(&flowLog, "flow-log", "", "- writes a line of JSON to standard output for each flow that has ended, if it has a record, and for samples of packets that are rejected or dropped; the log goes to standard error. It names clients")
	logs.add(f)
	for _, required := range []string{"maps", "operator", "application"} {
		if err := c.MarkFlagRequired(required); err != nil {
			panic(fmt.Sprint("no such flag: ", err))
		}
	}
	return c
}

// endpoints are those that an agent serves by HTTP.
type endpoints struct{ health, metrics, tokenFile string }

func runAgent(ctx context.Context, o agent.Options, dir string, e endpoints) error {
	if _, _, err := net.SplitHostPort(o.Operator); err != nil {
		return fmt.Errorf("operator: want host:port: %w", err)
	}
	// Sandboxes may hide the file. The operator knows then that it is told nothing.
	if id, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		o.BootID = strings.TrimSpace(string(id))
	}
	// A mounted token or ConfigMap is a link within its directory.
	if err := confine.Process(confine.Options{
		Read: []string{dir, filepath.Dir(o.TokenFile), filepath.Dir(o.CAFile), filepath.Dir(e.tokenFile)},
	}); err != nil {
		return err
	}
	tables, err := datapath.Open(dir)
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: needs Linux 5.19, pins that user %d or its groups may read and write, and a seccomp profile that allows bpf(2)", err, os.Getuid())
	}
	if err != nil {
		return err
	}
	defer tables.Close()
	o.Tables, o.MapsDir = tables, dir
	client := agent.New(o)
	served := map[string]http.Handler{e.health: client.Handler()}
	if e.metrics != "0" {
		served[e.metrics] = client.Metrics(e.tokenFile)
	}
	for address, handler := range served {
		l, err := scrape.Listen(address)
		if err != nil {
			return err
		}
		server := scrape.Server(handler)
		defer server.Close()
		go func() {
			if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				o.Log.Error("serve HTTP", "address", address, "error", err)
			}
		}()
	}
	o.Log.Info("agent of application "+o.Application, "node", o.Node, "maps", dir, "operator", o.Operator)
	client.Run(ctx)
	return nil
}
