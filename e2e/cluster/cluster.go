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
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kubernetes-sigs/blixt/e2e/kube"
	"github.com/kubernetes-sigs/blixt/e2e/lab"
)

// Options say what a cluster is like.
type Options struct {
	// Name tells clusters apart; "": e2e.
	Name string
	// Nodes is their number; 0: 2.
	Nodes int
	// Proxy is kube-proxy's mode, nftables or iptables; "": nftables.
	Proxy string
	// Overlay carries packets between pods of different nodes in VXLAN, not by
	// routes that all machines know.
	Overlay bool
	// Masquerade gives packets that leave the pod network the node's address, as
	// they have to with an overlay.
	Masquerade bool
	// NoBpfman leaves bpfman out.
	NoBpfman bool
}

// Cluster is one that runs.
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
}

//go:embed dns.yaml
var dnsObjects []byte

const prefix = "blixt-cluster-"

// space returns the name of a network namespace or cgroup.
func (c *Cluster) space(name string) string { return prefix + c.Options.Name + "." + name }

// bin returns the path of a program of this package.
func (c *Cluster) bin(name string) string { return filepath.Join(c.dir, "bin", name) }

// Dir returns the folder that all is in; logs are in MACHINE/log.
func (c *Cluster) Dir() string { return c.dir }

// Kubeconfig returns the administrator's file, which is good in the host's network.
func (c *Cluster) Kubeconfig() string { return c.pki("admin.kubeconfig") }

func dirOf(name string) string { return filepath.Join(os.TempDir(), prefix+name) }

// lock keeps others of the same name waiting.
func lock(name string) (unlock func(), err error) {
	if os.Geteuid() != 0 {
		return nil, lab.ErrNotRoot
	}
	path := filepath.Join(os.TempDir(), prefix+name+".lock")
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		ours, err := f.Stat()
		if err != nil {
			return nil, err
		}
		if there, err := os.Stat(path); err == nil && os.SameFile(ours, there) {
			return func() {
				_ = os.Remove(path)
				_ = f.Close()
			}, nil
		}
		_ = f.Close() // whoever had it before has removed it
	}
}

// Up removes what a cluster of that name has left and starts a new one. It
// outlives this process. When Up fails, what it has started stays, for its
// logs, until Down or the next Up.
func Up(ctx context.Context, o Options) (*Cluster, error) {
	o.Name, o.Nodes, o.Proxy = cmp.Or(o.Name, "e2e"), cmp.Or(o.Nodes, 2), cmp.Or(o.Proxy, "nftables")
	o.Masquerade = o.Masquerade || o.Overlay
	unlock, err := lock(o.Name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := remove(o.Name); err != nil {
		return nil, fmt.Errorf("remove old cluster: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 5*time.Minute, errors.New("no cluster after 5 minutes"))
	defer cancel()
	c := &Cluster{Options: o, dir: dirOf(o.Name)}
	if err := c.start(ctx); err != nil {
		return nil, fmt.Errorf("start cluster: %w (logs are in %s)", err, c.dir)
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context) (err error) {
	if c.software, err = findSoftware(); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(c.dir, "bin"), 0o755); err != nil {
		return err
	}
	if err := c.save(); err != nil {
		return err
	}
	if err := build(filepath.Join(c.dir, "bin")); err != nil {
		return err
	}
	if err := c.makeNetwork(); err != nil {
		return fmt.Errorf("make network: %w", err)
	}
	l, host, err := listen()
	if err != nil {
		return err
	}
	defer l.Close() // the machine has it as well
	if err := c.makePKI(host); err != nil {
		return fmt.Errorf("make certificates: %w", err)
	}
	if err := c.startStore(l); err != nil {
		return err
	}
	images, imagesCtx := errgroup.WithContext(ctx)
	images.Go(func() error {
		err := await(imagesCtx, "the registry listens", func() error {
			conn, err := c.Control.Dial("tcp", "", Registry, time.Second)
			if err == nil {
				err = conn.Close()
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("%w: it said:\n%s", err, c.Control.Log("registry"))
		}
		return c.pushImages(imagesCtx)
	})
	for i := range c.Nodes {
		if err := c.startNode(i + 1); err != nil {
			return err
		}
	}
	if err := c.connect(ctx); err != nil {
		return err
	}
	if err := c.startControllers(); err != nil {
		return err
	}
	if err := images.Wait(); err != nil { // a pull that fails is tried again late
		return err
	}
	for _, m := range c.Nodes {
		if err := c.joinNode(m); err != nil {
			return err
		}
	}
	return c.furnish(ctx)
}

// furnish adds what a cluster has besides Kubernetes.
func (c *Cluster) furnish(ctx context.Context) error {
	if err := c.ApplyYAML(ctx, dnsObjects); err != nil {
		return err
	}
	if err := c.awaitNodes(ctx); err != nil {
		return err
	}
	if !c.Options.NoBpfman {
		if err := c.InstallBpfman(ctx); err != nil {
			return err
		}
	}
	return c.AwaitPods(ctx, "kube-system")
}

func (c *Cluster) save() error {
	text, err := json.Marshal(c.Options)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(c.dir, "options.json"), text, 0o644)
}

// Find returns a cluster that runs; "": e2e.
func Find(ctx context.Context, name string) (*Cluster, error) {
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
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return c, c.connect(ctx)
}

// Machines returns all of them.
func (c *Cluster) Machines() []*Machine {
	return append([]*Machine{c.Control, c.Outside}, c.Nodes...)
}

// Kubectl runs kubectl in the host's network and returns what it printed. The
// error holds what it complained about.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	args = append([]string{"--kubeconfig", c.Kubeconfig()}, args...)
	return output(exec.CommandContext(ctx, c.software.path(kubernetes+"/kubectl"), args...))
}

// Down ends the cluster and removes all of it.
func (c *Cluster) Down() error {
	var errs []error
	for _, m := range c.Machines() {
		errs = append(errs, m.Leave())
	}
	return errors.Join(append(errs, Down(c.Options.Name))...)
}

// Down removes a cluster, or what is left of it; "": e2e.
func Down(name string) error {
	name = cmp.Or(name, "e2e")
	unlock, err := lock(name)
	if err != nil {
		return err
	}
	defer unlock()
	return remove(name)
}

func remove(name string) error {
	if strings.ContainsAny(name, "./*?[,:") {
		return fmt.Errorf("cluster %q: a name must be letters, digits and dashes", name)
	}
	if err := removeNetwork(prefix + name + "."); err != nil {
		return err
	}
	if err := removeCgroups(prefix + name + "."); err != nil {
		return err
	}
	return os.RemoveAll(dirOf(name))
}

// module returns the folder of one in go.mod.
func module(path string) (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", path).Output()
	if err != nil {
		return "", fmt.Errorf("find module %s: %w", path, err)
	}
	return strings.TrimSpace(string(out)), nil
}
