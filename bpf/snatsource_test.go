// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"net/netip"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// A node that has routes but no addresses: the kernel knows no source.
var labWithoutAddresses = sync.OnceValues(func() (*lab, error) {
	return newLab(func(l *lab) error {
		if err := l.device(outside); err != nil {
			return err
		}
		for _, family := range []string{"ipv4", "ipv6"} {
			if err := sysctl(family+"/conf/all/forwarding", "1"); err != nil {
				return err
			}
		}
		for _, dst := range []string{"198.51.100.0/24", "2001:db8:c::/48"} {
			if err := l.route(outside, routeSpec{dst: dst}); err != nil {
				return err
			}
		}
		if err := l.device(inside); err != nil {
			return err
		}
		for _, dst := range []string{"10.1.0.0/24", "fd00:1::/64"} {
			if err := l.route(inside, routeSpec{dst: dst}); err != nil {
				return err
			}
		}
		return nil
	})
})

func TestSource(t *testing.T) {
	bare, err := labWithoutAddresses()
	if err != nil {
		t.Fatal(err)
	}
	c := cases{}
	forEachProtocol(c, "node without an address", func(l *lb, ip ipVersion, proto uint8) {
		l.lab = bare
		l.serve(ip, proto, remote)
		l.ingress(outside, opening(proto, ip.client, port(ip.vip, "80"))).dropped("drop_no_source")
		l.egressHost(outside, opening(proto, ip.client, port(ip.vip, "80"))).dropped("drop_no_source")
	})
	forEachProtocol(c, "node without an address but the configured one", func(l *lb, ip ipVersion, proto uint8) {
		l.lab = bare
		l.serve(ip, proto, remote)
		configured := BlixtConfig{SnatMin: snatMin, SnatMax: snatMax, Node4: addrOf(netip.MustParseAddr("192.0.2.77")),
			Node6: addrOf(netip.MustParseAddr("2001:db8::77"))}
		l.must(l.BlixtLayout2.Put(uint32(0), configured))
		in := opening(proto, ip.client, port(ip.vip, "80"))
		source := map[string]string{"IPv4": "192.0.2.77", "IPv6": "2001:db8::77"}[ip.name]
		l.ingress(outside, in).redirected(in.snat(source, 0).to(ip.remote).hop(), "flow_new forwarded")
	})
	c["the configured source is for nodes that have none"] = func(l *lb) {
		ip := ipVersions[0]
		l.serve(ip, unix.IPPROTO_TCP, remote)
		l.must(l.BlixtLayout2.Put(uint32(0), BlixtConfig{SnatMin: snatMin, SnatMax: snatMax, Node4: addrOf(netip.MustParseAddr("192.0.2.77"))}))
		in := opening(unix.IPPROTO_TCP, ip.client, port(ip.vip, "80"))
		l.ingress(outside, in).redirected(in.snat(ip.nodeIn, 0).to(ip.remote).hop(), "flow_new forwarded")
	}
	c.run(t)
}
