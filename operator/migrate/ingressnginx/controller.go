// SPDX-License-Identifier: Apache-2.0

package ingressnginx

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kubernetes-sigs/blixt/operator/migrate"
	"github.com/kubernetes-sigs/blixt/operator/migrate/objects"
	"github.com/kubernetes-sigs/blixt/operator/migrate/services"
)

// controller is an ingress-nginx.
type controller struct {
	at              migrate.Place
	namespace, name string
	// tcp, udp and config are the ConfigMaps that its flags name.
	tcp, udp, config types.NamespacedName
	// publish is the Service that its flags name.
	publish types.NamespacedName
	// entries are those of Helm values, and of ConfigMaps that were found by name.
	entries []entries
	// ports are those that flags set, and containerPorts those that have names.
	ports          map[string]uint16
	containerPorts map[string]int32
	hostNetwork    bool
	labels         map[string]string

	service  *service // by which clients come in; nil: unknown
	settings services.Settings
	stream   stream
	// decodes is true if it takes off PROXY headers for some port.
	decodes bool
	seen    map[string]*entry
}

// String names the controller.
func (c *controller) String() string {
	return "ingress-nginx " + strings.TrimPrefix(c.namespace+"/"+c.name, "/")
}

// ownPorts are the flags of ports that the controller keeps, with what they are for and what
// they are by default.
var ownPorts = map[string]struct {
	what string
	port uint16
}{
	"http-port": {"HTTP", 80}, "https-port": {"HTTPS", 443}, "ssl-passthrough-proxy-port": {"TLS passthrough", 442},
	"healthz-port": {"its health", 10254}, "default-server-port": {"its default server", 8181},
	"profiler-port": {"its profiler", 10245}, "status-port": {"its status", 10246}, "stream-port": {"its configuration", 10247},
}

// reserved returns the ports that the controller keeps for itself.
func (c *controller) reserved() map[uint16]string {
	all := make(map[uint16]string, len(ownPorts))
	for flag, p := range ownPorts {
		port := p.port
		if set, is := c.ports[flag]; is {
			port = set
		}
		all[port] = p.what
	}
	return all
}

// readController notes a controller, if the workload is one.
func (r *reader) readController(o *objects.Object) {
	var obj metav1.Object
	var template *corev1.PodTemplateSpec
	if o.Kind == "DaemonSet" {
		d := &appsv1.DaemonSet{}
		obj, template = d, &d.Spec.Template
	} else {
		d := &appsv1.Deployment{}
		obj, template = d, &d.Spec.Template
	}
	if !o.Decode(obj, r.plan) {
		return
	}
	o.Namespace = obj.GetNamespace()
	for i := range template.Spec.Containers {
		container := &template.Spec.Containers[i]
		flags := flagsOf(container, o.Namespace)
		if flags["tcp-services-configmap"] == "" && flags["udp-services-configmap"] == "" {
			continue
		}
		c := &controller{
			at: o.At("spec", "template", "spec", "containers", fmt.Sprint(i)), namespace: o.Namespace, name: o.Name,
			ports: map[string]uint16{}, containerPorts: map[string]int32{}, hostNetwork: template.Spec.HostNetwork, labels: template.Labels,
		}
		c.tcp, c.udp, c.config = r.configMap(c, flags, "tcp-services-configmap"), r.configMap(c, flags, "udp-services-configmap"), r.configMap(c, flags, "configmap")
		c.publish = r.configMap(c, flags, "publish-service")
		for flag := range ownPorts {
			if n, why := portNumber(flags[flag]); why == "" {
				c.ports[flag] = n
			}
		}
		for _, p := range container.Ports {
			c.containerPorts[p.Name] = p.ContainerPort
			c.hostNetwork = c.hostNetwork || p.HostPort != 0
		}
		r.controllers = append(r.controllers, c)
		return
	}
	r.passed[o.Kind]++
}

// flagsOf returns the flags of a container, as kubelet expands $(POD_NAMESPACE).
func flagsOf(c *corev1.Container, namespace string) map[string]string {
	env := map[string]string{}
	for _, e := range c.Env {
		env[e.Name] = e.Value
		if from := e.ValueFrom; from != nil && from.FieldRef != nil && from.FieldRef.FieldPath == "metadata.namespace" {
			env[e.Name] = namespace
		}
	}
	flags := map[string]string{}
	words := slices.Concat(c.Command, c.Args)
	for i, word := range words {
		name, value, is := strings.Cut(strings.TrimLeft(word, "-"), "=")
		if !strings.HasPrefix(word, "-") {
			continue
		}
		if !is && i+1 < len(words) && !strings.HasPrefix(words[i+1], "-") {
			value = words[i+1]
		}
		for _, key := range slices.Sorted(maps.Keys(env)) {
			value = strings.ReplaceAll(value, "$("+key+")", env[key])
		}
		flags[name] = value
	}
	return flags
}

// configMap returns what a flag names.
func (r *reader) configMap(c *controller, flags map[string]string, flag string) types.NamespacedName {
	value := flags[flag]
	if value == "" {
		return types.NamespacedName{}
	}
	namespace, name, is := strings.Cut(value, "/")
	if !is || namespace == "" || name == "" {
		r.plan.Note(c.at, migrate.Lost, "%s: --%s=%s is not NAMESPACE/NAME", c, flag, value)
		return types.NamespacedName{}
	}
	return types.NamespacedName{Namespace: namespace, Name: name}
}

// findService finds the Service by which clients reach the controller, and what that asks of its
// load balancer.
func (r *reader) findService(c *controller) {
	for _, s := range r.services {
		if s.obj.Namespace != c.namespace || len(s.obj.Spec.Selector) == 0 || !exposed(s.obj.Spec.Type) {
			continue
		}
		is := types.NamespacedName{Namespace: s.Namespace, Name: s.Name} == c.publish
		if c.labels == nil { // the workload was not read
			is = is || s.obj.Spec.Selector["app.kubernetes.io/name"] == "ingress-nginx" || s.obj.Spec.Selector["app"] == "ingress-nginx"
		} else {
			is = is || selects(s.obj.Spec.Selector, c.labels)
		}
		// Of several, that which is published, then the first by name.
		if is && (c.service == nil || s.Name < c.service.Name) && (c.service == nil || c.service.Name != c.publish.Name) || is && s.Name == c.publish.Name {
			c.service = s
		}
	}
	if c.hostNetwork {
		r.plan.Note(c.at, migrate.Changed, "%s listens on ports of its nodes. For a Gateway at addresses of nodes have the administrator set spec.addresses.source of the BlixtConfig to Node; "+
			"take a port away from ingress-nginx before the Gateway can have it", c)
	}
	if c.service == nil {
		return
	}
	c.settings = services.Beside(c.service.Object, c.service.obj)
	note := func(at migrate.Place, effect migrate.Effect, format string, args ...any) {
		c.settings.Notes = append(c.settings.Notes, migrate.Note{Place: at, Effect: effect, Text: c.service.String() + ": " + fmt.Sprintf(format, args...)})
	}
	spec := &c.service.obj.Spec
	if spec.Type == corev1.ServiceTypeNodePort {
		note(c.service.At("spec", "type"), migrate.Changed, "clients come in by node ports, which no Gateway can have: they find it at its own address and ports")
	}
	var held []string
	for _, ingress := range c.service.obj.Status.LoadBalancer.Ingress {
		if ingress.IP != "" || ingress.Hostname != "" {
			held = append(held, ingress.IP+ingress.Hostname)
		}
	}
	if held != nil {
		note(c.service.At("status", "loadBalancer"), migrate.Changed, "it keeps %s for HTTP, so the Gateway gets an address of its own. To keep it for TCP and UDP as well: docs/migrate/ingress-nginx.md#the-same-address", strings.Join(held, " and "))
	}
	if spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		note(c.service.At("spec", "sessionAffinity"), migrate.Unneeded, "sessionAffinity \"ClientIP\" keeps a client at a pod of ingress-nginx, not at a backend")
	}
	if spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
		note(c.service.At("spec", "externalTrafficPolicy"), migrate.Unneeded, "externalTrafficPolicy \"Local\" lets ingress-nginx see its clients. Backends of the Gateway see theirs with Cluster, too")
	}
}

// dropProxy has the Gateway's load balancer send no PROXY headers, if nginx takes them off: Blixt
// does not.
func (c *controller) dropProxy() {
	key := "service.beta.kubernetes.io/aws-load-balancer-proxy-protocol"
	if _, is := c.settings.Annotations[key]; !is || !c.decodes {
		return
	}
	delete(c.settings.Annotations, key) // of all its frontends
	for i := range c.settings.Notes {
		if n := &c.settings.Notes[i]; strings.Contains(n.Text, key) {
			n.Effect, n.Text = migrate.Changed, key+" is not carried over to the Gateway's Service: ingress-nginx takes the header off, and Blixt would pass it on to backends"
		}
	}
}

// exposed reports whether clients outside reach Services of a type.
func exposed(t corev1.ServiceType) bool {
	return t == corev1.ServiceTypeLoadBalancer || t == corev1.ServiceTypeNodePort
}

func selects(selector, labels map[string]string) bool {
	for key, value := range selector {
		if labels[key] != value {
			return false
		}
	}
	return true
}

// exposed returns the ports at which clients find an entry: those of the controller's Service
// that lead to nginx's port, or that itself.
func (r *reader) exposed(e *entry) []uint16 {
	if e.controller.service == nil {
		return []uint16{e.port}
	}
	var all []uint16
	for _, p := range e.controller.service.obj.Spec.Ports {
		protocol := p.Protocol
		if protocol == "" {
			protocol = corev1.ProtocolTCP
		}
		if protocol == e.protocol && e.leads(p) && p.Port >= 1 && p.Port <= 65535 {
			all = append(all, uint16(p.Port))
		}
	}
	if all == nil {
		e.note(migrate.Changed, "%s has no port that leads to it, so that clients outside did not reach it. They reach the Gateway", e.controller.service)
		return []uint16{e.port}
	}
	return all
}

// leads reports whether a port of the controller's Service leads to nginx's.
func (e *entry) leads(p corev1.ServicePort) bool {
	switch {
	case p.TargetPort.Type == intstr.Int && p.TargetPort.IntVal != 0:
		return p.TargetPort.IntVal == int32(e.port)
	case p.TargetPort.Type == intstr.String && p.TargetPort.StrVal != "":
		if port, is := e.containerPorts[p.TargetPort.StrVal]; is {
			return port == int32(e.port)
		}
		// As the chart names it, with portNamePrefix in front.
		name := fmt.Sprintf("%d-%s", e.port, strings.ToLower(string(e.protocol)))
		return p.TargetPort.StrVal == name || strings.HasSuffix(p.TargetPort.StrVal, "-"+name)
	}
	return p.Port == int32(e.port)
}
