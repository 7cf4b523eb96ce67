// SPDX-License-Identifier: Apache-2.0

package ingressnginx

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"

	"github.com/kubernetes-sigs/blixt/operator/manifest"
	"github.com/kubernetes-sigs/blixt/operator/migrate"
	"github.com/kubernetes-sigs/blixt/operator/migrate/objects"
	"github.com/kubernetes-sigs/blixt/operator/migrate/services"
)

// maxNesting is how deep charts may depend on each other.
const maxNesting = 4

// readValues finds values of the chart in a file: at its top, or below the name of a chart that
// depends on it, such as ingress-nginx:.
func (r *reader) readValues(o *objects.Object) {
	if !r.values(o, o.Document, nil) {
		r.plan.Note(o.At(), migrate.Lost, "not read: it is neither an object of Kubernetes nor values of ingress-nginx with tcp or udp")
	}
}

func (r *reader) values(o *objects.Object, d manifest.Document, path []string) (found bool) {
	if r.chart(o, d, path) {
		return true
	}
	if len(path) == maxNesting {
		return false
	}
	for _, f := range d.Fields() {
		if _, is := f.Value.(map[string]any); is && r.values(o, f.Document, append(path[:len(path):len(path)], f.Key)) {
			found = true
		}
	}
	return found
}

// chart reads values of the chart itself. It reports whether they are.
func (r *reader) chart(o *objects.Object, d manifest.Document, path []string) bool {
	c := &controller{at: o.At(path...), name: "ingress-nginx"}
	for _, protocol := range []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP} {
		key := strings.ToLower(string(protocol))
		ports, is := d.Child(key)
		if is && looksLikePorts(ports) {
			c.entries = append(c.entries, entries{protocol, o, append(path[:len(path):len(path)], key)})
		}
	}
	if c.entries == nil {
		return false
	}
	if c.namespace = word(d, "namespaceOverride"); c.namespace != "" && len(content.IsDNS1123Label(c.namespace)) > 0 {
		r.plan.Note(c.at, migrate.Lost, "namespaceOverride %q is no name of a namespace: say it by --namespace", c.namespace)
		c.namespace = ""
	}
	if len(path) > 0 {
		c.name = path[len(path)-1]
	}
	if full := word(d, "fullnameOverride"); full != "" {
		c.name = full
	}
	if prefix, is := d.Child("portNamePrefix"); is && word(d, "portNamePrefix") != "" {
		r.plan.Note(migrate.Place{File: o.File, Line: prefix.Line()}, migrate.Unneeded, "portNamePrefix %q: listeners are named by protocol and port", word(d, "portNamePrefix"))
	}
	if settings, is := d.Child("controller"); is {
		r.controllerValues(c, o, settings)
	}
	r.controllers = append(r.controllers, c)
	return true
}

// looksLikePorts reports whether a mapping has a port with a Service.
func looksLikePorts(d manifest.Document) bool {
	ports, is := d.Value.(map[string]any)
	if !is {
		return false
	}
	for key, value := range ports {
		_, why := portNumber(key)
		if text, is := value.(string); why == "" || is && reference.MatchString(text) {
			return true
		}
	}
	return false
}

func word(d manifest.Document, key string) string {
	v, _ := d.Child(key)
	text, _ := v.Value.(string)
	return text
}

// controllerValues reads what the values say about the controller and its Service.
func (r *reader) controllerValues(c *controller, o *objects.Object, d manifest.Document) {
	if config, is := d.Child("config"); is {
		r.readStream(c, o, config)
	}
	at := func(d manifest.Document) migrate.Place { return migrate.Place{File: o.File, Line: d.Line()} }
	if network, is := d.Child("hostNetwork"); is && network.Value == true {
		c.hostNetwork, c.at = true, at(network)
	}
	if ports, is := d.Child("hostPort"); is {
		if enabled, is := ports.Child("enabled"); is && enabled.Value == true {
			c.hostNetwork, c.at = true, at(enabled)
		}
	}
	values, is := d.Child("service")
	if !is {
		return
	}
	s := &service{Object: &objects.Object{File: o.File, Kind: "Service", Namespace: c.namespace, Name: c.name, Document: values}}
	s.obj.Annotations = texts(values, "annotations")
	if list, is := values.Child("loadBalancerSourceRanges"); is {
		for _, item := range list.Items() {
			text, _ := item.Value.(string)
			s.obj.Spec.LoadBalancerSourceRanges = append(s.obj.Spec.LoadBalancerSourceRanges, text)
		}
	}
	s.obj.Spec.Type = corev1.ServiceType(word(values, "type"))
	c.settings = services.Beside(s.Object, s.obj)
	for i := range c.settings.Notes {
		c.settings.Notes[i].Place = at(values)
	}
	if s.obj.Spec.Type == corev1.ServiceTypeNodePort {
		r.plan.Note(at(values), migrate.Changed, "controller.service.type NodePort: clients come in by node ports, which no Gateway can have: they find it at its own address and ports")
	}
	if address := word(values, "loadBalancerIP"); address != "" {
		r.plan.Note(at(values), migrate.Changed, "controller.service.loadBalancerIP %q stays with the controller, for HTTP, so the Gateway gets an address of its own. To keep it for TCP and UDP as well: docs/migrate/ingress-nginx.md#the-same-address", address)
	}
	if ports, is := values.Child("nodePorts"); is {
		for _, f := range ports.Fields() {
			if numbers, is := f.Value.(map[string]any); is && len(numbers) > 0 && (f.Key == "tcp" || f.Key == "udp") {
				r.plan.Note(migrate.Place{File: o.File, Line: f.Line}, migrate.Changed, "controller.service.nodePorts.%s: no Gateway can have node ports: clients find it at its own address and ports", f.Key)
			}
		}
	}
	if inner, is := values.Child("internal"); is {
		if enabled, is := inner.Child("enabled"); is && enabled.Value == true {
			r.plan.Note(at(inner), migrate.Changed, "controller.service.internal makes a second Service for the same ports: if clients use it, make a second Gateway with its annotations in spec.infrastructure, and parentRefs to both")
		}
	}
}

func texts(d manifest.Document, key string) map[string]string {
	all := map[string]string{}
	if child, is := d.Child(key); is {
		for _, f := range child.Fields() {
			if text, is := f.Value.(string); is {
				all[f.Key] = text
			}
		}
	}
	return all
}
