// SPDX-License-Identifier: Apache-2.0

package live

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// A rig is a balancer between a client and two backends, which have nothing but a
// device each:
//
//	client out ── in balancer b1 ── b1 backends
//	                         b2 ── b2
//
// The balancer does the same job in each rig, by other means. Client and backends have
// no addresses, and the balancer knows their MACs.
type rig struct {
	*lab.Lab
	client, balancer, backends *lab.Node
	blixt                      *lab.Blixt
	devices                    map[string]*net.Interface // the balancer's
	sinks                      map[bool]*sink            // by whether it is the client's
	links                      []link.Link
	through                    map[*sink][]*Variant // which variants end in a sink
	before                     lab.Status           // of Blixt, before measuring
}

// The devices that lead to backends.
var inside = []string{"b1", "b2"}

// What is sent from, to, and by whom.
var (
	peers = map[string]map[int]netip.Addr{ // by the balancer's devices
		"in": {4: netip.MustParseAddr("10.66.0.2"), 6: netip.MustParseAddr("fd66::2")},
		"b1": {4: netip.MustParseAddr("10.71.0.2"), 6: netip.MustParseAddr("fd71::2")},
		"b2": {4: netip.MustParseAddr("10.72.0.2"), 6: netip.MustParseAddr("fd72::2")},
	}
	clients = map[int]netip.Addr{4: netip.MustParseAddr("10.128.0.0"), 6: netip.MustParseAddr("fd99::")}
	vips    = map[int]netip.Addr{4: netip.MustParseAddr(lab.VIP4), 6: netip.MustParseAddr(lab.VIP6)}
)

// Ports of frontends and backends. A node can translate so many flows with each
// endpoint as it has source ports: 64K flows need several endpoints.
const (
	portLocal, portRemote = 80, 81
	portBackend           = 8080
	portsBackend          = 8
)

func mac(side, device byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, side, device} }

// newRig makes the network. Its name is that of the lab.
func newRig(name string) (r *rig, err error) {
	l, err := lab.New(name)
	if err != nil {
		return nil, err
	}
	r = &rig{Lab: l, client: l.Node("client"), balancer: l.Node("balancer"), backends: l.Node("backends"),
		devices: map[string]*net.Interface{}, sinks: map[bool]*sink{}}
	for _, n := range []*lab.Node{r.client, r.backends} {
		n.Sysctl("net.ipv6.conf.default.disable_ipv6=1", "net.ipv6.conf.all.disable_ipv6=1")
	}
	r.balancer.Forward()
	l.Link(r.client, "out", r.balancer, "in")
	for _, dev := range inside {
		l.Link(r.balancer, dev, r.backends, dev)
	}
	for i, dev := range append([]string{"in"}, inside...) {
		peer, peerDev := r.backends, dev
		if dev == "in" {
			peer, peerDev = r.client, "out"
		}
		r.balancer.IP(fmt.Sprintf("link set %s address %s", dev, mac(1, byte(i))))
		peer.IP(fmt.Sprintf("link set %s address %s", peerDev, mac(2, byte(i))))
		for family, bits := range map[int]int{4: 24, 6: 64} {
			a := peers[dev][family]
			r.balancer.Addr(dev, fmt.Sprintf("%s/%d", a.Prev(), bits))
			for _, a := range []netip.Addr{a, a.Next()} {
				r.balancer.IP(fmt.Sprintf("neigh add %s lladdr %s dev %s nud permanent", a, mac(2, byte(i)), dev))
			}
		}
	}
	r.balancer.Route("default via "+peers["in"][4].String(), "default via "+peers["in"][6].String())
	err = errors.Join(l.Err(), r.balancer.Do(func() error {
		for _, dev := range append([]string{"in"}, inside...) {
			i, err := net.InterfaceByName(dev)
			if err != nil {
				return err
			}
			r.devices[dev] = i
		}
		return nil
	}))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make network: %w", err), l.Close())
	}
	return r, nil
}

// close removes all.
func (r *rig) close() error {
	for _, l := range r.links {
		_ = l.Close() // the namespace goes
	}
	return r.Lab.Close()
}

// attach attaches a program at TCX hooks of devices of a node.
func (r *rig) attach(n *lab.Node, p *ebpf.Program, at ebpf.AttachType, devices ...string) error {
	return n.Do(func() error {
		for _, dev := range devices {
			i, err := net.InterfaceByName(dev)
			if err != nil {
				return err
			}
			var l link.Link
			if p.Type() == ebpf.XDP {
				l, err = link.AttachXDP(link.XDPOptions{Program: p, Interface: i.Index})
			} else {
				l, err = link.AttachTCX(link.TCXOptions{Program: p, Attach: at, Interface: i.Index})
			}
			if err != nil {
				return fmt.Errorf("attach to %s of %s: %w", dev, n.Name, err)
			}
			r.links = append(r.links, l)
		}
		return nil
	})
}

// emptyPrograms attaches a program that does nothing to all hooks.
func (r *rig) emptyPrograms() error {
	p, err := verdict(ebpf.SchedCLS, tcxNext)
	if err != nil {
		return err
	}
	for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
		if err := r.attach(r.balancer, p, at, "in", "b1", "b2"); err != nil {
			return err
		}
	}
	return nil
}

// drop has the balancer drop what comes in.
func (r *rig) drop() error {
	s, err := newSink()
	if err != nil {
		return err
	}
	r.sinks[true], r.sinks[false] = s, s
	return r.attach(r.balancer, s.program, ebpf.AttachTCXIngress, "in", "b1", "b2")
}

// nft has the kernel's NAT do the job, with its conntrack.
func (r *rig) nft(masquerade bool) error {
	// The card has verified checksums, and the other variants do not verify them again.
	r.balancer.Sysctl("net.netfilter.nf_conntrack_checksum=0")
	var rules strings.Builder
	rules.WriteString("table inet bench {\nchain pre {\ntype nat hook prerouting priority dstnat\n")
	for family, ip := range map[int]string{4: "ip", 6: "ip6"} {
		for _, protocol := range []string{"tcp", "udp"} {
			fmt.Fprintf(&rules, "%s daddr %s %s dport %d dnat %s to jhash %s saddr . %s sport mod 2 map { 0 : %s . %d, 1 : %s . %d }\n",
				ip, vips[family], protocol, portLocal, ip, ip, protocol, peers["b1"][family], portBackend, peers["b2"][family], portBackend)
		}
	}
	rules.WriteString("}\n")
	if masquerade {
		rules.WriteString("chain post {\ntype nat hook postrouting priority srcnat\noifname { b1, b2 } masquerade\n}\n")
	}
	rules.WriteString("}\n")
	if err := r.Err(); err != nil {
		return err
	}
	if _, err := r.balancer.Run(10*time.Second, "nft", rules.String()); err != nil {
		return fmt.Errorf("make NAT: %w", err)
	}
	return nil
}

// startBlixt has Blixt do the job.
func (r *rig) startBlixt(binary string, flows int) (err error) {
	config := &lab.Config{Gateways: []lab.Gateway{{Name: "vip", Addresses: []string{vips[4].String(), vips[6].String()}}}}
	for port, node := range map[int]string{portLocal: "balancer", portRemote: "elsewhere"} {
		listener := lab.Listener{Protocol: "UDP", Port: port}
		service := lab.Service{Name: node}
		for _, dev := range inside {
			for family := range clients {
				for p := range uint16(portsBackend) {
					service.Endpoints = append(service.Endpoints, lab.Endpoint{
						Addr: netip.AddrPortFrom(peers[dev][family], portBackend+p).String(), Node: node})
				}
			}
		}
		config.Gateways[0].Listeners = append(config.Gateways[0].Listeners, listener)
		config.Services = append(config.Services, service)
		config.Routes = append(config.Routes, lab.Route{Name: node, Gateway: "vip", Listener: listener, Refs: []lab.Ref{{Service: node, Weight: 1}}})
	}
	if r.blixt, err = r.Lab.Blixt(r.balancer, binary, config, "in", "b1", "b2"); err != nil {
		return err
	}
	r.blixt.Args = append(r.blixt.Args, "--flows", fmt.Sprint(flows))
	// An earlier version has nothing that outlasts a file, nor flags for it.
	has, err := r.blixt.HasFlag("--removal-grace")
	if err != nil {
		return err
	}
	r.blixt.Lasting = !has
	return r.blixt.Start()
}

// receiveQueues has the devices have what the kernel wants of a device by which a
// generator's frames are to come in: receive queues that know XDP.
func (r *rig) receiveQueues() error {
	p, err := verdict(ebpf.XDP, xdpPass)
	if err != nil {
		return err
	}
	return r.attach(r.balancer, p, 0, "in", "b1", "b2")
}

// attachSinks has client and backends drop and count from now on.
func (r *rig) attachSinks() (err error) {
	if len(r.sinks) > 0 {
		return nil
	}
	for _, client := range []bool{true, false} {
		if r.sinks[client], err = newSink(); err != nil {
			return err
		}
	}
	return errors.Join(r.attach(r.client, r.sinks[true].program, ebpf.AttachTCXIngress, "out"),
		r.attach(r.backends, r.sinks[false].program, ebpf.AttachTCXIngress, "b1", "b2"))
}

// tap is a raw socket at a device.
type tap struct{ fd, device int }

// openTap opens a raw socket in the node.
func openTap(n *lab.Node, dev string) (t tap, err error) {
	err = n.Do(func() error {
		i, err := net.InterfaceByName(dev)
		if err != nil {
			return err
		}
		protocol := int(unix.ETH_P_ALL>>8 | unix.ETH_P_ALL<<8&0xff00)
		if t.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		t.device = i.Index
		return errors.Join(
			unix.SetsockoptInt(t.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20),
			unix.SetsockoptInt(t.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
			unix.Bind(t.fd, &unix.SockaddrLinklayer{Protocol: uint16(protocol), Ifindex: i.Index}))
	})
	if err != nil {
		return t, fmt.Errorf("open raw socket at %s of %s: %w", dev, n.Name, err)
	}
	return t, nil
}

func (t tap) close() { _ = unix.Close(t.fd) }

// receive appends the datagrams that are there.
func (t tap) receive(frames [][]byte) ([][]byte, error) {
	buffer := make([]byte, 2048)
	for {
		n, _, err := unix.Recvfrom(t.fd, buffer, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			return frames, nil
		}
		if err != nil {
			return frames, err
		}
		if _, _, ok := ends(buffer[:n]); ok {
			frames = append(frames, append([]byte(nil), buffer[:n]...))
		}
	}
}

// send sends a frame.
func (t tap) send(f []byte) error {
	return unix.Sendto(t.fd, f, 0, &unix.SockaddrLinklayer{Ifindex: t.device})
}
