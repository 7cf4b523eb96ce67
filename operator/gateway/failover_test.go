// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// healthWorld is a frontend with two references, of which each has endpoints 10.0.<reference>.<n>.
type healthWorld struct {
	*testing.T
	frontend  gateway.Frontend
	endpoints gateway.Endpoints
	options   gateway.ResolveOptions
	now       time.Time
}

func newHealthWorld(t *testing.T, endpoints ...int) *healthWorld {
	w := &healthWorld{T: t, endpoints: gateway.Endpoints{}, now: time.Unix(1e9, 0)}
	w.frontend = gateway.Frontend{
		Key:      lb.Key{Addr: netip.MustParseAddr("192.0.2.1"), Protocol: lb.TCP, Port: 80},
		Settings: lb.Settings{Health: &lb.Health{Policy: "shop/web"}},
	}
	w.options.Ejected = lb.EjectedSet{}
	w.options.Failovers = &gateway.Failovers{Now: func() time.Time { return w.now }}
	for i, n := range endpoints {
		w.frontend.Refs = append(w.frontend.Refs, gateway.Ref{Service: service(i), Port: 80, Weight: 1, Priority: i})
		w.set(i, n, n)
	}
	return w
}

func service(i int) types.NamespacedName {
	return types.NamespacedName{Namespace: "shop", Name: fmt.Sprint("s", i)}
}

func endpoint(ref, n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(ref), byte(n)}), 80)
}

// set gives a reference n endpoints, of which the first ones are ready.
func (w *healthWorld) set(ref, n, ready int) {
	p := gateway.EndpointPort{Protocol: lb.TCP}
	for i := range n {
		state := gateway.NotServing
		if i < ready {
			state = gateway.Ready
		}
		p.Endpoints = append(p.Endpoints, gateway.Endpoint{Addr: endpoint(ref, i), State: state})
	}
	w.endpoints[service(ref)] = gateway.ServiceEndpoints{Ports: []gateway.EndpointPort{p}}
}

func (w *healthWorld) eject(ref, n int, e *lb.Ejected) {
	w.options.Ejected[lb.EjectedKey{Policy: "shop/web", Protocol: lb.TCP, Backend: endpoint(ref, n)}] = e
}

// want resolves, and wants these backends to have a weight, and this weight to be rejected.
func (w *healthWorld) want(serving string, reject uint64) lb.Frontend {
	w.Helper()
	r := gateway.Resolve(&gateway.Unresolved{Frontends: []gateway.Frontend{w.frontend}}, w.endpoints, w.options)
	f := r.State.Frontends[0]
	var got []string
	for _, b := range f.Backends {
		if b.Weight > 0 {
			a := b.Addr.Addr().As4()
			got = append(got, fmt.Sprintf("%d.%d", a[2], a[3]))
		}
	}
	slices.Sort(got)
	if strings.Join(got, " ") != serving || f.Reject != reject*lb.WeightUnit {
		w.Errorf("serving %v, and %d rejected, want %s and %d", got, f.Reject/lb.WeightUnit, serving, reject)
	}
	return f
}

func TestEjectedEndpointsGetNoNewFlows(t *testing.T) {
	w := newHealthWorld(t, 3)
	why := &lb.Ejected{Why: "refused"}
	w.eject(0, 1, why)
	f := w.want("0.0 0.2", 0)
	if len(f.Backends) != 3 || f.Backends[1].Ejected != why {
		t.Errorf("the ejected backend has to stay, with its reason: %+v", f.Backends)
	}
	w.eject(0, 1, &lb.Ejected{Trial: true})
	w.want("0.0 0.1 0.2", 0)
	w.frontend.Health = nil
	w.eject(0, 1, why)
	w.want("0.0 0.1 0.2", 0) // nobody asks
	w.frontend.Health = &lb.Health{Policy: "other/policy"}
	w.want("0.0 0.1 0.2", 0)
}

// Whoever decides that all are ejected is wrong, or it does not help.
func TestAllEjectedServe(t *testing.T) {
	w := newHealthWorld(t, 2)
	w.eject(0, 0, &lb.Ejected{})
	w.eject(0, 1, &lb.Ejected{})
	if f := w.want("0.0 0.1", 0); !f.Backends[0].Ejected.Panic {
		t.Errorf("%+v: want Panic", f.Backends[0].Ejected)
	}
}

// A reference without healthy endpoints gives its connections to the others, as if somebody had drained it.
func TestEjectedReferenceIsNotRejected(t *testing.T) {
	w := newHealthWorld(t, 2, 1)
	w.eject(1, 0, &lb.Ejected{})
	w.want("0.0 0.1", 0)
}

// Golden case eject-bound, second half: with panicPercent 60, two of four that are ejected serve.
func TestPanic(t *testing.T) {
	w := newHealthWorld(t, 4)
	w.eject(0, 0, &lb.Ejected{Why: "refused"})
	w.eject(0, 1, &lb.Ejected{Why: "refused"})
	w.frontend.Health.Panic = 50
	w.want("0.2 0.3", 0)
	w.frontend.Health.Panic = 60
	if f := w.want("0.0 0.1 0.2 0.3", 0); !f.Backends[0].Ejected.Panic || f.Backends[2].Ejected != nil {
		t.Errorf("%+v", f.Backends)
	}
	// Not if another group can take over.
	w = newHealthWorld(t, 4, 2)
	w.frontend.Health.Panic = 60
	w.frontend.Failover = &lb.Failover{MinAvailable: 60, Recover: 80, Hold: time.Second}
	w.eject(0, 0, &lb.Ejected{})
	w.eject(0, 1, &lb.Ejected{})
	w.want("1.0 1.1", 0)
	w.set(1, 2, 0)
	w.want("0.0 0.1 0.2 0.3", 0)
}

// Golden case failover-back.
func TestFailoverAndBack(t *testing.T) {
	w := newHealthWorld(t, 10, 2)
	w.frontend.Failover = &lb.Failover{MinAvailable: 1, Recover: 50, Hold: 30 * time.Second}
	all := "0.0 0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8 0.9"
	if f := w.want(all, 0); !f.Backends[10].Standby {
		t.Errorf("%+v: want Standby", f.Backends[10])
	}
	w.set(0, 10, 0)
	w.want("1.0 1.1", 0)
	w.set(0, 10, 4)
	w.now = w.now.Add(time.Hour)
	w.want("1.0 1.1", 0)
	w.set(0, 10, 6)
	w.want("1.0 1.1", 0)
	if at := w.options.Failovers.Wake(); !at.Equal(w.now.Add(30 * time.Second)) {
		t.Errorf("wake at %v, want 30 s later", at)
	}
	w.now = w.now.Add(20 * time.Second)
	w.set(0, 10, 4) // it has not been enough for all the time
	w.want("1.0 1.1", 0)
	w.set(0, 10, 6)
	w.want("1.0 1.1", 0)
	w.now = w.now.Add(29 * time.Second)
	f := w.want("1.0 1.1", 0)
	if !f.Backends[0].Standby || f.Backends[7].Standby {
		t.Errorf("those that are ready stand by: %+v", f.Backends)
	}
	w.now = w.now.Add(time.Second)
	w.want("0.0 0.1 0.2 0.3 0.4 0.5", 0)
	if at := w.options.Failovers.Wake(); !at.IsZero() {
		t.Errorf("wake at %v, want never", at)
	}
	w.set(1, 2, 0)
	w.set(0, 10, 0)
	w.want("", 1) // nobody is left: only the group that serves is rejected
}

// Without a memory, and with a clock that is set back, there is a decision all the same.
func TestFailoverWithoutAPast(t *testing.T) {
	w := newHealthWorld(t, 2, 2, 2)
	w.frontend.Failover = &lb.Failover{MinAvailable: 50, Recover: 100, Hold: 30 * time.Second}
	w.set(0, 2, 0)
	w.want("1.0 1.1", 0)
	w.set(0, 2, 2)
	w.want("1.0 1.1", 0)
	w.now = w.now.Add(-time.Hour)
	w.want("1.0 1.1", 0)
	w.now = w.now.Add(31 * time.Second)
	w.want("0.0 0.1", 0)
	w.options.Failovers = nil
	w.set(0, 2, 0)
	w.set(1, 2, 0)
	w.want("2.0 2.1", 0)
	w.set(0, 2, 2)
	w.want("0.0 0.1", 0)
}

// Invalid references of the first group refuse nothing while another group serves: it takes over from them, too.
func TestFailoverFromInvalidReferences(t *testing.T) {
	w := newHealthWorld(t, 0, 2)
	w.frontend.Failover = &lb.Failover{MinAvailable: 1, Recover: 50}
	w.frontend.Reject = lb.WeightUnit
	w.want("1.0 1.1", 0)
	w.frontend.Refs = w.frontend.Refs[1:] // all of the first group are invalid
	w.want("1.0 1.1", 0)
	w.set(1, 2, 0)
	w.want("", 1)
}

// Health that ejects counts for failover.
func TestEjectionFailsOver(t *testing.T) {
	w := newHealthWorld(t, 2, 1)
	w.frontend.Failover = &lb.Failover{MinAvailable: 60, Recover: 60}
	w.want("0.0 0.1", 0)
	w.eject(0, 1, &lb.Ejected{})
	w.want("1.0", 0)
	w.eject(0, 1, nil)
	w.want("0.0 0.1", 0)
}

// Only flows end a trial. So backends on trial are tried although another group serves, with no more weight than
// that has: flows that may not be a trial have to find its backends.
func TestThoseInFrontAreTried(t *testing.T) {
	w := newHealthWorld(t, 2, 1)
	w.frontend.Failover = &lb.Failover{MinAvailable: 60, Recover: 60}
	w.frontend.Refs[0].Weight = 100
	w.eject(0, 1, &lb.Ejected{})
	w.want("1.0", 0)
	w.eject(0, 1, &lb.Ejected{Trial: true})
	f := w.want("0.1 1.0", 0)
	if tried, serving := f.Backends[1], f.Backends[2]; tried.State() != lb.StateTrial || tried.Weight != serving.Weight {
		t.Errorf("it is %s with weight %d, want trial, and the weight %d of those that serve", tried.State(), tried.Weight, serving.Weight)
	}
	if state := f.Backends[0].State(); state != lb.StateStandby {
		t.Errorf("the healthy one of a group that does not serve is %s, want standby", state)
	}
	w.eject(0, 1, nil)
	w.want("0.0 0.1", 0)
	w.set(0, 0, 0)
	w.eject(1, 0, &lb.Ejected{Trial: true})
	w.want("1.0", 0)
}

// Nobody tries those behind the group that serves: they are trusted when they are needed, and with none left
// before them.
func TestThoseBehindAreTrusted(t *testing.T) {
	w := newHealthWorld(t, 2, 1, 1)
	w.frontend.Failover = &lb.Failover{MinAvailable: 60, Recover: 60}
	w.eject(1, 0, &lb.Ejected{Trial: true})
	f := w.want("0.0 0.1", 0)
	if state := f.Backends[2].State(); state != lb.StateStandby {
		t.Errorf("one on trial behind the group that serves is %s, want standby", state)
	}
	w.eject(0, 1, &lb.Ejected{})
	w.want("1.0", 0)
	w.eject(1, 0, &lb.Ejected{}) // it was not worth it
	w.want("2.0", 0)
	w.eject(0, 1, &lb.Ejected{Trial: true})
	w.eject(1, 0, &lb.Ejected{Trial: true})
	w.want("0.1 1.0 2.0", 0) // both are tried
}
