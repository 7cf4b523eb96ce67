// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"
)

// newQueue makes a queue in which each key waits longer the more often it fails.
func newQueue[K comparable](name string) workqueue.TypedRateLimitingInterface[K] {
	return workqueue.NewTypedRateLimitingQueueWithConfig(newBackoff[K](), workqueue.TypedRateLimitingQueueConfig[K]{Name: name})
}

func newBackoff[K comparable]() workqueue.TypedRateLimiter[K] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[K](100*time.Millisecond, 30*time.Second)
}

// work takes keys from a queue until the context ends. One key is never with two
// workers. A key that fails is queued again.
func work[K comparable](ctx context.Context, q workqueue.TypedRateLimitingInterface[K], workers int, do func(context.Context, K) error) {
	stop := context.AfterFunc(ctx, q.ShutDown)
	defer stop()
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for {
				key, ended := q.Get()
				if ended {
					return
				}
				if ctx.Err() == nil && do(ctx, key) != nil {
					q.AddRateLimited(key)
				} else {
					q.Forget(key)
				}
				q.Done(key)
			}
		})
	}
	group.Wait()
}

// errorList collects errors: that of one object must not keep the others from
// being written.
type errorList []error

func (l *errorList) add(err error) {
	if err != nil {
		*l = append(*l, err)
	}
}

func (l errorList) err() error { return errors.Join(l...) }
