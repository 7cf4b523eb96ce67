// SPDX-License-Identifier: Apache-2.0

package advice

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// most is how many backends Firewall looks at, and frontends Input: as many as people read
// messages of, and more.
const most = 256

// saveLimit is how long iptables-save may take: it waits for whoever changes rules.
const saveLimit = 3 * time.Second

// Firewall returns a message for each backend that the host's own stack reaches and
// whose packets a rule of the host's firewall drops: Docker drops what does not go to a
// published port. It reads nftables, and runs iptables-save where that is installed. A
// rule that may let the packets through, or may not, counts as one that does. It returns
// an error if it could not read the rules this time.
func Firewall(ctx context.Context, backends []Backend) (messages []string, err error) {
	backends = slices.DeleteFunc(slices.Clone(backends), func(b Backend) bool { return !b.Stack })
	backends = backends[:min(len(backends), most)]
	read := families{}
	for _, b := range backends {
		out := outInterface(b)
		if out == "" {
			continue
		}
		f, err := read.of(ctx, b.Addr.Addr())
		if err != nil {
			return nil, err
		}
		if m := f.message(b, out); m != "" {
			messages = append(messages, m)
		}
	}
	return messages, nil
}

// firewall is the rules of a family.
type firewall struct {
	command  string // iptables or ip6tables
	iptables rules
	nftables rules
	// hooks are the chains of nftables that forwarded packets pass, inputHooks those of packets for the host.
	hooks, inputHooks [][2]string
}

// families are firewalls by whether they are of IPv6.
type families map[bool]*firewall

// of returns the firewall of an address's family. It reads each once.
func (r families) of(ctx context.Context, addr netip.Addr) (f *firewall, err error) {
	if f = r[addr.Is6()]; f == nil {
		f, err = readFirewall(ctx, addr.Is6())
		r[addr.Is6()] = f
	}
	return f, err
}

func readFirewall(ctx context.Context, v6 bool) (f *firewall, err error) {
	f = &firewall{command: "iptables"}
	if v6 {
		f.command = "ip6tables"
	}
	if f.iptables, err = save(ctx, f.command); err != nil {
		return nil, err
	}
	f.nftables, f.hooks, f.inputHooks, err = readNftables(v6, f.iptables)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPROTONOSUPPORT) { // the kernel has none
		err = nil
	}
	return f, err
}

// outInterface returns the interface by which the host's stack forwards packets to a
// backend, "": there is no route.
func outInterface(b Backend) string {
	routes, err := netlink.RouteGet(b.Addr.Addr().AsSlice())
	if err != nil || len(routes) == 0 {
		return ""
	}
	link, err := netlink.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return ""
	}
	return link.Attrs().Name
}

// save returns the rules of iptables or ip6tables, none if it is not there.
func save(ctx context.Context, command string) (rules, error) {
	ctx, cancel := context.WithTimeout(ctx, saveLimit)
	defer cancel()
	out, err := exec.CommandContext(ctx, command+"-save").Output()
	if errors.Is(err, exec.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s-save: %w", command, err)
	}
	return parseRules(string(out)), nil
}

// message says by which rules packets to a backend are dropped, and what lets them
// through, "": nothing drops them for sure.
func (f *firewall) message(b Backend, out string) string {
	p := packet{to: b.Addr, protocol: strings.ToLower(b.Protocol.String()), out: out, dst: "UNICAST"}
	var found, commands []string
	for _, d := range f.iptables.drops(iptablesHooks, p) {
		chain := d.chain
		if d.table == "filter" && f.iptables[d.table]["DOCKER-USER"] != nil {
			chain = "DOCKER-USER" // Docker leaves it to the administrator, and rewrites the others
		}
		found = append(found, fmt.Sprintf("table %s: %s", d.table, d.rule))
		commands = append(commands, fmt.Sprintf("%s -t %s -I %s -d %s -p %s --dport %d -j ACCEPT",
			f.command, d.table, chain, netip.PrefixFrom(b.Addr.Addr(), b.Addr.Addr().BitLen()), p.protocol, b.Addr.Port()))
	}
	for _, d := range f.nftables.drops(f.hooks, p) {
		family := "ip"
		if b.Addr.Addr().Is6() {
			family = "ip6"
		}
		found = append(found, fmt.Sprintf("nft table %s, chain %s: %s", d.table, d.chain, d.rule))
		commands = append(commands, fmt.Sprintf("nft insert rule %s %s %s daddr %s %s dport %d accept", d.table, d.chain, family, b.Addr.Addr(), p.protocol, b.Addr.Port()))
	}
	if found == nil {
		return ""
	}
	return fmt.Sprintf("this host's firewall drops packets to backend %s at %s (%s); run: %s", b.Addr, out, strings.Join(found, "; "), strings.Join(commands, " && "))
}
