// SPDX-License-Identifier: Apache-2.0

// Package ingressnginx reads which Services ingress-nginx exposes by TCP and UDP, and plans
// Gateways that serve the same: from its ConfigMaps, or from the values of its Helm chart. It
// is pure.
//
// What it knows of ingress-nginx is from docs/user-guide/exposing-tcp-udp-services.md and
// getStreamServices of internal/ingress/controller in kubernetes/ingress-nginx.
package ingressnginx

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/operator/migrate"
	"github.com/kubernetes-sigs/blixt/operator/migrate/objects"
)

// command gets all that is needed from a cluster.
const command = "kubectl get configmaps,services,deployments,daemonsets --all-namespaces --output=yaml | blixt migrate ingress-nginx -"

// Read returns what serves the Services that ingress-nginx exposes.
func Read(files []migrate.File) *migrate.Plan {
	plan := &migrate.Plan{}
	r := &reader{plan: plan, maps: map[types.NamespacedName]*objects.Object{}, services: map[types.NamespacedName]*service{}, used: map[*objects.Object]bool{}, passed: map[string]int{}}
	all := objects.Read(files, plan)
	if plan.Broken {
		return plan
	}
	for _, o := range all {
		r.sort(o)
	}
	for _, c := range r.controllers {
		r.serve(c)
	}
	r.serveOthers()
	r.summarize()
	return plan
}

// service is a Service that was read.
type service struct {
	*objects.Object
	obj corev1.Service
}

type reader struct {
	plan        *migrate.Plan
	controllers []*controller
	maps        map[types.NamespacedName]*objects.Object // ConfigMaps
	services    map[types.NamespacedName]*service
	used        map[*objects.Object]bool // ConfigMaps that some controller reads
	passed      map[string]int
	frontends   int
}

// sort puts an object where it is looked for.
func (r *reader) sort(o *objects.Object) {
	switch {
	case o.Kind == "":
		r.readValues(o)
	case o.Kind == "ConfigMap" && o.APIVersion == "v1":
		if !o.Named(r.plan) {
			return
		}
		o.Namespace = cmp.Or(o.Namespace, corev1.NamespaceDefault)
		r.maps[types.NamespacedName{Namespace: o.Namespace, Name: o.Name}] = o
	case o.Kind == "Service" && o.APIVersion == "v1":
		s := &service{Object: o}
		if o.Decode(&s.obj, r.plan) {
			o.Namespace = s.obj.Namespace
			r.services[types.NamespacedName{Namespace: o.Namespace, Name: o.Name}] = s
		}
	case o.Kind == "Deployment" || o.Kind == "DaemonSet":
		r.readController(o)
	default:
		r.passed[o.Kind]++
	}
}

// entries are the ports of one protocol that a controller exposes.
type entries struct {
	protocol corev1.Protocol
	// of has the lines of a ConfigMap or of Helm values, below steps.
	of    *objects.Object
	steps []string
}

// serve adds the frontends of a controller.
func (r *reader) serve(c *controller) {
	var all []entries
	for protocol, name := range map[corev1.Protocol]types.NamespacedName{corev1.ProtocolTCP: c.tcp, corev1.ProtocolUDP: c.udp} {
		if name.Name == "" {
			continue
		}
		o := r.maps[name]
		if o == nil {
			r.plan.Note(c.at, migrate.Lost, "%s reads ConfigMap %s for %s, which was not read: %s", c, name, protocol, command)
			continue
		}
		r.used[o] = true
		all = append(all, entries{protocol, o, []string{"data"}})
	}
	all = append(all, c.entries...)
	slices.SortFunc(all, func(a, b entries) int { return strings.Compare(string(a.protocol), string(b.protocol)) })
	r.readSettings(c)
	if c.service == nil {
		r.findService(c)
	}
	for _, e := range all {
		r.serveEntries(c, e)
	}
	c.dropProxy()
	r.plan.Notes = append(r.plan.Notes, c.settings.Notes...)
}

// named tells the ConfigMaps of TCP and UDP by their names: those of the manifests and those of
// the chart.
var named = regexp.MustCompile(`^(?:.*-)?(tcp|udp)(?:-services)?(?:-configmap)?$`)

// serveOthers serves ConfigMaps whose controller was not read, by their names. Those of a
// namespace have one controller.
func (r *reader) serveOthers() {
	alone := map[string]*controller{}
	keys := slices.SortedFunc(maps.Keys(r.maps), func(a, b types.NamespacedName) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	for _, key := range keys {
		o := r.maps[key]
		match := named.FindStringSubmatch(key.Name)
		switch {
		case r.used[o]:
			continue
		case match == nil || !exposes(o):
			r.passed["ConfigMap"]++
			continue
		case len(r.controllers) > 0:
			r.plan.Note(o.At(), migrate.Unneeded, "ConfigMap %s is read by no controller that was read, and passed over: is its controller not among the files?", key)
			continue
		}
		c := alone[key.Namespace]
		if c == nil {
			c = &controller{namespace: key.Namespace, name: "ingress-nginx", at: o.At()}
			alone[key.Namespace] = c
		}
		r.used[o] = true
		c.entries = append(c.entries, entries{corev1.Protocol(strings.ToUpper(match[1])), o, []string{"data"}})
	}
	for _, namespace := range slices.Sorted(maps.Keys(alone)) {
		c := alone[namespace]
		r.controllers = append(r.controllers, c)
		r.serve(c)
	}
}

// exposes reports whether a ConfigMap looks like one of services.
func exposes(o *objects.Object) bool {
	data, is := o.Child("data")
	if !is {
		return false
	}
	for _, f := range data.Fields() {
		if _, why := portNumber(f.Key); why == "" {
			return true
		}
		if value, is := f.Value.(string); is && reference.MatchString(value) {
			return true
		}
	}
	return false
}

// summarize says what was passed over, and what holds for all.
func (r *reader) summarize() {
	if len(r.controllers) == 0 {
		r.plan.Note(migrate.Place{}, migrate.Lost, "there is no ConfigMap tcp-services or udp-services in what was read, and no values of the chart with tcp or udp: %s", command)
	}
	var passed []string
	for _, kind := range slices.Sorted(maps.Keys(r.passed)) {
		passed = append(passed, fmt.Sprintf("%s %d", kind, r.passed[kind]))
	}
	if passed != nil {
		r.plan.Note(migrate.Place{}, migrate.Unneeded, "passed over: %s", strings.Join(passed, ", "))
	}
	if r.frontends > 0 {
		r.plan.Note(migrate.Place{}, migrate.Changed, "backends see their clients' addresses, where they saw pods of ingress-nginx: NetworkPolicies and lists in applications that admit these must admit the clients before. "+
			"blixt doctor names such NetworkPolicies. See docs/migrate/ingress-nginx.md#switching-over")
	}
}
