// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"net"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// isAnswered sends a datagram, and returns an error if nothing comes back soon.
func isAnswered(udp net.Conn) error {
	if err := udp.SetDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		return err
	}
	if _, err := udp.Write([]byte("after")); err != nil {
		return err
	}
	_, err := udp.Read(make([]byte, 1500))
	return err
}

// TestRenumberedHost takes away the address that flows have as their source. A client
// of UDP that never stops is answered again within two seconds, and a connection of
// TCP goes on when the address is back.
func TestRenumberedHost(t *testing.T) {
	w := labtest.New(t, "renumber", 1, 0)
	w.StartBlixt(labtest.ConfigOf(map[int][]lab.Endpoint{80: lab.Endpoints(8080, w.Backends[0])}), "eth0", "eth1")
	for _, family := range []struct {
		version    int
		own, other string
	}{{4, lab.Inside4 + "/24", "10.77.0.99/24"}, {6, lab.Inside6 + "/64", "fd77::99/64"}} {
		udp := w.Dial(w.Client, "udp", labtest.VIP(family.version, 80))
		tcp := w.Dial(w.Client, "tcp", labtest.VIP(family.version, 80))
		w.Ask(udp, "before")
		w.Ask(tcp, "before")

		answered := func() error { return isAnswered(udp) }
		w.Balancer.IP("addr del "+family.own+" dev eth1", "addr add "+family.other+" dev eth1 nodad")
		w.Backends[0].IP("neigh flush dev eth0") // it would send to the previous address for a while
		w.Check(w.Balancer.Err())
		changed := time.Now()
		w.Check(lab.Eventually(labtest.Patience, answered))
		if took := time.Since(changed); took > labtest.Seconds(3) {
			t.Errorf("IPv%d: UDP was answered again after %s", family.version, took)
		}

		w.Balancer.IP("addr del "+family.other+" dev eth1", "addr add "+family.own+" dev eth1 nodad")
		w.Backends[0].IP("neigh flush dev eth0")
		w.Check(w.Balancer.Err())
		w.Ask(tcp, "after")
		w.Check(lab.Eventually(labtest.Patience, answered))
	}
}

// TestAnotherWayToTheBackend takes the link down by which flows reach their backend. A route
// by another one leads there: a client of UDP that never stops is answered again.
func TestAnotherWayToTheBackend(t *testing.T) {
	w := labtest.New(t, "way", 1, 0)
	w.Link(w.Balancer, "eth2", w.Backends[0], "eth1")
	w.Balancer.Addr("eth2", "10.79.0.1/24", "fd79::1/64")
	w.Backends[0].Addr("eth1", "10.79.0.11/24", "fd79::11/64")
	w.StartBlixt(labtest.ConfigOf(map[int][]lab.Endpoint{80: lab.Endpoints(8080, w.Backends[0])}), "eth0", "eth1", "eth2")
	var clients []net.Conn
	for _, version := range []int{4, 6} {
		udp := w.Dial(w.Client, "udp", labtest.VIP(version, 80))
		w.Ask(udp, "before")
		clients = append(clients, udp)
	}
	w.Balancer.IP("link set eth1 down")
	w.Balancer.Route(w.Backends[0].IPv4+"/32 via 10.79.0.11", w.Backends[0].IPv6+"/128 via fd79::11")
	w.Check(w.Balancer.Err())
	changed := time.Now()
	for _, udp := range clients {
		w.Check(lab.Eventually(labtest.Seconds(5), func() error { return isAnswered(udp) }))
	}
	if took := time.Since(changed); took > labtest.Seconds(4) {
		t.Errorf("UDP was answered again after %s", took)
	}
}
