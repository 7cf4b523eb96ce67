// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/e2e/lib/cluster"
	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// leastFlows is how many new flows Blixt itself must have counted in each test
// that has traffic. Else somebody else has answered. Of TCP it is the number of
// connections; of UDP less, as the kernel chooses some ports a second time.
var leastFlows = map[string]uint64{
	"TCPRouteMultipleRoutesAttachment":    100,
	"TCPRouteParentRefAttachAll":          4,
	"TCPRouteParentRefPortAndSectionName": 3,
	"TCPRouteReferenceGrant":              1,
	"TCPRouteWeightedRouting":             500,
	"UDPRoute":                            1,
	"UDPRouteMultipleRoutesAttachment":    10,
	"UDPRouteParentRefAttachAllListeners": 2,
	"UDPRouteParentRefPortAndSectionName": 2,
	"UDPRouteReferenceGrant":              1,
	"UDPRouteWeightedRouting":             450,
	"TwinTCPModifyListeners":              3,
	"TwinUDPModifyListeners":              2,
}

// mapsOf waits until a node has loaded the program of a bytecode image, and returns the
// path by which the host finds its maps.
func mapsOf(ctx context.Context, c *cluster.Cluster, node *cluster.Machine, bytecode string) (maps string, err error) {
	err = lab.Eventually(time.Minute, func() error {
		var n v1alpha1.NodeDataplane
		if err := c.Client.Get(ctx, client.ObjectKey{Name: node.Name}, &n); err != nil {
			return err
		}
		for _, a := range n.Status.Applications {
			if a.Name == rollout.Name(bytecode) && a.ProgramID != nil {
				maps = node.File(fmt.Sprintf("/run/bpfman/fs/maps/%d", *a.ProgramID))
				return nil
			}
		}
		return fmt.Errorf("NodeDataplane %s has no program of %s: %+v", node.Name, bytecode, n.Status)
	})
	return maps, err
}

// newFlows returns how many flows have begun at the first node.
func newFlows(t *testing.T) uint64 {
	t.Helper()
	maps, err := datapath.Open(os.Getenv(mapsVariable))
	if err != nil {
		t.Fatal(err)
	}
	defer maps.Close()
	counters, err := maps.Counters()
	if err != nil {
		t.Fatal(err)
	}
	return counters[bpf.BlixtCounterCOUNTER_FLOW_NEW]
}
