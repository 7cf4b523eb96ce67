// SPDX-License-Identifier: Apache-2.0

package shortform

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

// gatewayAPI is the apiVersion of its objects.
const gatewayAPI = "gateway.networking.k8s.io/v1"

// maxEndpoints is how many Kubernetes allows in an EndpointSlice.
const maxEndpoints = 1000

// writer writes objects. Nothing gets into them but what was checked: numbers, addresses, and
// names that are DNS labels. Of that few need quotes: see quoted.
type writer struct {
	strings.Builder
	// explained are the kinds that have had their comment.
	explained map[string]bool
}

func (w *writer) printf(format string, args ...any) { fmt.Fprintf(w, format, args...) }

// write returns a document for each --listen. The first one of a group has its servers.
func write(groups []group, class string) []Document {
	w := writer{explained: map[string]bool{}}
	var documents []Document
	for i := range groups {
		g := &groups[i]
		all := g.servers()
		for j, l := range g.listens {
			w.gateway(l, class)
			w.route(l, all)
			w.policy(l)
			for k := range all {
				if j == 0 {
					w.servers(&all[k], g.listens)
				}
			}
			documents = append(documents, Document{l.String(), w.take()})
		}
	}
	return documents
}

// take returns what was written, and begins a new document.
func (w *writer) take() string {
	text := w.String()
	w.Reset()
	return text
}

// object begins an object. The first of a kind has a comment.
func (w *writer) object(apiVersion, kind, name, comment string) {
	if w.Len() > 0 {
		w.printf("---\n")
	}
	if !w.explained[kind] {
		w.explained[kind] = true
		w.printf("# %s\n", strings.ReplaceAll(comment, "\n", "\n# "))
	}
	w.printf("apiVersion: %s\nkind: %s\nmetadata:\n  name: %s\n", apiVersion, kind, quoted(name))
}

// Class returns the YAML of the GatewayClass that Gateways of the documents name.
func Class(name string) string {
	w := writer{explained: map[string]bool{}}
	w.object(gatewayAPI, "GatewayClass", name, "A GatewayClass says which program serves its Gateways: this one Blixt.")
	w.printf("spec:\n  controllerName: %s\n", gateway.ControllerName)
	return w.String()
}

func (w *writer) gateway(l listen, class string) {
	w.object(gatewayAPI, "Gateway", l.name, `A Gateway is what clients connect to: addresses, and listeners with a port. Without
addresses it has those of the host.`)
	w.printf("spec:\n  gatewayClassName: %s\n", class)
	if l.addr.IsValid() {
		w.printf("  addresses:\n  - value: %s\n", quoted(l.addr.String()))
	}
	w.printf("  listeners:\n  - name: %s\n    protocol: %s\n    port: %d\n", l.protocol, strings.ToUpper(l.protocol), l.port)
}

func (w *writer) route(l listen, all []servers) {
	kind := strings.ToUpper(l.protocol) + "Route"
	w.object(gatewayAPI, kind, l.name, "A "+kind+" leads from Gateways to Services. A Service gets its weight in\nproportion to the sum of all.")
	w.printf("spec:\n  parentRefs:\n  - name: %s\n  rules:\n  - backendRefs:\n", quoted(l.name))
	refs := refsOf(l, all)
	for _, r := range refs {
		w.printf("    - name: %s\n      port: %d\n", quoted(r.to.name), l.port)
		if len(refs) > 1 || r.weight != 1 {
			w.printf("      weight: %d", r.weight)
			if r.count > 1 && r.weight == r.count*r.to.weight {
				w.printf(" # %d for each of %d servers", r.to.weight, r.count)
			}
			w.printf("\n")
		}
	}
}

// servers writes a Service with its EndpointSlices, of which each has addresses of one
// family and the same ports.
func (w *writer) servers(s *servers, of []listen) {
	w.object("v1", "Service", s.name, `A Service is a name for equal servers. Its port is what routes name: the servers' own
port is in the EndpointSlice, in the port of the same name.`)
	w.printf("spec:\n  ports:\n")
	ports := servicePorts(of)
	for _, p := range ports {
		w.printf("  - name: %s\n    protocol: %s\n    port: %d\n", p.name(), strings.ToUpper(p.protocol), p.port)
	}
	for _, f := range []string{"IPv4", "IPv6"} {
		for _, port := range s.ports(f) {
			name := s.name + "-" + strings.ToLower(f)
			if port != 0 {
				name += fmt.Sprintf("-%d", port)
			}
			for i, some := range slices.Collect(slices.Chunk(s.of(f, port), maxEndpoints)) {
				part := ""
				if i > 0 {
					part = fmt.Sprintf("-part%d", i+1)
				}
				w.slice(name+part, s.name, f, port, ports, some)
			}
		}
	}
}

func (w *writer) slice(name, service, family string, port uint16, ports []servicePort, all []netip.Addr) {
	w.object("discovery.k8s.io/v1", "EndpointSlice", name, `An EndpointSlice lists servers of the Service that its label names. Blixt follows every
change: remove a server, and its own connections are reset, and no others. One with
conditions: {ready: false} keeps its connections, and gets no new ones.`)
	w.printf("  labels:\n    kubernetes.io/service-name: %s\naddressType: %s\nports:\n", quoted(service), family)
	for _, p := range ports {
		w.printf("- name: %s\n  protocol: %s\n  port: %d\n", p.name(), strings.ToUpper(p.protocol), cmp.Or(port, p.port))
	}
	w.printf("endpoints:\n")
	for _, addr := range all {
		w.printf("- addresses: [%s]\n", quoted(addr.String()))
	}
}

// servicePort is a port that routes name: that of a listener.
type servicePort struct {
	protocol string
	port     uint16
}

func (p servicePort) name() string { return fmt.Sprintf("%s-%d", p.protocol, p.port) }

func servicePorts(of []listen) []servicePort {
	var all []servicePort
	for _, l := range of {
		if p := (servicePort{l.protocol, l.port}); !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	return all
}

// ports returns those of the servers of a family; 0: that of the listener.
func (s *servers) ports(of string) []uint16 {
	var all []uint16
	for _, b := range s.backends {
		if family(b.addr) == of && !slices.Contains(all, b.port) {
			all = append(all, b.port)
		}
	}
	return all
}

// of returns the addresses of the servers of a family with a port.
func (s *servers) of(want string, port uint16) []netip.Addr {
	var all []netip.Addr
	for _, b := range s.backends {
		if family(b.addr) == want && b.port == port {
			all = append(all, b.addr)
		}
	}
	return all
}

// quoted returns an address or a name as YAML 1.1 reads it as a string.
func quoted(text string) string {
	switch text {
	case "y", "n", "yes", "no", "on", "off", "true", "false", "null":
		return `"` + text + `"`
	}
	if strings.Contains(text, ":") {
		return `"` + text + `"`
	}
	return text
}
