// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/admin/doctor"
	cluster "github.com/kubernetes-sigs/blixt/operator/admin/overview"
)

// clusterEvery is how often a cluster is looked at: an API server has other work.
const clusterEvery = 10 * time.Second

// clusterLimit is how long a look may take. Tests change it.
var clusterLimit = 30 * time.Second

// showCluster shows the overview of a cluster.
func (o *viewOptions) showCluster(ctx context.Context, out io.Writer, flags *clusterFlags) error {
	o.interval = cmp.Or(o.interval, clusterEvery)
	return o.show(ctx, out, func(ctx context.Context) (*well, error) { return lookAtCluster(ctx, flags) })
}

// lookAtCluster reads the overview of a cluster. The error is an exitError if that does
// not answer.
func lookAtCluster(ctx context.Context, flags *clusterFlags) (*well, error) {
	ctx, cancel := context.WithTimeout(ctx, clusterLimit)
	defer cancel()
	kube, version, err := flags.connect()
	if err != nil {
		return nil, err
	}
	facts, err := doctor.Read(ctx, kube, version, flags.namespace)
	if err != nil {
		return nil, &exitError{unreachable, err}
	}
	w := newWell(cluster.Check(facts))
	w.Cluster = cluster.New(facts)
	return w, nil
}

// mostNodes is how many nodes a short overview shows, the worst first.
const mostNodes = 5

func clusterTables(p printer, c *cluster.Cluster, wide bool) {
	t, flush := newTable(p)
	ready := 0
	for _, n := range c.Nodes {
		if n.Ready == "True" && !n.Drifted {
			ready++
		}
	}
	t.printf("KUBERNETES\t%s\n", c.Kubernetes)
	t.printf("OPERATOR\t%s, %d ready, leader %s\n", cmp.Or(c.Operator.Image, "none"), c.Operator.Ready, cmp.Or(c.Operator.Leader, "none"))
	t.printf("GATEWAYS\t%d, of which %d are programmed\n", c.Gateways, c.Programmed)
	if len(c.Policies) > 0 {
		t.printf("POLICIES\t%s\n", policyCounts(c.Policies))
	}
	t.printf("NODES\t%d, of which %d are ready\n", len(c.Nodes), ready)
	flush()
	if len(c.Nodes) == 0 {
		return
	}
	p.printf("\n")
	t.printf("NODE\tREADY\tREASON\tDRIFTED\tFRONTENDS\tBACKENDS\tFLOWS\tBYTECODE")
	if wide {
		t.printf("\tKERNEL\tCONTACT")
	}
	t.printf("\n")
	for i, n := range c.Nodes {
		if i == mostNodes && !wide {
			t.printf("and %d more\n", len(c.Nodes)-i)
			break
		}
		t.printf("%s\t%s\t%s\t%s\t%d\t%d\t%d\t%s", n.Name, n.Ready, cmp.Or(n.Reason, "-"), map[bool]string{true: "True", false: "False"}[n.Drifted], n.Frontends, n.Backends, n.Flows, cmp.Or(short(n.Bytecode), "-"))
		if wide {
			contact := "-"
			if n.Contact != nil {
				contact = clock(*n.Contact)
			}
			t.printf("\t%s\t%s", cmp.Or(n.Kernel, "-"), contact)
		}
		t.printf("\n")
	}
	flush()
}

// policyCounts counts policies by what has become of them.
func policyCounts(by map[string]int) string {
	var parts []string
	for _, reason := range slices.Sorted(maps.Keys(by)) {
		parts = append(parts, fmt.Sprintf("%d %s", by[reason], reason))
	}
	return strings.Join(parts, ", ")
}
