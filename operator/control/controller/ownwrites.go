// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// ownWrites are the versions of objects that this operator has written last: their
// events need no work.
type ownWrites struct {
	mu       sync.Mutex
	versions map[types.UID]string
}

func newOwnWrites() *ownWrites { return &ownWrites{versions: map[types.UID]string{}} }

func (o *ownWrites) wrote(object client.Object) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.versions[object.GetUID()] = object.GetResourceVersion()
}

// has reports whether an object is as this operator wrote it.
func (o *ownWrites) has(object client.Object) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.versions[object.GetUID()] == object.GetResourceVersion()
}

func (o *ownWrites) forget(object client.Object) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.versions, object.GetUID())
}
