// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
)

// A switch that checks sources drops what a machine sends with the address of
// another, as the networks of clouds do. The router sends for everybody.
const underlay = `table bridge underlay {
	set sources4 { type ifname . ipv4_addr; flags interval; }
	set sources6 { type ifname . ipv6_addr; flags interval; }
	counter dropped { }
	chain forward {
		type filter hook forward priority filter
		iifname "outside" accept
		ip6 saddr { ::, fe80::/10 } accept
		iifname . ip saddr @sources4 accept
		iifname . ip6 saddr @sources6 accept
		meta protocol { ip, ip6 } counter name dropped drop
	}
}
`

// ChecksSources reports whether the switch checks source addresses: where other
// machines know no way to pods.
func (c *Cluster) ChecksSources() bool { return c.Options.Overlay || c.Options.Flannel != "" }

// filterSources configures which source addresses the switch accepts of each machine.
func (c *Cluster) filterSources() error {
	if err := feed(c.switchCommand("nft", "-f", "-"), underlay); err != nil {
		return err
	}
	if err := c.AllowSources(c.Control, Control4, Control6); err != nil {
		return err
	}
	for i, m := range c.Nodes {
		own := []string{m.IPv4, m.IPv6}
		if !c.Options.Overlay { // its pods send as themselves
			own = append(own, pods4(i+1)+"/24", pods6(i+1)+"/64")
		}
		if err := c.AllowSources(m, own...); err != nil {
			return err
		}
	}
	return nil
}

// AllowSources allows a machine more source addresses, or subnets, where the switch
// checks them.
func (c *Cluster) AllowSources(m *Machine, addresses ...string) error {
	if !c.ChecksSources() {
		return nil
	}
	var commands strings.Builder
	for _, a := range addresses {
		set := "sources4"
		if strings.Contains(a, ":") {
			set = "sources6"
		}
		fmt.Fprintf(&commands, "add element bridge underlay %s { %q . %s }\n", set, m.Name, a)
	}
	return feed(c.switchCommand("nft", "-f", "-"), commands.String())
}

var packets = regexp.MustCompile(`packets (\d+) `)

// DroppedSources returns how many packets the switch has dropped for their source
// address.
func (c *Cluster) DroppedSources() (int, error) {
	out, err := output(c.switchCommand("nft", "list", "counter", "bridge", "underlay", "dropped"))
	if err != nil {
		return 0, err
	}
	match := packets.FindStringSubmatch(out)
	if match == nil {
		return 0, fmt.Errorf("nft does not tell of packets: %s", out)
	}
	return strconv.Atoi(match[1])
}

func (c *Cluster) switchCommand(args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", c.space("switch")}, args...)...)
}
