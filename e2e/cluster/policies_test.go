// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// The machine outside has these addresses too, from which somebody comes who is not wanted.
const unwanted4, unwanted6 = "10.210.0.201", "fd00:210::201"

const (
	unwanted = unwanted4 + "/32, " + unwanted6 + "/128"
	nobody   = "192.0.2.0/24" // of the policy while it denies nobody who comes
)

// TestPolicies restricts a Gateway under load. Whoever is denied loses connections within a
// second and gets no others; all others lose nothing, whatever happens to policies and to the
// operator.
func TestPolicies(t *testing.T) {
	install(t)
	applyUntilEnd(t, "balanced.yaml", "", "")
	t.Cleanup(func() { deleteFile(t, "policies.yaml", "DENIED", nobody) })
	vips := routeVIPs(t, "balanced", c.Nodes[0])
	c.Outside.IP("addr replace "+unwanted4+"/24 dev eth0", "addr replace "+unwanted6+"/64 dev eth0 nodad preferred_lft 0") // nobody else's source
	t.Cleanup(func() {
		c.Outside.IP("addr del "+unwanted4+"/24 dev eth0", "addr del "+unwanted6+"/64 dev eth0")
	})
	l := startLoad(t, vips)
	t.Cleanup(l.end)

	t.Run("deny", func(t *testing.T) {
		lost := startUnwanted(t, vips)
		l.during(t, func() {
			began := deny(t, unwanted)
			for _, f := range lost {
				if took := f.broken(t).Sub(began); took > 2*time.Second {
					t.Errorf("%s lasted for %s", f.name, took)
				} else {
					t.Logf("%s ended after %s", f.name, took.Round(time.Millisecond))
				}
			}
			checkRefused(t, vips)
		})
		awaitEnforced(t)
		awaitAffected(t, "default/office")
	})
	t.Run("operator deleted", func(t *testing.T) {
		l.during(t, func() {
			kubectl(t, "--namespace="+system, "delete", "pods", "--selector=app.kubernetes.io/component=operator")
			checkRefused(t, vips)
			awaitPods(t, system)
			checkRefused(t, vips)
		})
		awaitEnforced(t)
		checkRefused(t, vips)
	})
	t.Run("other networks", func(t *testing.T) {
		l.during(t, func() {
			began := deny(t, nobody)
			awaitAdmitted(t, vips)
			t.Logf("served after %s", time.Since(began).Round(time.Millisecond))
			deny(t, unwanted)
			awaitRefusal(t, vips)
		})
	})
	t.Run("deleted", func(t *testing.T) {
		l.during(t, func() {
			deleteFile(t, "policies.yaml", "DENIED", nobody)
			awaitAdmitted(t, vips)
		})
		awaitAffected(t, "")
	})
	t.Run("limits", func(t *testing.T) { testLimits(t, vips, l) })
}

// testLimits checks that one client gets as many connections in a while as the policy says,
// by the one node that it comes in by, and that the others of the load lose nothing.
func testLimits(t *testing.T, vips []string, l *load) {
	const perSecond, burst = 5, 10
	limit := fmt.Sprintf(`{apiVersion: blixt.x-k8s.io/v1alpha1, kind: BlixtPolicy, metadata: {name: office, namespace: default}, spec: {
  targetRefs: [{group: gateway.networking.k8s.io, kind: TCPRoute, name: balanced}],
  limits: {perSource: {newPerSecond: %d, burst: %d}, action: Reset}}}`, perSecond, burst)
	l.during(t, func() {
		if err := c.ApplyYAML(t.Context(), []byte(limit)); err != nil {
			t.Fatal(err)
		}
		awaitEnforced(t)
		for i, vip := range vips {
			start, served := time.Now(), 0
			for range 60 {
				if err := connectUnwanted(i, vip, "80"); err == nil {
					served++
				} else if !errors.Is(err, syscall.ECONNREFUSED) {
					t.Errorf("a connection to %s: %v", vip, err)
				}
			}
			took := time.Since(start)
			// What came before the first of these may have emptied the bucket in part.
			most := burst + int(took.Seconds()*perSecond) + 1
			if served < 1 || served > most {
				t.Errorf("%d of 60 connections to %s in %s, want at most %d", served, vip, took, most)
			}
			t.Logf("%d of 60 connections to %s in %s", served, vip, took.Round(time.Millisecond))
		}
	})
}

// deny makes the policy deny networks, and returns when that was asked for.
func deny(t *testing.T, networks string) time.Time {
	t.Helper()
	text, err := os.ReadFile("testdata/policies.yaml")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := c.ApplyYAML(t.Context(), []byte(strings.ReplaceAll(string(text), "DENIED", networks))); err != nil {
		t.Fatal(err)
	}
	return began
}

// connectUnwanted connects to the i-th address from that of its family that nobody wants.
func connectUnwanted(i int, vip, port string) error {
	conn, err := c.Outside.Dial("tcp", net.JoinHostPort([]string{unwanted4, unwanted6}[i], "0"), net.JoinHostPort(vip, port), 3*time.Second)
	if err == nil {
		_ = conn.(*net.TCPConn).SetLinger(0)
		_ = conn.Close()
	}
	return err
}

// checkRefused checks that nobody unwanted gets a connection, of either family, at any port.
func checkRefused(t *testing.T, vips []string) {
	t.Helper()
	for i, vip := range vips {
		for _, port := range []string{"80", "8081"} {
			if err := connectUnwanted(i, vip, port); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("a connection to %s port %s: %v", vip, port, err)
			}
		}
	}
}

func awaitAdmitted(t *testing.T, vips []string) {
	t.Helper()
	awaitUnwanted(t, vips, "served", func(err error) bool { return err == nil })
}

func awaitRefusal(t *testing.T, vips []string) {
	t.Helper()
	awaitUnwanted(t, vips, "refused", func(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) })
}

func awaitUnwanted(t *testing.T, vips []string, what string, is func(error) bool) {
	t.Helper()
	for i, vip := range vips {
		kube.Wait(t, patience, "whether who was unwanted is "+what+" at "+vip, true, func() (bool, error) {
			return is(connectUnwanted(i, vip, "80")), nil
		})
	}
}

// A keptConnection asks until it breaks.
type keptConnection struct {
	name string
	mu   sync.Mutex
	at   time.Time
	err  error
}

// startUnwanted opens connections of clients that will be denied.
func startUnwanted(t *testing.T, vips []string) (all []*keptConnection) {
	t.Helper()
	for i, vip := range vips {
		for n := range 3 {
			conn, err := c.Outside.Dial("tcp", net.JoinHostPort([]string{unwanted4, unwanted6}[i], "0"), net.JoinHostPort(vip, "8081"), 3*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			k := &keptConnection{name: fmt.Sprintf("unwanted connection %d to %s", n, vip)}
			all = append(all, k)
			t.Cleanup(func() { _ = conn.Close() })
			go func() {
				for {
					if err := echo(conn, 10*time.Second); err != nil {
						k.mu.Lock()
						defer k.mu.Unlock()
						k.at, k.err = time.Now(), err
						return
					}
					time.Sleep(20 * time.Millisecond)
				}
			}()
		}
	}
	return all
}

// broken waits until the connection is reset, and returns when.
func (k *keptConnection) broken(t *testing.T) (at time.Time) {
	t.Helper()
	kube.Wait(t, patience, "whether "+k.name+" is reset", true, func() (bool, error) {
		k.mu.Lock()
		defer k.mu.Unlock()
		at = k.at
		if k.err != nil && !errors.Is(k.err, syscall.ECONNRESET) {
			t.Fatalf("%s: %v", k.name, k.err)
		}
		return k.err != nil, nil
	})
	return at
}

// awaitEnforced waits until the policy says that all nodes enforce it.
func awaitEnforced(t *testing.T) {
	t.Helper()
	p := &v1alpha1.BlixtPolicy{}
	kube.Wait(t, patience, "whether the policy is enforced", true, func() (bool, error) {
		if err := c.Client.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "office"}, p); err != nil || len(p.Status.Ancestors) == 0 {
			return false, err
		}
		programmed := meta.FindStatusCondition(p.Status.Ancestors[0].Conditions, v1alpha1.PolicyProgrammed)
		if programmed == nil {
			return false, fmt.Errorf("conditions %+v", p.Status.Ancestors[0].Conditions)
		}
		is := programmed.ObservedGeneration == p.Generation && programmed.Status == metav1.ConditionTrue && strings.Contains(programmed.Message, "All nodes serve it.")
		if is {
			return true, nil
		}
		return false, fmt.Errorf("generation %d, %+v", p.Generation, programmed)
	})
}

// awaitAffected waits until the Gateway says which policies concern it.
func awaitAffected(t *testing.T, want string) {
	t.Helper()
	gw := &gwv1.Gateway{}
	kube.Wait(t, patience, "which policies concern the Gateway", want, func() (string, error) {
		err := c.Client.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "balanced"}, gw)
		got := ""
		if is := meta.FindStatusCondition(gw.Status.Conditions, v1alpha1.PolicyAffected); is != nil && is.Status == metav1.ConditionTrue {
			got = strings.TrimSuffix(is.Message, ".")
		}
		return got, err
	})
}
