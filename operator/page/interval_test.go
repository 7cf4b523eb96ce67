// SPDX-License-Identifier: Apache-2.0

package page

import (
	"context"
	"encoding/json"
	"testing"
	"time"
)

// largeCluster is a Source of many nodes.
type largeCluster struct {
	fake
	nodes int
}

func (c *largeCluster) Overview(ctx context.Context) (*Overview, error) {
	o, err := c.fake.Overview(ctx)
	o.Nodes = make([]Node, c.nodes)
	return o, err
}

// TestLargeClustersAreReadLessOften: reading 200 nodes each 5 s took 3 % of a core.
func TestLargeClustersAreReadLessOften(t *testing.T) {
	for nodes, want := range map[int]float64{0: 5, 99: 5, 100: 10, 200: 15, 1000: 55} {
		h := newHandler(t, Options{Source: &largeCluster{nodes: nodes}, Every: 5 * time.Second})
		var v View
		if err := json.Unmarshal(get(h, "/api/view").Body.Bytes(), &v); err != nil || v.Every != want {
			t.Errorf("%d nodes: a View each %v s, %v; want %v s", nodes, v.Every, err, want)
		}
	}
}
