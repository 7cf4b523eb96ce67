// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// addChecks adds the checks of liveness, which passes that do not end fail, and of
// readiness. A replica is ready when its
// cache is in sync, some replica leads, and the API server accepts the BlixtConfig
// of the installation. Helm and others who wait for readiness wait for all of that.
// Agents do not: they connect to replicas that are not ready, too.
func addChecks(m manager.Manager, installed *installation, liveness *Liveness, kube kubernetes.Interface, o *ManagerOptions) error {
	led := atomic.Bool{} // never reset: readiness must not come and go when the leader changes
	seen := leases{}
	return errors.Join(
		m.AddHealthzCheck("passes", liveness.Check),
		m.AddReadyzCheck("cache", func(r *http.Request) error {
			if !m.GetCache().WaitForCacheSync(r.Context()) {
				return errors.New("the cache is not in sync")
			}
			return nil
		}),
		m.AddReadyzCheck("leader", func(r *http.Request) error {
			if !o.LeaderElection || led.Load() {
				return nil
			}
			err := seen.somebodyLeads(r.Context(), kube, o.Release.Namespace, time.Now())
			led.Store(err == nil)
			return err
		}),
		m.AddReadyzCheck("config", func(*http.Request) error { return installed.ready() }),
	)
}

// leases remembers the Lease between two checks.
type leases struct {
	mu      sync.Mutex
	renewed time.Time
}

// somebodyLeads returns an error unless a replica holds the Lease.
func (l *leases) somebodyLeads(ctx context.Context, kube kubernetes.Interface, namespace string, now time.Time) error {
	lease, err := kube.CoordinationV1().Leases(namespace).Get(ctx, v1alpha1.Operator, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("get Lease %s/%s: %w", namespace, v1alpha1.Operator, err)
	}
	if !l.held(&lease.Spec, now) {
		return fmt.Errorf("nobody holds Lease %s/%s", namespace, v1alpha1.Operator)
	}
	return nil
}

// held reports whether somebody holds the Lease: it is fresh, or was renewed between two
// checks. The clocks of two machines may differ, which alone must not keep a replica
// from becoming ready.
func (l *leases) held(s *coordinationv1.LeaseSpec, now time.Time) bool {
	if s.HolderIdentity == nil || *s.HolderIdentity == "" || s.RenewTime == nil || s.LeaseDurationSeconds == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	renewed := !l.renewed.IsZero() && !s.RenewTime.Time.Equal(l.renewed)
	l.renewed = s.RenewTime.Time
	return renewed || now.Before(s.RenewTime.Add(time.Duration(*s.LeaseDurationSeconds)*time.Second))
}
