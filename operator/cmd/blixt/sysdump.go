// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/vishvananda/netlink"
	"k8s.io/client-go/kubernetes"

	"github.com/kubernetes-sigs/blixt/operator/admin/audit"
	"github.com/kubernetes-sigs/blixt/operator/admin/doctor"
	cluster "github.com/kubernetes-sigs/blixt/operator/admin/overview"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/node/overview"
	"github.com/kubernetes-sigs/blixt/operator/node/standalone"
	"github.com/kubernetes-sigs/blixt/operator/observe"
	"github.com/kubernetes-sigs/blixt/operator/observe/dial"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
	"github.com/kubernetes-sigs/blixt/operator/sysdump"
)

// sysdumpOptions say what to collect.
type sysdumpOptions struct {
	file      string
	clients   bool
	timeout   time.Duration
	logsSince time.Duration
	pods      int
}

func sysdumpCommand() *cobra.Command {
	var clusters clusterFlags
	var host hostFlags
	var o sysdumpOptions
	c := &cobra.Command{
		Use:   "sysdump [host|cluster]",
		Short: "Collect what a bug report needs into one archive",
		Long: `Collects what a bug report needs into one tar.gz: what blixt status, doctor and audit
say, objects of Blixt, Gateway API and bpfman, and logs; of a host its load balancers,
their files, network, firewall and logs. index.json in it says what is from where, and
what could not be got. Nothing is written but the archive. Without an argument it is the
host or the cluster as for blixt doctor.

It reads no Secret and no ConfigMap. Left out are values of environment variables,
annotations that others have made, and in all texts what looks like a token, a password
or a key. Addresses that are none of hosts, pods, Services or Gateways, which are those of
clients, are replaced by names such as client-1a2b3c4d, always the same one for an
address, and records of flows are left out; --clients keeps both. Look through it before you
publish it.

Exits with 1 if something could not be got; the archive has the rest.`,
		Example: `  blixt sysdump
  sudo blixt sysdump host --output-file - | tar -tz`,
		ValidArgs: places,
		Args:      cobra.MatchAll(cobra.MaximumNArgs(1), cobra.OnlyValidArgs),
		RunE: func(c *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(c.Context(), o.timeout)
			defer cancel()
			var collect func(context.Context, *sysdump.Dump) error
			if host.isMeant(args, c.Flags()) {
				collect = func(ctx context.Context, d *sysdump.Dump) error { return o.host(ctx, d, &host.Reader) }
			} else { // before there is a file
				add, err := o.cluster(ctx, &clusters)
				if err != nil {
					return err
				}
				collect = add
			}
			return o.run(ctx, c.OutOrStdout(), c.ErrOrStderr(), collect)
		},
	}
	f := c.Flags()
	clusters.add(f)
	host.add(f)
	f.StringVar(&o.file, "output-file", "", "archive to make, which must not exist; -: standard output (default blixt-sysdump-TIME.tar.gz)")
	f.BoolVar(&o.clients, "clients", false, "keep the addresses of clients, and records of flows in logs")
	f.DurationVar(&o.timeout, "timeout", 5*time.Minute, "how long to collect at most")
	f.DurationVar(&o.logsSince, "logs-since", 24*time.Hour, "how old lines of logs may be")
	f.IntVar(&o.pods, "pods", 10, "of how many pods of each DaemonSet to read logs, those that are not ready first")
	return c
}

// run makes the archive of what collect adds.
func (o *sysdumpOptions) run(ctx context.Context, out, messages io.Writer, collect func(context.Context, *sysdump.Dump) error) (err error) {
	root := "blixt-sysdump-" + time.Now().UTC().Format("20060102-150405")
	if o.file == "" {
		o.file = root + ".tar.gz"
	}
	to := out
	if t, is := out.(*terminal); is {
		to = t.out // an archive is no text
	}
	if o.file != "-" {
		f, err := os.OpenFile(o.file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		to = f
	}
	scrubber := sysdump.NewScrubber()
	scrubber.KeepClients = o.clients
	d := sysdump.New(to, root, version(), scrubber)
	if err := collect(ctx, d); err != nil {
		return err
	}
	failed, err := d.Close()
	if err != nil {
		return err
	}
	if o.file != "-" {
		printer{messages}.printf("%s is made. Look through it before you publish it.\n", o.file)
	}
	if failed > 0 {
		return fmt.Errorf("%s could not be got: index.json of the archive says which, and why", phrase.Count(failed, "thing"))
	}
	return nil
}

// cluster returns what adds a cluster.
func (o *sysdumpOptions) cluster(ctx context.Context, flags *clusterFlags) (func(context.Context, *sysdump.Dump) error, error) {
	kube, kubernetesVersion, err := flags.connect()
	if err != nil {
		return nil, err
	}
	config, err := flags.config()
	if err != nil {
		return nil, err
	}
	logs, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	facts, err := doctor.Read(ctx, kube, kubernetesVersion, flags.namespace)
	if err != nil {
		return nil, &exitError{unreachable, err}
	}
	namespaces := []string{flags.namespace, facts.BpfmanNamespace()}
	slices.Sort(namespaces)
	return func(ctx context.Context, d *sysdump.Dump) error {
		d.AddCluster(ctx, &sysdump.Cluster{Client: kube, Logs: logs, Namespaces: slices.Compact(namespaces), LogsSince: o.logsSince, Pods: o.pods})
		o.addNodes(ctx, d, dial.Target{Config: config, Namespace: flags.namespace}, facts.Dataplanes)
		w := newWell(cluster.Check(facts))
		w.Cluster = cluster.New(facts)
		addWell(ctx, d, w)
		d.AddJSON(ctx, "doctor.json", "blixt doctor -o json", func(context.Context) (any, error) { return doctor.Check(facts), nil })
		d.AddJSON(ctx, "audit.json", "blixt audit --offline -o json", func(ctx context.Context) (any, error) {
			facts, err := audit.Read(ctx, kube, flags.namespace)
			if err != nil {
				return nil, err
			}
			return audit.Audit(facts), nil
		})
		return nil
	}, nil
}

// addNodes adds what each node says, and with clients its flows and the last packets that
// were rejected or dropped.
func (o *sysdumpOptions) addNodes(ctx context.Context, d *sysdump.Dump, to dial.Target, nodes []v1alpha1.NodeDataplane) {
	status, reasons := ask(ctx, to, observe.Query{Status: &observe.StatusQuery{}})
	for i := range nodes {
		n := &nodes[i]
		dir := "nodes/" + n.Name + "/"
		d.AddJSON(ctx, dir+"dataplane.json", "status of NodeDataplane "+n.Name, func(context.Context) (any, error) { return n.Status, nil })
		d.Add(ctx, dir+"status.json", "the agent of node "+n.Name, func(context.Context) ([]byte, error) { return status[n.Name], reasons(n.Name) })
	}
	if !o.clients {
		return
	}
	for name, q := range clientQueries {
		text, reasons := ask(ctx, to, q)
		for i := range nodes {
			n := nodes[i].Name
			d.Add(ctx, "nodes/"+n+"/"+name, "the agent of node "+n, func(context.Context) ([]byte, error) { return text[n], reasons(n) })
		}
	}
}

// clientQueries are those whose answers have clients in every line, by file.
var clientQueries = map[string]observe.Query{
	"flows.jsonl": {Flows: &observe.FlowsQuery{Last: 10000, Open: true}},
	"drops.jsonl": {Drops: &observe.DropsQuery{}},
}

// askLimit is how long nodes may take to answer.
const askLimit = 30 * time.Second

// ask returns the pieces that each node answers, one a line, and why a node has not
// answered; nil: it has.
func ask(ctx context.Context, to dial.Target, q observe.Query) (map[string][]byte, func(node string) error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	answers := map[string][]byte{}
	asker, err := dial.Dial(ctx, to)
	if err == nil {
		err = asker.Ask(ctx, q, func(node string, piece json.RawMessage) error {
			answers[node] = append(append(answers[node], piece...), '\n')
			return nil
		})
		_ = asker.Close() // it is not used any more
	}
	return answers, func(node string) error {
		if failed, is := errors.AsType[*observe.NodesError](err); is {
			if reason, is := failed.Reasons[node]; is {
				return errors.New(reason)
			}
		} else if err != nil {
			return err
		}
		if answers[node] == nil && q.Status != nil {
			return errors.New("it has not answered")
		}
		return nil
	}
}

func addWell(ctx context.Context, d *sysdump.Dump, w *well) {
	d.AddJSON(ctx, "status.json", "blixt status -o json", func(context.Context) (any, error) { return w, nil })
	d.Add(ctx, "status.txt", "blixt status -o wide", func(context.Context) ([]byte, error) {
		var text bytes.Buffer
		w.print(&text, true)
		return text.Bytes(), nil
	})
}

// host adds this host and its load balancers.
func (o *sysdumpOptions) host(ctx context.Context, d *sysdump.Dump, r *overview.Reader) error {
	r.Read()
	if !sleep(ctx, time.Second) {
		return ctx.Err()
	}
	h := r.Read()
	addresses, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses of the host: %w", err)
	}
	for _, a := range addresses {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			d.Know(ip)
		}
		if ip, ok := netip.AddrFromSlice(a.Broadcast); ok {
			d.Know(ip)
		}
	}
	addRoutes(ctx, d)
	for i := range h.Instances {
		o.addInstance(ctx, d, r, &h.Instances[i])
	}
	w := newWell(h.Check())
	w.Host = h
	addWell(ctx, d, w)
	d.AddJSON(ctx, "doctor.json", "blixt doctor host -o json", func(ctx context.Context) (any, error) { return examineHost(ctx, r) })
	addHost(ctx, d)
	return nil
}

// addRoutes adds the routes of the host, whose gateways are known from then on.
func addRoutes(ctx context.Context, d *sysdump.Dump) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	for _, route := range routes {
		if ip, ok := netip.AddrFromSlice(route.Gw); ok {
			d.Know(ip)
		}
		if route.Dst != nil { // the address of a network is nobody's
			if bits, size := route.Dst.Mask.Size(); bits < size {
				if ip, ok := netip.AddrFromSlice(route.Dst.IP); ok {
					d.Know(ip)
				}
			}
		}
	}
	d.Add(ctx, "host/routes.txt", "routes of the main table", func(context.Context) ([]byte, error) {
		var text strings.Builder
		for _, route := range routes {
			fmt.Fprintln(&text, route)
		}
		return []byte(text.String()), err
	})
}

// sysctls are settings that decide what becomes of packets.
var sysctls = []string{
	"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv4/conf/*/rp_filter", "net/ipv4/conf/*/arp_*", "net/ipv4/conf/*/forwarding",
	"net/ipv4/ip_local_port_range", "net/ipv4/ip_local_reserved_ports", "net/ipv4/tcp_*", "net/core/bpf_*", "net/core/*mem*", "net/core/netdev_*",
	"net/bridge/*", "net/netfilter/nf_conntrack_*", "kernel/unprivileged_bpf_disabled", "kernel/osrelease", "kernel/version", "net/ipv6/conf/*/accept_ra",
}

func addHost(ctx context.Context, d *sysdump.Dump) {
	d.Add(ctx, "host/sysctl.txt", "/proc/sys", func(context.Context) ([]byte, error) {
		var text strings.Builder
		for _, pattern := range sysctls {
			files, _ := filepath.Glob("/proc/sys/" + pattern) // a pattern of ours
			for _, file := range files {
				if strings.Contains(file, "key") { // tcp_fastopen_key is secret
					continue
				}
				if value, err := os.ReadFile(file); err == nil {
					fmt.Fprintf(&text, "%s = %s\n", strings.TrimPrefix(file, "/proc/sys/"), strings.Join(strings.Fields(string(value)), " "))
				}
			}
		}
		return []byte(text.String()), nil
	})
	for _, name := range []string{"/etc/os-release", "/proc/version", "/proc/cmdline", "/proc/meminfo", "/proc/loadavg", "/proc/net/dev", "/proc/net/snmp", "/proc/net/netstat", "/proc/net/softnet_stat", "/proc/mounts"} {
		d.Add(ctx, "host/"+strings.ReplaceAll(strings.Trim(name, "/"), "/", "-")+".txt", name, func(context.Context) ([]byte, error) { return os.ReadFile(name) })
	}
	for _, command := range []string{
		"ip -details -statistics link", "ip address", "ip rule", "ip -6 rule", "iptables-save -c", "ip6tables-save -c", "nft list ruleset",
		"bpftool prog show", "bpftool net show",
	} {
		words := strings.Fields(command)
		d.AddCommand(ctx, "host/"+strings.ReplaceAll(command, " ", "_")+".txt", words[0], words[1:]...)
	}
}

// addInstance adds a load balancer. The addresses that it serves and sends to are known
// from then on.
func (o *sysdumpOptions) addInstance(ctx context.Context, d *sysdump.Dump, r *overview.Reader, i *overview.Instance) {
	dir := "load-balancers/" + i.Name + "/"
	var detail any
	s, err := readStatus(r.BPFFS, r.RunDir, i.Name)
	if err != nil && i.Program == nil && len(i.Unread) == 0 {
		err = sysdump.Absent(err.Error())
	}
	if err == nil {
		var text []byte
		if text, err = json.Marshal(s); err == nil {
			err = json.Unmarshal(text, &detail)
			d.KnowAll(detail)
		}
		for _, f := range s.Frontends {
			know(d, f.Frontend)
		}
	}
	if i.Says != nil {
		var files []byte
		files, filesErr := d.Files(i.Says.Files)
		d.Add(ctx, dir+"files.yaml", "objects in "+strings.Join(i.Says.Files, " "), func(context.Context) ([]byte, error) { return files, filesErr })
	}
	d.AddJSON(ctx, dir+"status.json", "blixt status -o json --name "+i.Name, func(context.Context) (any, error) { return detail, err })
	for _, file := range []string{standalone.StatusFile(r.RunDir, i.Name), standalone.PeersFile(r.RunDir, i.Name)} {
		d.Add(ctx, dir+filepath.Base(file), file, func(context.Context) ([]byte, error) {
			info, err := os.Lstat(file)
			if err == nil && !info.Mode().IsRegular() {
				err = fmt.Errorf("%s is no regular file", file)
			}
			if err != nil {
				return nil, err
			}
			return os.ReadFile(file)
		})
	}
	if o.clients {
		for name, q := range clientQueries {
			text, reasons := ask(ctx, dial.Target{Socket: standalone.SocketFile(r.RunDir, i.Name)}, q)
			d.Add(ctx, dir+name, "the process of load balancer "+i.Name, func(context.Context) ([]byte, error) { return text[""], reasons("") })
		}
	}
	pid := 0
	if i.Process != nil {
		pid = i.Process.PID
	}
	if pid == 0 && i.Says != nil {
		pid = i.Says.PID
	}
	if pid == 0 {
		return
	}
	d.AddCommand(ctx, dir+"journal.txt", "journalctl", "--no-pager", "--output=short-iso-precise", "--since=-"+strconv.Itoa(int(o.logsSince.Seconds()))+"s", "_PID="+strconv.Itoa(pid), "_COMM=blixt") // the number may be another's by now
	if i.Process == nil {
		return
	}
	d.Add(ctx, dir+"process.txt", fmt.Sprintf("/proc/%d/status, limits and what its threads wait for", pid), func(context.Context) ([]byte, error) {
		var text []byte
		for _, name := range []string{"status", "limits", "wchan"} {
			part, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return text, err
			}
			text = append(append(text, part...), '\n')
		}
		return text, nil
	})
}

// know has the address of a frontend, such as 192.0.2.1:80/TCP, stay.
func know(d *sysdump.Dump, frontend string) {
	at, _, _ := strings.Cut(frontend, "/")
	if a, err := netip.ParseAddrPort(at); err == nil {
		d.Know(a.Addr())
	}
}
