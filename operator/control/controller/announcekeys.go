// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"log/slog"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/kubernetes-sigs/blixt/operator/control/keyring"
)

// keysEvery is how often the leader looks whether a rotation can go on. The Secret is
// read less often.
const keysEvery = time.Second

// keepAnnounceKeys keeps the keys by which nodes sign what they announce to each other,
// from the election on, until the context ends.
func keepAnnounceKeys(ctx context.Context, elected <-chan struct{}, kube kubernetes.Interface, namespace string, agents keyring.Agents, log *slog.Logger) {
	select {
	case <-ctx.Done():
		return
	case <-elected:
	}
	keeper, once := keyring.NewKeeper(kube, namespace, agents, time.Now), newOnceLog(log, time.Now)
	for {
		attempt, cancel := context.WithTimeout(ctx, seedTimeout)
		err := keeper.Keep(attempt)
		cancel()
		if ctx.Err() != nil {
			return
		}
		once.result(keeper.Subject(), err)
		pause := keysEvery
		if err != nil {
			pause = seedEvery
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}
