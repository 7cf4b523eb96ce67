// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// gatewayOf returns a Gateway without routes.
func gatewayOf(name, listeners string) string {
	return `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: ` + name + `}
spec: {gatewayClassName: blixt, listeners: [` + listeners + `]}
`
}

// atNodes returns a Gateway that is served at the addresses of nodes.
func (e *tenant) atNodes(name, listeners string) string {
	if !e.pool {
		return gatewayOf(name, listeners)
	}
	return `
apiVersion: blixt.x-k8s.io/v1alpha1
kind: BlixtGatewayConfig
metadata: {name: ` + name + `}
spec: {addressSource: Node}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: ` + name + `}
spec:
  gatewayClassName: blixt
  infrastructure: {parametersRef: {group: blixt.x-k8s.io, kind: BlixtGatewayConfig, name: ` + name + `}}
  listeners: [` + listeners + `]
`
}

// tryNodePorts asks for ports that nodes need: each unrouted listener would refuse what
// arrives there.
func (e *tenant) tryNodePorts(t *testing.T) {
	var listeners []string
	want := map[string]string{}
	for protocol, ports := range map[string][]int{
		"TCP": {22, 179, 2379, 2380, 6443, 9100, 10250, 10256, 30080, 40000},
		"UDP": {68, 4789, 6081, 8472, 51820, 30080, 40000},
	} {
		for _, p := range ports {
			name := fmt.Sprintf("%s-%d", strings.ToLower(protocol), p)
			listeners = append(listeners, fmt.Sprintf("{name: %s, protocol: %s, port: %d}", name, protocol, p))
			want[name] = "False PortUnavailable"
		}
	}
	e.mustCreate(t, e.atNodes("ports", strings.Join(listeners, ", ")))
	e.awaitListeners(t, "ports", want)
	for _, m := range c.Nodes {
		if conn, err := c.Outside.Dial("tcp", "", net.JoinHostPort(m.IPv4, "10250"), 2*time.Second); err != nil {
			t.Errorf("the kubelet's port of %s is not reached any more: %v", m.Name, err)
		} else {
			_ = conn.Close()
		}
	}
}

// tryListeningPort asks for a port at which a process of a node listens, which nobody
// knows in the cluster: the node's process goes on.
func (e *tenant) tryListeningPort(t *testing.T) {
	m := c.Nodes[0]
	ctx, stop := context.WithCancel(t.Context())
	server := m.Node.Command(ctx, os.Args[0], "server") // its file is not in the machine
	server.Env = append(os.Environ(), "NODE=the-node-itself")
	if err := m.Node.Start(server); err != nil {
		t.Fatal(err)
	}
	defer func() {
		stop()
		_ = server.Wait()
	}()
	addr := net.JoinHostPort(m.IPv4, "8080")
	want := [2]string{"the-node-itself", "the-node-itself"}
	itself := func() ([2]string, error) {
		tcp, err1 := ask(c.Outside, "tcp", "", addr)
		udp, err2 := ask(c.Outside, "udp", "", addr)
		return [2]string{tcp.node, udp.node}, errors.Join(err1, err2)
	}
	kube.Wait(t, patience, "who answers at "+addr, want, itself)
	e.mustCreate(t, e.atNodes("listening", "{name: a, protocol: TCP, port: 8080}, {name: b, protocol: UDP, port: 8080}"))
	e.awaitListeners(t, "listening", map[string]string{"a": "True Accepted", "b": "True Accepted"})
	// Blixt leaves the port to the node at once. kube-proxy, which balances what nodes
	// and pods send to addresses of nodes, does so when the operator knows.
	start := time.Now()
	kube.Wait(t, patience, "who answers at "+addr+" for three seconds", want, func() (got [2]string, err error) {
		for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if got, err = itself(); err != nil || got != want {
				break
			}
		}
		return got, err
	})
	t.Logf("the node has its port after %.1f s", time.Since(start).Seconds()-3)
}

// tryAddress wants what the victim has: by its name, and by a status that says so.
func (e *tenant) tryAddress(t *testing.T) {
	older := &gwv1.Gateway{}
	get := func(name string) {
		if err := e.api.Get(t.Context(), client.ObjectKey{Namespace: "tenant", Name: name}, older); err != nil {
			t.Fatal(err)
		}
	}
	get("older")
	older.Spec.Listeners = append(older.Spec.Listeners, gwv1.Listener{Name: "theirs", Protocol: gwv1.TCPProtocolType, Port: 8480})
	kind := gwv1.IPAddressType
	for _, a := range e.victims {
		older.Spec.Addresses = append(older.Spec.Addresses, gwv1.GatewaySpecAddress{Type: &kind, Value: a})
	}
	if err := e.api.Update(t.Context(), older); err != nil {
		t.Fatal(err)
	}
	// Who writes statuses as fast as the operator does may gain nothing either.
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		get("older")
		older.Status.Addresses = nil
		for _, a := range e.victims {
			older.Status.Addresses = append(older.Status.Addresses, gwv1.GatewayStatusAddress{Type: &kind, Value: a})
		}
		_ = e.api.Status().Update(t.Context(), older) // conflicts are the operator's answer
		for _, a := range e.victims {
			for _, port := range []string{"9900", "8480"} {
				if !e.pool && port == "9900" {
					continue // all share the addresses of nodes
				}
				answered, err := ask(c.Outside, "tcp", "", net.JoinHostPort(a, port))
				if ok := port == "8480"; ok != (err == nil) {
					t.Fatalf("the victim's %s, port %s: answered by %v, %v", a, port, answered, err)
				}
			}
		}
	}
	get("older")
	older.Spec.Addresses, older.Spec.Listeners = nil, older.Spec.Listeners[:1]
	if err := e.api.Update(t.Context(), older); err != nil {
		t.Fatal(err)
	}
}

// tryTables asks for more listeners than one namespace may have. It does not ask for
// as many as the tables have room for: to take those takes the API server minutes.
func (e *tenant) tryTables(t *testing.T) {
	e.mustCreate(t, `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: sets}
spec:
  gatewayClassName: blixt
  allowedListeners: {namespaces: {from: Same}}
  listeners: [{name: own, protocol: TCP, port: 12000}]
`)
	const sets = 9 // 64 listeners each, each at an address of each family: 1,152 frontends of 1,024
	for i := range sets {
		var entries []string
		for j := range 64 {
			entries = append(entries, fmt.Sprintf("{name: l%d, protocol: TCP, port: %d}", j, 12001+64*i+j))
		}
		e.mustCreate(t, fmt.Sprintf(`
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: set-%d}
spec: {parentRef: {name: sets}, listeners: [%s]}
`, i, strings.Join(entries, ", ")))
	}
	kube.Wait(t, patience, "whether every ListenerSet is answered, and some listeners get nothing", true, func() (bool, error) {
		var list gwv1.ListenerSetList
		err := e.api.List(t.Context(), &list, client.InNamespace("tenant"))
		answered, refused := 0, 0
		for _, set := range list.Items {
			if len(set.Status.Listeners) > 0 {
				answered++
			}
			for _, l := range set.Status.Listeners {
				if cond := meta.FindStatusCondition(l.Conditions, "Programmed"); cond != nil && cond.Reason == "NoResources" {
					refused++
				}
			}
		}
		return answered == sets && refused > 0, err
	})
}

// tryMaps mounts the maps of the data plane.
func (e *tenant) tryMaps(t *testing.T) {
	err := e.create(t, `
apiVersion: v1
kind: Pod
metadata: {name: maps}
spec:
  containers: [{name: c, image: `+image+`, args: [server], volumeMounts: [{name: maps, mountPath: /maps}]}]
  volumes: [{name: maps, csi: {driver: csi.bpfman.io, volumeAttributes: {csi.bpfman.io/program: `+e.application+`, csi.bpfman.io/maps: frontends}}}]
`)
	if err == nil || !strings.Contains(err.Error(), "denied") {
		t.Errorf("a pod with maps of the data plane: %v, want that it is denied", err)
	}
}

// tryEndpoints leads clients to where they must not come, beside a server of the
// tenant's own.
func (e *tenant) tryEndpoints(t *testing.T) {
	e.mustCreate(t, `
apiVersion: v1
kind: Pod
metadata: {name: own, labels: {app: own}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: `+image+`, args: [server], env: [{name: NODE, value: the-tenant}]}]
`)
	own := &corev1.Pod{}
	kube.Wait(t, patience, "whether the tenant's server runs", true, func() (bool, error) {
		err := e.api.Get(t.Context(), client.ObjectKey{Namespace: "tenant", Name: "own"}, own)
		return own.Status.Phase == corev1.PodRunning && own.Status.PodIP != "", err
	})
	var victim corev1.PodList
	if err := c.Client.List(t.Context(), &victim, client.InNamespace("default"), client.MatchingLabels{"app": "server"}); err != nil || len(victim.Items) == 0 {
		t.Fatal(victim.Items, err)
	}
	api := &corev1.Service{}
	if err := c.Client.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "kubernetes"}, api); err != nil {
		t.Fatal(err)
	}
	targets := []struct {
		name, addr string
		port       int
	}{
		{"own", own.Status.PodIP, 8080},
		{"kubelet", c.Nodes[1].IPv4, 10250},
		{"api-server", api.Spec.ClusterIP, 443},
		{"others-pod", victim.Items[0].Status.PodIP, 8080},
		{"metadata", "169.254.169.254", 80},
		{"loopback", "127.0.0.1", 8080},
		{"victims-gateway", e.victims[0], 8480},
	}
	var listeners []string
	for i, target := range targets {
		listeners = append(listeners, fmt.Sprintf("{name: %s, protocol: TCP, port: %d}", target.name, 9910+i))
		if err := e.create(t, fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec: {ports: [{port: 80, targetPort: %[3]d}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %[1]s, labels: {kubernetes.io/service-name: %[1]s, endpointslice.kubernetes.io/managed-by: endpointslice-controller.k8s.io}}
addressType: IPv4
ports: [{port: %[3]d}]
endpoints: [{addresses: [%[2]s]}]
`, target.name, target.addr, target.port)); err != nil && target.name != "loopback" && target.name != "metadata" { // the API server may see to these itself
			t.Fatal(err)
		}
		e.mustCreate(t, fmt.Sprintf(`
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: %[1]s}
spec: {parentRefs: [{name: endpoints, sectionName: %[1]s}], rules: [{backendRefs: [{name: %[1]s, port: 80}]}]}
`, target.name))
	}
	e.mustCreate(t, gatewayOf("endpoints", strings.Join(listeners, ", ")))
	addr := e.awaitAddress(t, "endpoints")
	kube.Wait(t, patience, "who answers for the tenant's own server", "the-tenant", func() (string, error) {
		a, err := ask(c.Outside, "tcp", "", net.JoinHostPort(addr, "9910"))
		return a.node, err
	})
	for i, target := range targets[1:] {
		conn, err := c.Outside.Dial("tcp", "", net.JoinHostPort(addr, fmt.Sprint(9911+i)), 2*time.Second)
		if err == nil {
			_ = conn.Close()
			t.Errorf("a hand-written endpoint %s (%s, port %d) is served", target.name, target.addr, target.port)
		}
	}
}

// tryReferences uses the victim's Gateway and Service without permission.
func (e *tenant) tryReferences(t *testing.T) {
	e.mustCreate(t, `
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: intruder}
spec: {parentRefs: [{name: victim, namespace: default}], rules: [{backendRefs: [{name: own, port: 80}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: intruder}
spec: {parentRef: {name: victim, namespace: default}, listeners: [{name: a, protocol: TCP, port: 8483}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: abroad}
spec: {parentRefs: [{name: abroad}], rules: [{backendRefs: [{name: server, namespace: default, port: 80}]}]}
`+"---"+gatewayOf("abroad", "{name: a, protocol: TCP, port: 9920}"))
	addr := e.awaitAddress(t, "abroad")
	for _, addr := range []string{net.JoinHostPort(addr, "9920"), net.JoinHostPort(e.victims[0], "8483")} {
		awaitRefused(t, addr)
	}
}

// tryFaults makes objects at which the operator cannot do what it should, with names as
// long as there are.
func (e *tenant) tryFaults(t *testing.T) {
	long := strings.Repeat("n", 250)
	var listeners, sections []string
	for i := range 60 {
		name := fmt.Sprintf("%s%03d", long, i)
		listeners = append(listeners, fmt.Sprintf("{name: %s, protocol: TCP, port: %d}", name, 9930+i))
	}
	for i := range 30 {
		sections = append(sections, fmt.Sprintf("{name: absent-%s%03d}", long[:200], i))
	}
	e.mustCreate(t, `
apiVersion: v1
kind: Service
metadata: {name: blixt-faults, labels: {app.kubernetes.io/managed-by: blixt, gateway.networking.k8s.io/gateway-name: faults}}
spec: {ports: [{port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: a`+long+`}
spec: {parentRefs: [{name: faults}], rules: [{backendRefs: [{name: own, port: 80}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: b`+long+`}
spec: {parentRefs: [{name: faults}, `+strings.Join(sections, ", ")+`], rules: [{backendRefs: [{name: own, port: 80}]}]}
`+"---"+gatewayOf("faults", strings.Join(listeners, ", ")))
	kube.Wait(t, patience, "whether the operator has answered the route", true, func() (bool, error) {
		r := &gwv1.TCPRoute{}
		err := e.api.Get(t.Context(), client.ObjectKey{Namespace: "tenant", Name: "b" + long}, r)
		return len(r.Status.Parents) > 0, err
	})
	const seconds, most = 10, 30
	since := metav1.Now()
	time.Sleep(seconds * time.Second)
	out, err := c.Kubectl(t.Context(), "--namespace="+system, "logs", "--selector=app.kubernetes.io/component=operator", "--since-time="+since.UTC().Format(time.RFC3339), "--tail=-1")
	if lines := strings.Count(out, "\n"); err != nil || lines > most {
		t.Errorf("the operators have logged %d lines in %d s (%v), want at most %d:\n%s", lines, seconds, err, most, out)
	}
}

// tryHostPort has a pod ask for the victim's port of all nodes.
func (e *tenant) tryHostPort(t *testing.T) {
	err := e.create(t, `
apiVersion: v1
kind: Pod
metadata: {name: host-port}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: `+image+`, args: [server], ports: [{containerPort: 8080, hostPort: 8480}, {containerPort: 8081, hostPort: 8481}]}]
`)
	t.Logf("a pod with hostPort: %v", err)
	time.Sleep(2 * time.Second)
}

// tryStreams holds hundreds of connections to the operators, who have to let an agent in
// that begins meanwhile.
func (e *tenant) tryStreams(t *testing.T) {
	var operators corev1.PodList
	if err := c.Client.List(t.Context(), &operators, client.InNamespace(system), client.MatchingLabels{"app.kubernetes.io/component": "operator"}); err != nil {
		t.Fatal(err)
	}
	for _, p := range operators.Items {
		for i := range 300 {
			conn, err := c.Nodes[0].Dial("tcp", "", netip.AddrPortFrom(netip.MustParseAddr(p.Status.PodIP), 8443).String(), 2*time.Second)
			if err != nil {
				continue // who is not let in has no more to try
			}
			t.Cleanup(func() { _ = conn.Close() })
			if i%2 == 0 {
				_, _ = conn.Write([]byte{0x16, 3, 1, 2, 0}) // a handshake that does not go on
			}
		}
	}
	kubectl(t, "--namespace="+system, "delete", "--wait=false", agentOn(t, c.Nodes[1]))
	time.Sleep(time.Second)
	awaitPods(t, system)
	kube.Wait(t, patience, "whether the node's agent is with the operator", true, func() (bool, error) {
		n := &v1alpha1.NodeDataplane{}
		err := c.Client.Get(t.Context(), client.ObjectKey{Name: c.Nodes[1].Name}, n)
		return meta.IsStatusConditionTrue(n.Status.Conditions, "Ready"), err
	})
}
