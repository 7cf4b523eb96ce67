// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// merge returns the stored conditions with ours in place. Conditions of other
// types belong to others, and stay. A condition whose status has not changed
// keeps its time. Some are there only while they are True.
func merge(now metav1.Time, stored, ours []metav1.Condition) []metav1.Condition {
	merged := slices.DeleteFunc(slices.Clone(stored), func(m metav1.Condition) bool {
		return (m.Type == v1alpha1.ListenerPortWarning || m.Type == v1alpha1.PolicyAffected) &&
			!slices.ContainsFunc(ours, func(c metav1.Condition) bool { return c.Type == m.Type })
	})
	for _, condition := range ours {
		condition.Message = phrase.Clip(condition.Message, maxMessage)
		condition.LastTransitionTime = now
		i := slices.IndexFunc(merged, func(m metav1.Condition) bool { return m.Type == condition.Type })
		if i < 0 {
			merged = append(merged, condition)
			continue
		}
		if merged[i].Status == condition.Status {
			condition.LastTransitionTime = merged[i].LastTransitionTime
		}
		merged[i] = condition
	}
	return dropForeign(merged, ours)
}

// maxConditions is how many the API server accepts, but for NodeDataplanes, where
// nobody else has conditions.
const maxConditions = 8

// dropForeign drops conditions of others for which there is no room.
func dropForeign(merged, ours []metav1.Condition) []metav1.Condition {
	for i := len(merged) - 1; i >= 0 && len(merged) > maxConditions; i-- {
		if !slices.ContainsFunc(ours, func(o metav1.Condition) bool { return o.Type == merged[i].Type }) {
			merged = slices.Delete(merged, i, i+1)
		}
	}
	return merged
}

// maxMessage is how many bytes of a condition's message are written. The API server
// accepts 32,768, but an object may have hundreds of conditions, which repeat what
// tenants and others have written.
const maxMessage = 2048

// mergeListeners returns our listeners. The conditions of each are merged into
// those of the stored listener of its name.
func mergeListeners[L any](now metav1.Time, stored, ours []L, parts func(*L) (gwv1.SectionName, *[]metav1.Condition)) []L {
	previous := map[gwv1.SectionName][]metav1.Condition{}
	for i := range stored {
		name, conditions := parts(&stored[i])
		previous[name] = *conditions
	}
	merged := slices.Clone(ours)
	for i := range merged {
		name, conditions := parts(&merged[i])
		*conditions = merge(now, previous[name], *conditions)
	}
	return merged
}

func classStatus(wanted gwv1.GatewayClassStatus) statusChange {
	return func(object client.Object, now metav1.Time) {
		class := object.(*gwv1.GatewayClass)
		class.Status.Conditions = merge(now, class.Status.Conditions, wanted.Conditions)
		class.Status.SupportedFeatures = wanted.SupportedFeatures
	}
}

func gatewayStatus(wanted gwv1.GatewayStatus) statusChange {
	return func(object client.Object, now metav1.Time) {
		stored, status := &object.(*gwv1.Gateway).Status, wanted
		status.Conditions = merge(now, stored.Conditions, wanted.Conditions)
		status.Listeners = mergeListeners(now, stored.Listeners, wanted.Listeners,
			func(l *gwv1.ListenerStatus) (gwv1.SectionName, *[]metav1.Condition) { return l.Name, &l.Conditions })
		*stored = status
	}
}

func listenerSetStatus(wanted gwv1.ListenerSetStatus) statusChange {
	return func(object client.Object, now metav1.Time) {
		stored, status := &object.(*gwv1.ListenerSet).Status, wanted
		status.Conditions = merge(now, stored.Conditions, wanted.Conditions)
		status.Listeners = mergeListeners(now, stored.Listeners, wanted.Listeners,
			func(l *gwv1.ListenerEntryStatus) (gwv1.SectionName, *[]metav1.Condition) {
				return l.Name, &l.Conditions
			})
		*stored = status
	}
}

// routeStatus sets the parents that are ours, among those of other controllers. A
// parent that is not ours any more goes.
func routeStatus(wanted []gwv1.RouteParentStatus) statusChange {
	return func(object client.Object, now metav1.Time) {
		status := statusOfRoute(object)
		parents := []gwv1.RouteParentStatus{} // the field is required
		for _, p := range status.Parents {
			if p.ControllerName != gateway.ControllerName {
				parents = append(parents, p)
			}
		}
		for _, p := range wanted {
			stored := slices.IndexFunc(status.Parents, func(s gwv1.RouteParentStatus) bool {
				return s.ControllerName == gateway.ControllerName && equality.Semantic.DeepEqual(s.ParentRef, p.ParentRef)
			})
			var conditions []metav1.Condition
			if stored >= 0 {
				conditions = status.Parents[stored].Conditions
			}
			p.Conditions = merge(now, conditions, p.Conditions)
			parents = append(parents, p)
		}
		parents = parents[:min(len(parents), maxParents)]
		status.Parents = parents
	}
}

// maxParents is how many parents the API server accepts.
const maxParents = 32

// statusOfRoute returns where a TCPRoute or UDPRoute has its status.
func statusOfRoute(route client.Object) *gwv1.RouteStatus {
	switch r := route.(type) {
	case *gwv1.TCPRoute:
		return &r.Status.RouteStatus
	case *gwv1.UDPRoute:
		return &r.Status.RouteStatus
	}
	panic(fmt.Sprintf("%T is no route", route))
}

// hasParent reports whether one of the stored parents is ours.
func hasParent(stored []gwv1.RouteParentStatus) bool {
	return slices.ContainsFunc(stored, func(p gwv1.RouteParentStatus) bool { return p.ControllerName == gateway.ControllerName })
}

// routeStatuses returns the status of each route that has parents of ours, or had
// some.
func (t *translated) routeStatuses() []wantedStatus {
	parents := map[objectKey][]gwv1.RouteParentStatus{}
	for _, r := range t.Routes {
		parents[objectKey{string(r.Kind), r.NamespacedName}] = r.Status.Parents
	}
	var all []wantedStatus
	for _, r := range t.objects.Routes() {
		if wanted := parents[keyOf(r.Object)]; len(wanted) > 0 || hasParent(r.Status.Parents) {
			all = append(all, wantedStatus{object: r.Object, change: routeStatus(wanted)})
		}
	}
	return all
}

// routeOf is a route: its object, and the index of its status in a translation.
type routeOf struct {
	object client.Object
	status int
}

func (t *translated) indexRoutes() map[string]routeOf {
	objects := map[objectKey]client.Object{}
	for _, r := range t.objects.Routes() {
		objects[keyOf(r.Object)] = r.Object
	}
	all := make(map[string]routeOf, len(t.Routes))
	for i := range t.Routes {
		r := &t.Routes[i]
		all[r.FrontendName()] = routeOf{objects[objectKey{string(r.Kind), r.NamespacedName}], i}
	}
	return all
}

// endpointStatus returns the status of a route, by the name that frontends have, as
// its endpoints are now.
func (t *translated) endpointStatus(name string, report *gateway.EndpointReport) (wantedStatus, bool) {
	r, ok := t.routes[name]
	if !ok {
		return wantedStatus{}, false
	}
	status := t.Routes[r.status].WithEndpoints(report)
	return wantedStatus{object: r.object, change: routeStatus(status.Status.Parents)}, true
}

// gatewayStatuses returns those of Gateways and ListenerSets, whose conditions
// Programmed follow the progress of the nodes. Stored are the conditions of each
// Gateway as they are now.
func (t *translated) gatewayStatuses(progress map[types.NamespacedName]gateway.Progress, notPreserved map[types.NamespacedName]gateway.NotPreserved, hostListens map[lb.Key][]string, stored map[types.NamespacedName][]metav1.Condition) []wantedStatus {
	completed := gateway.Translation{Unresolved: t.Unresolved, Gateways: slices.Clone(t.Gateways), ListenerSets: slices.Clone(t.ListenerSets)}
	for i := range completed.Gateways {
		completed.Gateways[i].Status = *completed.Gateways[i].Status.DeepCopy()
	}
	for i := range completed.ListenerSets {
		completed.ListenerSets[i].Status = *completed.ListenerSets[i].Status.DeepCopy()
	}
	completed.SetProgress(progress, stored)
	completed.SetNotPreserved(notPreserved, stored)
	completed.SetHostListens(hostListens)
	var all []wantedStatus
	for _, g := range completed.Gateways {
		all = append(all, wantedStatus{object: t.gateways[g.NamespacedName], change: gatewayStatus(g.Status)})
	}
	sets := map[types.NamespacedName]client.Object{}
	for i := range t.objects.ListenerSets {
		sets[client.ObjectKeyFromObject(&t.objects.ListenerSets[i])] = &t.objects.ListenerSets[i]
	}
	for _, s := range completed.ListenerSets {
		all = append(all, wantedStatus{object: sets[s.NamespacedName], change: listenerSetStatus(s.Status)})
	}
	return all
}
