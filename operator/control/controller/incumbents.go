// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/kube"
)

// incumbentsKey of the ConfigMap has the incumbents in JSON, compressed: 65,536
// frontends would not fit otherwise.
const incumbentsKey = "incumbents.json.gz"

// incumbentsPause is how long to wait before a write is tried again.
const incumbentsPause = 5 * time.Second

// maxIncumbents is how many bytes they may have when they are read: far more than
// there ever are.
const maxIncumbents = 64 << 20

// incumbentsKeeper keeps who has which address and port for the next leader, in a
// ConfigMap. Statuses say the same, but can be forged by who owns the objects.
// Tenants cannot write the ConfigMap, which is in the operator's namespace.
type incumbentsKeeper struct {
	*api
	namespace string
	latest    atomic.Pointer[gateway.Incumbents]
	changed   chan struct{}
	stored    []byte // what the ConfigMap has, as far as is known
}

func newIncumbentsKeeper(a *api, namespace string) *incumbentsKeeper {
	return &incumbentsKeeper{api: a, namespace: namespace, changed: make(chan struct{}, 1)}
}

// read returns what the last leader has kept, or nil if there is nothing: the
// statuses must do then.
func (k *incumbentsKeeper) read(ctx context.Context) (*gateway.Incumbents, error) {
	stored := k.object()
	if err := k.direct.Get(ctx, client.ObjectKeyFromObject(stored), stored); apierrors.IsNotFound(err) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("get %s: %w", kube.NameOf(stored), err)
	}
	i, err := decodeIncumbents(stored.BinaryData[incumbentsKey])
	if err != nil {
		k.log.Warn("statuses tell who has which address and port: the ConfigMap is malformed", "object", kube.NameOf(stored), "error", err)
		return nil, nil
	}
	k.stored = stored.BinaryData[incumbentsKey]
	return i, nil
}

// set has the incumbents kept soon.
func (k *incumbentsKeeper) set(i *gateway.Incumbents) {
	k.latest.Store(i)
	select {
	case k.changed <- struct{}{}:
	default:
	}
}

// run keeps incumbents until the context ends.
func (k *incumbentsKeeper) run(ctx context.Context) error {
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-again:
		case <-k.changed:
		}
		again = nil
		err := k.keep(ctx, k.latest.Load())
		if ctx.Err() == nil {
			k.once.result(kube.NameOf(k.object()), err)
		}
		if err != nil {
			again = time.After(incumbentsPause)
		}
	}
}

func (k *incumbentsKeeper) keep(ctx context.Context, i *gateway.Incumbents) error {
	text := encodeIncumbents(i)
	if bytes.Equal(text, k.stored) {
		return nil
	}
	want := k.object()
	want.BinaryData = map[string][]byte{incumbentsKey: text}
	_, err := k.apply(ctx, want, nil)
	if err == nil {
		k.stored = text
	}
	return err
}

func (k *incumbentsKeeper) object() *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
		Namespace: k.namespace, Name: v1alpha1.IncumbentsConfigMap,
		Labels: map[string]string{v1alpha1.ManagedByLabel: v1alpha1.Manager},
	}}
}

// encodeIncumbents returns the same bytes for the same incumbents.
func encodeIncumbents(i *gateway.Incumbents) []byte {
	var buffer bytes.Buffer
	w := gzip.NewWriter(&buffer)
	if err := json.NewEncoder(w).Encode(i); err != nil { // plain data, into memory
		panic(err)
	}
	w.Close()
	return buffer.Bytes()
}

func decodeIncumbents(text []byte) (*gateway.Incumbents, error) {
	r, err := gzip.NewReader(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	i := &gateway.Incumbents{}
	return i, json.NewDecoder(io.LimitReader(r, maxIncumbents)).Decode(i)
}
