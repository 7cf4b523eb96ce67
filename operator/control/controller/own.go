// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// own knows which versions of objects we have written ourselves: their events
// are no news.
type own struct {
	mu       sync.Mutex
	versions map[types.UID]string
}

func newOwn() *own { return &own{versions: map[types.UID]string{}} }

func (o *own) wrote(object client.Object) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.versions[object.GetUID()] = object.GetResourceVersion()
}

// is tells whether an object is as we wrote it.
func (o *own) is(object client.Object) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.versions[object.GetUID()] == object.GetResourceVersion()
}

func (o *own) forget(object client.Object) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.versions, object.GetUID())
}
