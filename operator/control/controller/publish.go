// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"encoding/json"
	"hash/fnv"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/operator/control/fleet"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// published knows which version of what agents are told has a Gateway as it is
// now. It follows listeners and routes, and no endpoints, which come and go all
// the time.
type published struct {
	version lb.Version
	since   map[types.NamespacedName]lb.Version
	hash    map[types.NamespacedName]uint64
	issued  []rollout.Issued
}

func newPublished() published {
	return published{since: map[types.NamespacedName]lb.Version{}, hash: map[types.NamespacedName]uint64{}}
}

// publish tells the agents what to serve.
func (c *Controller) publish() {
	c.published.version = c.Fleet.Publish(fleet.Snapshot{Unresolved: c.translation.Unresolved, Endpoints: c.endpoints})
	c.published.issue(c.published.version, c.Clock())
}

// publishTranslation is publish after nodes or frontends may have changed. Of
// the endpoints of a Service, which change most, neither knows anything.
func (c *Controller) publishTranslation() {
	nodes := make([]fleet.Node, 0, len(c.world.nodes))
	for i := range c.world.nodes {
		n := &c.world.nodes[i]
		nodes = append(nodes, fleet.Node{Name: n.Name, Zone: n.Labels[corev1.LabelTopologyZone], Addresses: nodeAddresses(n)})
	}
	c.Fleet.SetNodes(nodes)
	c.publish()
	p := &c.published
	hashes := hashGateways(c.translation.Frontends)
	for _, g := range c.translation.Gateways {
		if hash := hashes[g.String()]; p.since[g.NamespacedName] == (lb.Version{}) || p.hash[g.NamespacedName] != hash {
			p.hash[g.NamespacedName], p.since[g.NamespacedName] = hash, p.version
		}
	}
	for key := range p.since {
		if c.world.gateways[key] == nil {
			delete(p.since, key)
			delete(p.hash, key)
		}
	}
}

// hashGateways hashes the frontends of each Gateway.
func hashGateways(frontends []gateway.Frontend) map[string]uint64 {
	hashes := map[string]uint64{}
	for i := range frontends {
		text, err := json.Marshal(&frontends[i])
		if err != nil { // plain data
			panic(err)
		}
		h := fnv.New64a()
		h.Write(text)
		hashes[frontends[i].Gateway] = hashes[frontends[i].Gateway]*31 + h.Sum64()
	}
	return hashes
}

// issue notes when a version was published, for as long as agents may take.
func (p *published) issue(v lb.Version, now time.Time) {
	if n := len(p.issued); n > 0 && p.issued[n-1].Version == v {
		return
	}
	p.issued = append(slices.DeleteFunc(slices.Clone(p.issued), func(i rollout.Issued) bool {
		return now.Sub(i.At) > issuedFor
	}), rollout.Issued{Version: v, At: now})
}

// issuedFor is how long versions are remembered.
const issuedFor = 2 * time.Minute
