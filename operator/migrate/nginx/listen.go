// SPDX-License-Identifier: Apache-2.0

package nginx

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubernetes-sigs/blixt/operator/migrate"
)

// listen is a port that a server listens to, at one address or several.
type listen struct {
	migrate.Place
	protocol           corev1.Protocol
	addresses          []netip.Addr
	port, endPort      uint16
	ssl, proxyProtocol bool
	notes              []migrate.Note
}

func (l *listen) note(d *directive, effect migrate.Effect, format string, args ...any) {
	l.notes = append(l.notes, migrate.Note{Place: d.Place, Effect: effect, Text: fmt.Sprintf(format, args...)})
}

// listens returns those of the server: listen directives of the same port are one.
func (c settings) listens() []listen {
	var all []listen
	taken := map[string]*directive{} // by protocol, address and ports
	for _, d := range c.server.block {
		if d.name != "listen" {
			continue
		}
		l, err := parseListen(d)
		if err != nil {
			c.plan.Note(d.Place, migrate.Lost, "%s: %s", d, err)
			continue
		}
		for _, a := range l.addresses {
			key := fmt.Sprint(l.protocol, a, l.port, l.endPort)
			if was := taken[key]; was != nil {
				c.refuse(d, "%s listens there already, at %s", was, was.Place)
				return nil
			}
			taken[key] = d
		}
		i := slices.IndexFunc(all, func(o listen) bool {
			return o.protocol == l.protocol && o.port == l.port && o.endPort == l.endPort && o.ssl == l.ssl && o.proxyProtocol == l.proxyProtocol
		})
		if i < 0 {
			all = append(all, l)
			continue
		}
		all[i].addresses = append(all[i].addresses, l.addresses...)
		all[i].notes = append(all[i].notes, l.notes...)
	}
	return all
}

// parseListen reads [ADDRESS:]PORT[-PORT] [PARAMETER...].
func parseListen(d *directive) (listen, error) {
	l := listen{Place: d.Place}
	if len(d.args) == 0 {
		return l, fmt.Errorf("it names no port")
	}
	where := d.args[0]
	if strings.HasPrefix(where, "unix:") {
		return l, fmt.Errorf("clients of this host connect to a socket file, which no packet reaches: have them connect to an address")
	}
	if err := l.parseWhere(where); err != nil {
		return l, err
	}
	l.parameters(d)
	return l, nil
}

func (l *listen) parseWhere(where string) error {
	host, ports := "", where
	if i := strings.LastIndexByte(where, ':'); i >= 0 {
		host, ports = where[:i], where[i+1:]
	} else if _, is := parseHost(where); is || strings.HasPrefix(where, "[") {
		return fmt.Errorf("it has no port: a listen of stream {} needs one")
	}
	first, last, isRange := strings.Cut(ports, "-")
	n, ok := number(first)
	end, okEnd := n, true
	if isRange {
		end, okEnd = number(last)
	}
	if !ok || !okEnd || n < 1 || end > 65535 || end < n {
		return fmt.Errorf("%q is no port from 1 to 65535, and no range of them", clip(ports))
	}
	l.port = uint16(n)
	if end > n {
		l.endPort = uint16(end)
	}
	switch addr, is := parseHost(host); {
	case host == "" || host == "*":
		l.addresses = []netip.Addr{netip.IPv4Unspecified()}
	case is:
		l.addresses = []netip.Addr{addr}
	default:
		return fmt.Errorf("%s", lookUp(host, ""))
	}
	return nil
}

// lookUp says what to do about a name where Blixt needs an address. People paste the command: it
// has nothing in it that a shell reads.
func lookUp(host, more string) string {
	if !isHostName(host) {
		return fmt.Sprintf("%q is no host name, and no address: write one", clip(host))
	}
	return fmt.Sprintf("Blixt looks no names up: write the addresses of %s, which getent ahosts %s tells%s", clip(host), clip(host), more)
}

// isHostName reports whether a text has the letters of a name, and is no flag.
func isHostName(text string) bool {
	return text != "" && len(text) <= 253 && text[0] != '-' && strings.Trim(text, hostLetters) == ""
}

const hostLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._"

func (l *listen) parameters(d *directive) {
	var own []string // about nginx's socket
	for _, p := range d.args[1:] {
		name, value, _ := strings.Cut(p, "=")
		switch name {
		case "udp":
			l.protocol = corev1.ProtocolUDP
		case "ssl":
			l.ssl = true
		case "proxy_protocol":
			l.proxyProtocol = true
		case "ipv6only":
			if value == "off" && len(l.addresses) == 1 && l.addresses[0] == netip.IPv6Unspecified() {
				l.addresses = append(l.addresses, netip.IPv4Unspecified())
			}
		case "default_server", "default", "bind", "reuseport", "backlog", "fastopen", "rcvbuf", "sndbuf", "so_keepalive", "deferred", "accept_filter", "setfib", "multipath":
			own = append(own, p)
		default:
			l.note(d, migrate.Lost, "%s: Blixt does not know the parameter %s", d, clip(p))
		}
	}
	if l.protocol == "" {
		l.protocol = protocolOf(false)
	}
	if len(own) > 0 {
		l.note(d, migrate.Unneeded, "%s: %s: about the socket of nginx, and Blixt has none", d, strings.Join(own, " "))
	}
}
