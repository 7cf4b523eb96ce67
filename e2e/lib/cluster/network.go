// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// Addresses. Node n has 10.210.0.(10+n) and fd00:210::(10+n), and its pods
// 10.211.n.0/24 and fd00:211:0:n::/64.
const (
	Control4  = "10.210.0.1"
	Control6  = "fd00:210::1"
	Outside4  = "10.210.0.100"
	Outside6  = "fd00:210::100"
	Pods4     = "10.211.0.0/16"
	Pods6     = "fd00:211::/48"
	Services4 = "10.212.0.0/16"
	Services6 = "fd00:212::/112"
	// Registry is what images are pulled from: by HTTPS, with CA's certificate.
	Registry = Control4 + ":5000"
	// DNS is the address of the cluster's name server.
	DNS = "10.212.0.10"

	apiPort = "6443"
	// As flannel names it. The encapsulation takes 50 bytes of each packet.
	overlayDevice, overlayMTU = "flannel.1", "1450"
)

const netnsDir = "/run/netns"

// ip runs ip(8) with commands, in the namespace if one is named.
func ip(space string, commands ...string) error {
	return batch("ip", space, commands)
}

func batch(tool, space string, commands []string) error {
	args := []string{"-batch", "-"}
	if space != "" {
		args = append([]string{"-n", space}, args...)
	}
	return feed(exec.Command(tool, args...), strings.Join(commands, "\n")+"\n")
}

// feed runs a command with text on its stdin.
func feed(cmd *exec.Cmd, text string) error {
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// plug makes a network namespace that is connected to the switch.
func (c *Cluster) plug(name, ipv4, ipv6 string) (*Machine, error) {
	space := c.space(name)
	if err := ip("", "netns add "+space,
		"link add name eth0 netns "+space+" type veth peer name "+name+" netns "+c.space("switch")); err != nil {
		return nil, err
	}
	if err := ip(c.space("switch"), "link set "+name+" master br0 up"); err != nil {
		return nil, err
	}
	n, err := lab.Join(name, space)
	if err != nil {
		return nil, err
	}
	m := &Machine{Node: n, dir: filepath.Join(c.dir, name)}
	// Ports from 40000 on are for tests that choose theirs.
	n.Sysctl("net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.default.accept_ra=0", "net.ipv6.conf.eth0.accept_dad=0",
		"net.ipv6.conf.eth0.accept_ra=0", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv4.ping_group_range=0 0",
		"net.ipv4.ip_local_port_range=32768 39999")
	n.IP("link set lo up")
	n.Addr("eth0", ipv4+"/24", ipv6+"/64")
	n.IP("link set eth0 up")
	return m, n.Err()
}

// makeNetwork makes a switch that connects all machines. The one outside is the others'
// default router.
func (c *Cluster) makeNetwork() (err error) {
	sw := c.space("switch")
	if err := ip("", "netns add "+sw); err != nil {
		return err
	}
	if err := ip(sw, "link add br0 type bridge mcast_snooping 0", "link set br0 up"); err != nil {
		return err
	}
	if c.Control, err = c.plug("control-plane", Control4, Control6); err != nil {
		return err
	}
	if c.Outside, err = c.plug("outside", Outside4, Outside6); err != nil {
		return err
	}
	for i := 1; i <= c.Options.Nodes; i++ {
		n, err := c.plug(fmt.Sprintf("node-%d", i), node4(i), node6(i))
		if err != nil {
			return err
		}
		c.Nodes = append(c.Nodes, n)
	}
	for _, m := range append([]*Machine{c.Control}, c.Nodes...) {
		m.Route("default via "+Outside4, "default via "+Outside6)
	}
	for _, m := range []*Machine{c.Control, c.Outside} {
		// To webhooks, and what a test wants to see without a load balancer.
		m.Route(Services4+" via "+node4(1), Services6+" via "+node6(1))
	}
	if c.Options.Flannel != "" { // gives nodes the routes, and masquerades
		return c.filterSources()
	}
	if c.Options.Masquerade {
		if err := c.Masquerade(true); err != nil {
			return err
		}
	}
	if !c.Options.Overlay {
		return c.makeRoutes()
	}
	if err := c.makeOverlay(); err != nil {
		return err
	}
	return c.filterSources()
}

// Unplug takes a machine's cable out of the switch. The machine runs on.
func (c *Cluster) Unplug(m *Machine) error { return ip(c.space("switch"), "link set "+m.Name+" down") }

// Plug puts it in again.
func (c *Cluster) Plug(m *Machine) error { return ip(c.space("switch"), "link set "+m.Name+" up") }

func node4(i int) string { return fmt.Sprintf("10.210.0.%d", 10+i) }
func node6(i int) string { return fmt.Sprintf("fd00:210::%d", 10+i) }

func pods4(i int) string { return fmt.Sprintf("10.211.%d.0", i) }
func pods6(i int) string { return fmt.Sprintf("fd00:211:0:%d::", i) }

// makeRoutes gives every machine routes to the pods.
func (c *Cluster) makeRoutes() error {
	for _, m := range append([]*Machine{c.Control, c.Outside}, c.Nodes...) {
		for i := 1; i <= len(c.Nodes); i++ {
			if m != c.Nodes[i-1] {
				m.Route(pods4(i)+"/24 via "+node4(i), pods6(i)+"/64 via "+node6(i))
			}
		}
		if err := m.Err(); err != nil {
			return err
		}
	}
	return nil
}

// makeOverlay connects nodes by tunnels: only nodes have routes to pods.
func (c *Cluster) makeOverlay() error {
	mac := func(i int) string { return fmt.Sprintf("02:00:00:00:00:%02x", i) }
	for i, m := range c.Nodes {
		self := i + 1
		m.IP(fmt.Sprintf("link add %s address %s mtu %s type vxlan id 1 dev eth0 local %s dstport 4789 nolearning", overlayDevice, mac(self), overlayMTU, m.IPv4),
			"addr add "+pods4(self)+"/32 dev "+overlayDevice, "addr add "+pods6(self)+"/128 dev "+overlayDevice+" nodad",
			"link set "+overlayDevice+" up")
		for peer := 1; peer <= len(c.Nodes); peer++ {
			if peer == self {
				continue
			}
			on := " dev " + overlayDevice
			m.IP("neigh add "+pods4(peer)+" lladdr "+mac(peer)+on, "neigh add "+pods6(peer)+" lladdr "+mac(peer)+on)
			m.Route(pods4(peer)+"/24 via "+pods4(peer)+on+" onlink", pods6(peer)+"/64 via "+pods6(peer)+on+" onlink")
			if err := batch("bridge", c.space(m.Name), []string{"fdb append " + mac(peer) + on + " dst " + node4(peer)}); err != nil {
				return err
			}
		}
		if err := m.Err(); err != nil {
			return err
		}
	}
	return nil
}

// TunnelAddresses returns a node's addresses in the tunnels to other nodes.
func (c *Cluster) TunnelAddresses(m *Machine) (ipv4, ipv6 string) {
	i := slices.Index(c.Nodes, m) + 1
	return pods4(i), pods6(i)
}

// BridgeAddresses returns a node's addresses on the bridge of its pods.
func (c *Cluster) BridgeAddresses(m *Machine) (ipv4, ipv6 string) {
	i := slices.Index(c.Nodes, m) + 1
	return fmt.Sprintf("10.211.%d.1", i), pods6(i) + "1"
}

// masquerade is put in place as a whole, whatever there was.
const masquerade = `table inet podnetwork
delete table inet podnetwork
table inet podnetwork {
	chain postrouting {
		type nat hook postrouting priority srcnat
		ip saddr %[1]s ip daddr != { %[1]s, 224.0.0.0/4 } masquerade
		ip6 saddr %[2]s ip6 daddr != { %[2]s, ff00::/8 } masquerade
	}
}
`

// Masquerade turns on or off that nodes masquerade packets of pods which leave the pod
// network.
func (c *Cluster) Masquerade(on bool) error {
	rules := fmt.Sprintf(masquerade, Pods4, Pods6)
	if !on {
		rules = "table inet podnetwork\ndelete table inet podnetwork\n"
	}
	for _, m := range c.Nodes {
		cmd := exec.Command("ip", "netns", "exec", c.space(m.Name), "nft", "-f", "-")
		if err := feed(cmd, rules); err != nil {
			return err
		}
	}
	return nil
}

// removeNetwork kills every process in the network namespaces of a cluster, and removes
// the namespaces. These processes are its machines' processes 1, so nothing of the
// cluster runs on.
func removeNetwork(prefix string) error {
	spaces, err := filepath.Glob(filepath.Join(netnsDir, prefix+"*"))
	if err != nil {
		return err
	}
	for _, path := range spaces {
		name := filepath.Base(path)
		err := lab.Eventually(20*time.Second, func() error {
			out, _ := exec.Command("ip", "netns", "pids", name).Output() // fails where the file is no namespace any more
			pids := strings.Fields(string(out))
			for _, word := range pids {
				if pid, err := strconv.Atoi(word); err == nil {
					_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended by itself
				}
			}
			if len(pids) > 0 {
				return fmt.Errorf("processes %s in network namespace %s have not ended", strings.Join(pids, " "), name)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if err := ip("", "netns del "+name); err != nil {
			return err
		}
	}
	return nil
}
