// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"

	"github.com/spf13/pflag"

	"github.com/kubernetes-sigs/blixt/operator/node/loader"
	"github.com/kubernetes-sigs/blixt/operator/node/standalone"
	"github.com/kubernetes-sigs/blixt/operator/observe/dial"
)

// targetFlags select who is asked: a load balancer on this host, or the nodes of a
// cluster.
type targetFlags struct {
	flags        *pflag.FlagSet
	name, runDir string
	cluster      clusterFlags
	nodes        []string
}

func (t *targetFlags) add(f *pflag.FlagSet) {
	t.flags = f
	f.StringVar(&t.name, "name", loader.DefaultName, "name of the load balancer on this host")
	f.StringVar(&t.runDir, "run-dir", loader.DefaultRunDir, "directory of its socket")
	f.StringSliceVar(&t.nodes, "node", nil, "node of a cluster to ask, may be repeated (default: all nodes)")
	t.cluster.add(f)
}

// given reports whether one of some flags was given.
func (t *targetFlags) given(names ...string) bool {
	for _, name := range names {
		if t.flags.Changed(name) {
			return true
		}
	}
	return false
}

// onHost reports whether a load balancer on this host is meant: flags say so, or it
// runs here and no flag names a cluster.
func (t *targetFlags) onHost() bool {
	switch {
	case t.given("node", "kubeconfig", "context", "namespace", "as"):
		return false
	case t.given("name", "run-dir"):
		return true
	}
	_, err := os.Lstat(standalone.SocketFile(t.runDir, t.name))
	return err == nil
}

// dial connects to who is asked.
func (t *targetFlags) dial(ctx context.Context) (*dial.Conn, error) {
	if t.onHost() {
		return dial.Dial(ctx, dial.Target{Socket: standalone.SocketFile(t.runDir, t.name)})
	}
	config, err := t.cluster.config()
	if err != nil {
		return nil, err
	}
	return dial.Dial(ctx, dial.Target{Config: config, Namespace: t.cluster.namespace, Nodes: t.nodes})
}
