// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
)

// tenant attacks from a namespace of his own, with the rights that he has there.
type tenant struct {
	api         client.Client
	application string
	victims     []string // addresses of the victim's Gateway
	pool        bool     // Gateways get addresses of their own, not those of nodes
}

// startTenant gives somebody a namespace, and his rights.
func startTenant(t *testing.T, application string, pool bool) *tenant {
	t.Helper()
	applyUntilEnd(t, "tenant.yaml", "", "")
	config := rest.CopyConfig(c.Config)
	config.Impersonate.UserName = "system:serviceaccount:tenant:tenant"
	config.Impersonate.Groups = []string{"system:serviceaccounts", "system:serviceaccounts:tenant", "system:authenticated"}
	api, err := client.New(config, client.Options{Scheme: c.Client.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	// The API server learns of rights a moment after they are stored.
	kube.Wait(t, patience, "whether the tenant has his rights", true, func() (bool, error) {
		in := client.InNamespace("tenant")
		return true, errors.Join(api.List(t.Context(), &gwv1.GatewayList{}, in), api.List(t.Context(), &corev1.PodList{}, in))
	})
	return &tenant{api: api, application: application, pool: pool}
}

// create creates objects until the test ends, and returns the first error.
func (e *tenant) create(t *testing.T, text string) error {
	t.Helper()
	objects, err := kube.Decode([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, object := range objects {
		object.SetNamespace("tenant")
		if err := e.api.Create(t.Context(), object); err != nil {
			return err
		}
		t.Cleanup(func() {
			if err := e.api.Delete(context.Background(), object); client.IgnoreNotFound(err) != nil {
				t.Error(err)
			}
		})
	}
	return nil
}

func (e *tenant) mustCreate(t *testing.T, text string) {
	t.Helper()
	if err := e.create(t, text); err != nil {
		t.Fatal(err)
	}
}

// awaitListeners waits until the listeners of a Gateway of the tenant are accepted, or
// not for the reason.
func (e *tenant) awaitListeners(t *testing.T, name string, want map[string]string) {
	t.Helper()
	kube.Wait(t, patience, "listeners of the tenant's Gateway "+name, want, func() (map[string]string, error) {
		gw := &gwv1.Gateway{}
		err := e.api.Get(t.Context(), client.ObjectKey{Namespace: "tenant", Name: name}, gw)
		got := map[string]string{}
		for _, l := range gw.Status.Listeners {
			if cond := meta.FindStatusCondition(l.Conditions, "Accepted"); cond != nil {
				got[string(l.Name)] = fmt.Sprint(cond.Status, " ", cond.Reason)
			}
		}
		return got, err
	})
}

// awaitAddress waits until a Gateway of the tenant is served, and returns its first
// address.
func (e *tenant) awaitAddress(t *testing.T, name string) string {
	t.Helper()
	gw := &gwv1.Gateway{}
	kube.Wait(t, patience, "whether the tenant's Gateway "+name+" is served", true, func() (bool, error) {
		err := e.api.Get(t.Context(), client.ObjectKey{Namespace: "tenant", Name: name}, gw)
		return meta.IsStatusConditionTrue(gw.Status.Conditions, "Programmed") && len(gw.Status.Addresses) > 0, err
	})
	addr := gw.Status.Addresses[0].Value
	if e.pool {
		c.Outside.IP("route replace " + addr + " via " + c.Nodes[0].IPv4)
		if err := c.Outside.Err(); err != nil {
			t.Fatal(err)
		}
		if err := c.AllowSources(c.Nodes[0], addr); err != nil {
			t.Fatal(err)
		}
	}
	return addr
}

// awaitVictim waits until all that the load asks of the victim is answered: a Gateway
// has its addresses before the last route is served.
func (e *tenant) awaitVictim(t *testing.T) {
	t.Helper()
	for _, addr := range e.victims {
		kube.Wait(t, patience, "whether the victim answers at "+addr, true, func() (bool, error) {
			_, err := ask(c.Outside, "udp", "", net.JoinHostPort(addr, "8480"))
			conn, dialErr := c.Outside.Dial("tcp", "", net.JoinHostPort(addr, "8481"), 2*time.Second)
			if dialErr == nil {
				dialErr = conn.Close()
			}
			return true, errors.Join(err, dialErr)
		})
	}
}

// checkChangesArrive gives a Service of the victim servers, and takes them away: nodes
// must follow.
func (e *tenant) checkChangesArrive(t *testing.T) {
	t.Helper()
	addr := net.JoinHostPort(e.victims[0], "8482")
	for _, to := range []struct{ app, want string }{{"server", "answered"}, {"nobody", "refused"}} {
		start := time.Now()
		kubectl(t, "patch", "service", "moves", "--type=merge", `--patch={"spec":{"selector":{"app":"`+to.app+`"}}}`)
		kube.Wait(t, patience, "what the victim's connections are", to.want, func() (string, error) {
			if _, err := ask(c.Outside, "tcp", "", addr); err != nil {
				return "refused", nil
			}
			return "answered", nil
		})
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("the victim's change arrived after %v", took)
		}
	}
}

// testTenant has somebody with the rights of a namespace's user try to hurt another, who
// is under traffic. No connection of that one may break, no datagram may be lost, and
// his changes arrive.
func testTenant(t *testing.T, application string, pool bool) {
	e := startTenant(t, application, pool)
	// The tenant comes first: an older object must not win for that.
	e.mustCreate(t, gatewayOf("older", "{name: a, protocol: TCP, port: 9900}"))
	if pool {
		e.mustCreate(t, gatewayOf("named", "{name: a, protocol: TCP, port: 9900}"))
	}
	applyUntilEnd(t, "victim.yaml", "", "")
	if pool {
		e.victims = routeVIPs(t, "victim", c.Nodes[0])
	} else {
		e.victims = awaitAddresses(t, "victim")
	}
	e.awaitVictim(t)
	l := startLoadAt(t, e.victims, "8481", "8480")
	t.Cleanup(l.end)
	e.checkChangesArrive(t)
	type attack struct {
		name string
		try  func(t *testing.T)
	}
	attacks := []attack{
		{"ports of nodes", e.tryNodePorts},
		{"a port where a node listens", e.tryListeningPort},
		{"the victim's address and ports", e.tryAddress},
		{"all frontends", e.tryTables},
		{"the maps", e.tryMaps},
		{"endpoints that are others'", e.tryEndpoints},
		{"the victim's Gateway and Service", e.tryReferences},
		{"objects that fail", e.tryFaults},
		{"a port of nodes by hostPort", e.tryHostPort},
		{"the operator's streams", e.tryStreams},
	}
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			l.during(t, func() {
				a.try(t)
				e.checkChangesArrive(t)
			})
		})
	}
}

func TestTenants(t *testing.T) {
	testTenant(t, install(t), true)
}

// onlyApplication returns the name of the only application of Blixt.
func onlyApplication(t *testing.T) string {
	t.Helper()
	out, err := c.Kubectl(t.Context(), "get", "clusterbpfapplications", "--output=jsonpath={.items[*].metadata.name}")
	if names := strings.Fields(out); err == nil && len(names) == 1 {
		return names[0]
	}
	t.Fatalf("applications %q, %v, want one", out, err)
	return ""
}
