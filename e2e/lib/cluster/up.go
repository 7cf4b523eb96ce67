// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
)

//go:embed dns.yaml
var dnsObjects []byte

// Up removes what a cluster of that name has left and starts a new one, which outlives
// this process. If Up fails, what it has started stays, for its logs, until Down or the
// next Up.
func Up(ctx context.Context, o Options) (*Cluster, error) {
	o.Name, o.Nodes, o.Proxy = cmp.Or(o.Name, "e2e"), cmp.Or(o.Nodes, 2), cmp.Or(o.Proxy, "nftables")
	o.Overlay = o.Overlay || o.Flannel == "vxlan"
	o.Masquerade = o.Masquerade || o.Overlay || o.Flannel != ""
	if o.Proxy != "nftables" && o.Proxy != "iptables" {
		return nil, fmt.Errorf("kube-proxy's mode %q: want nftables or iptables", o.Proxy)
	}
	if o.Flannel != "" && o.Flannel != "vxlan" && o.Flannel != "host-gw" {
		return nil, fmt.Errorf("flannel's backend %q: want vxlan or host-gw", o.Flannel)
	}
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
		if err := c.awaitRegistry(imagesCtx); err != nil {
			return err
		}
		return c.pushImages(imagesCtx)
	})
	for i := range c.Nodes {
		if err := c.startNode(i + 1); err != nil {
			return err
		}
	}
	if err := c.connect(); err != nil {
		return err
	}
	if err := c.awaitAPI(ctx); err != nil {
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

// furnish installs what a cluster has besides Kubernetes.
func (c *Cluster) furnish(ctx context.Context) error {
	if err := c.ApplyYAML(ctx, dnsObjects); err != nil {
		return err
	}
	if err := c.showProxy(ctx); err != nil {
		return err
	}
	if c.Options.Flannel != "" {
		if err := c.startFlannel(ctx); err != nil {
			return fmt.Errorf("start flannel: %w", err)
		}
	}
	if err := c.awaitNodes(ctx); err != nil {
		return err
	}
	if c.Options.Overlay && c.Options.Flannel == "" {
		if err := c.showOverlay(ctx); err != nil {
			return err
		}
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
