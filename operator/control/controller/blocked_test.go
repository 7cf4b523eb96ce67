// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/fleet"
)

// gate is between the operator and the API server. It delays or fails the writes
// whose path contains a text.
type gate struct {
	next http.RoundTripper

	mu      sync.Mutex
	holds   map[string]chan struct{} // closed when the writes may go on
	fails   string
	refuses string
	writes  []write
	waiting int
}

// write is one that has reached the gate, and what became of it.
type write struct {
	path, body string
	code       int // 0: it was given up, or still waits
}

// guard puts a gate before an operator that is not running yet.
func (o *operator) guard() *gate {
	g := &gate{holds: map[string]chan struct{}{}}
	o.wrap = func(next http.RoundTripper) http.RoundTripper {
		g.next = next
		return g
	}
	return g
}

func (g *gate) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodGet || r.Body == nil {
		return g.next.RoundTrip(r)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	g.mu.Lock()
	i := len(g.writes)
	g.writes = append(g.writes, write{path: r.URL.Path, body: string(body)})
	var held chan struct{}
	for text, released := range g.holds {
		if strings.Contains(r.URL.Path, text) {
			held = released
			g.waiting++
		}
	}
	fails := g.fails != "" && strings.Contains(r.URL.Path, g.fails)
	refuses := g.refuses != "" && strings.Contains(r.URL.Path, g.refuses)
	g.mu.Unlock()
	if refuses {
		return &http.Response{StatusCode: http.StatusUnprocessableEntity, Header: http.Header{"Content-Type": {"application/json"}}, Request: r, Body: io.NopCloser(strings.NewReader(
			`{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Invalid", "code": 422, "message": "denied by a policy"}`))}, nil
	}
	if held != nil {
		select {
		case <-held:
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	if fails {
		return &http.Response{StatusCode: http.StatusInternalServerError, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("no")), Request: r}, nil
	}
	response, err := g.next.RoundTrip(r)
	if err == nil {
		g.mu.Lock()
		g.writes[i].code = response.StatusCode
		g.mu.Unlock()
	}
	return response, err
}

// hold has writes wait from now on.
func (g *gate) hold(text string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.holds[text], g.waiting = make(chan struct{}), 0
}

// release lets all writes through.
func (g *gate) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for text, held := range g.holds {
		close(held)
		delete(g.holds, text)
	}
}

func (g *gate) fail(text string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fails = text
}

// refuse has the API server refuse the objects of writes, as an admission policy
// does.
func (g *gate) refuse(text string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refuses = text
}

// since returns the writes to a path, without the first few of all.
func (g *gate) since(first int, text string) (found []write) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, w := range g.writes[first:] {
		if strings.Contains(w.path, text) {
			found = append(found, w)
		}
	}
	return found
}

func (g *gate) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.writes)
}

// held waits until a write waits.
func (o *operator) held(g *gate) {
	o.Helper()
	o.eventually("a write that waits", func() error {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.waiting == 0 {
			return fmt.Errorf("there is none")
		}
		return nil
	})
}

const (
	routeStatus   = "/tcproutes/web/status"
	gatewayStatus = "/gateways/web/status"
)

// listen adds a listener to the web Gateway.
func (o *operator) listen(port gwv1.PortNumber) *gwv1.Gateway {
	o.Helper()
	gw := named[gwv1.Gateway]("default", "web")
	o.must(retry.RetryOnConflict(retry.DefaultBackoff, func() error { // its status may be written meanwhile
		if err := o.kube.Get(o.Context(), client.ObjectKeyFromObject(gw), gw); err != nil {
			return err
		}
		gw.Spec.Listeners = append(gw.Spec.Listeners, gwv1.Listener{Name: gwv1.SectionName(fmt.Sprintf("l%d", port)), Protocol: gwv1.TCPProtocolType, Port: port})
		return o.kube.Update(o.Context(), gw)
	}))
	return gw
}

// serves waits until agents are sent a port, and returns how long it took.
func (o *operator) serves(port uint16) time.Duration {
	o.Helper()
	start := time.Now()
	o.published(fmt.Sprintf("port %d", port), func(s fleet.Snapshot) bool {
		for _, f := range s.Frontends {
			if f.Port == port {
				return true
			}
		}
		return false
	})
	return time.Since(start)
}

// loseBackend has the route's status change.
func (o *operator) loseBackend() {
	o.Helper()
	o.must(o.kube.Delete(o.Context(), named[corev1.Service]("default", "web")))
}

// A write that the API server does not answer delays neither what is published nor
// the statuses of other objects.
func TestWritesThatWaitDelayNothing(t *testing.T) {
	o := prepare(t)
	g := o.guard()
	o.run()
	o.serve()
	g.hold(routeStatus)
	o.loseBackend()
	o.held(g)
	gw := o.listen(81)
	took := o.serves(81)
	o.condition(gw, "Programmed", "True Programmed", "All nodes")
	t.Logf("while the status of a route waits, a listener is published after %v", took)

	// The rollout is the second to wait.
	g.hold("/daemonsets/")
	o.apply(`{apiVersion: blixt.x-k8s.io/v1alpha1, kind: BlixtConfig, metadata: {name: blixt}, spec: {addresses: {source: Pool, pool: [198.51.100.0/29]}, dataplane: {agent: {priorityClassName: mine}}}}`)
	o.held(g)
	gw = o.listen(82)
	took = max(took, o.serves(82))
	t.Logf("while the agents' DaemonSet waits, too, after %v", took)
	if took > 2*time.Second {
		t.Errorf("a listener was published after %v", took)
	}
	g.release()
	o.condition(gw, "Programmed", "True Programmed", "All nodes")
	o.condition(named[gwv1.TCPRoute]("default", "web"), "ResolvedRefs", "False BackendNotFound", "")
}

// Of two changes in quick succession the last one's status is written, once.
func TestNewestStatusIsWritten(t *testing.T) {
	o := prepare(t)
	g := o.guard()
	o.run()
	o.serve()
	o.calm()
	first := g.count()
	g.hold(gatewayStatus)
	o.listen(81)
	o.held(g)
	o.listen(82)
	gw := o.listen(83)
	o.serves(83)
	o.calm() // the rollout has judged the nodes by it
	g.release()
	o.condition(gw, "Programmed", "True Programmed", "All nodes")
	o.calm()
	written := 0
	for _, w := range g.since(first, gatewayStatus) {
		if w.code == http.StatusOK {
			written++
			if !strings.Contains(w.body, fmt.Sprintf(`"observedGeneration":%d`, gw.Generation)) {
				t.Errorf("with generation %d was written %s", gw.Generation, w.body)
			}
		}
	}
	if written != 1 {
		t.Errorf("the status was written %d times, want once: %+v", written, g.since(first, gatewayStatus))
	}
}

// The status of an object that is gone is not tried again, nor written to another
// object of its name.
func TestStatusOfDeletedObject(t *testing.T) {
	o := prepare(t)
	g := o.guard()
	o.run()
	o.serve()
	route := named[gwv1.TCPRoute]("default", "web")
	o.must(o.kube.Get(t.Context(), client.ObjectKeyFromObject(route), route))
	route.Spec.Rules[0].BackendRefs[0].Weight = new(int32(7))
	o.must(o.kube.Update(t.Context(), route))
	o.condition(route, "Accepted", "True Accepted", "")
	o.calm()
	first := g.count()
	g.hold(routeStatus)
	o.loseBackend()
	o.held(g)
	o.must(o.kube.Delete(t.Context(), route))
	g.release()
	o.calm()
	if tried := g.since(first, routeStatus); len(tried) != 1 || tried[0].code == http.StatusOK {
		t.Errorf("the status of a route that is gone was tried as %+v, want once", tried)
	}

	o.apply(kube.WebGateway)
	o.condition(route, "ResolvedRefs", "True ResolvedRefs", "")
	first = g.count()
	g.hold(routeStatus)
	o.loseBackend()
	o.held(g)
	o.must(o.kube.Delete(t.Context(), route))
	o.apply(`{apiVersion: v1, kind: Service, metadata: {name: web, namespace: default}, spec: {ports: [{port: 80, targetPort: 8080}]}}`)
	o.calm() // or else the new route might have lost its backend, too
	o.apply(kube.WebGateway)
	g.release()
	o.condition(route, "ResolvedRefs", "True ResolvedRefs", "")
	for _, w := range g.since(first, routeStatus) {
		if w.code == http.StatusOK && strings.Contains(w.body, "BackendNotFound") {
			t.Errorf("to a new route was written %s", w.body)
		}
	}
}

// failures returns how many passes and writes of statuses have failed.
func failures(t *testing.T) float64 {
	t.Helper()
	families, err := metrics.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "blixt_operator_failures_total" {
			return f.Metric[0].Counter.GetValue()
		}
	}
	t.Fatal("failures are not counted")
	return 0
}

// An object whose status the API server refuses is tried again with pauses that
// grow, and delays no other.
func TestFailingStatusIsTriedAgain(t *testing.T) {
	o := prepare(t)
	g := o.guard()
	o.run()
	o.serve()
	o.calm()
	first, before := g.count(), failures(t)
	g.fail(routeStatus)
	o.loseBackend()
	gw := o.listen(81)
	o.condition(gw, "Programmed", "True Programmed", "All nodes")
	time.Sleep(3 * time.Second)
	if n := len(g.since(first, routeStatus)); n < 3 || n > 12 {
		t.Errorf("the status was tried %d times within 3 seconds, want a few", n)
	}
	if n := failures(t) - before; n < 3 {
		t.Errorf("%v failures were counted, want each try", n)
	}
	g.fail("")
	o.condition(named[gwv1.TCPRoute]("default", "web"), "ResolvedRefs", "False BackendNotFound", "")
}

// An operator that loses its leadership gives up what it writes, and the next one
// writes it.
func TestLeadershipLostWhileWriting(t *testing.T) {
	o := prepare(t)
	g := o.guard()
	o.run()
	o.serve()
	o.calm()
	first := g.count()
	g.hold(routeStatus)
	g.hold("/nodedataplanes/")
	o.loseBackend()
	o.held(g)
	o.agents.change(func(a *agents) { a.reports[0].Error = "no" })
	o.eventually("a NodeDataplane that waits", func() error {
		if len(g.since(first, "/nodedataplanes/")) == 0 {
			return fmt.Errorf("there is none")
		}
		return nil
	})
	start := time.Now()
	o.stop()
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it ended after %v", took)
	}
	g.release()
	time.Sleep(100 * time.Millisecond)
	for _, w := range append(g.since(first, routeStatus), g.since(first, "/nodedataplanes/")...) {
		if w.code != 0 {
			t.Errorf("after its end it wrote %+v", w)
		}
	}
	o.run()
	o.condition(named[gwv1.TCPRoute]("default", "web"), "ResolvedRefs", "False BackendNotFound", "")
	o.condition(named[v1alpha1.NodeDataplane]("", "n1"), "Ready", "False WriteFailed", "")
}
