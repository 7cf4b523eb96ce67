// SPDX-License-Identifier: Apache-2.0

package checkup

import "github.com/kubernetes-sigs/blixt/operator/finding"

// Guides explain the checks, in their order.
var Guides = []finding.Guide{
	{
		Check:  "kernel",
		Looks:  "whether this kernel loads a program and attaches it by TCX, by doing so once.",
		Failed: "`blixt run` cannot start here.",
		Cause:  "Linux is older than 6.6, or is built without BPF or TCX.",
		Cure:   "Boot Linux 6.6 or newer: `uname -r` tells which one runs. Unknown means that doctor was not run as root.",
	},
	{
		Check:   "jit",
		Looks:   "net.core.bpf_jit_enable.",
		Warning: "the kernel interprets programs: all works, and each packet costs several times as much.",
		Cause:   "somebody has switched the compiler off, or an architecture has none.",
		Cure:    "`sysctl -w net.core.bpf_jit_enable=1`, and write it into a file of /etc/sysctl.d.",
	},
	{
		Check:  "forwarding",
		Looks:  "net.ipv4.ip_forward, net.ipv6.conf.all.forwarding and the same of each interface, for the families of the backends that are served.",
		Failed: "packets to backends on other machines or in containers are dropped. `blixt drops` counts drop_forwarding_off.",
		Cause:  "a host forwards nothing by default, and tools that manage networks reset the setting.",
		Cure:   "`sysctl -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1`, and write it into a file of /etc/sysctl.d.",
	},
	{
		Check:   "rp-filter",
		Looks:   "rp_filter of the interfaces with the program, and whether backends are reached through the host's network stack, as those in containers are.",
		Warning: "the kernel drops packets of clients that come in by another interface than answers to them would leave by. TcpExtIPReversePathFilter of `nstat -az` counts them, Blixt does not.",
		Cause:   "rp_filter is 1 (strict), as some distributions have it, on a host with several interfaces.",
		Cure:    "`sysctl -w net/ipv4/conf/INTERFACE/rp_filter=2` for each interface that is named.",
	},
	{
		Check:   "arp",
		Looks:   "arp_ignore of the interfaces in whose network an address of a frontend is.",
		Failed:  "nobody on that link learns who has the address: clients there get no answer at all.",
		Warning: "several interfaces answer for the address, and neighbours choose any of them.",
		Cause:   "arp_ignore is 3 or more, as direct-return set-ups want it; or two interfaces are in one network.",
		Cure:    "`sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2`, or give each interface a network of its own.",
	},
	{
		Check:   "mtu",
		Looks:   "the MTU of the interface that leads to each backend, against the largest by which clients may come in.",
		Warning: "larger packets are answered with ICMP \"too big\", which clients must get. Where a firewall drops that, connections begin and then hang.",
		Cause:   "a tunnel, a VPN or a container network on the way to the backend, or jumbo frames on one side only.",
		Cure:    "let ICMP errors of this host pass to clients, or make the MTUs equal: `ip link set INTERFACE mtu N`.",
	},
	{
		Check:   "firewall",
		Looks:   "rules of nftables and iptables that hold for packets to backends which the host's stack forwards. A rule that may or may not match counts as one that does not drop. Rules of the input hook, as those of ufw and firewalld, hold for no frontend: those are looked for that name a frontend's port and let in some clients only, or shut some out, unless a BlixtPolicy says whom the frontend admits.",
		Failed:  "a rule surely drops what goes to a backend. Clients wait in vain.",
		Warning: "somebody has written who may use this port, and Blixt serves every client.",
		Cause:   "Docker drops what does not go to a published port; other firewalls have policy DROP for forwarded packets. Rules of the input hook are from the server that had the port before, or meant for Blixt, whose packets they do not see.",
		Cure:    "of a warning: write who may connect into `sources.allow` of a BlixtPolicy (docs/firewall.md), and delete rules that were for another server. Of a failure: the remedy is the command that lets these packets pass, such as `iptables -t filter -I DOCKER-USER -d 172.17.0.2/32 -p tcp --dport 80 -j ACCEPT`. Unknown means that the rules could not be read: run doctor as root.",
	},
	{
		Check:   "bridge-filter",
		Looks:   "net.bridge.bridge-nf-call-iptables, and whether backends are reached through the host's stack.",
		Warning: "rules of iptables hold between the ports of a bridge, too. Those against state INVALID drop answers of backends there.",
		Cause:   "the module br_netfilter is loaded, by Docker or Kubernetes.",
		Cure:    "if nothing needs it: `sysctl -w net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0`.",
	},
	{
		Check:   "conntrack",
		Looks:   "how many of the entries of the host's conntrack table are in use.",
		Warning: "nine of ten are: when it is full, the kernel drops what passes the host's own stack. What Blixt sends itself needs no entry.",
		Cause:   "many connections through NAT or a stateful firewall of this host, or a flood.",
		Cure:    "`sysctl -w net.netfilter.nf_conntrack_max=N`, with twice what it is.",
	},
	{
		Check: "ipsec",
		Looks: "the host's IPsec policies (ip xfrm policy), and which backends they cover. Those are reached through the host's stack, which encrypts. This is told with ok: nothing is wrong.",
		Cause: "unknown: the policies could not be read.",
		Cure:  "run doctor as root.",
	},
	{
		Check:  "source-ports",
		Looks:  "whether the ports by which Blixt translates (--snat-ports) are also those of the host's own connections (net.ipv4.ip_local_port_range).",
		Failed: "a connection of the host and one of a client may have the same ports: each gets packets of the other.",
		Cause:  "the range of the host's ports was widened, or --snat-ports was chosen within it.",
		Cure:   "`blixt run --snat-ports 11000-29999`, or narrow the other: `sysctl -w net.ipv4.ip_local_port_range=\"32768 60999\"`.",
	},
}
