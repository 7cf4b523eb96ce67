// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/operator/control/fleet"
)

// causes collects the events that the next versions are made of: when the first one was
// seen, and which EndpointSlices have changed since when.
type causes struct {
	clock func() time.Time

	mu sync.Mutex
	// since is when this replica began to lead; zero: it does not.
	since time.Time
	// other is when the first event was seen that is not of one Service's endpoints.
	other    time.Time
	services map[types.NamespacedName]serviceCause
	// policies are when the first event was seen that is of a BlixtPolicy's sources alone.
	policies map[types.NamespacedName]time.Time
}

// serviceCause is that of the endpoints of a Service.
type serviceCause struct {
	seen    time.Time
	changes []sliceChange
}

type sliceChange struct {
	slice string
	fleet.EndpointChange
}

// Limits of what is believed and remembered.
const (
	// maxTriggerAge is how long before its event a change may have been asked for. An
	// annotation is what somebody has written.
	maxTriggerAge = time.Hour
	// maxSliceChanges is how many changes of a Service are remembered.
	maxSliceChanges = 100
)

// lead forgets what was seen before this replica led: the objects that it has found are
// no changes.
func (c *causes) lead() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.since, c.other, c.services, c.policies = c.clock(), time.Time{}, map[types.NamespacedName]serviceCause{}, map[types.NamespacedName]time.Time{}
}

// event records an event that is not of one Service's endpoints.
func (c *causes) event() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.since.IsZero() && c.other.IsZero() {
		c.other = c.clock()
	}
}

// sources records an event that is of a BlixtPolicy's sources alone.
func (c *causes) sources(policy types.NamespacedName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.since.IsZero() && c.policies[policy].IsZero() {
		c.policies[policy] = c.clock()
	}
}

// endpoints records an event of a Service's endpoints. Previous and current are
// versions of one EndpointSlice, or both nil: another object has changed. A nil previous
// means that it is new, a nil current that it is gone.
func (c *causes) endpoints(service types.NamespacedName, previous, current *discoveryv1.EndpointSlice) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.since.IsZero() {
		return
	}
	s, now := c.services[service], c.clock()
	if s.seen.IsZero() {
		s.seen = now
	}
	if current == nil && previous != nil { // its annotation is of the last change, not of this one
		s.changes = slices.DeleteFunc(s.changes, func(o sliceChange) bool { return o.slice == previous.Name })
	}
	if at, ok := triggeredAt(previous, current); ok && at.After(c.since) && now.Sub(at) < maxTriggerAge && len(s.changes) < maxSliceChanges {
		if at.After(now) { // the clocks of two machines differ
			at = now
		}
		s.changes = append(s.changes, sliceChange{current.Name, fleet.EndpointChange{At: at, V6: current.AddressType == discoveryv1.AddressTypeIPv6}})
	}
	c.services[service] = s
}

// triggeredAt returns when a change of an EndpointSlice was asked for, if its annotation
// tells. What somebody else writes leaves the annotation as it was.
func triggeredAt(previous, current *discoveryv1.EndpointSlice) (time.Time, bool) {
	if current == nil {
		return time.Time{}, false
	}
	text := current.Annotations[corev1.EndpointsLastChangeTriggerTime]
	if text == "" || previous != nil && previous.Annotations[corev1.EndpointsLastChangeTriggerTime] == text {
		return time.Time{}, false
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	return at, err == nil
}

// slice returns an object as the EndpointSlice that it is; nil: nil.
func slice(o client.Object) *discoveryv1.EndpointSlice {
	s, _ := o.(*discoveryv1.EndpointSlice)
	return s
}

// take returns the cause of what a request is about, and forgets it. A pass that fails
// calls restore, so that the next one knows it as well.
func (c *causes) take(r request) (cause fleet.Cause, restore func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	other, taken := time.Time{}, map[types.NamespacedName]serviceCause{}
	if r == everything {
		other, taken = c.other, c.services
		c.other, c.services = time.Time{}, map[types.NamespacedName]serviceCause{}
	} else if s, ok := c.services[r.endpointsOf]; ok {
		taken[r.endpointsOf] = s
		delete(c.services, r.endpointsOf)
	} else if seen, ok := c.policies[r.sourcesOf]; ok {
		other = seen
	}
	for policy, seen := range c.policies {
		if r == everything {
			other = first(other, seen)
		}
		if r == everything || policy == r.sourcesOf {
			delete(c.policies, policy)
		}
	}
	cause.Seen = other
	for _, s := range taken {
		cause.Seen = first(cause.Seen, s.seen)
		for _, change := range s.changes {
			cause.Changes = append(cause.Changes, change.EndpointChange)
		}
	}
	return cause, func() { c.restore(other, taken) }
}

func (c *causes) restore(other time.Time, taken map[types.NamespacedName]serviceCause) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.other = first(c.other, other)
	for name, s := range taken {
		now := c.services[name]
		all := slices.Concat(s.changes, now.changes)
		c.services[name] = serviceCause{first(s.seen, now.seen), all[:min(len(all), maxSliceChanges)]}
	}
}

// first returns the earlier of two times; zero is none.
func first(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
