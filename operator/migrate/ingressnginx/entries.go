// SPDX-License-Identifier: Apache-2.0

package ingressnginx

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/operator/manifest"
	"github.com/kubernetes-sigs/blixt/operator/migrate"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// reference is what a value looks like.
var reference = regexp.MustCompile(`^[a-z0-9.-]+/[a-z0-9.-]+:[a-z0-9-]+(:|$)`)

// entry is a line of a ConfigMap: a port, and the Service that answers there.
type entry struct {
	*controller
	at       migrate.Place
	protocol corev1.Protocol
	port     uint16 // at which nginx listens
	value    string
	service  types.NamespacedName
	// servicePort is the Service's, a number or a name.
	servicePort string
	notes       []migrate.Note
}

func (e *entry) note(effect migrate.Effect, format string, args ...any) {
	e.notes = append(e.notes, migrate.Note{Place: e.at, Effect: effect, Text: fmt.Sprintf("%s port %d: ", e.protocol, e.port) + fmt.Sprintf(format, args...)})
}

// skipped notes a line for which ingress-nginx serves nothing: it warns in its log, and goes on.
func (r *reader) skipped(at migrate.Place, format string, args ...any) {
	r.plan.Note(at, migrate.Unneeded, "%s: ingress-nginx serves nothing for it", fmt.Sprintf(format, args...))
}

// serveEntries adds the frontends of a ConfigMap.
func (r *reader) serveEntries(c *controller, of entries) {
	at := of.of.Document
	for _, step := range of.steps {
		var is bool
		if at, is = at.Child(step); !is {
			r.plan.Note(of.of.At(), migrate.Unneeded, "%s has no %s: ingress-nginx exposes nothing by %s", of.of, step, of.protocol)
			return
		}
	}
	for _, f := range at.Fields() {
		r.serveEntry(c, of, f)
	}
}

func (r *reader) serveEntry(c *controller, of entries, f manifest.Field) {
	e := &entry{controller: c, at: migrate.Place{File: of.of.File, Line: f.Line}, protocol: of.protocol}
	number, why := portNumber(f.Key)
	if why != "" {
		r.skipped(e.at, "%s %q: %s", e.protocol, f.Key, why)
		return
	}
	e.port = number
	value, is := f.Value.(string)
	if !is {
		r.skipped(e.at, "%s %q: the value is no text", e.protocol, f.Key)
		return
	}
	e.value = value
	if owner, is := c.reserved()[number]; is {
		r.skipped(e.at, "%s port %d is the controller's own, for %s", e.protocol, number, owner)
		return
	}
	if !e.parse(r) {
		return
	}
	if before, again := c.seen[fmt.Sprint(e.protocol, e.port)]; again {
		if before.value != e.value {
			r.plan.Note(e.at, migrate.Lost, "%s port %d leads to %q at %s, and to %q here: the first one counts", e.protocol, e.port, before.value, before.at, e.value)
		}
		return
	}
	if c.seen == nil {
		c.seen = map[string]*entry{}
	}
	c.seen[fmt.Sprint(e.protocol, e.port)] = e
	if port, is := r.findPort(e); is {
		r.frontend(e, port)
	}
}

// portNumber reads a key. ingress-nginx takes what Go reads as a number, such as +80 and 080.
func portNumber(key string) (uint16, string) {
	n, err := strconv.Atoi(key)
	switch {
	case err != nil:
		return 0, "it is no number of a port"
	case n < 1 || n > 65535:
		return 0, "it is no port from 1 to 65535"
	}
	return uint16(n), ""
}

// parse reads the value: NAMESPACE/SERVICE:PORT[:PROXY][:PROXY].
func (e *entry) parse(r *reader) bool {
	parts := strings.Split(e.value, ":")
	if len(parts) < 2 {
		r.skipped(e.at, "%s port %d: %q names no port of the Service, such as NAMESPACE/SERVICE:PORT", e.protocol, e.port, e.value)
		return false
	}
	namespace, name, is := strings.Cut(parts[0], "/")
	if !is || len(content.IsDNS1123Label(namespace)) > 0 || len(content.IsDNS1123Label(name)) > 0 {
		r.skipped(e.at, "%s port %d: %q names no namespace and Service, such as NAMESPACE/SERVICE:PORT", e.protocol, e.port, e.value)
		return false
	}
	e.service, e.servicePort = types.NamespacedName{Namespace: namespace, Name: name}, parts[1]
	e.proxy(parts[2:])
	return true
}

// proxy notes what the fields for the PROXY protocol ask for.
func (e *entry) proxy(fields []string) {
	is := func(i int) bool { return i < len(fields) && strings.EqualFold(fields[i], "PROXY") }
	decode, encode := is(0), len(fields) == 2 && is(1)
	e.decodes = e.decodes || decode && !encode && e.protocol == corev1.ProtocolTCP
	switch {
	case e.protocol == corev1.ProtocolUDP && slices.ContainsFunc(fields, func(f string) bool { return f != "" }):
		e.note(migrate.Unneeded, "%q: ingress-nginx has the PROXY protocol for TCP only", e.value)
	case decode && encode:
		e.note(migrate.Changed, "%q: ingress-nginx takes a PROXY header off and puts one on. Blixt passes the header of whoever is in front on to the Service, which needs one there as before", e.value)
	case decode:
		e.note(migrate.Lost, "%q: ingress-nginx takes off the PROXY header of whoever is in front. Blixt does not, so have nobody send one to the Gateway: backends see their clients' addresses without it", e.value)
	case encode:
		e.note(migrate.Lost, "%q: the Service gets no PROXY header, and sees its clients' addresses without one: switch the PROXY protocol off in the application", e.value)
	}
	for i, f := range fields {
		if f != "" && !is(i) || i > 1 {
			e.note(migrate.Unneeded, "%q: ingress-nginx makes nothing of the field %q", e.value, f)
		}
	}
}

// findPort returns the number of the Service's port.
func (r *reader) findPort(e *entry) (uint16, bool) {
	number, why := portNumber(e.servicePort)
	s := r.services[e.service]
	if s == nil {
		if why == "" {
			return number, true
		}
		r.plan.Note(e.at, migrate.Lost, "%s port %d: %q has the name of a port, and Service %s was not read. Read it, too: kubectl get service %s --namespace=%s --output=yaml",
			e.protocol, e.port, e.value, e.service, e.service.Name, e.service.Namespace)
		return 0, false
	}
	if s.obj.Spec.Type == corev1.ServiceTypeExternalName {
		r.plan.Note(e.at, migrate.Lost, "%s port %d: Service %s is of type ExternalName, whose name Blixt does not look up: write a Service without a selector, and an EndpointSlice with the addresses", e.protocol, e.port, e.service)
		return 0, false
	}
	var has []string
	for _, p := range s.obj.Spec.Ports {
		protocol := p.Protocol
		if protocol == "" {
			protocol = corev1.ProtocolTCP
		}
		if protocol == e.protocol && (why == "" && p.Port == int32(number) || why != "" && p.Name == e.servicePort) {
			r.known(s)
			return uint16(p.Port), true
		}
		has = append(has, strings.TrimSpace(fmt.Sprintf("%s %s/%d", p.Name, protocol, p.Port)))
	}
	r.skipped(e.at, "%s port %d: Service %s has no %s port %s, but %s", e.protocol, e.port, e.service, e.protocol, e.servicePort, phrase.Sample(has))
	return 0, false
}

func (r *reader) known(s *service) {
	if !slices.ContainsFunc(r.plan.Known, func(o corev1.Service) bool { return o.Namespace == s.Namespace && o.Name == s.Name }) {
		r.plan.Known = append(r.plan.Known, s.obj)
	}
}

// frontend adds the frontends of an entry: one for each port of the controller's Service that
// leads to it.
func (r *reader) frontend(e *entry, servicePort uint16) {
	for _, port := range r.exposed(e) {
		r.frontends++
		f := migrate.Frontend{
			Place: e.at, Name: e.service.Name, Gateway: e.name, Namespace: e.namespace, Protocol: e.protocol, Port: port,
			Services: []migrate.Service{{Namespace: e.service.Namespace, Name: e.service.Name, Port: servicePort}},
			Policy:   e.policy(), Was: "round robin", Annotations: e.settings.Annotations,
			Notes: e.notes, Unserved: e.stream.guarded,
		}
		r.plan.Frontends = append(r.plan.Frontends, f)
	}
}
