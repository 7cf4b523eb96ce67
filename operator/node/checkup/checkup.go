// SPDX-License-Identifier: Apache-2.0

// Package checkup finds settings of a host that keep Blixt from working on it. Read gets
// Facts of the host, and Check derives Findings from them: for each precondition what was
// seen, and a remedy. Check is pure. Nothing is written.
package checkup

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/finding"
	"github.com/kubernetes-sigs/blixt/operator/node/advice"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// Facts are what is known of a host.
type Facts struct {
	// Kernel is its release. KernelError is why it does not do, PrivilegeError why this
	// process may not tell.
	Kernel                      string
	KernelError, PrivilegeError string
	// JIT is false if programs are interpreted.
	JIT        bool
	Interfaces []Interface
	// Instances are the load balancers of the host, with what their state says.
	Instances []Instance
	// Backends are those to which packets are forwarded.
	Backends []Backend
	// Forwarding, Firewall and Input are messages of package advice; FirewallError is why there
	// may be more.
	Forwarding, Firewall, Input []string
	FirewallError               string
	// ReversePathDrops is how many packets the kernel has dropped by rp_filter.
	ReversePathDrops uint64
	// BridgeFilter is true if rules of iptables hold within bridges.
	BridgeFilter bool
	// Conntrack is how many connections the host's NAT and firewall know, of at most so
	// many.
	Conntrack, ConntrackMax uint64
	// Covered are backends that IPsec policies of the host cover; IPsecError is why they
	// are not known.
	Covered    []string
	IPsecError string
}

// Interface is one that may get the program.
type Interface struct {
	Name string
	MTU  int
	// Attached reports that a load balancer of this host has the program there.
	Attached bool
	Loopback bool
	// RPFilter and ARPIgnore are in force.
	RPFilter, ARPIgnore int
	Networks            []netip.Prefix
}

// Instance is a load balancer.
type Instance struct {
	Name string
	// Addresses are those of its frontends.
	Addresses []netip.Addr
	// PortsError is why its source ports are not its own.
	PortsError string
}

// Backend is one, and the interface by which the host reaches it; "": by none.
type Backend struct {
	advice.Backend
	Out string
}

// check examines one precondition. It returns what is wrong or, if nothing is, what is
// right.
type check struct {
	name string
	look func(*Facts) (fine string, wrong []finding.Finding)
}

// checks are in the order in which to repair.
var checks = []check{
	{"kernel", kernel},
	{"jit", jit},
	{"forwarding", forwarding},
	{"rp-filter", rpFilter},
	{"arp", arp},
	{"mtu", mtu},
	{"firewall", firewall},
	{"bridge-filter", bridgeFilter},
	{"conntrack", conntrack},
	{"ipsec", ipsecPolicies},
	{"source-ports", sourcePorts},
}

// Check runs all checks. Each returns at least one Finding, and the order is always the
// same.
func Check(f *Facts) (all []finding.Finding) {
	for _, c := range checks {
		fine, found := c.look(f)
		if len(found) == 0 {
			found = []finding.Finding{{Verdict: finding.OK, Seen: fine}}
		}
		for i := range found {
			found[i].Check = c.name
		}
		finding.Sort(found)
		all = append(all, found...)
	}
	return all
}

func kernel(f *Facts) (string, []finding.Finding) {
	switch {
	case f.PrivilegeError != "":
		return "", []finding.Finding{{Verdict: finding.Unknown, Seen: "Linux " + f.Kernel + ": " + f.PrivilegeError, Remedy: "Run blixt doctor as root."}}
	case f.KernelError != "":
		return "", []finding.Finding{{Verdict: finding.Failed, Seen: f.KernelError, Remedy: "Boot Linux 6.6 or newer."}}
	}
	return "Linux " + f.Kernel + " attaches programs by TCX", nil
}

func jit(f *Facts) (string, []finding.Finding) {
	if !f.JIT {
		return "", []finding.Finding{{Verdict: finding.Warning, Seen: "net.core.bpf_jit_enable is 0: each packet costs several times as much", Remedy: "sysctl -w net.core.bpf_jit_enable=1"}}
	}
	return "programs are compiled", nil
}

func forwarding(f *Facts) (string, []finding.Finding) {
	return fmt.Sprintf("the host forwards what %s need", phrase.Count(len(f.Backends), "backend")), failures(f.Forwarding)
}

// failures makes findings of messages of package advice, which end with a command.
func failures(messages []string) (all []finding.Finding) {
	for _, m := range messages {
		seen, remedy, _ := strings.Cut(m, "; run: ")
		all = append(all, finding.Finding{Verdict: finding.Failed, Seen: seen, Remedy: remedy})
	}
	return all
}

// stack returns the backends that are reached through the host's network stack.
func (f *Facts) stack() (all []Backend) {
	for _, b := range f.Backends {
		if b.Stack {
			all = append(all, b)
		}
	}
	return all
}

// rpFilter: the stack drops packets of clients that come in by another interface than
// answers would leave by. What the program redirects does not pass there.
func rpFilter(f *Facts) (string, []finding.Finding) {
	through := len(f.stack())
	var strict []string
	attached := 0
	for _, i := range f.Interfaces {
		if !i.Attached || i.Loopback || len(i.Networks) == 0 {
			continue
		}
		attached++
		if i.RPFilter == 1 {
			strict = append(strict, i.Name)
		}
	}
	if through == 0 || attached < 2 || len(strict) == 0 {
		return fmt.Sprintf("%s reached through the host's stack, by %d interfaces of which %d filter strictly", phrasal(through), attached, len(strict)), nil
	}
	seen := fmt.Sprintf("rp_filter is 1 (strict) on %s, and %s reached through the host's stack: it drops clients that come in by another interface than answers leave by", phrase.Sample(strict), phrasal(through))
	if f.ReversePathDrops > 0 {
		seen += fmt.Sprintf(". It has dropped %s packets (TcpExtIPReversePathFilter)", phrase.Number(int(f.ReversePathDrops)))
	}
	var commands []string
	for _, name := range strict {
		commands = append(commands, "net/ipv4/conf/"+name+"/rp_filter=2")
	}
	return "", []finding.Finding{{Verdict: finding.Warning, Seen: seen, Remedy: "sysctl -w " + strings.Join(commands, " ")}}
}

// phrasal returns "no backend is", "1 backend is" or "2 backends are".
func phrasal(n int) string {
	switch n {
	case 0:
		return "no backend is"
	case 1:
		return "1 backend is"
	}
	return phrase.Number(n) + " backends are"
}

// arp: an address is reached only if an interface of its network answers for it, and
// reliably only if no other interface does.
func arp(f *Facts) (string, []finding.Finding) {
	var wrong []finding.Finding
	n := 0
	for _, instance := range f.Instances {
		for _, ip := range instance.Addresses {
			n++
			var on []string
			flux := false
			for _, i := range f.Interfaces {
				if i.Loopback || !slices.ContainsFunc(i.Networks, func(p netip.Prefix) bool { return p.Contains(ip) }) {
					continue
				}
				on = append(on, i.Name)
				flux = flux || i.ARPIgnore == 0
				if ip.Is4() && i.ARPIgnore >= 3 {
					wrong = append(wrong, finding.Finding{Verdict: finding.Failed, Object: instance.Name,
						Seen:   fmt.Sprintf("arp_ignore is %d on %s: nobody on its link learns who has %s", i.ARPIgnore, i.Name, ip),
						Remedy: "sysctl -w net/ipv4/conf/" + i.Name + "/arp_ignore=1 net/ipv4/conf/all/arp_ignore=1"})
				}
			}
			if len(on) > 1 && ip.Is4() && flux {
				wrong = append(wrong, finding.Finding{Verdict: finding.Warning, Object: instance.Name,
					Seen:   fmt.Sprintf("%s are in the network of %s, and each answers ARP for it (arp_ignore=0)", phrase.Sample(on), ip),
					Remedy: "Give each interface a network of its own, or: sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2"})
			}
		}
	}
	return fmt.Sprintf("neighbours find the addresses of frontends: %d", n), wrong
}

// mtu: packets that do not fit are answered with the path MTU, which senders need to get.
func mtu(f *Facts) (string, []finding.Finding) {
	smallest := map[string]int{}
	largest := Interface{}
	for _, i := range f.Interfaces {
		smallest[i.Name] = i.MTU
		if i.Attached && !i.Loopback && i.MTU > largest.MTU {
			largest = i
		}
	}
	var wrong []finding.Finding
	told := map[string]bool{}
	for _, b := range f.Backends {
		if n := smallest[b.Out]; n > 0 && n < largest.MTU && !told[b.Out] {
			told[b.Out] = true
			wrong = append(wrong, finding.Finding{Verdict: finding.Warning, Object: b.Out,
				Seen:   fmt.Sprintf("its MTU is %d, and %s, by which clients may come in, has %d: larger packets to backend %s are answered with ICMP \"too big\"", n, largest.Name, largest.MTU, b.Addr),
				Remedy: "Let ICMP errors of this host pass to clients, or give both the same MTU: ip link set " + b.Out + " mtu " + fmt.Sprint(largest.MTU)})
		}
	}
	return fmt.Sprintf("%s reached by interfaces whose MTU is that of the clients' or larger", phrasal(len(f.Backends))), wrong
}

func firewall(f *Facts) (string, []finding.Finding) {
	wrong := failures(f.Firewall)
	for _, m := range f.Input {
		wrong = append(wrong, finding.Finding{Verdict: finding.Warning, Seen: m, Remedy: advice.InputRemedy})
	}
	if f.FirewallError != "" {
		wrong = append(wrong, finding.Finding{Verdict: finding.Unknown, Seen: "the rules could not be read: " + f.FirewallError, Remedy: "Run blixt doctor as root."})
	}
	return fmt.Sprintf("no rule surely drops packets to backends; %s reached through the host's stack, where rules hold; those of input hold for no frontend", phrasal(len(f.stack()))), wrong
}

func bridgeFilter(f *Facts) (string, []finding.Finding) {
	if n := len(f.stack()); f.BridgeFilter && n > 0 {
		return "", []finding.Finding{{Verdict: finding.Warning, Seen: fmt.Sprintf("net.bridge.bridge-nf-call-iptables is 1: rules of iptables hold between ports of a bridge, too, and those against state invalid drop answers of backends there (%s reached through the host's stack)", phrasal(n)),
			Remedy: "If nothing needs it: sysctl -w net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0"}}
	}
	return "rules of iptables do not come between bridges and backends", nil
}

func conntrack(f *Facts) (string, []finding.Finding) {
	if f.ConntrackMax > 0 && f.Conntrack*10 >= f.ConntrackMax*9 {
		return "", []finding.Finding{{Verdict: finding.Warning, Seen: fmt.Sprintf("the host's conntrack table has %d of %d entries: when it is full, what passes the host's stack is dropped", f.Conntrack, f.ConntrackMax),
			Remedy: fmt.Sprintf("sysctl -w net.netfilter.nf_conntrack_max=%d", 2*f.ConntrackMax)}}
	}
	return "the host's conntrack table has room, or is not used", nil
}

func ipsecPolicies(f *Facts) (string, []finding.Finding) {
	if f.IPsecError != "" {
		return "", []finding.Finding{{Verdict: finding.Unknown, Seen: f.IPsecError, Remedy: "Run blixt doctor as root."}}
	}
	if len(f.Covered) > 0 {
		return fmt.Sprintf("policies cover %s, which are reached through the host's stack", phrase.Sample(f.Covered)), nil
	}
	return "no policy covers a backend", nil
}

func sourcePorts(f *Facts) (string, []finding.Finding) {
	var wrong []finding.Finding
	for _, i := range f.Instances {
		if i.PortsError != "" {
			seen, remedy, _ := strings.Cut(i.PortsError, ": ")
			wrong = append(wrong, finding.Finding{Verdict: finding.Failed, Object: i.Name, Seen: seen, Remedy: remedy})
		}
	}
	return "source ports are not those of the host's own connections, for " + phrase.Count(len(f.Instances), "load balancer"), wrong
}
