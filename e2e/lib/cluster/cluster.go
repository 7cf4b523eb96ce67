// SPDX-License-Identifier: Apache-2.0

// Package cluster makes a real Kubernetes on one Linux machine: a control
// plane and nodes, each with network, mount and process namespaces of its own,
// with containerd, kube-proxy, a pod network of IPv4 and IPv6, DNS, a registry
// and bpfman. In come options; out come machines that commands run in, and
// clients. It needs what .ci/kubernetes --all has built, and no registry of
// others. All is in one folder and in namespaces and cgroups that begin with
// the cluster's name, so that Down leaves nothing, whoever calls it.
package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// Options say what a cluster is like.
type Options struct {
	// Name tells clusters apart; "": e2e.
	Name string
	// Nodes is their number; 0: 2.
	Nodes int
	// Proxy is kube-proxy's mode, nftables or iptables; "": nftables.
	Proxy string
	// Overlay carries packets between pods of different nodes in VXLAN, as flannel
	// does, not by routes that all machines know.
	Overlay bool
	// Flannel is the way by which flannel carries packets between pods of different
	// nodes, vxlan or host-gw; "": the pods' network is this package's own.
	Flannel string
	// Masquerade gives packets that leave the pod network the node's address, as
	// they have to with an overlay.
	Masquerade bool
	// NoBpfman leaves bpfman out.
	NoBpfman bool
}

// Cluster is a running cluster. Of one that others run only the Server is known.
type Cluster struct {
	Options Options
	// Control runs the API server and the registry.
	Control *Machine
	Nodes   []*Machine
	// Outside is no part of Kubernetes but in the nodes' network, of which it is
	// the way out: clients run here.
	Outside *Machine
	// Server is the administrator's way to the API.
	*kube.Server

	dir      string
	software software
	given    *Given
}

const prefix = "blixt-cluster-"

// space returns the name of a network namespace or cgroup.
func (c *Cluster) space(name string) string { return prefix + c.Options.Name + "." + name }

// bin returns the path of a program of this package.
func (c *Cluster) bin(name string) string { return filepath.Join(c.dir, "bin", name) }

// Dir returns the folder that has all files of the cluster. Logs are in MACHINE/log.
func (c *Cluster) Dir() string { return c.dir }

func dirOf(name string) string { return filepath.Join(os.TempDir(), prefix+name) }

// Find returns a running cluster. The name "" stands for e2e.
func Find(name string) (*Cluster, error) {
	c := &Cluster{dir: dirOf(cmp.Or(name, "e2e"))}
	text, err := os.ReadFile(filepath.Join(c.dir, "options.json"))
	if err == nil {
		err = json.Unmarshal(text, &c.Options)
	}
	if err != nil {
		return nil, fmt.Errorf("find cluster: %w", err)
	}
	if c.software, err = findSoftware(); err != nil {
		return nil, err
	}
	join := func(name, ipv4, ipv6 string) *Machine {
		if err != nil {
			return nil
		}
		var n *lab.Node
		if n, err = lab.Join(name, c.space(name)); err != nil {
			return nil
		}
		n.IPv4, n.IPv6 = ipv4, ipv6
		return &Machine{Node: n, dir: filepath.Join(c.dir, name)}
	}
	c.Control, c.Outside = join("control-plane", Control4, Control6), join("outside", Outside4, Outside6)
	for i := 1; i <= c.Options.Nodes; i++ {
		c.Nodes = append(c.Nodes, join(fmt.Sprintf("node-%d", i), node4(i), node6(i)))
	}
	if err != nil {
		return nil, err
	}
	return c, c.connect()
}

// Machines returns all machines of the cluster.
func (c *Cluster) Machines() []*Machine {
	return append([]*Machine{c.Control, c.Outside}, c.Nodes...)
}

// Kubectl runs kubectl in the host's network and returns what it printed. The error has
// what it printed on stderr.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	args = append([]string{"--kubeconfig", c.Kubeconfig()}, args...)
	return output(exec.CommandContext(ctx, c.kubectl(), args...))
}

// module returns the folder of a module in go.mod.
func module(path string) (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", path).Output()
	if err != nil {
		return "", fmt.Errorf("find module %s: %w", path, err)
	}
	return strings.TrimSpace(string(out)), nil
}
