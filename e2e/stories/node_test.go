// SPDX-License-Identifier: Apache-2.0

package stories

import (
	"context"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/manifest"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// node is a node with its maps. It does what `blixt run` does with files.
type node struct {
	env    *testscript.Env
	create createTables
	watch  bool // look at the tables after each write

	name      string
	addresses []netip.Addr
	objects   map[string]string // texts by kind and name
	problems  []gateway.Problem

	tables *recorder
	writer *writer.Writer
	now    time.Time // passes only while the writer waits
}

func newNode(env *testscript.Env, create createTables, watch bool) (*node, error) {
	n := &node{env: env, create: create, watch: watch, objects: map[string]string{}, now: time.Unix(1e9, 0)}
	return n, n.begin(defaultSizes)
}

// begin creates empty tables and starts a writer.
func (n *node) begin(sizes datapath.Sizes) error {
	tables, err := n.create(n.env, sizes)
	if err != nil {
		return err
	}
	n.tables = &recorder{Tables: tables, left: -1, watch: n.watch}
	n.start()
	return nil
}

// start starts a writer, which knows nothing of the tables.
func (n *node) start() {
	n.tables.left = -1
	n.writer = writer.New(n.tables, writer.Options{
		Clock: func() time.Time { return n.now },
		Sleep: func(_ context.Context, d time.Duration) error { n.now = n.now.Add(d); return nil },
	})
}

// serve makes the maps hold what the objects ask for.
func (n *node) serve() error {
	n.tables.writes = 0
	dir := filepath.Join(n.env.WorkDir, "objects")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var all []string
	for _, name := range slices.Sorted(maps.Keys(n.objects)) {
		all = append(all, n.objects[name])
	}
	if err := os.WriteFile(filepath.Join(dir, "all.yaml"), []byte(strings.Join(all, "\n---\n")), 0o644); err != nil {
		return err
	}
	set, err := manifest.Read(dir)
	if err != nil {
		return err
	}
	t := gateway.Translate(set.Objects, gateway.Options{HostAddresses: n.addresses, ReservedPorts: gateway.StandaloneReservedPorts()})
	r := gateway.Resolve(&t.Unresolved, gateway.IndexEndpoints(set.EndpointSlices, nil), gateway.ResolveOptions{NodeName: n.name, HostAddresses: n.addresses})
	n.problems = slices.Concat(t.Problems(), r.Problems())
	if err := n.tables.begin(); err != nil {
		return err
	}
	res, err := n.writer.Apply(context.Background(), r.State)
	if err != nil {
		return err
	}
	if res.LeftOut != nil {
		n.problems = append(n.problems, gateway.Problem{Object: "Node", Message: res.LeftOut.String()})
	}
	return n.tables.end()
}
