// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/bpfman"
	"github.com/kubernetes-sigs/blixt/operator/node/hostpage"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
	"github.com/kubernetes-sigs/blixt/operator/node/others"
	"github.com/kubernetes-sigs/blixt/operator/node/standalone"
	"github.com/kubernetes-sigs/blixt/operator/node/systemd"
)

// hostPageEvery is how often a page of a host is made while somebody looks.
const hostPageEvery = 2 * time.Second

func runCommand() *cobra.Command {
	o := standalone.Options{}
	l := loaders{}
	ports := portRange(lb.DefaultSNATPorts)
	var peers peerList
	var peerPorts portRange
	var seedFile string
	var lines flowLines
	var logs logFlags
	var http pageFlags
	var files fileFlags
	c := &cobra.Command{
		Use:   "run {--listen ADDRESS:PORT --backend ADDRESS:PORT | -f DIR|FILE|- | --peer ADDRESSES}",
		Short: "Serve, without Kubernetes: addresses of flags, or Gateway API objects of files",
		Long: `Serves each --listen with the --backend flags that follow it; blixt init writes the same
as a file. Both may be given, with files, too.

Reads GatewayClass, Gateway, TCPRoute, UDPRoute, Service, EndpointSlice and
ReferenceGrant from files, and from the *.yaml, *.yml and *.json files of
directories, loads the eBPF program and serves. Changes to files take effect at once,
but what is removed stays for --removal-grace, since editors and copies write files
piece by piece. A file that somebody has open for writing counts when it is closed;
for files of other users this needs CAP_LEASE, or they count after half a second.

An invalid file is reported with file, line and reason, and what it said when it was
valid last stays in force; other files are not delayed. --state-dir keeps the valid
files for a start that finds invalid ones, or no directory. If no file is valid and
none was before, the command ends with an error.

A mistake in an object is treated alike: a name that leads nowhere, a value that is not allowed,
a port that somebody else has. What was good last goes on serving for the objects
concerned, until the mistake is mended; everything else takes effect. Who serves an
address and port, or a listener, keeps it. What is meant takes effect: to delete a
Gateway, a listener, a route or an EndpointSlice, a weight of 0, an endpoint that is
not ready. A GatewayClass, a Service or a BlixtConfig goes when nothing names it.
With --lenient mistakes take effect.

A backend is local if its endpoint's nodeName is --node-name, or its address is one
of this host; local backends see the client's address. All others are reached with
an address of this host as the source, so that their replies come back here.

Between hosts that run Blixt, backends see the client's address nevertheless. Each host
names the others with --peer, and all have the same --peer-key: the first packets of a
connection then tell the backend's host who the client is, signed, and that host undoes
the translation; answers go back the way that they came. A host with backends and without
any route needs no -f. Where that does not work, backends see the address of this host:
if the other host does not run Blixt, if a firewall between drops such packets, or if the
backend's host reaches the client by an interface without the program. blixt status
tells. A BlixtGatewayConfig with clientAddress: Node turns it off for a Gateway.

An address that no interface has is given to the one of its network, if no other
host answers for it, and is announced. What anybody else gives an interface stays the
host's.

Needs Linux 6.6, and root or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, and a mounted
BPF file system in which it may make directories. With CAP_NET_RAW it
probes and announces addresses on links, and idle connections to an endpoint that is
removed end at once, at both ends. With --loader bpfman a
running bpfman loads and attaches the program; then CAP_NET_ADMIN is enough, with
access to bpfman's socket and to the maps that it pins. Another version, or one with
other table sizes, is loaded behind the previous program. That continues to serve
its flows until they end, for --drain-timeout at most: an upgrade breaks no
connection.

SIGTERM and SIGINT end it and leave nothing behind, nor does a terminal that hangs up;
with --keep, or if systemd restarts its unit, the kernel goes on serving. So it does
after a kill -9 or an error, until the next run takes over, or blixt unload. SIGHUP to
a process without a terminal has the files and the network read again.`,
		Example: `  blixt run --listen 192.0.2.10:80 --backend 10.0.0.1:8080 --backend 10.0.0.2:8080,weight=2
  blixt run --listen :53/udp --listen :53/tcp --backend 10.0.0.1 --listen :80 --backend 10.0.0.2
  blixt run -f /etc/blixt
  blixt run -f /etc/blixt -f /run/endpoints.yaml
  blixt run -f . --interface eth0 --interface docker0
  blixt run -f . --bytecode registry.example.com/blixt/bytecode:v1 --verify-key cosign.pub
  blixt run -f . --loader bpfman --priority 10
  blixt run -f . --http-address 127.0.0.1:8460
  blixt run -f . --peer 10.0.0.2,fd00::2,10.244.2.0/24 --peer-key /etc/blixt/peer-key`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if err := files.check(); err != nil {
				return err
			}
			if err := logs.setDefault(os.Stderr); err != nil {
				return err
			}
			o.SNATPorts = lb.PortRange(ports)
			o.Peering.Peers, o.Peering.SNATPorts = peers, lb.PortRange(peerPorts)
			if !c.Flags().Changed("state-dir") {
				o.Files.StateDir, o.Peering.StateDir = filepath.Join(standalone.DefaultStateDir, o.Name), standalone.DefaultStateDir
				if c.Flags().Changed("run-dir") {
					o.Files.StateDir, o.Peering.StateDir = filepath.Join(o.RunDir, o.Name+".files"), ""
				}
			} else {
				o.Peering.StateDir = o.Files.StateDir
			}
			if o.Seed, err = readSeed(seedFile); err != nil {
				return err
			}
			if o.FlowLines, err = lines.open(os.Stdout); err != nil {
				return err
			}
			o.Others = others.NewFinder(l.builtin.BPFFS, func() []string {
				return append(bpfman.Dirs(o.RunDir, o.Name), filepath.Join(loader.Pins(l.builtin.BPFFS, o.Name), "maps"))
			})
			if o.Load, err = l.choose(c.Context(), o.Name, o.RunDir, o.SNATPorts, o.Others); err != nil {
				return err
			}
			o.Version, o.Restarting, o.Reload = version(), systemd.Restarting, hangups()
			o.Started = func(in *standalone.Inside) (stop func(), err error) {
				return http.serve(hostpage.New(hostpage.Options{Inside: in, BPFFS: l.builtin.BPFFS}), hostPageEvery)
			}
			return standalone.Run(c.Context(), o)
		},
	}
	hostname, _ := os.Hostname()
	f := c.Flags()
	files.add(f, &o.Files)
	f.StringVar(&o.Files.StateDir, "state-dir", "", "directory for the files that were valid last, which a start uses instead of invalid ones; with --peer also for the number of this boot; empty: they are not kept (default "+standalone.DefaultStateDir+"/NAME, for the number the directory above it; with --run-dir, NAME.files in that one)")
	f.DurationVar(&o.RemovalGrace, "removal-grace", 700*time.Millisecond, "how long a frontend or a backend that the files do not have any more is served nevertheless, counted from the last change of a file, and three times as long at most; 0: it goes at once")
	f.StringSliceVarP(&o.Interfaces, "interface", "i", nil, "interface to attach to, may be repeated (default: all that are up, including loopback, except ports of bridges and bonds)")
	f.Var((*addresses)(&o.LeaveAddresses), "addresses", "manage: give interfaces the addresses of Gateways, if no other host answers for them, and tell neighbours; leave: somebody else does, such as keepalived or a router")
	f.DurationVar(&o.NetworkGrace, "network-grace", 10*time.Second, "how long an address or a default route that this host has lost still counts; connections outlive a loss that is shorter")
	f.StringVar(&o.NodeName, "node-name", hostname, "nodeName of the endpoints on this host")
	f.Var(&ports, "snat-ports", "source ports towards backends elsewhere; this host's own connections must not use them. With bpfman a program uses one half, the next version the other")
	f.BoolVar(&o.ThroughStack, "through-stack", false, "send packets to backends on other machines through the host's network stack, so that its firewall (chain FORWARD) holds for clients. Slower; docs/firewall.md tells which rules hold with and without it")
	f.Uint32Var(&o.MasqueradeMark, "masquerade-mark", lb.DefaultMasqueradeMark, "bit of the mark of packets to backends that are reached through the host's network stack, by which its NAT translates their source. The default is kube-proxy's")
	f.Var(&peers, "peer", "another host that runs Blixt: all addresses that it may send from to this one, and the networks that are on it, of containers, with commas between them; may be repeated, once for each host. All hosts may have the same list")
	f.StringVar(&o.Peering.KeyFile, "peer-key", "", "file with the key that this host shares with its peers, of mode 0600. Make it by: (umask 077; blixt peer-key > FILE). blixt peer-key --help tells how to replace it")
	f.Var(&peerPorts, "peer-snat-ports", "--snat-ports of peers, if they differ from this host's: a range with those of all of them")
	f.StringVar(&seedFile, "seed-file", "", "file with the secret that keys the choice of backends, at least 16 bytes in base64, of mode 0600; several hosts that serve the same address need the same one (default: a seed that everybody knows). Make it by: (umask 077; head -c 16 /dev/urandom | base64 > FILE)")
	f.StringVar(&o.MetricsAddress, "metrics-address", "", "host and port of /metrics for Prometheus, /healthz and /readyz, such as 127.0.0.1:8082; empty: they are not served")
	f.Var(&o.RouteMetrics, "route-metrics", "frontends and backendRefs that have metrics of their own: all; seen: those of which this host has seen a packet; or off")
	f.StringVar(&o.MetricsTokenFile, "metrics-token-file", "", "file of the bearer token that whoever reads /metrics must have; empty: everybody may who reaches --metrics-address")
	http.add(f)
	lines.add(f)
	f.BoolVar(&o.FlowRecords, "flow-records", false, "remember the last flows when they have ended, with their clients: blixt flows shows them. A BlixtGatewayConfig with flowRecords: Enabled or Disabled decides for its Gateways instead")
	f.Uint32Var(&l.flows, "flows", 0, "size of the table of established TCP flows, at most 4194304 (default 262144; 400 bytes per flow in use); those of other flows follow")
	f.Uint32Var(&l.ringSlots, "ring-slots", 0, "slots of all rings together, at most 8388608 (default 4194304; 4 bytes each)")
	f.StringVar(&o.Name, "name", loader.DefaultName, "name of this load balancer; several on one host need different names, and different --snat-ports")
	f.StringVar(&l.builtin.BPFFS, "bpffs", loader.DefaultBPFFS, "BPF file system to pin to; mounted if necessary")
	f.StringVar(&o.RunDir, "run-dir", loader.DefaultRunDir, "directory for the lock and the state files of a running load balancer")
	f.BoolVar(&o.Lenient, "lenient", false, "let mistakes in objects take effect: what is invalid is not served any more, instead of going on as it was last good")
	f.BoolVar(&o.Keep, "keep", false, "continue to serve in the kernel when this process ends; the next run takes over without breaking a flow")
	f.BoolVar(&l.replace, "replace", false, "remove what a previous run with other table sizes has left, or bpfman's programs of previous versions, with all their flows, at once")
	l.flags(f)
	logs.add(f)
	c.MarkFlagsOneRequired("filename", "listen", "backend", "peer")
	c.MarkFlagsRequiredTogether("peer", "peer-key")
	return c
}

// peerList is a flag that may be repeated.
type peerList []standalone.Peer

func (l *peerList) String() string { return "" }
func (l *peerList) Type() string   { return "addresses" }
func (l *peerList) Set(text string) error {
	p, err := standalone.ParsePeer(text)
	if err != nil {
		return err
	}
	if err := standalone.CheckPeers(append(*l, p)); err != nil {
		return err
	}
	*l = append(*l, p)
	return nil
}

// addresses is the flag that says who gives the host the addresses of Gateways: manage,
// or leave.
type addresses bool

func (a *addresses) String() string {
	if *a {
		return "leave"
	}
	return "manage"
}
func (a *addresses) Type() string { return "manage|leave" }
func (a *addresses) Set(text string) error {
	if text != "manage" && text != "leave" {
		return errors.New("want manage or leave")
	}
	*a = text == "leave"
	return nil
}

// portRange is a flag such as 11000-29999.
type portRange lb.PortRange

func (r *portRange) String() string {
	if *r == (portRange{}) {
		return ""
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}
func (r *portRange) Type() string { return "first-last" }
func (r *portRange) Set(text string) error {
	var p portRange
	if n, err := fmt.Sscanf(text, "%d-%d", &p.First, &p.Last); n != 2 || err != nil || p.First == 0 || p.First > p.Last {
		return fmt.Errorf("want two ports, such as %s", lb.DefaultSNATPorts)
	}
	*r = p
	return nil
}
