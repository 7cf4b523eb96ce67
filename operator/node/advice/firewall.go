// SPDX-License-Identifier: Apache-2.0

package advice

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
)

// most is how many backends Firewall looks at: as many as people read messages of, and
// more.
const most = 256

// saveLimit is how long iptables-save may take: it waits for whoever changes rules.
const saveLimit = 3 * time.Second

// Firewall returns a message for each backend that the host's own stack reaches and
// whose packets a rule of the host's firewall drops: Docker drops what does not go to a
// published port. It runs iptables-save, and knows nothing where there is none. A rule
// that may let the packets through, or may not, counts as one that does. It returns an
// error if it could not read the rules this time.
func Firewall(ctx context.Context, backends []Backend) (messages []string, err error) {
	saved := map[string]rules{}
	looked := 0
	for _, b := range backends {
		if !b.Stack {
			continue
		}
		if looked++; looked > most {
			break
		}
		out := outInterface(b)
		if out == "" {
			continue
		}
		command := "iptables"
		if b.Addr.Addr().Is6() {
			command = "ip6tables"
		}
		if _, done := saved[command]; !done {
			if saved[command], err = save(ctx, command); err != nil {
				return nil, err
			}
		}
		if m := saved[command].message(command, b, out); m != "" {
			messages = append(messages, m)
		}
	}
	return messages, nil
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

// message says by which rule packets to a backend are dropped, and what lets them
// through, "": nothing drops them for sure.
func (r rules) message(command string, b Backend, out string) string {
	p := packet{to: b.Addr, protocol: strings.ToLower(b.Protocol.String()), out: out}
	var found, commands []string
	for _, d := range r.drops(p) {
		chain := d.chain
		if d.table == "filter" && r[d.table]["DOCKER-USER"] != nil {
			chain = "DOCKER-USER" // Docker leaves it to the administrator, and rewrites the others
		}
		found = append(found, fmt.Sprintf("table %s: %s", d.table, d.rule))
		commands = append(commands, fmt.Sprintf("%s -t %s -I %s -d %s -p %s --dport %d -j ACCEPT",
			command, d.table, chain, netip.PrefixFrom(b.Addr.Addr(), b.Addr.Addr().BitLen()), p.protocol, b.Addr.Port()))
	}
	if found == nil {
		return ""
	}
	return fmt.Sprintf("this host's firewall drops packets to backend %s at %s (%s); run: %s", b.Addr, out, strings.Join(found, "; "), strings.Join(commands, " && "))
}
