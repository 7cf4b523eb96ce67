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

// refused waits until connections from outside are.
func refused(t *testing.T, addr string) {
	t.Helper()
	kube.Wait(t, patience, "what connections to "+addr+" are", "refused", func() (string, error) {
		a, err := ask(c.Outside, "tcp", "", addr)
		if errors.Is(err, syscall.ECONNREFUSED) {
			return "refused", nil
		}
		return fmt.Sprintf("answered by %v", a), err
	})
}

// answered waits until connections from outside are.
func answered(t *testing.T, addr string, want answer) {
	t.Helper()
	kube.Wait(t, patience, "who answers at "+addr, want, func() (answer, error) { return ask(c.Outside, "tcp", "", addr) }, cmp.AllowUnexported(answer{}))
}

// Under Local policy a server sees its client, and a node without one refuses.
func local(t *testing.T, application string) {
	applied(t, "local.yaml", "", "")
	awaitPods(t, "default")
	vips := routeVIPs(t, "local", c.Nodes[1])
	for i, sees := range []string{cluster.Outside4, cluster.Outside6} {
		addr := net.JoinHostPort(vips[i], "80")
		answered(t, addr, answer{"node-2", sees})
		for _, network := range []string{"tcp", "udp"} {
			counted := flows(t, application)
			got, err := asker{dial: c.Outside}.ask(t, network, addr, 20)
			if want := (map[answer]int{{"node-2", sees}: 20}); err != nil || !cmp.Equal(want, got) {
				t.Errorf("%s to %s: %v, %v, want %v", network, addr, got, err, want)
			}
			counted["node-2 "+addr+"/"+network] += 20
			if diff := cmp.Diff(counted, flows(t, application)); diff != "" {
				t.Errorf("%s to %s: new flows that the programs have counted (-want +got):\n%s", network, addr, diff)
			}
		}
	}
	routeVIPs(t, "local", c.Nodes[0])
	for _, vip := range vips {
		refused(t, net.JoinHostPort(vip, "80"))
	}
}

// A Gateway is served at the nodes' own addresses, of which Blixt leaves to the
// nodes what is theirs. What comes from a node itself is kube-proxy's, by default.
func nodeAddresses(t *testing.T, application string) {
	applied(t, "node.yaml", "", "")
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
			path(t, application, asker{name: "outside", by: m, dial: c.Outside}, "tcp", net.JoinHostPort(ip, "8088"))
			refused(t, net.JoinHostPort(ip, "22"))
			if conn, err := c.Outside.Dial("tcp", "", net.JoinHostPort(ip, "10250"), 2*time.Second); err != nil {
				t.Errorf("the kubelet's port of %s is not reached any more: %v", ip, err)
			} else {
				_ = conn.Close()
			}
			for _, a := range []asker{{name: m.Name, by: m, dial: m}, {name: "a pod on " + m.Name, by: m, pod: clients[m.Name]}} {
				inside(t, application, a, net.JoinHostPort(ip, "8088"))
			}
		}
	}
}

// inside asks from a node, or a pod, at the node's own address. kube-proxy is not
// told at once.
func inside(t *testing.T, application string, a asker, addr string) {
	t.Helper()
	kube.Wait(t, patience, fmt.Sprintf("answers of %s to %s", addr, a.name), 1, func() (int, error) {
		got, err := a.ask(t, "tcp", addr, 1)
		return len(got), err
	})
	const n = 20
	if wrong := (way{a, "tcp", addr}).try(t, application, ports(n), n).unanswered(); wrong != "" {
		t.Errorf("%s from %s: %s", addr, a.name, wrong)
	}
}

// Of 500 connections each Service gets its share, within six standard deviations.
func weights(t *testing.T, application string) {
	const n, want, most = 500, 350, 61
	applied(t, "web.yaml", "NAME", "web")
	apply(t, "weights.yaml", "", "")
	awaitPods(t, "default")
	addr := net.JoinHostPort(routeVIPs(t, "web", c.Nodes[0])[0], "80")
	kube.Wait(t, patience, "Services that answer", true, func() (bool, error) {
		got, err := asker{dial: c.Outside}.ask(t, "tcp", addr, 50)
		return len(got) == 5, err
	})
	counted := flows(t, application)
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
	if diff := cmp.Diff(counted, flows(t, application)); diff != "" {
		t.Errorf("new flows that the programs have counted (-want +got):\n%s", diff)
	}
}

// A Service of another namespace is used as long as a grant allows it: then its
// connections are reset at once.
func grant(t *testing.T) {
	applied(t, "elsewhere.yaml", "", "")
	addr := net.JoinHostPort(routeVIPs(t, "abroad", c.Nodes[0])[0], "81")
	refused(t, addr)
	applied(t, "grant.yaml", "", "")
	var conn net.Conn
	kube.Wait(t, patience, "whether a connection is echoed", true, func() (ok bool, err error) {
		if conn, err = c.Outside.Dial("tcp", "", addr, 2*time.Second); err == nil {
			err = echoed(conn, patience)
		}
		return err == nil, err
	})
	defer conn.Close()
	remove(t, "grant.yaml", "", "")
	refused(t, addr)
	if err := echoed(conn, patience); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection that there was: %v, want %v", err, syscall.ECONNRESET)
	}
}

// echoed sends a byte, and gets it back.
func echoed(conn net.Conn, within time.Duration) error {
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
