// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"fmt"
	"os"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/e2e/cluster"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/datapath"
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

// mapsOf returns where a node's maps are seen from the host.
func mapsOf(ctx context.Context, c *cluster.Cluster, node *cluster.Machine) (string, error) {
	var n v1alpha1.NodeDataplane
	if err := c.Client.Get(ctx, client.ObjectKey{Name: node.Name}, &n); err != nil {
		return "", err
	}
	for _, a := range n.Status.Applications {
		if a.ProgramID != nil {
			return node.File(fmt.Sprintf("/run/bpfman/fs/maps/%d", *a.ProgramID)), nil
		}
	}
	return "", fmt.Errorf("NodeDataplane %s has no program: %+v", node.Name, n.Status)
}

// newFlows reads how many flows the first node has seen begin.
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
