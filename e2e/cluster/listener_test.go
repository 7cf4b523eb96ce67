// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
)

// testListeners serves a Gateway with as many listeners as it may have.
func testListeners(t *testing.T, application string) {
	var all []string
	for i := range 64 {
		all = append(all, fmt.Sprintf("{name: l%d, protocol: TCP, port: %d}", i, 9000+i))
	}
	applyUntilEnd(t, "many.yaml", "LISTENERS", strings.Join(all, ", "))
	vip := routeVIPs(t, "many", c.Nodes[0])[1]
	want := countFlows(t, application)
	for i := range all {
		addr := net.JoinHostPort(vip, fmt.Sprint(9000+i))
		if _, err := (asker{dial: c.Outside}).ask(t, "tcp", addr, 2); err != nil {
			t.Errorf("listener %d: %v", i, err)
		}
		want["node-1 "+addr+"/tcp"] += 2
	}
	if diff := cmp.Diff(want, countFlows(t, application)); diff != "" {
		t.Errorf("new flows that the programs have counted (-want +got):\n%s", diff)
	}
}

// testListenerSets adds and removes ListenerSets of one Gateway. That harms no
// connection to other listeners.
func testListenerSets(t *testing.T, application string) {
	const n = 20
	parents := []string{"{name: sets}"}
	for i := range n + 1 {
		parents = append(parents, fmt.Sprintf("{kind: ListenerSet, name: %s}", newSet(i).Name))
	}
	applyUntilEnd(t, "sets.yaml", "PARENTS", strings.Join(parents, ", "))
	var sets []*gwv1.ListenerSet
	for i := range n {
		sets = append(sets, createUntilEnd(t, newSet(i)))
	}
	awaitListenerSets(t, sets)
	s := &sessions{vip: routeVIPs(t, "sets", c.Nodes[0])[0], conns: map[string][]net.Conn{}, want: nonzeroFlows(t, application)}
	for _, set := range sets {
		s.open(t, set)
	}
	s.alive(t, application)

	sets = append(sets, createUntilEnd(t, newSet(n)))
	awaitListenerSets(t, sets)
	s.alive(t, application)
	s.open(t, sets[n])
	s.alive(t, application)

	gone := sets[7]
	sets = slices.Delete(sets, 7, 8)
	if err := c.Client.Delete(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	for i, l := range gone.Spec.Listeners {
		awaitRefused(t, s.addr(l))
		if err := echo(s.conns[gone.Name][i], patience); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("connection to listener %s, which is gone: %v, want %v", l.Name, err, syscall.ECONNRESET)
		}
		delete(s.want, "node-1 "+s.addr(l)+"/tcp")
	}
	delete(s.conns, gone.Name)
	awaitListenerSets(t, sets)
	s.alive(t, application)
}

// sessions are connections, one to each listener of ListenerSets.
type sessions struct {
	vip   string
	conns map[string][]net.Conn // by ListenerSet
	want  map[string]uint64     // flows that the programs should have counted
}

func (s *sessions) addr(l gwv1.ListenerEntry) string {
	return net.JoinHostPort(s.vip, fmt.Sprint(l.Port))
}

func (s *sessions) open(t *testing.T, set *gwv1.ListenerSet) {
	t.Helper()
	for _, l := range set.Spec.Listeners {
		port++
		conn, err := c.Outside.Dial("tcp", fmt.Sprintf(":%d", port), s.addr(l), patience)
		if err != nil {
			t.Fatalf("listener %s of %s: %v", l.Name, set.Name, err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		s.conns[set.Name] = append(s.conns[set.Name], conn)
		s.want["node-1 "+s.addr(l)+"/tcp"]++
	}
}

// alive sends something on each connection, and compares the programs' counters.
func (s *sessions) alive(t *testing.T, application string) {
	t.Helper()
	for _, set := range slices.Sorted(maps.Keys(s.conns)) {
		for i, conn := range s.conns[set] {
			if err := echo(conn, patience); err != nil {
				t.Errorf("connection to listener %d of %s: %v", i, set, err)
			}
		}
	}
	if diff := cmp.Diff(s.want, nonzeroFlows(t, application)); diff != "" {
		t.Errorf("new flows that the programs have counted (-want +got):\n%s", diff)
	}
}

// nonzeroFlows is countFlows without the frontends that have had none.
func nonzeroFlows(t *testing.T, application string) map[string]uint64 {
	t.Helper()
	counted := countFlows(t, application)
	maps.DeleteFunc(counted, func(_ string, n uint64) bool { return n == 0 })
	return counted
}

// newSet returns the n-th of the ListenerSets, of ten ports.
func newSet(n int) *gwv1.ListenerSet {
	set := &gwv1.ListenerSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("set-%02d", n)}}
	set.Spec.ParentRef.Name = "sets"
	for i := range 10 {
		set.Spec.Listeners = append(set.Spec.Listeners, gwv1.ListenerEntry{
			Name: gwv1.SectionName(fmt.Sprintf("l%d", i)), Protocol: gwv1.TCPProtocolType, Port: gwv1.PortNumber(10000 + 10*n + i)})
	}
	return set
}

// createUntilEnd creates a ListenerSet and deletes it when the test ends.
func createUntilEnd(t *testing.T, set *gwv1.ListenerSet) *gwv1.ListenerSet {
	t.Helper()
	if err := c.Client.Create(t.Context(), set); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Client.Delete(context.Background(), set); client.IgnoreNotFound(err) != nil {
			t.Error(err)
		}
	})
	return set
}

// awaitListenerSets waits until these ListenerSets, and no others, report that they are
// served and have a route at every listener, and the Gateway reports their number.
func awaitListenerSets(t *testing.T, sets []*gwv1.ListenerSet) {
	t.Helper()
	want := map[string]string{"Gateway": fmt.Sprint(len(sets))}
	for _, set := range sets {
		want[set.Name] = "Accepted=true Programmed=true, 10 listeners served with a route"
	}
	kube.Wait(t, patience, "ListenerSets", want, func() (map[string]string, error) {
		gw, list := &gwv1.Gateway{}, &gwv1.ListenerSetList{}
		err := errors.Join(c.Client.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "sets"}, gw),
			c.Client.List(t.Context(), list, client.InNamespace("default")))
		got := map[string]string{}
		if gw.Status.AttachedListenerSets != nil {
			got["Gateway"] = fmt.Sprint(*gw.Status.AttachedListenerSets)
		}
		for _, set := range list.Items {
			served := 0
			for _, l := range set.Status.Listeners {
				if meta.IsStatusConditionTrue(l.Conditions, "Programmed") && l.AttachedRoutes == 1 {
					served++
				}
			}
			var conditions []string
			for _, kind := range []string{"Accepted", "Programmed"} {
				conditions = append(conditions, fmt.Sprintf("%s=%t", kind, meta.IsStatusConditionTrue(set.Status.Conditions, kind)))
			}
			got[set.Name] = fmt.Sprintf("%s, %d listeners served with a route", strings.Join(conditions, " "), served)
		}
		return got, err
	})
}
