// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
	"github.com/kubernetes-sigs/blixt/operator/node/standalone"
)

func runCommand() *cobra.Command {
	o := standalone.Options{}
	l := loaders{}
	ports := portRange(lb.DefaultSNATPorts)
	c := &cobra.Command{
		Use:   "run -f DIR",
		Short: "Balance what a directory of Gateway API YAML says, without Kubernetes",
		Long: `Reads GatewayClass, Gateway, TCPRoute, UDPRoute, Service, EndpointSlice and
ReferenceGrant from the *.yaml, *.yml and *.json files of a directory, loads the
eBPF program and serves. A changed file is served at once; one that is wrong is
reported with file, line and reason, while the last good configuration goes on.

Backends are local if their endpoint's nodeName is --node-name, or their address
is one of this host: they see the client's address. All others are reached with
an address of this host as the source, so their replies come back here.

Needs root, or CAP_BPF and CAP_NET_ADMIN, and Linux 6.6. With --loader bpfman a
running bpfman loads and attaches the program: then CAP_NET_ADMIN will do, and the
right to use bpfman's socket and the maps that it pins. Another version, or other
sizes, is loaded behind the program of before, which serves the flows that it has
until they end, at most for --drain-timeout: an upgrade breaks no connection.`,
		Example: `  blixt run -f /etc/blixt
  blixt run -f . --interface eth0 --interface docker0
  blixt run -f . --bytecode registry.example.com/blixt/bytecode:v1 --verify-key cosign.pub
  blixt run -f . --loader bpfman --priority 10`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			o.SNATPorts = lb.PortRange(ports)
			if o.Load, err = l.choose(c.Context(), o.Name, o.RunDir, o.SNATPorts); err != nil {
				return err
			}
			return standalone.Run(c.Context(), o)
		},
	}
	hostname, _ := os.Hostname()
	f := c.Flags()
	f.StringVarP(&o.Dir, "filename", "f", "", "directory of YAML files (required)")
	f.StringSliceVarP(&o.Interfaces, "interface", "i", nil, "interface to attach to, may be repeated (default: all that are up, loopback included, but for ports of bridges and bonds)")
	f.StringVar(&o.NodeName, "node-name", hostname, "nodeName of endpoints that are on this host")
	f.Var(&ports, "snat-ports", "source ports for backends elsewhere: none that this host's own connections use. With bpfman a program has one half, and the next version the other")
	f.Uint32Var(&l.flows, "flows", 0, "established flows to make room for, at most 4194304 (default 262144; about 290 bytes each when used)")
	f.Uint32Var(&l.ringSlots, "ring-slots", 0, "slots of all rings together, at most 8388608 (default 4194304; 4 bytes each)")
	f.StringVar(&o.Name, "name", loader.DefaultName, "keeps several load balancers on one host apart")
	f.StringVar(&l.builtin.BPFFS, "bpffs", loader.DefaultBPFFS, "BPF file system to pin to; mounted if it is not")
	f.StringVar(&o.RunDir, "run-dir", loader.DefaultRunDir, "directory for the lock and the notes of a running load balancer")
	f.BoolVar(&o.Keep, "keep", false, "go on serving in the kernel when this process ends; the next run takes over without breaking a flow")
	f.BoolVar(&l.replace, "replace", false, "remove what an earlier run with other table sizes has left, or what bpfman has of other versions, and all its flows at once")
	l.flags(f)
	if err := c.MarkFlagRequired("filename"); err != nil {
		panic(fmt.Sprint("no such flag: ", err))
	}
	return c
}

// portRange is a flag such as 11000-29999.
type portRange lb.PortRange

func (r *portRange) String() string { return fmt.Sprintf("%d-%d", r.First, r.Last) }
func (r *portRange) Type() string   { return "first-last" }
func (r *portRange) Set(text string) error {
	var p portRange
	if n, err := fmt.Sscanf(text, "%d-%d", &p.First, &p.Last); n != 2 || err != nil || p.First == 0 || p.First > p.Last {
		return fmt.Errorf("want two ports, such as %s", r)
	}
	*r = p
	return nil
}
