// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/google/renameio/v2"
)

// Config is what Blixt is to serve, shorter than in YAML. An empty namespace is
// "default".
type Config struct {
	Gateways []Gateway
	Routes   []Route
	Services []Service
	Grants   []Grant
	Policies []Policy
}

// Policy is a BlixtPolicy.
type Policy struct {
	Namespace, Name string
	// Targets are kinds and names, such as "TCPRoute web"; a listener's has its name behind.
	Targets []string
	// Spec is YAML: the lines of the spec but for its targets.
	Spec string
}

// Gateway has addresses and listeners.
type Gateway struct {
	Namespace, Name string
	Addresses       []string
	Listeners       []Listener
	// ClientAddress is the choice of its BlixtGatewayConfig; "": it has none.
	ClientAddress string
}

// Listener is a port of a Gateway. Its name is tcp-80, udp-53 and so on.
type Listener struct {
	Protocol string // TCP or UDP
	Port     int
}

// Name returns the listener's name, to which routes refer.
func (l Listener) Name() string { return fmt.Sprintf("%s-%d", strings.ToLower(l.Protocol), l.Port) }

// Route leads from a listener to Services.
type Route struct {
	Namespace, Name string
	Gateway         string
	Listener        Listener
	Refs            []Ref
}

// Ref names a Service's port 80.
type Ref struct {
	Namespace, Service string
	Weight             int
}

// Service has endpoints, for TCP and UDP alike.
type Service struct {
	Namespace, Name string
	Endpoints       []Endpoint
}

// Endpoint is a server.
type Endpoint struct {
	Addr string // with its port
	Node string
	// Conditions is YAML, such as "{ready: false}".
	Conditions string
}

// Endpoints returns the nodes' IPv4 and IPv6 addresses as endpoints.
func Endpoints(port int, nodes ...*Node) (endpoints []Endpoint) {
	for _, n := range nodes {
		for _, ip := range []string{n.IPv4, n.IPv6} {
			endpoints = append(endpoints, Endpoint{Addr: net.JoinHostPort(ip, strconv.Itoa(port))})
		}
	}
	return endpoints
}

// On returns the endpoints with the name of the node that they are on.
func On(node string, endpoints []Endpoint) []Endpoint {
	for i := range endpoints {
		endpoints[i].Node = node
	}
	return endpoints
}

// Grant lets routes of a namespace refer to Services of another.
type Grant struct {
	From, To string
}

// YAML returns the objects in two files: gateway.yaml, and endpoints.yaml for what
// changes often.
func (c *Config) YAML() map[string]string {
	var gateway, endpoints yaml
	gateway.add("gateway.networking.k8s.io/v1", "GatewayClass", "", "blixt", "spec:",
		"  controllerName: gateway.networking.k8s.io/blixt")
	for _, g := range c.Gateways {
		gateway.gateway(g)
	}
	for _, r := range c.Routes {
		gateway.route(r)
	}
	for _, g := range c.Grants {
		gateway.grant(g)
	}
	for _, p := range c.Policies {
		gateway.policy(p)
	}
	for _, s := range c.Services {
		gateway.service(s)
		endpoints.slices(s)
	}
	return map[string]string{"gateway.yaml": gateway.text(), "endpoints.yaml": endpoints.text()}
}

// Write writes the YAML into a directory. Files that have this text already are left
// alone, others are replaced by a rename, as an editor does.
func (c *Config) Write(dir string) error {
	for name, text := range c.YAML() {
		path := filepath.Join(dir, name)
		if old, err := os.ReadFile(path); err == nil && string(old) == text {
			continue
		}
		if err := Replace(path, text); err != nil {
			return err
		}
	}
	return nil
}

// Replace writes a file so that no reader sees half of it.
func Replace(path, text string) error {
	return renameio.WriteFile(path, []byte(text), 0o644, renameio.WithTempDir(filepath.Dir(path)))
}

// yaml is a file in the making.
type yaml struct{ documents []string }

func (y *yaml) text() string { return strings.Join(y.documents, "---\n") }

// add adds an object.
func (y *yaml) add(apiVersion, kind, namespace, name string, lines ...string) {
	head := []string{"apiVersion: " + apiVersion, "kind: " + kind, "metadata:", "  name: " + name}
	if namespace != "" {
		head = append(head, "  namespace: "+namespace)
	}
	y.documents = append(y.documents, strings.Join(append(head, lines...), "\n")+"\n")
}

func (y *yaml) gateway(g Gateway) {
	lines := []string{"spec:", "  gatewayClassName: blixt"}
	if len(g.Addresses) > 0 { // else Blixt chooses
		lines = append(lines, "  addresses:")
	}
	for _, a := range g.Addresses {
		lines = append(lines, fmt.Sprintf("  - value: %q", a))
	}
	if g.ClientAddress != "" {
		y.add("blixt.x-k8s.io/v1alpha1", "BlixtGatewayConfig", g.Namespace, g.Name, "spec: {clientAddress: "+g.ClientAddress+"}")
		lines = append(lines, "  infrastructure: {parametersRef: {group: blixt.x-k8s.io, kind: BlixtGatewayConfig, name: "+g.Name+"}}")
	}
	lines = append(lines, "  listeners:")
	for _, l := range g.Listeners {
		lines = append(lines, "  - name: "+l.Name(), "    protocol: "+l.Protocol, fmt.Sprintf("    port: %d", l.Port))
	}
	y.add("gateway.networking.k8s.io/v1", "Gateway", g.Namespace, g.Name, lines...)
}

func (y *yaml) route(r Route) {
	lines := []string{"spec:", "  parentRefs:", "  - name: " + r.Gateway, "    sectionName: " + r.Listener.Name(),
		"  rules:", "  - backendRefs:"}
	for _, b := range r.Refs {
		lines = append(lines, "    - name: "+b.Service, "      port: 80", fmt.Sprintf("      weight: %d", b.Weight))
		if b.Namespace != "" {
			lines = append(lines, "      namespace: "+b.Namespace)
		}
	}
	y.add("gateway.networking.k8s.io/v1", r.Listener.Protocol+"Route", r.Namespace, r.Name, lines...)
}

func (y *yaml) grant(g Grant) {
	lines := []string{"spec:", "  from:"}
	for _, kind := range []string{"TCPRoute", "UDPRoute"} {
		lines = append(lines, "  - group: gateway.networking.k8s.io", "    kind: "+kind, "    namespace: "+g.From)
	}
	lines = append(lines, "  to:", "  - group: \"\"", "    kind: Service")
	y.add("gateway.networking.k8s.io/v1", "ReferenceGrant", g.To, "from-"+g.From, lines...)
}

func (y *yaml) policy(p Policy) {
	lines := []string{"spec:", "  targetRefs:"}
	for _, target := range p.Targets {
		words := strings.Fields(target)
		line := fmt.Sprintf("  - {group: gateway.networking.k8s.io, kind: %s, name: %s", words[0], words[1])
		if len(words) > 2 {
			line += ", sectionName: " + words[2]
		}
		lines = append(lines, line+"}")
	}
	for line := range strings.Lines(p.Spec) {
		lines = append(lines, "  "+strings.TrimRight(line, "\n"))
	}
	y.add("blixt.x-k8s.io/v1alpha1", "BlixtPolicy", p.Namespace, p.Name, lines...)
}

func (y *yaml) service(s Service) {
	y.add("v1", "Service", s.Namespace, s.Name, "spec:", "  ports:",
		"  - {name: tcp, protocol: TCP, port: 80}", "  - {name: udp, protocol: UDP, port: 80}")
}

// slices adds an EndpointSlice for each family and port: a slice has one of each.
func (y *yaml) slices(s Service) {
	type group struct {
		family string
		port   uint16
	}
	var order []group
	members := map[group][]string{}
	for _, e := range s.Endpoints {
		addr := netip.MustParseAddrPort(e.Addr)
		g := group{"IPv4", addr.Port()}
		if addr.Addr().Is6() {
			g.family = "IPv6"
		}
		if members[g] == nil {
			order = append(order, g)
		}
		members[g] = append(members[g], fmt.Sprintf("- addresses: [%q]", addr.Addr()))
		if e.Node != "" {
			members[g] = append(members[g], "  nodeName: "+e.Node)
		}
		if e.Conditions != "" {
			members[g] = append(members[g], "  conditions: "+e.Conditions)
		}
	}
	for _, g := range order {
		lines := []string{"  labels:", "    kubernetes.io/service-name: " + s.Name, "addressType: " + g.family, "ports:",
			fmt.Sprintf("- {name: tcp, protocol: TCP, port: %d}", g.port),
			fmt.Sprintf("- {name: udp, protocol: UDP, port: %d}", g.port), "endpoints:"}
		name := fmt.Sprintf("%s-%s-%d", s.Name, strings.ToLower(g.family), g.port)
		y.add("discovery.k8s.io/v1", "EndpointSlice", s.Namespace, name, append(lines, members[g]...)...)
	}
}
