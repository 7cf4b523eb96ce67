// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// rewound ends the operator when the cluster was restored from a backup. The
// caches have what has not happened, and a watch that goes on from there is told
// nothing until as much has happened again. So it is with a replica that waits,
// too, which is why each looks. A backup of a few seconds ago may go unnoticed, if
// as much has happened again before the next look.
type rewound struct {
	reader client.Reader // past the cache
}

// How often to look, and how long to wait for an answer.
const (
	lookEvery  = time.Second
	lookWithin = 5 * time.Second
)

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (*rewound) NeedLeaderElection() bool { return false }

// Start implements manager.Runnable. Returns an error when time has gone back.
func (r *rewound) Start(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	latest := ""
	for {
		now, err := r.version(ctx)
		if err == nil && latest != "" {
			var order int
			if order, err = resourceversion.CompareResourceVersion(now, latest); err == nil && order < 0 {
				return fmt.Errorf("the cluster was restored from a backup (its resource version is %s, and was %s): starting again to see it as it is", now, latest)
			}
		}
		if err == nil { // or else the API server is away
			latest = now
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// version returns how far the cluster is.
func (r *rewound) version(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("NamespaceList"))
	err := r.reader.List(ctx, list, client.Limit(1))
	return list.ResourceVersion, err
}
