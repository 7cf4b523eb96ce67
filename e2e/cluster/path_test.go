// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/e2e/lib/cluster"
)

// asker is a place that connections come from.
type asker struct {
	name string
	// by is the machine whose program sees the packets first.
	by *cluster.Machine
	// pod is the name of the pod that asks. Without a pod dial does.
	pod  string
	dial dialer
}

// ask asks n times, from source ports that no remembered flow has.
func (a asker) ask(t *testing.T, network, addr string, n int) (map[answer]int, error) {
	t.Helper()
	return a.askFrom(t, ports(n), network, addr, n)
}

// ports reserves n source ports and returns the first.
func ports(n int) int {
	first := port + 1
	port += n
	return first
}

// portsOfBlixt reserves source ports of Blixt's SNAT range, which clients may use as
// well.
func portsOfBlixt() func(n int) int {
	next := 11000
	return func(n int) int {
		next += n
		return next - n
	}
}

// askFrom asks n times, from consecutive source ports.
func (a asker) askFrom(t *testing.T, first int, network, addr string, n int) (got map[answer]int, err error) {
	t.Helper()
	got = map[answer]int{}
	if a.pod != "" {
		out, err := c.Kubectl(t.Context(), "exec", a.pod, "--", "/test", "client", network, addr, fmt.Sprint(first), fmt.Sprint(n))
		for line := range strings.Lines(out) {
			var who answer
			if _, err := fmt.Sscan(line, &who.node, &who.sees); err != nil {
				return got, err
			}
			got[who]++
		}
		return got, err
	}
	for ; n > 0; n-- {
		who, err := ask(a.dial, network, fmt.Sprintf(":%d", first), addr)
		if err != nil {
			return got, fmt.Errorf("from port %d: %w", first, err)
		}
		got[who]++
		first++
	}
	return got, nil
}

// podsOn returns the pods of an app by node.
func podsOn(t *testing.T, app string) map[string]string {
	t.Helper()
	var list corev1.PodList
	if err := c.Client.List(t.Context(), &list, client.InNamespace("default"), client.MatchingLabels{"app": app}); err != nil {
		t.Fatal(err)
	}
	pods := map[string]string{}
	for _, p := range list.Items {
		pods[p.Spec.NodeName] = p.Name
	}
	return pods
}

// countFlows returns the new flows that the programs have counted, by node and
// frontend.
func countFlows(t *testing.T, application string) map[string]uint64 {
	t.Helper()
	counted := map[string]uint64{}
	for _, m := range c.Nodes {
		for _, f := range status(t, m, programID(t, m.Name, application)).Frontends {
			counted[m.Name+" "+f.Frontend] = f.NewFlows
		}
	}
	return counted
}

// way leads from an asker to an address of a Gateway.
type way struct {
	asker
	network, addr string
}

// ways returns all ways, by each protocol and family.
func ways(t *testing.T, vips []string) (all []way) {
	t.Helper()
	servers, clients := podsOn(t, "server"), podsOn(t, "client")
	askers := []asker{{name: "outside", by: c.Nodes[0], dial: c.Outside}}
	for _, m := range c.Nodes {
		askers = append(askers,
			asker{name: m.Name, by: m, dial: m},
			asker{name: "a pod on " + m.Name, by: m, pod: clients[m.Name]},
			asker{name: "a server on " + m.Name + " itself", by: m, pod: servers[m.Name]})
	}
	for _, a := range askers {
		for _, vip := range vips {
			for _, network := range []string{"tcp", "udp"} {
				all = append(all, way{a, network, net.JoinHostPort(vip, "80")})
			}
		}
	}
	return all
}

// vip returns the address without the port.
func (w way) vip() netip.Addr { return netip.MustParseAddrPort(w.addr).Addr() }

func (w way) String() string {
	family := "6"
	if w.vip().Is4() {
		family = "4"
	}
	return w.network + family + " from " + w.name
}

// sees returns the client that a server sees, unless kube-proxy has balanced the
// connection.
func (w way) sees(node string, to balancer) string {
	local, own4, own6 := w.vip().String(), w.by.IPv4, w.by.IPv6
	if c.Options.Overlay {
		own4, own6 = c.TunnelAddresses(w.by)
	}
	pick := func(ipv4, ipv6 string) string {
		if w.vip().Is4() {
			return ipv4
		}
		return ipv6
	}
	switch {
	case node != w.by.Name:
		return pick(own4, own6)
	case w.name == "outside":
		return pick(cluster.Outside4, cluster.Outside6)
	case w.pod != "" && to == byBlixtAtBridge:
		return pick(c.BridgeAddresses(w.by))
	}
	return local
}

// outcome is the result of connections that went one way.
type outcome struct {
	way
	asked   int
	answers map[answer]int
	err     error
	// before and after are the programs' counters.
	before, after map[string]uint64
}

// connect sends n connections, from consecutive source ports.
func (w way) connect(t *testing.T, application string, first, n int) outcome {
	t.Helper()
	o := outcome{way: w, asked: n, before: countFlows(t, application)}
	o.answers, o.err = w.askFrom(t, first, w.network, w.addr, n)
	o.after = countFlows(t, application)
	return o
}

// answerError returns "" if servers on every node have given all answers, or what is
// wrong.
func (o outcome) answerError() string {
	nodes := map[string]bool{}
	n := 0
	for who, times := range o.answers {
		nodes[who.node] = true
		n += times
	}
	if o.err != nil || n != o.asked || len(nodes) != len(c.Nodes) {
		return fmt.Sprintf("answers %v, %v; want %d, some of each node", o.answers, o.err, o.asked)
	}
	return ""
}

// countError returns "" if the program that is to balance the connections has counted
// them, and no other has, or how the counters differ.
func (o outcome) countError(to balancer) string {
	want := maps.Clone(o.before)
	if to != byKubeProxy || o.name == "outside" {
		want[o.by.Name+" "+o.addr+"/"+o.network] += uint64(o.asked)
	}
	if diff := cmp.Diff(want, o.after); diff != "" {
		return "new flows that the programs have counted (-want +got):\n" + diff
	}
	return ""
}

// clientError returns "" if servers have seen the right clients, or how they differ.
func (o outcome) clientError(to balancer) string {
	if to == byKubeProxy && o.name != "outside" {
		return ""
	}
	want := map[answer]int{}
	for who, times := range o.answers {
		want[answer{who.node, o.sees(who.node, to)}] += times
	}
	if diff := cmp.Diff(want, o.answers, cmp.AllowUnexported(answer{})); diff != "" {
		return "whom servers have seen (-want +got):\n" + diff
	}
	return ""
}

// balancer balances the connections of pods and nodes.
type balancer int

const (
	byKubeProxy balancer = iota
	byBlixt
	byBlixtAtBridge
)

// checkPaths connects by all ways, from source ports of this kind. The servers of every
// node have to answer, and the balancer's counters have to rise.
func checkPaths(t *testing.T, application string, vips []string, to balancer, ports func(n int) int) {
	t.Helper()
	var all []outcome
	for _, w := range ways(t, vips) {
		t.Run(w.String(), func(t *testing.T) {
			const n = 20
			o := w.connect(t, application, ports(n), n)
			all = append(all, o)
			o.check(t, to)
		})
	}
	logOutcomes(t, all)
}

// checkPath connects by one way.
func checkPath(t *testing.T, application string, a asker, network, addr string) {
	t.Helper()
	const n = 20
	w := way{a, network, addr}
	w.connect(t, application, ports(n), n).check(t, byBlixt)
}

func (o outcome) check(t *testing.T, to balancer) {
	t.Helper()
	for _, wrong := range []string{o.answerError(), o.countError(to), o.clientError(to)} {
		if wrong != "" {
			t.Errorf("%s to %s: %s", o.way, o.addr, wrong)
		}
	}
}

// logOutcomes logs a table of what was asked, answered and counted.
func logOutcomes(t *testing.T, all []outcome) {
	t.Helper()
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	head := []string{"WAY", "ASKED", "COUNTED"}
	for _, m := range c.Nodes {
		head = append(head, strings.ToUpper(m.Name)+" ANSWERED")
	}
	fmt.Fprintln(w, strings.Join(head, "\t"))
	for _, o := range all {
		counted, by := uint64(0), map[string]int{}
		for at, n := range o.after {
			counted += n - o.before[at]
		}
		for who, times := range o.answers {
			by[who.node] += times
		}
		fmt.Fprintf(w, "%s\t%d\t%d", o.way, o.asked, counted)
		for _, m := range c.Nodes {
			fmt.Fprintf(w, "\t%d", by[m.Name])
		}
		fmt.Fprintln(w)
	}
	_ = w.Flush() // a write to memory
	t.Log("\n" + text.String())
}

// testTakenPorts asks by kube-proxy, while Blixt has many connections to the same
// servers. kube-proxy chooses ports for masquerading that Blixt has already, for about
// one connection in thirty.
func testTakenPorts(t *testing.T, vip string) {
	addr := net.JoinHostPort(vip, "80")
	for range 4000 {
		conn, err := c.Outside.Dial("tcp", "", addr, patience)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	const n = 1000
	a := asker{name: "a pod", pod: podsOn(t, "client")[c.Nodes[0].Name]}
	got, err := a.ask(t, "tcp", addr, n)
	if o := (outcome{asked: n, answers: got, err: err}); o.answerError() != "" {
		t.Error(o.answerError())
	}
}

// testMasquerading connects by all ways while pods' packets are masqueraded where they
// leave the pod network.
func testMasquerading(t *testing.T, application string, vips []string) {
	if err := c.Masquerade(true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Masquerade(false); err != nil {
			t.Error(err)
		}
	})
	checkPaths(t, application, vips, byBlixt, ports)
}
