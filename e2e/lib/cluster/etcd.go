// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// SaveStore makes a copy of etcd's data. It replaces an earlier copy.
func (c *Cluster) SaveStore() error {
	if err := c.Control.Halt("etcd"); err != nil {
		return err
	}
	if err := copyDir(c.Control.path("etcd-saved"), c.Control.path("etcd")); err != nil {
		return fmt.Errorf("save what etcd has: %w", err)
	}
	return c.Control.Resume("etcd")
}

// RestoreStore restores the copy as an administrator would: while no API server runs.
// Then it restarts all of Kubernetes, which remembers newer state.
func (c *Cluster) RestoreStore(ctx context.Context) error {
	for _, name := range []string{"kube-apiserver", "etcd"} {
		if err := c.Control.Halt(name); err != nil {
			return err
		}
	}
	if err := copyDir(c.Control.path("etcd"), c.Control.path("etcd-saved")); err != nil {
		return fmt.Errorf("restore what etcd had: %w", err)
	}
	for _, name := range []string{"etcd", "kube-apiserver"} {
		if err := c.Control.Resume(name); err != nil {
			return err
		}
	}
	if err := c.awaitAPI(ctx); err != nil {
		return err
	}
	err := killAll(ctx, c.Control, "kube-controller-manager", "kube-scheduler")
	for _, m := range c.Nodes {
		err = errors.Join(err, killAll(ctx, m, "kubelet", "kube-proxy"))
	}
	return err
}

// killAll kills daemons, which the machine starts again.
func killAll(ctx context.Context, m *Machine, names ...string) (err error) {
	for _, name := range names {
		err = errors.Join(err, m.Kill(ctx, name))
	}
	return err
}

// copyDir makes a folder a copy of another.
func copyDir(to, from string) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	return os.CopyFS(to, os.DirFS(from))
}
