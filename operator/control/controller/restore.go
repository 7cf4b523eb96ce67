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

// restoreWatch ends the operator when the cluster was restored from a backup. Its
// resource version is then lower than before. The caches hold objects of a past
// that is undone, and their watches send nothing until the version is reached
// again. Replicas that do not lead have caches, too, so each of them checks. If the
// backup is only seconds old, the version may be reached before the next check, and
// the restore goes unnoticed.
type restoreWatch struct {
	direct client.Reader // reads past the cache
}

// How often to check, and how long to wait for an answer.
const (
	checkEvery  = time.Second
	checkWithin = 5 * time.Second
)

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (*restoreWatch) NeedLeaderElection() bool { return false }

// Start implements manager.Runnable. Returns an error when the resource version has
// decreased.
func (r *restoreWatch) Start(ctx context.Context) error {
	tick := time.NewTicker(checkEvery)
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
		if err == nil { // otherwise the API server cannot be reached
			latest = now
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// version returns the newest resource version of the cluster.
func (r *restoreWatch) version(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, checkWithin)
	defer cancel()
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("NamespaceList"))
	err := r.direct.List(ctx, list, client.Limit(1))
	return list.ResourceVersion, err
}
