// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"log/slog"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/kubernetes-sigs/blixt/operator/control/seed"
)

// How often the leader reads the seed, and how long it may take.
const (
	seedEvery   = 10 * time.Second
	seedTimeout = 5 * time.Second
)

// seedKeeper gives agents the seed. Only the leader has one that runs.
type seedKeeper struct {
	keeper *seed.Keeper
	set    func(uint64)
	log    *onceLog
}

func newSeedKeeper(kube kubernetes.Interface, namespace string, set func(uint64), log *slog.Logger) *seedKeeper {
	return &seedKeeper{seed.NewKeeper(kube, namespace), set, newOnceLog(log, time.Now)}
}

// keep reads the seed, or makes it, and sets it. On error agents keep theirs.
func (s *seedKeeper) keep(ctx context.Context) {
	attempt, cancel := context.WithTimeout(ctx, seedTimeout)
	defer cancel()
	value, err := s.keeper.Keep(attempt)
	if ctx.Err() != nil {
		return
	}
	s.log.result(s.keeper.Subject(), err)
	if err == nil {
		s.set(value)
	}
}

// run keeps the seed from the election on, until the context ends.
func (s *seedKeeper) run(ctx context.Context, elected <-chan struct{}) {
	select {
	case <-ctx.Done():
		return
	case <-elected:
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(seedEvery):
			s.keep(ctx)
		}
	}
}
