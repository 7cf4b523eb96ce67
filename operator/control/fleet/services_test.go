// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"maps"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

// Publishing one Service's endpoints does what publishing everything does, and leaves
// the state of before as it was: an update may be made of it at the same time.
func TestPublishEndpointsIsPublish(t *testing.T) {
	all := manyServices(100, 3)
	whole, part := newHistory(1), newHistory(1)
	whole.publish(indexSnapshot(all))
	part.publish(indexSnapshot(all))
	before := maps.Collect(part.state.services.all())
	old := part.state
	name := all.Frontends[42].Refs[0].Service
	changed := gateway.ServiceEndpoints{Ports: []gateway.EndpointPort{all.Endpoints[name].Ports[0]}}
	changed.Ports[0].Endpoints = changed.Ports[0].Endpoints[1:]
	all.Endpoints = maps.Clone(all.Endpoints)
	all.Endpoints[name] = changed
	if !whole.publish(indexSnapshot(all)) || !part.publishEndpoints(name, changed.Ports) {
		t.Fatal("a change is none")
	}
	if whole.version != part.version || whole.sum != part.sum {
		t.Errorf("version %v, sum %v, want %v and %v", part.version, part.sum, whole.version, whole.sum)
	}
	if c := differences(whole.state, part.state); !c.empty() {
		t.Errorf("the states differ: %+v", c)
	}
	if c := part.changes[1]; c.addresses || len(c.frontends) != 0 || !maps.Equal(c.services, map[types.NamespacedName]bool{name: true}) {
		t.Errorf("what changed is %+v, want %s alone", c, name)
	}
	if now := maps.Collect(old.services.all()); len(now) != len(before) || len(now[name][0].Endpoints) != 3 {
		t.Error("the state of before has changed")
	}
	if part.publishEndpoints(name, changed.Ports) || part.publishEndpoints(types.NamespacedName{Name: "unknown"}, changed.Ports) {
		t.Error("what is known, or nobody's, was published")
	}
}
