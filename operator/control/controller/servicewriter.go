// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/kube"
)

// serviceWriter makes the Services of Gateways, and the EndpointSlices of these, what
// the publisher says. What the API server refuses of one tenant's delays nobody: it
// is tried again with pauses that grow, and its Gateway says why.
type serviceWriter struct {
	*api
	queue   workqueue.TypedRateLimitingInterface[types.NamespacedName] // of Services
	retries *retries[types.NamespacedName]
	// changed has a value after a problem has changed.
	changed chan struct{}

	endpoints *endpointStore

	mu     sync.Mutex
	latest *translated
	// pending are the Services whose endpoints alone have changed, by the Service that
	// shows them; nil: whatever there is has to be compared.
	pending  map[types.NamespacedName]map[types.NamespacedName]bool
	problems map[types.NamespacedName]string
}

func newServiceWriter(a *api, e *endpointStore) *serviceWriter {
	return &serviceWriter{
		api: a, endpoints: e, pending: map[types.NamespacedName]map[types.NamespacedName]bool{}, queue: newQueue[types.NamespacedName]("blixt-services"), retries: newRetries[types.NamespacedName](a.clock),
		changed: make(chan struct{}, 1), problems: map[types.NamespacedName]string{},
	}
}

// set has the writer compare all Services with what is wanted now.
func (w *serviceWriter) set(t *translated) {
	w.mu.Lock()
	w.latest = t
	for key := range w.problems {
		if t.owners[key] == nil {
			delete(w.problems, key)
			w.retries.forget(key)
		}
	}
	w.mu.Unlock()
	for key := range t.owners {
		w.addAfter(key, 0)
	}
	for key, s := range t.services {
		if t.isLeft(s) {
			w.addAfter(key, 0)
		}
	}
}

// setEndpoints has the writer compare what shows the endpoints of one Service.
func (w *serviceWriter) setEndpoints(t *translated, service types.NamespacedName) {
	for _, gw := range t.users.Gateways(service) {
		namespace, name, _ := strings.Cut(gw, "/")
		key := serviceKey(types.NamespacedName{Namespace: namespace, Name: name})
		w.mu.Lock()
		if some, queued := w.pending[key]; !queued {
			w.pending[key] = map[types.NamespacedName]bool{service: true}
		} else if some != nil {
			some[service] = true
		}
		w.mu.Unlock()
		w.queue.Add(key)
	}
}

// addAfter has the writer compare all of a Service after a pause.
func (w *serviceWriter) addAfter(key types.NamespacedName, pause time.Duration) {
	w.mu.Lock()
	w.pending[key] = nil
	w.mu.Unlock()
	w.queue.AddAfter(key, pause)
}

// problem returns why the Service of a Gateway could not be written, or "".
func (w *serviceWriter) problem(service types.NamespacedName) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.problems[service]
}

// run writes until the context ends.
func (w *serviceWriter) run(ctx context.Context) error {
	work(ctx, w.queue, statusWorkers, func(ctx context.Context, key types.NamespacedName) error {
		w.mu.Lock()
		t, some := w.latest, w.pending[key]
		delete(w.pending, key)
		w.mu.Unlock()
		if t == nil {
			return nil // set will queue it
		}
		g, content := t.owners[key], ""
		if g != nil {
			content = t.serviceText(g)
		}
		if pause := w.retries.pause(key, content); pause > 0 {
			w.addAfter(key, pause)
			return nil
		}
		err := w.write(ctx, t, key, g, some)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && isRefusal(err) {
			if g != nil && !w.retries.fails(key) {
				w.event(t.gateways[g.NamespacedName], corev1.EventTypeWarning, "ServiceRefused", err.Error())
			}
			w.once.refused("Service", "Service "+key.String(), err)
		} else {
			w.once.result("Service "+key.String(), err)
		}
		w.report(key, err)
		if err == nil {
			w.retries.forget(key)
			return nil
		}
		w.addAfter(key, w.retries.failed(key, content))
		return nil
	})
	return nil
}

// report records why a Service could not be written.
func (w *serviceWriter) report(key types.NamespacedName, err error) {
	problem := ""
	if err != nil {
		problem = "it cannot be written: " + err.Error()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.problems[key] == problem {
		return
	}
	w.problems[key] = problem
	if problem == "" {
		delete(w.problems, key)
	}
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// write makes a Service what the Gateway wants; nil: there is none. Of its
// EndpointSlices it compares those that show some Services or, with nil, all.
func (w *serviceWriter) write(ctx context.Context, t *translated, key types.NamespacedName, g *gateway.GatewayStatus, some map[types.NamespacedName]bool) error {
	stored := &corev1.Service{}
	err := w.client.Get(ctx, key, stored)
	switch {
	case client.IgnoreNotFound(err) != nil:
		return fmt.Errorf("get Service: %w", err)
	case err != nil:
		stored = nil
	}
	if g == nil {
		if stored == nil || !t.isLeft(stored) {
			return nil
		}
		return w.removeLeft(ctx, stored)
	}
	gw := t.gateways[g.NamespacedName]
	// The Service of a Gateway that was never valid, or is not allowed any more,
	// stays as it is, and so does one of which no port is left: it holds the address.
	keeps := g.Service == nil || len(g.Service.Ports) == 0
	switch {
	case stored == nil && keeps, stored != nil && !metav1.IsControlledBy(stored, gw):
		return nil // the Gateway says so, if that is another's
	case !keeps:
		if stored, err = w.applyService(ctx, service(gw, g.Service, t.LastGood.Gateways[g.NamespacedName]), stored); stored == nil || err != nil {
			return err
		}
	}
	return w.mirror(ctx, t, stored, some)
}

// applyService returns the Service as it is then, which the cache may not have yet,
// or nil: its event will come.
func (w *serviceWriter) applyService(ctx context.Context, want, stored *corev1.Service) (*corev1.Service, error) {
	var cached client.Object // nil, unlike a nil *Service in it
	if stored != nil {
		cached = stored
		if !equality.Semantic.DeepEqual(stored.Spec.LoadBalancerClass, want.Spec.LoadBalancerClass) { // it cannot be changed
			return nil, w.removeOurs(ctx, stored)
		}
	}
	wrote, err := w.apply(ctx, want, cached)
	if err != nil || !wrote {
		return stored, err
	}
	stored = &corev1.Service{}
	return stored, w.direct.Get(ctx, client.ObjectKeyFromObject(want), stored)
}

// mirror writes the EndpointSlices of a Service that differ: those that show some
// Services or, with nil, all.
func (w *serviceWriter) mirror(ctx context.Context, t *translated, s *corev1.Service, some map[types.NamespacedName]bool) error {
	list := &discoveryv1.EndpointSliceList{}
	if err := w.list(ctx, t.kinds, list, client.InNamespace(s.Namespace), client.MatchingFields{byService: s.Name}); err != nil {
		return err
	}
	stored := slices.DeleteFunc(slices.Clone(list.Items), func(e discoveryv1.EndpointSlice) bool {
		namespace, name, _ := strings.Cut(e.Annotations[mirroredAnnotation], "/")
		return !metav1.IsControlledBy(&e, s) || some != nil && !some[types.NamespacedName{Namespace: namespace, Name: name}]
	})
	var failed errorList
	for _, want := range mirror(s, t.users.OfGateway(s.Namespace+"/"+metav1.GetControllerOf(s).Name), w.endpoints, some) {
		var cached client.Object
		if i := slices.IndexFunc(stored, func(e discoveryv1.EndpointSlice) bool { return e.Name == want.Name }); i >= 0 {
			cached = stored[i].DeepCopy()
			stored = slices.Delete(stored, i, i+1)
		}
		_, err := w.apply(ctx, want, cached)
		failed.add(err)
	}
	for i := range stored {
		failed.add(w.remove(ctx, &stored[i]))
	}
	return failed.err()
}

// indexServices prepares what the writer looks up.
func (t *translated) indexServices() {
	t.owners = map[types.NamespacedName]*gateway.GatewayStatus{}
	for i := range t.Gateways {
		g := &t.Gateways[i]
		t.owners[serviceKey(g.NamespacedName)] = g
	}
}

// serviceText returns what is wanted of the Service of a Gateway.
func (t *translated) serviceText(g *gateway.GatewayStatus) string {
	text, err := json.Marshal(g.Service)
	if err != nil { // plain data
		panic(err)
	}
	return kube.NameOf(t.gateways[g.NamespacedName]) + string(text)
}
