// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"flag"
	"fmt"
	"net"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

var large = flag.Bool("large", false, "have every transfer be of 1 GiB")

// trade exchanges bytes with every client. The client reports errors.
func trade() error {
	l, err := net.Listen("tcp", ":8080")
	if err != nil {
		return err
	}
	return tradeAt(l)
}

func tradeAt(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			_ = lab.Exchange(conn, 0)
			_ = conn.Close()
		}()
	}
}

// transfer exchanges bytes from a pod. Its arguments are the source port, the address
// and the number of bytes.
func transfer() error {
	size, err := strconv.Atoi(os.Args[4])
	if err == nil {
		err = exchange(here{}, os.Args[2], os.Args[3], size)
	}
	if err != nil {
		return err
	}
	os.Exit(0)
	return nil
}

func exchange(from dialer, port, addr string, size int) error {
	conn, err := from.Dial("tcp", port, addr, patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * patience)); err != nil {
		return err
	}
	return lab.Exchange(conn, size)
}

// exchange sends so many bytes each way, from a source port that no remembered flow
// has.
func (a asker) exchange(t *testing.T, addr string, size int) error {
	port++
	from := fmt.Sprintf(":%d", port)
	if a.pod == "" {
		return exchange(a.dial, from, addr, size)
	}
	_, err := c.Kubectl(t.Context(), "exec", a.pod, "--", "/test", "transfer", from, addr, fmt.Sprint(size))
	return err
}

// testTransfers sends bytes, many at once and past narrow links: they have to arrive
// whole.
func testTransfers(t *testing.T, application string) {
	for _, m := range c.Nodes {
		applyUntilEnd(t, "trader.yaml", "NODE", m.Name)
	}
	awaitPods(t, "default")
	addrs := map[string][]string{} // by node of the server
	for _, m := range c.Nodes {
		for _, vip := range routeVIPs(t, "trader-"+m.Name, c.Nodes[0]) {
			addrs[m.Name] = append(addrs[m.Name], net.JoinHostPort(vip, "80"))
		}
	}
	t.Run("large", func(t *testing.T) { testLargeTransfers(t, application, addrs) })
	t.Run("narrow links", func(t *testing.T) { testNarrowLinks(t, application, addrs) })
}

// testLargeTransfers sends bytes from outside and from a pod, to a server of the same
// node and to one of another.
func testLargeTransfers(t *testing.T, application string, addrs map[string][]string) {
	near := c.Nodes[0]
	for _, a := range []asker{
		{name: "outside", by: near, dial: c.Outside},
		{name: "a pod on " + near.Name, by: near, pod: podsOn(t, "client")[near.Name]},
	} {
		for _, m := range c.Nodes {
			for i, addr := range addrs[m.Name] {
				size := 64 << 20
				// These two are the hardest: another node, in both families.
				if *large || m != near && (a.pod == "") == (i == 0) {
					size = 1 << 30
				}
				t.Run(fmt.Sprintf("from %s to %s, IPv%d", a.name, m.Name, 4+2*i), func(t *testing.T) {
					want := countFlows(t, application)
					start := time.Now()
					if err := a.exchange(t, addr, size); err != nil {
						t.Fatal(err)
					}
					took := time.Since(start)
					t.Logf("%d MiB each way in %.1f s, %.0f MB/s", size>>20, took.Seconds(), 2*float64(size)/1e6/took.Seconds())
					want[a.by.Name+" "+addr+"/tcp"]++
					if diff := cmp.Diff(want, countFlows(t, application)); diff != "" {
						t.Errorf("new flows that the programs have counted (-want +got):\n%s", diff)
					}
				})
			}
		}
	}
}
