// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/e2e/lib/cluster"
	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
)

// awaitRefused waits until connections from outside are refused.
func awaitRefused(t *testing.T, addr string) {
	t.Helper()
	kube.Wait(t, patience, "what connections to "+addr+" are", "refused", func() (string, error) {
		a, err := ask(c.Outside, "tcp", "", addr)
		if errors.Is(err, syscall.ECONNREFUSED) {
			return "refused", nil
		}
		return fmt.Sprintf("answered by %v", a), err
	})
}

// awaitAnswer waits until connections from outside get an answer.
func awaitAnswer(t *testing.T, addr string, want answer) {
	t.Helper()
	kube.Wait(t, patience, "who answers at "+addr, want, func() (answer, error) { return ask(c.Outside, "tcp", "", addr) }, cmp.AllowUnexported(answer{}))
}

// testLocalPolicy checks that under Local policy a server sees its client, and a node
// without a server refuses connections.
func testLocalPolicy(t *testing.T, application string) {
	applyUntilEnd(t, "local.yaml", "", "")
	awaitPods(t, "default")
	vips := routeVIPs(t, "local", c.Nodes[1])
	for i, sees := range []string{cluster.Outside4, cluster.Outside6} {
		addr := net.JoinHostPort(vips[i], "80")
		awaitAnswer(t, addr, answer{"node-2", sees})
		for _, network := range []string{"tcp", "udp"} {
			counted := countFlows(t, application)
			got, err := asker{dial: c.Outside}.ask(t, network, addr, 20)
			if want := (map[answer]int{{"node-2", sees}: 20}); err != nil || !cmp.Equal(want, got) {
				t.Errorf("%s to %s: %v, %v, want %v", network, addr, got, err, want)
			}
			counted["node-2 "+addr+"/"+network] += 20
			if diff := cmp.Diff(counted, countFlows(t, application)); diff != "" {
				t.Errorf("%s to %s: new flows that the programs have counted (-want +got):\n%s", network, addr, diff)
			}
		}
	}
	routeVIPs(t, "local", c.Nodes[0])
	for _, vip := range vips {
		awaitRefused(t, net.JoinHostPort(vip, "80"))
	}
}

// testNodeAddresses serves a Gateway at the nodes' own addresses, where ports of the
// node stay the node's. Connections of the node itself are balanced by kube-proxy, by
// default.
func testNodeAddresses(t *testing.T, application string) {
	applyUntilEnd(t, "node.yaml", "", "")
	gw := &gwv1.Gateway{}
	want := map[string]string{"tcp": "True Programmed", "ssh": "False PortUnavailable"}
	kube.Wait(t, patience, "Gateway node's listeners", want, func() (map[string]string, error) {
		err := c.Client.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "node"}, gw)
		got := map[string]string{}
		for _, l := range gw.Status.Listeners {
			kind := "Programmed"
			if l.Name == "ssh" {
				kind = "Accepted"
			}
			if cond := meta.FindStatusCondition(l.Conditions, kind); cond != nil {
				got[string(l.Name)] = fmt.Sprint(cond.Status, " ", cond.Reason)
			}
		}
		return got, err
	})
	clients := podsOn(t, "client")
	for _, m := range c.Nodes {
		for _, ip := range []string{m.IPv4, m.IPv6} {
			checkPath(t, application, asker{name: "outside", by: m, dial: c.Outside}, "tcp", net.JoinHostPort(ip, "8088"))
			awaitRefused(t, net.JoinHostPort(ip, "22"))
			if conn, err := c.Outside.Dial("tcp", "", net.JoinHostPort(ip, "10250"), 2*time.Second); err != nil {
				t.Errorf("the kubelet's port of %s is not reached any more: %v", ip, err)
			} else {
				_ = conn.Close()
			}
			for _, a := range []asker{{name: m.Name, by: m, dial: m}, {name: "a pod on " + m.Name, by: m, pod: clients[m.Name]}} {
				checkFromInside(t, application, a, net.JoinHostPort(ip, "8088"))
			}
		}
	}
}

// checkFromInside asks from a node, or a pod, at the node's own address. kube-proxy
// needs a moment to learn of it.
func checkFromInside(t *testing.T, application string, a asker, addr string) {
	t.Helper()
	kube.Wait(t, patience, fmt.Sprintf("answers of %s to %s", addr, a.name), 1, func() (int, error) {
		got, err := a.ask(t, "tcp", addr, 1)
		return len(got), err
	})
	const n = 20
	if wrong := (way{a, "tcp", addr}).connect(t, application, ports(n), n).answerError(); wrong != "" {
		t.Errorf("%s from %s: %s", addr, a.name, wrong)
	}
}

// testWeights sends 500 connections: each Service has to get its share, within six
// standard deviations.
func testWeights(t *testing.T, application string) {
	const n, want, most = 500, 350, 61
	applyUntilEnd(t, "web.yaml", "NAME", "web")
	applyFile(t, "weights.yaml", "", "")
	awaitPods(t, "default")
	addr := net.JoinHostPort(routeVIPs(t, "web", c.Nodes[0])[0], "80")
	kube.Wait(t, patience, "Services that answer", true, func() (bool, error) {
		got, err := asker{dial: c.Outside}.ask(t, "tcp", addr, 50)
		return len(got) == 5, err
	})
	counted := countFlows(t, application)
	got, err := asker{dial: c.Outside}.ask(t, "tcp", addr, n)
	if err != nil {
		t.Fatal(err)
	}
	web := 0
	for who, times := range got {
		if strings.HasPrefix(who.node, "web-") {
			web += times
		}
	}
	t.Logf("%d of %d connections to the Service of weight 70 of 100", web, n)
	if web < want-most || web > want+most {
		t.Errorf("%d of %d connections to the Service of weight 70 of 100", web, n)
	}
	counted["node-1 "+addr+"/tcp"] += n
	if diff := cmp.Diff(counted, countFlows(t, application)); diff != "" {
		t.Errorf("new flows that the programs have counted (-want +got):\n%s", diff)
	}
}

// testGrant uses a Service of another namespace as long as a ReferenceGrant allows it.
// When the grant is deleted its connections are reset at once.
func testGrant(t *testing.T) {
	applyUntilEnd(t, "elsewhere.yaml", "", "")
	addr := net.JoinHostPort(routeVIPs(t, "abroad", c.Nodes[0])[0], "81")
	awaitRefused(t, addr)
	applyUntilEnd(t, "grant.yaml", "", "")
	var conn net.Conn
	kube.Wait(t, patience, "whether a connection is echoed", true, func() (ok bool, err error) {
		if conn, err = c.Outside.Dial("tcp", "", addr, 2*time.Second); err == nil {
			err = echo(conn, patience)
		}
		return err == nil, err
	})
	defer conn.Close()
	deleteFile(t, "grant.yaml", "", "")
	awaitRefused(t, addr)
	if err := echo(conn, patience); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection that there was: %v, want %v", err, syscall.ECONNRESET)
	}
}

// echo sends a byte and reads one.
func echo(conn net.Conn, within time.Duration) error {
	if err := conn.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("?")); err != nil {
		return err
	}
	_, err := conn.Read(make([]byte, 100))
	return err
}

func kubectl(t *testing.T, args ...string) {
	t.Helper()
	if _, err := c.Kubectl(t.Context(), args...); err != nil {
		t.Fatal(err)
	}
}
