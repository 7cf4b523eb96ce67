// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package soak

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// networkMistakes are those in the balancer's network. What names nobody either
// touches nobody's packets or lasts a moment, so that TCP repeats.
var networkMistakes = []mistake{
	{name: "cable", place: "links", dark: true, names: nobody, do: func(h *host, r *rand.Rand) (string, func() error, error) {
		node, port := h.front, "balancer-eth0"
		if r.IntN(2) == 0 {
			node, port = h.back, "balancer-eth1"
		}
		return "unplugged " + port, func() error { return run(node, "ip link set "+port+" up") }, run(node, "ip link set "+port+" down")
	}},
	{name: "loose contact", place: "links", dark: true, names: nobody, do: func(h *host, r *rand.Rand) (string, func() error, error) {
		port, n := pick(r, "balancer-eth0", "client-eth0"), 2+r.IntN(10)
		set := func(state string) string { return fmt.Sprintf("ip link set %s %s;", port, state) }
		return fmt.Sprintf("%s %d times", port, n), func() error { return run(h.front, set("up")) },
			run(h.front, fmt.Sprintf("for i in $(seq %d); do %s sleep 0.02; %s sleep 0.05; done", n, set("down"), set("up")))
	}},
	{name: "spare cable", place: "spare", names: spareOnly, do: func(h *host, _ *rand.Rand) (string, func() error, error) {
		return "unplugged eth2", func() error { return run(h.spare, spareUp) }, run(h.spare, "ip link set eth0 down")
	}},
	{name: "spare down", place: "spare", names: spareOnly, do: script("ip link set eth2 down", network)},
	{name: "spare gone", place: "spare", names: spareOnly, do: func(h *host, _ *rand.Rand) (string, func() error, error) {
		return "ip link del eth2", func() error {
			h.Link(h.balancer, "eth2", h.spare, "eth0")
			return errors.Join(h.Err(), h.shell(network), run(h.spare, spareUp))
		}, h.shell("ip link del eth2")
	}},
	{name: "spare renamed", place: "spare", names: spareOnly, do: script("ip link set eth2 down; ip link set eth2 name wan0; ip link set wan0 up",
		"ip link set wan0 down; ip link set wan0 name eth2;"+network)},
	{name: "spare renamed alive", place: "spare", names: nobody, do: script("ip link set eth2 name wan0", "ip link set wan0 name eth2")},
	{name: "spare enslaved", place: "spare", names: spareOnly, do: script("ip link add br9 type bridge; ip link set br9 up; ip link set eth2 master br9",
		"ip link set eth2 nomaster; ip link del br9;"+network)},
	{name: "spare MTU", place: "spare", names: nobody, do: script("ip link set eth2 mtu VALUE", "ip link set eth2 mtu 1500;"+network, "1280", "1400", "1492")},
	{name: "spare without addresses", place: "spare", names: spareOnly, do: script("ip addr flush dev eth2", network)},
	{name: "own address away", place: "addresses", dark: true, names: nobody, do: script("ip addr del VALUE", network, "10.66.0.1/24 dev eth0", "fd66::1/64 dev eth0", "10.77.0.1/24 dev eth1", "fd77::1/64 dev eth1")},
	{name: "lease renewed", place: "addresses", names: nobody, do: script("for i in 1 2 3 4 5; do ip addr change VALUE valid_lft 60 preferred_lft 30; sleep 0.1; done", "ip addr change VALUE valid_lft forever preferred_lft forever",
		"10.66.0.1/24 dev eth0", "fd66::1/64 dev eth0", "10.77.0.1/24 dev eth1")},
	{name: "keepalived", place: "addresses", names: []string{"onlink"}, do: script("ip addr add VALUE", "ip addr del VALUE", onLink4+"/24 dev eth0", onLink6+"/64 dev eth0 nodad")},
	{name: "main link down", place: "links", dark: true, names: nobody, do: script("ip link set VALUE down", network, "eth0", "eth1")},
	// Packets come by an interface that has the program a moment later only.
	{name: "into a bridge", place: "links", dark: true, names: all, do: script(`m=$(cat /sys/class/net/eth0/address 2>/dev/null || ip -br link show eth0 | awk '{print $3}')
ip link add br8 address $m type bridge mcast_snooping 0; ip link set br8 up; ip addr flush dev eth0 scope global; ip link set eth0 master br8
ip addr add 10.66.0.1/24 dev br8; ip addr add fd66::1/64 dev br8 nodad; ip route replace default via 10.66.0.2; ip -6 route replace default via fd66::2`,
		"ip link del br8;"+network)},
	{name: "another address", place: "addresses", names: nobody, do: script("ip addr add VALUE", "ip addr del VALUE", "10.66.0.7/24 dev eth0", "fd66::7/64 dev eth0 nodad", "10.66.0.7/16 dev eth1", "10.66.0.101/32 dev lo", "192.168.1.1/24 dev pods", "169.254.7.7/16 dev eth0")},
	{name: "VIP removed", place: "addresses", names: nobody, do: func(h *host, r *rand.Rand) (string, func() error, error) {
		vip := pick(r, lab.VIP4, lab.VIP6, onLink4, onLink6, spare4, spare6)
		return vip, func() error { return nil }, h.shell("ip addr flush to " + vip)
	}},
	{name: "spare VIP taken", place: "addresses", names: spareOnly, do: script("ip addr del "+spare4+"/32 dev lo || :; ip addr add "+spare4+"/24 dev pods", "ip addr del "+spare4+"/24 dev pods")},
	{name: "spare VIP flushed", place: "addresses", names: nobody, do: script("ip addr flush dev lo scope host; ip -6 addr flush dev lo", network)},
	{name: "default route away", place: "routes", names: nobody, do: script("ip VALUE route del default", network, "-4", "-6")},
	{name: "second default route", place: "routes", names: nobody, do: script("ip route add default via 10.88.0.11 metric VALUE", "ip route del default via 10.88.0.11 metric VALUE", "50", "5000")},
	{name: "spare unreachable", place: "routes", names: spareOnly, do: script("ip VALUE", "ip $(echo 'VALUE' | sed 's/add/del/')",
		"route add blackhole 10.99.0.11", "route add prohibit 10.99.0.11", "route add unreachable 10.99.0.11", "route add 10.99.0.11 dev lo", "route add 10.99.0.11 via 10.88.0.11", "-6 route add unreachable fd99::11")},
	{name: "odd rules", place: "routes", names: nobody, do: script("ip rule add from 10.99.0.0/24 lookup 100; ip rule add to 192.0.2.0/24 prohibit; ip route add 203.0.113.0/24 dev eth1 table 100",
		"ip rule del from 10.99.0.0/24 lookup 100; ip rule del to 192.0.2.0/24 prohibit; ip route flush table 100")},
	{name: "neighbours forgotten", place: "neighbours", names: nobody, do: script("ip neigh flush all", ":")},
	{name: "wrong neighbour", place: "neighbours", names: spareOnly, do: script("ip neigh replace 10.99.0.11 lladdr 02:00:00:00:00:99 nud VALUE dev eth2", "ip neigh del 10.99.0.11 dev eth2", "permanent", "reachable")},
	{name: "no forwarding", place: "sysctls", dark: true, names: nobody, do: script("sysctl -qw VALUE=0", "sysctl -qw VALUE=1", "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")},
	{name: "odd sysctls", place: "sysctls", names: nobody, do: func(h *host, r *rand.Rand) (string, func() error, error) {
		name, bad := "net.ipv4.ip_local_port_range", "10000 60999"
		switch r.IntN(5) {
		case 0:
			name, bad = "net.ipv4.conf.eth0.rp_filter", "1"
		case 1:
			name, bad = "net.ipv4.conf.all.arp_ignore", "1"
		case 2:
			name, bad = "net.ipv4.ip_local_reserved_ports", "12000-13000"
		case 3:
			name, bad = "net.ipv6.conf.default.disable_ipv6", "1"
		}
		good, err := h.balancer.Run(time.Second, "sysctl", "-n", name)
		set := func(value string) error {
			return h.shell(fmt.Sprintf("sysctl -qw %s='%s'", name, strings.TrimSpace(value)))
		}
		return name + "=" + bad, func() error { return set(good) }, errors.Join(err, set(bad))
	}},
	{name: "flood of addresses", place: "netlink", names: nobody, do: script(`ip link add flood type bridge; ip link set flood up
for i in $(seq 3); do for j in $(seq 200); do echo addr add 10.200.$i.$j/32 dev flood; done; done | ip -batch -
ip addr flush dev flood`, "ip link del flood")},
	{name: "flood of interfaces", place: "netlink", names: nobody, do: script("for i in $(seq 60); do echo link add flood$i type bridge; echo link set flood$i up; done | ip -batch -",
		"for i in $(seq 60); do echo link del flood$i; done | ip -batch -")},
	{name: "containers", place: "netlink", names: nobody, do: script("for i in $(seq 10); do echo link add c$i type veth peer name d$i; echo link set c$i master pods up; echo link set d$i up; echo link del c$i; done | ip -batch -", ":")},
	{name: "steady churn", place: "netlink", names: nobody, do: script(`ip link add churn type bridge; (for i in $(seq 100); do ip link set churn up; ip link set churn down; sleep 0.02; done) >/dev/null 2>&1 &`,
		"sleep 0.1; ip link del churn")},
	{name: "intruder", place: "addresses", names: []string{"onlink"}, do: func(h *host, r *rand.Rand) (string, func() error, error) {
		addr := pick(r, onLink4+"/32", onLink6+"/128")
		return addr + " on the link", func() error { return run(h.front, "ip addr del "+addr+" dev br0") }, run(h.front, "ip addr add "+addr+" dev br0")
	}},
	{name: "IPsec policy", place: "ipsec", names: spareOnly, do: script("ip xfrm policy add src 0.0.0.0/0 dst 10.99.0.11/32 dir out tmpl src 10.99.0.1 dst 10.99.0.11 proto esp mode tunnel", "ip xfrm policy flush")},
	{name: "VPN", place: "netlink", names: nobody, do: script("ip link add tun9 type bridge; ip link set tun9 up; ip addr add VALUE dev tun9", "ip link del tun9", "10.0.0.9/8", "10.66.0.9/16", "198.51.100.9/24")},
	{name: "firewall", place: "firewall", names: nobody, do: script("nft add table inet odd; nft 'add chain inet odd input { type filter hook input priority 0; policy accept; }'; nft 'add rule inet odd input tcp dport 22 drop'", "nft delete table inet odd")},
	{name: "ruleset flushed", place: "firewall", names: nobody, do: script("nft flush ruleset", ":")},
	{name: "link detached", place: "programs", names: spareOnly, do: func(h *host, r *rand.Rand) (string, func() error, error) {
		direction := pick(r, "ingress", "egress")
		return direction + " of eth2", func() error { return nil }, h.detach("eth2", direction)
	}},
	{name: "another program", place: "programs", names: spareOnly, do: func(h *host, r *rand.Rand) (string, func() error, error) {
		// What they return: go on with the next program, let it pass, drop it.
		verdict := pick[int32](r, -1, 0, 2)
		where := pick(r, ebpf.AttachTCXIngress, ebpf.AttachTCXEgress)
		l, err := h.attach("eth2", where, verdict)
		return fmt.Sprintf("in front at %s of eth2, returns %d", where, verdict), func() error { return l.Close() }, err
	}},
}

// spareUp makes the other end of eth2 what it should be.
const spareUp = `ip link set eth0 up
ip addr replace 10.99.0.11/24 dev eth0; ip addr replace fd99::11/64 dev eth0 nodad
ip route replace default via 10.99.0.1; ip -6 route replace default via fd99::1`

// index returns the index of a device of the balancer.
func (h *host) index(dev string) (index int, err error) {
	err = h.balancer.Do(func() error {
		ifc, err := net.InterfaceByName(dev)
		if err == nil {
			index = ifc.Index
		}
		return err
	})
	return index, err
}

// detach ends our link at an interface, as bpftool link detach does.
func (h *host) detach(dev, direction string) error {
	index, err := h.index(dev)
	if err != nil {
		return err
	}
	l, err := link.LoadPinnedLink(filepath.Join(lab.Pins(h.blixt.Name), "links", fmt.Sprintf("%d-%s", index, direction)), nil)
	if err != nil {
		return err
	}
	return errors.Join(l.Detach(), l.Close())
}

// attach puts a program that returns a verdict in front of all others.
func (h *host) attach(dev string, where ebpf.AttachType, verdict int32) (l link.Link, err error) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.SchedCLS,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, verdict), asm.Return()},
	})
	if err != nil {
		return nil, err
	}
	defer p.Close()
	index, err := h.index(dev)
	if err != nil {
		return nil, err
	}
	err = h.balancer.Do(func() error {
		l, err = link.AttachTCX(link.TCXOptions{Interface: index, Program: p, Attach: where, Anchor: link.Head()})
		return err
	})
	return l, err
}
