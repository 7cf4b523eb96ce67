// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/operator/control/fleet"
)

// What a version is measured by: each row is a story of events, in seconds since the
// replica leads.
func TestCauses(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var now time.Time
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	web, other := types.NamespacedName{Namespace: "default", Name: "web"}, types.NamespacedName{Namespace: "default", Name: "other"}
	// of is a slice of a Service whose annotation says when it was changed; empty: it has none.
	of := func(service types.NamespacedName, name, changed string) *discoveryv1.EndpointSlice {
		s := &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: service.Namespace, Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: service.Name}},
			AddressType: discoveryv1.AddressTypeIPv4,
		}
		if changed != "" {
			s.Annotations = map[string]string{corev1.EndpointsLastChangeTriggerTime: changed}
		}
		return s
	}
	stamp := func(s float64) string { return at(s).Format(time.RFC3339Nano) }
	v6 := of(web, "v6", stamp(11))
	v6.AddressType = discoveryv1.AddressTypeIPv6
	ofWeb, none := request{endpointsOf: web}, fleet.Cause{}
	type change = fleet.EndpointChange
	for name, c := range map[string]struct {
		events func(c *causes, e *events)
		take   request
		want   fleet.Cause
	}{
		"nothing": {func(*causes, *events) {}, everything, none},
		"an update, and its sum in the next pass of everything": {func(_ *causes, e *events) {
			now = at(10.5)
			e.recordCause(of(web, "a", stamp(5)), of(web, "a", stamp(10)))
		}, everything, fleet.Cause{Seen: at(10.5), Changes: []change{{At: at(10)}}}},
		"of another Service": {func(_ *causes, e *events) {
			e.recordCause(nil, of(other, "a", stamp(10)))
		}, ofWeb, none},
		"of a Service that no route names": {func(_ *causes, e *events) {
			e.recordCause(nil, of(types.NamespacedName{Name: "unknown"}, "a", stamp(10)))
		}, everything, none},
		"several changes": {func(_ *causes, e *events) {
			now = at(12)
			e.recordCause(nil, of(web, "a", stamp(10)))
			now = at(13)
			e.recordCause(of(web, "a", stamp(10)), of(web, "a", stamp(12)))
			e.recordCause(nil, v6)
		}, ofWeb, fleet.Cause{Seen: at(12), Changes: []change{{At: at(10)}, {At: at(12)}, {At: at(11), V6: true}}}},
		"without annotation, and with one that is no time": {func(_ *causes, e *events) {
			e.recordCause(nil, of(web, "a", ""))
			e.recordCause(nil, of(web, "b", "yesterday"))
		}, ofWeb, fleet.Cause{Seen: at(100)}},
		"somebody else has written, such as topology hints": {func(_ *causes, e *events) {
			e.recordCause(of(web, "a", stamp(10)), of(web, "a", stamp(10)))
		}, ofWeb, fleet.Cause{Seen: at(100)}},
		"a removal has the time of the last change": {func(_ *causes, e *events) {
			e.recordCause(nil, of(web, "a", stamp(99)))
			e.recordCause(nil, of(web, "b", stamp(98)))
			e.recordCause(of(web, "a", stamp(99)), nil)
		}, ofWeb, fleet.Cause{Seen: at(100), Changes: []change{{At: at(98)}}}},
		"a slice that goes to another Service": {func(_ *causes, e *events) {
			e.recordCause(of(other, "a", stamp(10)), of(web, "a", stamp(99)))
		}, request{endpointsOf: other}, fleet.Cause{Seen: at(100)}},
		"before this replica led": {func(_ *causes, e *events) {
			e.recordCause(nil, of(web, "a", stamp(-1)))
			e.recordCause(nil, of(web, "b", stamp(0)))
		}, ofWeb, fleet.Cause{Seen: at(100)}},
		"clocks that differ": {func(_ *causes, e *events) {
			e.recordCause(nil, of(web, "a", stamp(3000)))
		}, ofWeb, fleet.Cause{Seen: at(100), Changes: []change{{At: at(100)}}}},
		"an annotation that cannot be": {func(_ *causes, e *events) {
			now = at(5000)
			e.recordCause(nil, of(web, "a", stamp(1000)))
		}, ofWeb, fleet.Cause{Seen: at(5000)}},
		"another event": {func(c *causes, _ *events) {
			now = at(10)
			c.event()
			now = at(11)
			c.event()
		}, everything, fleet.Cause{Seen: at(10)}},
		"another event is of no Service": {func(c *causes, _ *events) { c.event() }, ofWeb, none},
		"taken once": {func(c *causes, e *events) {
			c.event()
			e.recordCause(nil, of(web, "a", stamp(99)))
			c.take(everything)
		}, ofWeb, none},
		"a pass that failed": {func(c *causes, e *events) {
			now = at(10)
			c.event()
			e.recordCause(nil, of(web, "a", stamp(9)))
			_, restore := c.take(everything)
			now = at(20)
			c.event()
			e.recordCause(nil, of(web, "b", stamp(19)))
			restore()
		}, everything, fleet.Cause{Seen: at(10), Changes: []change{{At: at(9)}, {At: at(19)}}}},
		"a new leader": {func(c *causes, e *events) {
			e.recordCause(nil, of(web, "a", stamp(99)))
			c.event()
			now = at(101)
			c.lead()
		}, everything, none},
	} {
		t.Run(name, func(t *testing.T) {
			now = start
			k := &causes{clock: func() time.Time { return now }}
			e := &events{causes: k, referred: map[types.NamespacedName]bool{web: true, other: true}}
			e.recordCause(nil, of(web, "seen while another replica led", stamp(-5)))
			k.event()
			k.lead()
			now = at(100)
			c.events(k, e)
			got, _ := k.take(c.take)
			if d := cmp.Diff(c.want, got, cmpopts.EquateEmpty(), cmpopts.SortSlices(func(a, b change) bool { return a.At.Before(b.At) })); d != "" {
				t.Error(d)
			}
		})
	}
}

// Whoever writes EndpointSlices all the time takes no more memory.
func TestCausesAreBounded(t *testing.T) {
	c := &causes{clock: time.Now}
	c.lead()
	service := types.NamespacedName{Name: "web"}
	for i := range 10 * maxSliceChanges {
		s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint(i), Annotations: map[string]string{
			corev1.EndpointsLastChangeTriggerTime: time.Now().Add(time.Hour).Format(time.RFC3339Nano),
		}}}
		c.endpoints(service, nil, s)
		if i%maxSliceChanges == 0 {
			_, restore := c.take(everything)
			c.endpoints(service, nil, s)
			restore()
		}
	}
	if n := len(c.services[service].changes); n != maxSliceChanges {
		t.Errorf("%d changes are remembered, want %d", n, maxSliceChanges)
	}
}
