// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/e2e/lib/cluster"
	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
	"github.com/kubernetes-sigs/blixt/operator/observe"
	"github.com/kubernetes-sigs/blixt/operator/observe/dial"
)

// TestHealth has servers fail that Kubernetes calls ready, and groups of servers stand by
// for others.
func TestHealth(t *testing.T) {
	install(t)
	applyUntilEnd(t, "health.yaml", "", "")
	awaitPods(t, "default")
	vips := routeVIPs(t, "health", c.Nodes[0])
	for _, port := range []string{"80", "81", "82"} {
		awaitServers(t, net.JoinHostPort(vips[0], port))
	}
	t.Run("black hole", func(t *testing.T) { testBlackHole(t, vips) })
	t.Run("deaf", func(t *testing.T) { testDeaf(t, vips) })
	t.Run("failover", func(t *testing.T) { testFailover(t, vips[0]) })
}

// testBlackHole has a server's packets vanish: it is ejected within 5 s, and from then on
// no connection fails, whichever node it comes by. When it works again, a trial brings it
// back.
func testBlackHole(t *testing.T, vips []string) {
	const within = 5 * time.Second
	addr := net.JoinHostPort(vips[0], "80")
	hole := podsOf(t, "first")[0]
	crowd := startGuests(t, addr)
	time.Sleep(2 * time.Second)
	began := time.Now()
	inPod(t, hole, "nft", "add table inet hole; add chain inet hole input { type filter hook input priority 0; }; add rule inet hole input tcp dport 8080 drop")
	awaitStates(t, addr, hole.Status.PodIP+":8080", "ejected: in a row not answered")
	t.Logf("all nodes say so %s after the server became a black hole", time.Since(began).Round(time.Millisecond))
	failed := crowd.end(t)
	if len(failed) == 0 {
		t.Fatal("no connection has failed: there was no black hole")
	}
	first, last := failed[0].start, failed[0].start
	for _, g := range failed {
		if g.start.Before(first) {
			first = g.start
		}
		if g.start.After(last) {
			last = g.start
		}
	}
	t.Logf("they began within %s", last.Sub(first).Round(time.Millisecond))
	if first.Before(began) || last.Sub(first) > within {
		t.Errorf("connections failed that began from %s to %s after the server became a black hole, want %s at most", first.Sub(began), last.Sub(began), within)
	}

	routeAddresses(t, vips, c.Nodes[1])
	crowd = startGuests(t, addr)
	time.Sleep(3 * time.Second)
	inPod(t, hole, "nft", "delete table inet hole")
	awaitStates(t, addr, "", "")
	t.Logf("ejected no more %s after the server became a black hole", time.Since(began).Round(time.Millisecond))
	back := time.Now()
	kube.Wait(t, patience, "whether it serves again", true, func() (bool, error) { return crowd.answered(hole.Name, back), nil })
	crowd.endWell(t)
}

// testDeaf adds a server that is ready and does not listen. The agents' checks eject it,
// also where NetworkPolicies are kept.
func testDeaf(t *testing.T, vips []string) {
	keepPolicies(t)
	kubectl(t, "scale", "deployment/deaf", "--replicas=1")
	t.Cleanup(func() {
		if _, err := c.Kubectl(context.Background(), "scale", "deployment/deaf", "--replicas=0"); err != nil {
			t.Error(err)
		}
	})
	awaitPods(t, "default")
	began, deaf := time.Now(), podsOf(t, "deaf")[0]
	for i, ip := range deaf.Status.PodIPs {
		addr := net.JoinHostPort(vips[i], "81")
		awaitStates(t, addr, net.JoinHostPort(ip.IP, "8088"), "ejected: connection refused")
		t.Logf("all nodes say so %s after the pod was ready", time.Since(began).Round(time.Millisecond))
		if got, err := (asker{dial: c.Outside}).ask(t, "tcp", addr, 100); err != nil || len(got) != 3 {
			t.Errorf("connections to %s: %v, %v", addr, got, err)
		}
	}
}

// keepPolicies returns when NetworkPolicies are kept on all nodes, for agents too, until
// the test ends.
func keepPolicies(t *testing.T) {
	t.Helper()
	if err := c.KeepPolicies(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.IgnorePolicies(context.Background()); err != nil {
			t.Error(err)
		}
	})
	for _, m := range c.Nodes {
		kube.Wait(t, patience, "whether "+m.Name+" keeps the agents' NetworkPolicy", true, func() (bool, error) {
			rules, err := m.Exec(t.Context(), "iptables", "-S")
			return strings.Contains(rules, "policy blixt-agent"), err
		})
	}
}

// testFailover scales the servers to zero: others stand by, and no connection fails. When
// there are servers again for long enough they get new connections, and old ones stay.
func testFailover(t *testing.T, vip string) {
	const hold = 5 * time.Second
	crowd := startGuests(t, net.JoinHostPort(vip, "82"))
	time.Sleep(time.Second)
	// serving returns who has served in the last second.
	serving := func() (first, others bool) {
		since := time.Now().Add(-time.Second)
		for _, m := range c.Nodes {
			others = others || crowd.answered(m.Name, since)
		}
		return crowd.answered("first-", since), others
	}
	if first, others := serving(); !first || others {
		t.Errorf("the first servers serve: %v, those that stand by: %v", first, others)
	}
	began := time.Now()
	kubectl(t, "scale", "deployment/first", "--replicas=0")
	kube.Wait(t, patience, "whether servers that stood by serve alone", true, func() (bool, error) {
		first, others := serving()
		return others && !first, nil
	})
	t.Logf("they serve alone %s after the others were told to end", time.Since(began).Round(time.Millisecond))

	l := &load{stop: make(chan struct{})}
	t.Cleanup(l.end)
	for i := range 10 {
		conn, err := c.Outside.Dial("tcp", "", net.JoinHostPort(vip, "8081"), askLimit)
		if err != nil {
			t.Fatal(err)
		}
		l.start(conn, fmt.Sprintf("connection %d", i))
	}
	l.during(t, func() {
		began = time.Now()
		kubectl(t, "scale", "deployment/first", "--replicas=3")
		awaitPods(t, "default")
		ready := time.Now()
		kube.Wait(t, patience, "whether the first servers serve alone again", true, func() (bool, error) {
			first, others := serving()
			if since := time.Since(began); first && since < hold {
				t.Fatalf("they serve again after %s, want %s at least", since, hold)
			}
			return first && !others, nil
		})
		took := time.Since(ready)
		t.Logf("they serve alone again %s after all were ready", took.Round(time.Millisecond))
		if took > hold+5*time.Second {
			t.Errorf("that took %s, want %s and a bit", took, hold)
		}
	})
	crowd.endWell(t)
}

// guest is one connection from outside.
type guest struct {
	start time.Time
	who   string // has answered
	err   error
}

// guests are short connections at a fixed rate, of clients of two networks in turn: of one
// alone a firewall might want nothing.
type guests struct {
	addr    string
	stop    chan struct{}
	once    sync.Once
	running sync.WaitGroup

	mu  sync.Mutex
	all []guest
}

// guestCount is how many there were: so none has the address and port of another.
var guestCount int

func startGuests(t *testing.T, addr string) *guests {
	t.Helper()
	const perSecond, ports = 50, 20000
	nets := []string{"203.0.113", "198.18.0"}
	for _, n := range nets {
		c.Outside.IP("route replace local " + n + ".0/24 dev lo")
	}
	if err := c.Outside.Err(); err != nil {
		t.Fatal(err)
	}
	g := &guests{addr: addr, stop: make(chan struct{})}
	t.Cleanup(g.halt)
	g.running.Go(func() {
		tick := time.NewTicker(time.Second / perSecond)
		defer tick.Stop()
		for {
			select {
			case <-g.stop:
				return
			case <-tick.C:
			}
			n := guestCount
			guestCount++
			from := fmt.Sprintf("%s.%d:%d", nets[n%2], 101+n/ports, 40000+n%ports)
			g.running.Go(func() { g.visit(from) })
		}
	})
	return g
}

func (g *guests) visit(from string) {
	one := guest{start: time.Now()}
	a, err := ask(c.Outside, "tcp", from, g.addr)
	one.who, one.err = a.node, err
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all = append(g.all, one)
}

// answered reports whether a server whose name begins like this has answered somebody who
// came since then.
func (g *guests) answered(who string, since time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, one := range g.all {
		if one.err == nil && strings.HasPrefix(one.who, who) && one.start.After(since) {
			return true
		}
	}
	return false
}

func (g *guests) failed() (failed []guest) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, one := range g.all {
		if one.err != nil {
			failed = append(failed, one)
		}
	}
	return failed
}

func (g *guests) halt() {
	g.once.Do(func() { close(g.stop) })
	g.running.Wait()
}

// end returns the connections that have failed.
func (g *guests) end(t *testing.T) []guest {
	t.Helper()
	g.halt()
	failed := g.failed()
	t.Logf("%d of %d connections failed", len(failed), len(g.all))
	return failed
}

// endWell fails the test if a connection has failed.
func (g *guests) endWell(t *testing.T) {
	t.Helper()
	if failed := g.end(t); len(failed) > 0 {
		t.Errorf("among those that failed: %v", failed[0].err)
	}
}

// podsOf returns the pods of an app, one at least.
func podsOf(t *testing.T, app string) []corev1.Pod {
	t.Helper()
	var list corev1.PodList
	if err := c.Client.List(t.Context(), &list, client.InNamespace("default"), client.MatchingLabels{"app": app}); err != nil || len(list.Items) == 0 {
		t.Fatalf("pods of %s: %v, %v", app, list.Items, err)
	}
	return list.Items
}

// inPod runs a command of the node in the network of a pod of the test's server.
func inPod(t *testing.T, pod corev1.Pod, args ...string) {
	t.Helper()
	var m *cluster.Machine
	for _, n := range c.Nodes {
		if n.Name == pod.Spec.NodeName {
			m = n
		}
	}
	for _, pid := range processes(t, m, "/test server") {
		enter := []string{"nsenter", "--net=/proc/" + pid + "/ns/net", "--"}
		addresses, err := m.Exec(t.Context(), append(enter, "ip", "-oneline", "address")...)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(addresses, " "+pod.Status.PodIP+"/") {
			if _, err := m.Exec(t.Context(), append(enter, args...)...); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("no process of %s on %s", pod.Name, m.Name)
}

// awaitStates waits until all nodes say that one backend of an address is in a state, whose
// end is given after a colon, and all others are serving. "": all are.
func awaitStates(t *testing.T, addr, backend, state string) {
	t.Helper()
	state, why, _ := strings.Cut(state, ": ")
	want := map[string]string{}
	for _, m := range c.Nodes {
		want[m.Name] = ""
		if backend != "" {
			want[m.Name] = backend + " " + state
		}
	}
	kube.Wait(t, patience, "backends of "+addr+" that do not serve", want, func() (map[string]string, error) {
		got := map[string]string{}
		statuses, err := statusOfNodes(t)
		for node, s := range statuses {
			got[node] = "no frontend"
			for _, f := range s.Frontends {
				if f.Frontend != addr+"/tcp" {
					continue
				}
				var states []string
				for _, b := range f.Backends {
					if b.State == state && b.Ejected != nil && strings.HasSuffix(b.Ejected.Why, why) {
						states = append(states, b.Address+" "+b.State)
					} else if b.State != "serving" {
						states = append(states, fmt.Sprint(b.Address, " ", b.State, " ", b.Ejected))
					}
				}
				got[node] = strings.Join(states, ", ")
			}
		}
		return got, err
	})
}

// statusOfNodes asks the agents.
func statusOfNodes(t *testing.T) (map[string]writer.Status, error) {
	t.Helper()
	admin, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err != nil {
		return nil, err
	}
	conn, err := dial.Dial(t.Context(), dial.Target{Config: admin, Namespace: v1alpha1.Namespace})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	all := map[string]writer.Status{}
	err = conn.Ask(t.Context(), observe.Query{Status: &observe.StatusQuery{}}, func(node string, piece json.RawMessage) error {
		var s writer.Status
		if err := json.Unmarshal(piece, &s); err != nil {
			return err
		}
		all[node] = s
		return nil
	})
	return all, err
}
