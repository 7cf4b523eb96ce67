// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"fmt"
	"net"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubernetes-sigs/blixt/e2e/lib/cluster"
	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// narrowMTU is less than that of any other link, and of tunnels.
const narrowMTU = 1400

// farMachine makes a machine outside that is reached by two routers, with a small MTU
// on the link between them.
func farMachine(t *testing.T) *lab.Node {
	t.Helper()
	l, err := lab.New("narrow-" + c.Options.Name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	nodes := []*lab.Node{c.Outside.Node, l.Node("near"), l.Node("distant"), l.Node("beyond")}
	four := func(link, host int) string { return fmt.Sprintf("10.213.%d.%d", link, host) }
	six := func(link, host int) string { return fmt.Sprintf("fd00:213:0:%d::%d", link, host) }
	for link, mtu := range []int{1500, narrowMTU, 1500} {
		a, b, dev := nodes[link], nodes[link+1], fmt.Sprintf("narrow%d", link)
		l.Link(a, dev, b, "home")
		a.IP(fmt.Sprintf("link set %s mtu %d", dev, mtu))
		b.IP(fmt.Sprintf("link set home mtu %d", mtu))
		a.Addr(dev, four(link, 1)+"/24", six(link, 1)+"/64")
		b.Addr("home", four(link, 2)+"/24", six(link, 2)+"/64")
		b.Route("default via "+four(link, 1), "default via "+six(link, 1))
		for further := link + 1; further < 3; further++ {
			a.Route(fmt.Sprintf("%s/24 via %s", four(further, 0), four(link, 2)), fmt.Sprintf("%s/64 via %s", six(further, 0), six(link, 2)))
		}
		b.Forward()
	}
	for _, err := range []error{l.Err(), c.Outside.Err()} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return nodes[3]
}

// testNarrowLinks sends bytes past a link with a small MTU. Whoever is behind Blixt has
// to learn of it by an ICMP error about packets that were translated.
func testNarrowLinks(t *testing.T, application string, addrs map[string][]string) {
	far := farMachine(t)
	for _, ip := range []string{far.IPv4, far.IPv6} {
		ln, err := far.Listen("tcp", net.JoinHostPort(ip, "8080"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ln.Close() })
		go func() { _ = tradeAt(ln) }()
	}
	applyUntilEnd(t, "far.yaml", "", "")
	near := c.Nodes[0]
	var toFar []string
	for _, vip := range routeVIPs(t, "far", near) {
		toFar = append(toFar, net.JoinHostPort(vip, "80"))
	}
	client := asker{name: "beyond", by: near, dial: far}
	pod := asker{name: "a pod on " + near.Name, by: near, pod: podsOn(t, "client")[near.Name]}
	outside := asker{name: "outside", by: near, dial: c.Outside}
	for i := range 2 {
		for _, way := range []struct {
			from     asker
			to, addr string
			counter  string
		}{
			{client, near.Name, addrs[near.Name][i], "icmp_forwarded"},
			{client, c.Nodes[1].Name, addrs[c.Nodes[1].Name][i], "icmp_forwarded"},
			{outside, "beyond", toFar[i], "icmp_replied"},
			{pod, "beyond", toFar[i], "icmp_replied"},
		} {
			// A server that knows the path would tell its clients.
			for _, n := range []*lab.Node{far, c.Outside.Node} {
				forgetPaths(t, n)
			}
			t.Run(fmt.Sprintf("from %s to %s, IPv%d", way.from.name, way.to, 4+2*i), func(t *testing.T) { checkNarrow(t, application, way.from, way.addr, way.counter) })
		}
	}
}

// forgetPaths has a machine forget the MTU of every path.
func forgetPaths(t *testing.T, n *lab.Node) {
	t.Helper()
	for _, family := range []string{"-4", "-6"} {
		if _, err := n.Run(patience, "ip", family, "route", "flush", "cache"); err != nil {
			t.Fatal(err)
		}
	}
}

// checkNarrow exchanges bytes past the narrow link. The program has to count the ICMP
// errors that it passes on.
func checkNarrow(t *testing.T, application string, a asker, addr, counter string) {
	want, before := countFlows(t, application), readCounter(t, application, a.by, counter)
	if err := a.exchange(t, addr, 1<<20); err != nil {
		t.Error(err)
	}
	want[a.by.Name+" "+addr+"/tcp"]++
	if diff := cmp.Diff(want, countFlows(t, application)); diff != "" {
		t.Errorf("new flows that the programs have counted (-want +got):\n%s", diff)
	}
	rose := readCounter(t, application, a.by, counter) - before
	t.Logf("%s rose by %d", counter, rose)
	if rose == 0 {
		t.Errorf("%s of %s did not rise: nobody has learned of the narrow link", counter, a.by.Name)
	}
}

// readCounter reads a counter of the program on a node.
func readCounter(t *testing.T, application string, m *cluster.Machine, counter string) uint64 {
	t.Helper()
	counters := status(t, m, programID(t, m.Name, application)).Counters
	n, ok := counters[counter]
	if !ok {
		t.Fatalf("no counter %s in %v", counter, counters)
	}
	return n
}
