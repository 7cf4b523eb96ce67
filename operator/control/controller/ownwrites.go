// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// ownWrites knows which versions of objects we have written ourselves: their events
// are no news.
type ownWrites struct {
	mu       sync.Mutex
	versions map[types.UID]string
}

func newOwn() *ownWrites { return &ownWrites{versions: map[types.UID]string{}} }

func (o *ownWrites) wrote(object client.Object) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.versions[object.GetUID()] = object.GetResourceVersion()
}

// is tells whether an object is as we wrote it.
func (o *ownWrites) is(object client.Object) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.versions[object.GetUID()] == object.GetResourceVersion()
}

func (o *ownWrites) forget(object client.Object) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.versions, object.GetUID())
}
