// SPDX-License-Identifier: Apache-2.0

package shortform

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"unicode"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// option is what may follow an address, after a comma.
type option[T any] struct {
	name, value string // as documented
	set         func(*T, string) error
}

var listenOptions = append([]option[listen]{{"name", "NAME", (*listen).setName}}, policyOptions...)

var backendOptions = []option[backend]{
	{"weight", "N", (*backend).setWeight},
}

// setOptions sets those in the text, such as name=web.
func setOptions[T any](of *T, flag, text string, known []option[T]) error {
	given := map[string]bool{}
	for _, one := range strings.Split(text, ",") {
		name, value, _ := strings.Cut(one, "=")
		var names []string
		var set func(*T, string) error
		for _, k := range known {
			names = append(names, k.name+"="+k.value)
			if k.name == name {
				set = k.set
			}
		}
		if set == nil {
			return fmt.Errorf("option %q is unknown: a --%s can have %s", show(name), flag, phrase.Join(names))
		}
		if given[name] && name != "allow" && name != "deny" { // lists
			return fmt.Errorf("option %s is given twice", name)
		}
		given[name] = true
		if err := set(of, value); err != nil {
			return err
		}
	}
	return nil
}

// parse reads [ADDRESS:]PORT[/PROTOCOL][,OPTION...].
func (l *listen) parse() error {
	text, options, more := strings.Cut(l.Value, ",")
	if err := checkText(l.Value); err != nil {
		return err
	}
	where, protocol, named := strings.Cut(text, "/")
	l.protocol = "tcp"
	if named {
		l.protocol = strings.ToLower(protocol)
	}
	if l.protocol != "tcp" && l.protocol != "udp" {
		return fmt.Errorf("protocol %q is not supported: write /tcp or /udp", show(protocol))
	}
	if isNumber(where) {
		where = ":" + where
	}
	host, port, err := split(where)
	switch {
	case err != nil:
		return err
	case host == "*" || host == "0.0.0.0" || host == "::":
		return fmt.Errorf("write :%s/%s for every address of this host", show(port), l.protocol)
	case port == "" && host != "":
		return fmt.Errorf("a port is missing: write %s:80, or another port", show(strings.TrimSuffix(where, ":")))
	}
	if l.port, err = parsePort(port); err != nil {
		return err
	}
	if host != "" {
		if l.addr, err = parseAddress(host); err != nil {
			return err
		}
	}
	l.name = l.defaultName()
	if !more {
		return nil
	}
	return setOptions(l, Listen, options, listenOptions)
}

// parse reads ADDRESS[:PORT][,OPTION...].
func (b *backend) parse() error {
	text, options, more := strings.Cut(b.Value, ",")
	if err := checkText(b.Value); err != nil {
		return err
	}
	where, rest, slash := strings.Cut(text, "/")
	if slash {
		return fmt.Errorf("a backend is one address, with the protocol of its --listen: leave /%s away", show(rest))
	}
	host, port, err := split(where)
	if err != nil {
		return err
	}
	if host == "" {
		return fmt.Errorf("an address is missing: write 10.0.0.1%s, or another server's", show(where))
	}
	if b.addr, err = parseAddress(host); b.addr.IsLoopback() {
		return fmt.Errorf("%w: for a server on this host write the address of an interface, on which it must listen", err)
	}
	if err != nil {
		return err
	}
	if strings.HasSuffix(where, ":"+port) {
		if b.port, err = parsePort(port); err != nil {
			return err
		}
	}
	b.weight = 1
	if !more {
		return nil
	}
	return setOptions(b, Backend, options, backendOptions)
}

// checkText returns an error for what people paste although it is no address.
func checkText(text string) error {
	scheme, rest, isURL := strings.Cut(text, "://")
	switch {
	case text == "":
		return errors.New("it is empty: write an address and a port, such as 192.0.2.10:80")
	case strings.ContainsFunc(text, unicode.IsSpace):
		return errors.New("it has white space: write address, port and options without")
	case isURL:
		rest, _, _ = strings.Cut(rest, "/")
		return fmt.Errorf("%s://… is a URL, and Blixt balances TCP and UDP, whatever is in it: write %s", show(scheme), show(rest))
	}
	return nil
}

// split returns the address and the port of a text such as 192.0.2.10:80 or
// [2001:db8::1]:53. Either may be missing.
func split(text string) (host, port string, err error) {
	if inside, isIPv6 := strings.CutPrefix(text, "["); isIPv6 {
		host, after, closed := strings.Cut(inside, "]")
		port, hasPort := strings.CutPrefix(after, ":")
		if !closed || host == "" || after != "" && !hasPort {
			return "", "", errors.New("its brackets are wrong: write an IPv6 address like [2001:db8::1]:80")
		}
		if addr, err := netip.ParseAddr(host); err == nil && addr.Is4() {
			return "", "", fmt.Errorf("brackets are for IPv6: write %s", strings.NewReplacer("[", "", "]", "").Replace(text))
		}
		return host, port, nil
	}
	if strings.Count(text, ":") > 1 {
		return "", "", errors.New("write an IPv6 address in brackets, like [2001:db8::1]:80")
	}
	host, port, _ = strings.Cut(text, ":")
	return host, port, nil
}

func parseAddress(text string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return addr, fmt.Errorf("%s is no IP address: write one, as names are not looked up", show(text))
	}
	if addr.Is4In6() {
		return addr, fmt.Errorf("%s is an IPv4 address written as IPv6: write %s", addr, addr.Unmap())
	}
	if why := gateway.InvalidAddress(addr); why != "" {
		return addr, fmt.Errorf("address %s cannot be used: %s", show(text), why)
	}
	return addr, nil
}

func isNumber(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool { return r < '0' || r > '9' })
}

// number reads a decimal number of at most max, without a sign.
func number(text string, most uint64) (uint64, bool) {
	n, err := strconv.ParseUint(text, 10, 64)
	return n, err == nil && isNumber(text) && n <= most
}

func parsePort(text string) (uint16, error) {
	n, ok := number(text, 65535)
	if !ok || n == 0 {
		return 0, fmt.Errorf("port %q is no number from 1 to 65535", show(text))
	}
	return uint16(n), nil
}

// maxWeight is Gateway API's limit for a backendRef.
const maxWeight = 1_000_000

func (b *backend) setWeight(text string) error {
	n, ok := number(text, maxWeight)
	if !ok {
		return fmt.Errorf("weight %q is no whole number from 0 to %d", show(text), maxWeight)
	}
	b.weight = int(n)
	return nil
}

// A name is that of a Service, too, to which something is added: see servers.name.
var validName = regexp.MustCompile(`^[a-z]([-a-z0-9]{0,48}[a-z0-9])?$`)

func (l *listen) setName(text string) error {
	if !validName.MatchString(text) {
		return fmt.Errorf("name %q is not allowed: write at most 50 lower-case letters, digits and dashes, first a letter, last no dash", show(text))
	}
	l.name = text
	return nil
}

// defaultName returns a name that depends on nothing but what is listened to: flags come
// and go, and metrics have names.
func (l *listen) defaultName() string {
	name := fmt.Sprintf("%s-%d", l.protocol, l.port)
	if !l.addr.IsValid() {
		return name
	}
	addr := strings.NewReplacer(".", "-", ":", "-").Replace(l.addr.String())
	if strings.HasSuffix(addr, "-") { // such as 2001:db8::
		addr += "0"
	}
	return name + "-" + addr
}
