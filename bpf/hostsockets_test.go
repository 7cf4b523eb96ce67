// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A socket of the lab's host.
type hostSocket struct {
	l  *lb
	fd int
}

// socketOptions say how a socket differs from one that is bound to an address
// and listens, which a datagram socket does at once.
type socketOptions struct {
	device   string // that it is bound to
	peer     string // that it is connected to
	shares   bool   // its port with others (SO_REUSEPORT)
	silent   bool   // it does not listen
	onlyIPv6 bool
}

// socket opens a socket that is bound to an address.
func (l *lb) socket(protocol uint8, addr string, o socketOptions) hostSocket {
	l.Helper()
	domain, kind := unix.AF_INET, unix.SOCK_STREAM
	if ap(addr).Addr().Is6() {
		domain = unix.AF_INET6
	}
	if protocol == unix.IPPROTO_UDP {
		kind = unix.SOCK_DGRAM
	}
	s := hostSocket{l: l}
	l.lab.do(func() {
		var err error
		s.fd, err = unix.Socket(domain, kind, 0)
		l.must(err)
		l.must(unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
		if domain == unix.AF_INET6 {
			only := 0
			if o.onlyIPv6 {
				only = 1
			}
			l.must(unix.SetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only))
		}
		if o.shares {
			l.must(unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
		}
		if o.device != "" {
			l.must(unix.BindToDevice(s.fd, o.device))
		}
		l.must(unix.Bind(s.fd, sockaddr(addr)))
		if o.peer != "" {
			l.must(unix.Connect(s.fd, sockaddr(o.peer)))
		} else if kind == unix.SOCK_STREAM && !o.silent {
			l.must(unix.Listen(s.fd, 8))
		}
	})
	l.Cleanup(s.close)
	return s
}

func (s *hostSocket) close() {
	if s.fd > 0 {
		_ = unix.Close(s.fd)
	}
	s.fd = 0
}

func sockaddr(addr string) unix.Sockaddr {
	a := ap(addr)
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

func socketName(sa unix.Sockaddr) string {
	if a, ok := sa.(*unix.SockaddrInet4); ok {
		return addrPort(netip.AddrFrom4(a.Addr), a.Port).String()
	}
	a := sa.(*unix.SockaddrInet6)
	return addrPort(netip.AddrFrom16(a.Addr), a.Port).String()
}

// neverAnswers makes packets to an address leave by the device, for nobody's MAC address.
func (l *lb) neverAnswers(dev string, a netip.Addr) {
	l.Helper()
	nobody := net.HardwareAddr{2, 0, 0, 0, 0, 99}
	n := &netlink.Neigh{LinkIndex: int(l.lab.devices[dev]), State: netlink.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: nobody}
	l.lab.do(func() { l.must(netlink.NeighSet(n)) })
	l.Cleanup(func() { l.lab.do(func() { l.must(netlink.NeighDel(n)) }) })
}

// wildcard is the address of sockets that serve all addresses.
func (ip ipVersion) wildcard(p string) string {
	return port(map[string]string{"IPv4": "0.0.0.0", "IPv6": "::"}[ip.name], p)
}

// share writes a frontend on an address of the host itself, and returns it.
func (l *lb) share(ip ipVersion, protocol uint8, p string, ids ...uint32) (frontend string) {
	l.Helper()
	l.serve(ip, protocol, remote)
	l.address(ip.nodeOut, false)
	frontend = port(ip.nodeOut, p)
	l.frontend(1, protocol, frontend, ids...)
	return frontend
}

// wantHostListens checks at which frontend the agent learns that the host listens; "": none.
func (l *lb) wantHostListens(protocol uint8, frontend string) {
	l.Helper()
	var key BlixtFrontendKey
	var tick uint32
	n, it := 0, l.HostListens.Iterate()
	for it.Next(&key, &tick) {
		n++
		want := BlixtFrontendKey{Protocol: protocol}
		if frontend != "" {
			want.Addr, want.Port = addrOf(ap(frontend).Addr()), htons(ap(frontend).Port())
		}
		if key != want {
			l.Errorf("the host listens at %+v, want %q", key, frontend)
		}
		if age := int32(l.tick() - tick); age < 0 || age > 2 {
			l.Errorf("the packet came %d ticks ago", age)
		}
	}
	l.must(it.Err())
	if want := map[bool]int{true: 0, false: 1}[frontend == ""]; n != want {
		l.Errorf("the host listens at %d frontends, want %d", n, want)
	}
}

// Where the host listens on an address that it shares, the host wins; where it
// does not, the frontend.
func TestHostListens(t *testing.T) {
	c := cases{}
	const p = "2222"
	for name, s := range map[string]struct {
		addr    func(ip ipVersion) string
		options socketOptions
		loses   bool
		only    string // a version of IP
	}{
		"its address":             {addr: func(ip ipVersion) string { return port(ip.nodeOut, p) }},
		"all addresses":           {addr: func(ip ipVersion) string { return ip.wildcard(p) }},
		"all of both versions":    {addr: func(ipVersion) string { return port("::", p) }},
		"several sockets":         {addr: func(ip ipVersion) string { return ip.wildcard(p) }, options: socketOptions{shares: true}},
		"the packet's device":     {addr: func(ip ipVersion) string { return ip.wildcard(p) }, options: socketOptions{device: outside}},
		"another device":          {addr: func(ip ipVersion) string { return ip.wildcard(p) }, options: socketOptions{device: inside}, loses: true},
		"another address":         {addr: func(ip ipVersion) string { return port(ip.nodeIn, p) }, loses: true},
		"its loopback address":    {addr: func(ip ipVersion) string { return port(ip.loopback(), p) }, loses: true},
		"another port":            {addr: func(ip ipVersion) string { return ip.wildcard("2223") }, loses: true},
		"all addresses of IPv6":   {addr: func(ipVersion) string { return port("::", p) }, options: socketOptions{onlyIPv6: true}, loses: true, only: "IPv4"},
		"another peer's messages": {addr: func(ip ipVersion) string { return port(ip.nodeOut, p) }, loses: true, only: "UDP"},
	} {
		forEachProtocol(c, "at "+name, func(l *lb, ip ipVersion, proto uint8) {
			if s.only != "" && s.only != ip.name && s.only != protocolName(proto) {
				return
			}
			if s.only == "UDP" {
				s.options.peer = addrPort(ap(ip.client).Addr().Next(), 9).String()
			}
			frontend := l.share(ip, proto, p, remote)
			sock := l.socket(proto, s.addr(ip), s.options)
			if s.options.shares {
				l.socket(proto, s.addr(ip), s.options)
			}
			in := opening(proto, ip.client, frontend)
			served := func() {
				l.Helper()
				l.ingress(outside, in).redirected(in.snat(ip.nodeIn, 0).to(ip.remote).hop(), "flow_new forwarded")
			}
			if s.loses {
				served()
				l.wantHostListens(proto, "")
				return
			}
			l.ingress(outside, in).untouched("host_listens")
			l.wantHostListens(proto, frontend)
			l.ingress(outside, establishing(proto, ip.client, frontend)).untouched("host_listens")
			if proto == unix.IPPROTO_TCP {
				l.ingress(outside, in.segment(rst, 1001, 0, "")).untouched("host_listens")
			}
			l.wantTable(in, "none")
			sock.close()
			if s.options.shares {
				l.ingress(outside, in).untouched("host_listens")
			} else {
				served()
			}
		})
	}
	forEachProtocol(c, "at a port whose frontend has no backends", func(l *lb, ip ipVersion, proto uint8) {
		frontend := l.share(ip, proto, "8472")
		l.socket(proto, ip.wildcard("8472"), socketOptions{})
		l.ingress(outside, opening(proto, ip.client, frontend)).untouched("host_listens")
	})
	forEachProtocol(c, "at an address that is not the host's", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, remote)
		l.socket(proto, ip.wildcard("80"), socketOptions{})
		in := opening(proto, ip.client, port(ip.vip, "80"))
		l.ingress(outside, in).redirected(in.snat(ip.nodeIn, 0).to(ip.remote).hop(), "flow_new forwarded")
	})
	forEachProtocol(c, "for the host itself and its pods, too", func(l *lb, ip ipVersion, proto uint8) {
		frontend := l.share(ip, proto, p, remote)
		l.socket(proto, ip.wildcard(p), socketOptions{})
		l.egressHost("lo", opening(proto, port(ip.nodeOut, "40000"), frontend)).untouched("host_listens")
		l.ingress(pods, opening(proto, ip.local, frontend)).untouched("host_listens")
	})
	forEachProtocol(c, "and this program drains", func(l *lb, ip ipVersion, proto uint8) {
		frontend := l.share(ip, proto, p, remote)
		l.socket(proto, ip.wildcard(p), socketOptions{})
		l.config(BlixtConfigFlagCONFIG_DRAIN)
		l.ingress(outside, opening(proto, ip.client, frontend)).untouched("drained")
		l.wantHostListens(proto, "")
	})
	for _, ip := range ipVersions {
		c[ip.name+" UDP, and gets fragments in any order"] = func(l *lb) {
			frontend := l.share(ip, unix.IPPROTO_UDP, p, remote)
			l.socket(unix.IPPROTO_UDP, ip.wildcard(p), socketOptions{})
			whole := udp(ip.client, frontend).withSize(1000)
			l.ingress(outside, whole.fragment(0, 504)).untouched("host_listens")
			l.ingress(outside, whole.fragment(504, 0)).untouched("not_ours")
			whole = whole.withID(77)
			l.ingress(outside, whole.fragment(504, 0)).dropped("fragment_held")
			l.ingress(outside, whole.fragment(0, 504)).untouched("host_listens") // the other one comes in again behind it
		}
	}
	c.run(t)
}

func (ip ipVersion) loopback() string {
	return map[string]string{"IPv4": "127.0.0.1", "IPv6": "::1"}[ip.name]
}

// Tunnels have sockets of the kernel.
func TestHostHasATunnel(t *testing.T) {
	c := cases{}
	for _, ip := range ipVersions {
		c[ip.name] = func(l *lb) {
			frontend := l.share(ip, unix.IPPROTO_UDP, "8472")
			p := udp(ip.client, frontend)
			l.ingress(outside, p).dropped("reject_no_backend")
			l.lab.do(func() {
				vxlan := &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "vxlan"}, VxlanId: 1, Port: 8472, SrcAddr: ap(frontend).Addr().AsSlice()}
				l.must(netlink.LinkAdd(vxlan))
				l.Cleanup(func() { l.lab.do(func() { l.must(netlink.LinkDel(vxlan)) }) })
				l.must(netlink.LinkSetUp(vxlan))
			})
			l.ingress(outside, p).untouched("host_listens")
			l.wantHostListens(unix.IPPROTO_UDP, frontend)
		}
	}
	c.run(t)
}

// A connection that is older than the host's socket goes on. Datagrams have no
// connection: those of a tunnel that was not up yet go to it as soon as it is.
func TestFlowsOlderThanTheHostsSocket(t *testing.T) {
	c := cases{}
	forEachProtocol(c, "", func(l *lb, ip ipVersion, proto uint8) {
		frontend := l.share(ip, proto, "2222", local)
		f := localFlow{l, ip, proto, frontend, ip.local, ip.client}
		f.open(true)
		half := localFlow{l, ip, proto, frontend, ip.local, addrPort(ap(ip.client).Addr(), 40001).String()}
		half.open(false)
		sock := l.socket(proto, ip.wildcard("2222"), socketOptions{})
		if proto == unix.IPPROTO_UDP {
			l.age(f.forward(), 1)
			l.ingress(outside, f.forward()).untouched("host_listens")
			l.wantTable(f.forward(), "none")
			l.wantTable(f.reply(), "tombstone")
			sock.close()
			f.fromClient(f.forward(), "flow_new forwarded")
			return
		}
		f.fromClient(establishing(proto, f.client, frontend), "forwarded")
		half.fromClient(opening(proto, half.client, frontend), "forwarded") // its SYN once more
		half.fromBackend(answer(proto, half.backend, half.client))
		half.fromClient(establishing(proto, half.client, frontend), "forwarded flow_established")

		// The next connection from the same port is the host's, with all of its packets.
		f.fromClient(f.clientPacket(rst, 1001, 0, ""), "forwarded flow_closed")
		l.ingress(outside, opening(proto, f.client, frontend)).untouched("host_listens")
		l.ingress(outside, establishing(proto, f.client, frontend)).untouched("host_listens")
	})
	c.run(t)
}

// A program that drains leaves a connection to the next one as a whole, if the
// client had an earlier one from the same port.
func TestNextProgramGetsAllOfAConnection(t *testing.T) {
	c := cases{}
	for _, ip := range ipVersions {
		for _, dst := range []string{ip.vip, ip.nodeOut} {
			c[ip.name+" to "+dst] = func(l *lb) {
				const tcp = unix.IPPROTO_TCP
				l.share(ip, tcp, "80", local)
				f := localFlow{l, ip, tcp, port(dst, "80"), ip.local, ip.client}
				l.frontend(1, tcp, f.vip, local)
				f.open(true)
				f.fromClient(f.clientPacket(rst, 1001, 0, ""), "forwarded flow_closed")
				l.config(BlixtConfigFlagCONFIG_DRAIN)
				l.ingress(outside, opening(tcp, f.client, f.vip)).untouched("drained")
				l.ingress(outside, establishing(tcp, f.client, f.vip)).untouched("drained")
				re := answer(tcp, f.backend, f.client).segment(syn|ack, 7000, 2001, "")
				l.egressForwarded(pods, re).untouched("not_ours")
			}
		}
	}
	c.run(t)
}

// The host's own connections, from whatever port, get their answers. They are
// no listeners.
func TestAnswersToTheHostsSockets(t *testing.T) {
	c := cases{}
	forEachProtocol(c, "a client's", func(l *lb, ip ipVersion, proto uint8) {
		frontend := l.share(ip, proto, "2222", remote)
		server := addrPort(ap(ip.remote).Addr().Next(), 53).String()
		if proto == unix.IPPROTO_UDP {
			l.socket(proto, frontend, socketOptions{peer: server})
		} else {
			l.neverAnswers(inside, ap(server).Addr())
			s := l.socket(proto, frontend, socketOptions{silent: true})
			l.must(unix.SetNonblock(s.fd, true))
			if err := unix.Connect(s.fd, sockaddr(server)); err != unix.EINPROGRESS {
				l.Fatal(err)
			}
		}
		l.egressHost(inside, opening(proto, frontend, server)).untouched("not_ours")
		l.ingress(inside, answer(proto, server, frontend)).untouched("host_listens")
		l.wantHostListens(proto, "")
		in := opening(proto, ip.client, frontend)
		l.ingress(outside, in).redirected(in.snat(ip.nodeIn, 0).to(ip.remote).hop(), "flow_new forwarded")
	})
	for _, ip := range ipVersions {
		c[ip.name+" a server's, which listens no more"] = func(l *lb) {
			const tcp = unix.IPPROTO_TCP
			frontend := l.share(ip, tcp, "2222", remote)
			listener := l.socket(tcp, frontend, socketOptions{})
			peer := l.socket(tcp, port(ip.nodeOut, "0"), socketOptions{peer: frontend})
			accepted, from, err := unix.Accept(listener.fd)
			l.must(err)
			client := socketName(from)
			listener.close()
			syn, in := opening(tcp, client, frontend), establishing(tcp, client, frontend)
			l.egressHost("lo", in).untouched("host_listens")
			l.egressHost("lo", syn).untouched("host_listens") // it answers that with a challenge
			l.wantHostListens(tcp, "")
			l.must(unix.Close(accepted)) // its side is TIME_WAIT at last
			peer.close()
			l.egressHost("lo", in).untouched("host_listens")
			listener = l.socket(tcp, frontend, socketOptions{})
			l.egressHost("lo", syn).untouched("host_listens")
			l.wantHostListens(tcp, frontend)
			listener.close()
			l.eventually(func() bool {
				verdict, _, err := l.run(hook{dev: "lo", egress: true}, syn.bytes(), 0)
				l.must(err)
				return verdict == redirect
			})
			l.egressHost("lo", syn).redirected(syn.snat(ip.nodeIn, 0).to(ip.remote), "forwarded")
		}
	}
	c.run(t)
}

// Masqueraded connections of pods have no socket. Where they begin from the port
// of a frontend, they get another port.
func TestMasqueradedFromAFrontendsPort(t *testing.T) {
	c := cases{}
	leaves := hook{dev: inside, egress: true, from: pods}
	forEachProtocol(c, "gets its answers", func(l *lb, ip ipVersion, proto uint8) {
		for _, p := range []string{"2222", "30007"} { // the latter is in the SNAT range
			l.clear()
			l.share(ip, proto, "80", remote)
			l.address(ip.nodeIn, false)
			frontend := port(ip.nodeIn, p)
			l.frontend(2, proto, frontend, local)
			server := addrPort(ap(ip.remote).Addr().Next(), 53).String()
			out := opening(proto, frontend, server)
			moved := out.snat(ip.nodeIn, 0)
			l.send(leaves, out).toStack(moved, "host_translated")
			re := answer(proto, server, moved.src.String())
			l.ingress(inside, re).toStack(re.to(frontend), "host_translated")
			on := establishing(proto, frontend, server)
			l.send(leaves, on).toStack(on.from(moved.src.String()), "host_translated"+andEstablished(proto))
			if proto == unix.IPPROTO_TCP {
				l.wantEstablished(0, 1)
			}
			// The frontend serves the other one all the same.
			in := opening(proto, server, frontend)
			l.ingress(outside, in).toStack(in.to(ip.local), "flow_new forwarded")
			if n := count(l.MasqueradedPorts); n != 0 {
				l.Errorf("%d ports reserved, want none", n)
			}
		}
	})
	for _, ip := range ipVersions {
		c[ip.name+" takes no room in a table that is nearly full"] = func(l *lb) {
			frontend := l.share(ip, unix.IPPROTO_TCP, "2222", local)
			l.must(l.Established.Put(uint32(0), uint32(1)))
			l.must(l.BlixtLayout2.Put(uint32(0), BlixtConfig{SnatMin: snatMin, SnatMax: snatMax, FlowsNearlyFull: 1, FlowsShare: 1}))
			out := opening(unix.IPPROTO_TCP, frontend, ip.client)
			moved := out.snat(ip.nodeOut, 0).src.String()
			l.egressForwarded(pods, out).toStack(out.from(moved), "host_translated")
			re := answer(unix.IPPROTO_TCP, ip.client, moved)
			l.ingress(outside, re).toStack(re.to(frontend), "host_translated")
			on := establishing(unix.IPPROTO_TCP, frontend, ip.client)
			l.egressForwarded(pods, on).toStack(on.from(moved), "host_translated flow_over_share")
			l.wantTable(on, "new_flows")
		}
	}
	forEachProtocol(c, "says nothing in the name of the frontend", func(l *lb, ip ipVersion, proto uint8) {
		frontend := l.share(ip, proto, "2222", local)
		f := localFlow{l, ip, proto, frontend, ip.local, ip.client}
		f.open(true)
		out := opening(proto, frontend, ip.client)
		l.egressForwarded(pods, out).toStack(out.snat(ip.nodeOut, 0), "host_translated")
		f.fromBackend(f.reply().segmentIfTCP(ack, 1001))
	})
	for _, ip := range ipVersions {
		c[ip.name+" UDP is known by the hash of the port"] = func(l *lb) {
			frontend := l.share(ip, unix.IPPROTO_UDP, "2222", local)
			unserved := func(ports ...uint16) {
				c := BlixtConfig{SnatMin: snatMin, SnatMax: snatMax, UnservedUdp: [4]uint64{^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)}}
				for _, p := range ports {
					c.UnservedUdp[PortHash(p)/64] &^= 1 << (PortHash(p) % 64)
				}
				l.must(l.BlixtLayout2.Put(uint32(0), c))
			}
			out := udp(frontend, ip.client)
			unserved(2223, 80, 53)
			l.egressForwarded(pods, out).untouched("not_ours")
			unserved(2222)
			l.egressForwarded(pods, out).toStack(out.snat(ip.nodeOut, 0), "host_translated")
		}
	}
	forEachProtocol(c, "is left alone where the host listens, and by a program that drains", func(l *lb, ip ipVersion, proto uint8) {
		frontend := l.share(ip, proto, "2222", local)
		out := opening(proto, frontend, ip.client)
		l.config(BlixtConfigFlagCONFIG_DRAIN)
		l.egressForwarded(pods, out).untouched("not_ours")
		l.config(0)
		l.socket(proto, ip.wildcard("2222"), socketOptions{})
		l.egressForwarded(pods, out).untouched("not_ours")
		l.ingress(outside, answer(proto, ip.client, frontend)).untouched("host_listens")
	})
	forEachProtocol(c, "is older than the frontend", func(l *lb, ip ipVersion, proto uint8) {
		frontend := l.share(ip, proto, "80", remote)
		l.address(ip.nodeIn, false)
		own, server := port(ip.nodeIn, "30007"), addrPort(ap(ip.remote).Addr().Next(), 53).String()
		l.send(leaves, opening(proto, own, server)).untouched("not_ours")
		l.frontend(2, proto, own, local)
		_ = frontend
		re := answer(proto, server, own)
		l.ingress(inside, re).untouched("not_ours")
		l.send(leaves, establishing(proto, own, server)).untouched("not_ours")
		l.ingress(inside, re).untouched("not_ours")
		if proto == unix.IPPROTO_UDP { // pods can send for ever: the port is the frontend's in the end
			l.ageHostPort(re, 120_000_000_000>>30+1) // HOST_TICKS
			l.ingress(inside, re).toStack(re.to(ip.local), "flow_new forwarded")
		}
	})
	c.run(t)
}

// A listener in the SNAT range is not mistaken for a flow, nor a flow for the
// listener.
func TestFrontendInTheSNATRange(t *testing.T) {
	c := cases{}
	// with serves the VIP by the remote backend, and the port of the node's address that flows there get.
	with := func(name string, run func(l *lb, ip ipVersion, proto uint8, listener string)) {
		forEachProtocol(c, name, func(l *lb, ip ipVersion, proto uint8) {
			l.serve(ip, proto, remote)
			l.address(ip.nodeIn, false)
			run(l, ip, proto, opening(proto, ip.client, port(ip.vip, "80")).snat(ip.nodeIn, 0).src.String())
		})
	}
	with("flows get another port", func(l *lb, ip ipVersion, proto uint8, listener string) {
		l.frontend(2, proto, listener, local)
		in := opening(proto, ip.client, port(ip.vip, "80"))
		l.ingress(outside, in).redirected(in.snat(ip.nodeIn, 1).to(ip.remote).hop(), "flow_new forwarded")
		// Not even the backend's own packets are mistaken for answers.
		in = opening(proto, ip.remote, listener)
		l.ingress(inside, in).toStack(in.to(ip.local), "flow_new forwarded")
	})
	with("flows of the other protocol keep the port", func(l *lb, ip ipVersion, proto uint8, listener string) {
		l.frontend(2, unix.IPPROTO_TCP+unix.IPPROTO_UDP-proto, listener, local)
		in := opening(proto, ip.client, port(ip.vip, "80"))
		l.ingress(outside, in).redirected(in.from(listener).to(ip.remote).hop(), "flow_new forwarded")
	})
	with("where ports are scarce, too", func(l *lb, ip ipVersion, proto uint8, _ string) {
		const served = 50
		for n := range served {
			l.frontend(uint32(2+n), proto, addrPort(netip.MustParseAddr(ip.nodeIn), snatMin+n).String(), local)
		}
		l.ports(snatMin, snatMin+served)
		in := opening(proto, ip.client, port(ip.vip, "80"))
		last := addrPort(netip.MustParseAddr(ip.nodeIn), snatMin+served).String()
		l.ingress(outside, in).redirected(in.from(last).to(ip.remote).hop(), "flow_new forwarded")
		l.ports(snatMin, snatMin+served-1)
		l.ingress(outside, in.from(addrPort(ap(ip.client).Addr(), 40001).String())).wantVerdict(redirect, "reject_ports_exhausted")
	})
	with("privileged ones, too", func(l *lb, ip ipVersion, proto uint8, _ string) {
		in := opening(proto, addrPort(ap(ip.client).Addr(), 700).String(), port(ip.vip, "80"))
		l.frontend(2, proto, in.snat(ip.nodeIn, 0).src.String(), local)
		if p := l.ingress(outside, in).sourcePort(); p < snatMin || p > snatMax {
			l.Errorf("the flow has port %d, want one from %d to %d", p, snatMin, snatMax)
		}
	})
	with("a flow that is older goes on", func(l *lb, ip ipVersion, proto uint8, listener string) {
		vip := port(ip.vip, "80")
		in := opening(proto, ip.client, vip)
		l.ingress(outside, in).redirected(in.from(listener).to(ip.remote).hop(), "flow_new forwarded")
		l.frontend(2, proto, listener, local)
		answered := func(re packet) {
			l.Helper()
			l.ingress(inside, re).redirected(re.from(vip).to(ip.client).hop(), "replied")
		}
		answered(answer(proto, ip.remote, listener))
		on := establishing(proto, ip.client, vip)
		l.ingress(outside, on).redirected(on.from(listener).to(ip.remote).hop(), "forwarded"+andEstablished(proto))
		// The backend's socket has that tuple: even a SYN can only be the flow's.
		answered(opening(proto, ip.remote, listener))
		answered(answer(proto, ip.remote, listener))
		other := opening(proto, addrPort(ap(ip.remote).Addr(), 8081).String(), listener)
		l.ingress(inside, other).toStack(other.to(ip.local), "flow_new forwarded")

		l.config(BlixtConfigFlagCONFIG_DRAIN) // the next program serves the listener, with another range
		answered(answer(proto, ip.remote, listener))
		l.ingress(inside, opening(proto, ip.client, listener)).untouched("drained")
		l.must(l.BlixtLayout2.Put(uint32(0), BlixtConfig{Flags: uint32(BlixtConfigFlagCONFIG_DRAIN), SnatMin: snatMax + 1, SnatMax: snatMax + 100}))
		answered(answer(proto, ip.remote, listener))
	})
	c.run(t)
}

// While two programs serve a frontend, the second sees what the first has
// translated, and must not take it for a masqueraded connection.
func TestAnswersThatAnotherProgramTranslated(t *testing.T) {
	c := cases{}
	forEachProtocol(c, "", func(l *lb, ip ipVersion, proto uint8) {
		frontend := l.share(ip, proto, "30001", local)
		f := localFlow{l, ip, proto, frontend, ip.local, ip.client}
		f.open(true)
		l.repeat = 2
		f.fromBackend(f.reply().segmentIfTCP(ack, 1001))
	})
	c.run(t)
}
