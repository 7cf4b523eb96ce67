// SPDX-License-Identifier: Apache-2.0

package observe

// Reason explains why packets are rejected or dropped. Rejected ones are answered, with
// a RST or an ICMP error.
type Reason struct {
	// Name is the counter's.
	Name string `json:"name"`
	// What happened to the packet, Cause why that happens in practice, and Cure what to
	// do about it.
	What  string `json:"what"`
	Cause string `json:"cause"`
	Cure  string `json:"cure"`
}

// Reasons are all of them, in the order of their counters.
var Reasons = []Reason{
	{
		"reject_no_backend", "its frontend has no backend, or the reject share of its ring was chosen",
		"The route's Services have no ready endpoint, or a backendRef is invalid and takes its weight of the connections.",
		"blixt status names the frontend. Look at ResolvedRefs of the route, and at the EndpointSlices of its Services.",
	},
	{
		"reject_unserved", "no listener has this port of an address that Blixt alone serves",
		"The client uses a wrong port or protocol, the listener has no valid route, or somebody scans ports.",
		"Compare the port with the Gateway's listeners, and look at their conditions. Scans need no cure.",
	},
	{
		"reject_backend_gone", "the backend of its flow was removed, or this node's address that the flow was translated to",
		"An endpoint was deleted or a permission withdrawn while connections lasted, or the node's address has changed.",
		"Nothing, if the change was meant: the client connects anew. Else let endpoints terminate gracefully, and keep the node's addresses.",
	},
	{
		"reject_ports_exhausted", "all source ports towards its backend are in use",
		"One endpoint has more connections through this node than --snat-ports has ports.",
		"Add endpoints, or widen the range of SNAT ports (snatPorts in the BlixtConfig, --snat-ports of a host).",
	},
	{
		"reject_too_big", "it is larger than the path to the backend and must not be split; the sender is told the MTU",
		"Path MTU discovery at work: a tunnel on the way has a smaller MTU.",
		"Nothing, if it is rare. If connections hang, let ICMP \"fragmentation needed\" and \"packet too big\" pass on the way to clients.",
	},
	{
		"reject_unreachable", "there is no route to its destination, or the next hop does not answer",
		"The backend's machine is down, has another address, or this node lacks the route of the pod network.",
		"On the node: ip route get BACKEND; ip neigh show. Remove endpoints that are dead.",
	},
	{
		"reject_hop_limit", "its hop limit (TTL) is used up",
		"traceroute, or a loop of routes.",
		"If it is not traceroute, look for a route that leads packets back: traceroute from this node to the backend.",
	},
	{
		"reject_protected", "it would leave in clear text although the host's IPsec policies want it protected",
		"A policy covers the backend, and the packet comes from a socket of this host.",
		"Exempt the backend from the policy (ip xfrm policy), or have the backend reached as the policy says.",
	},
	{
		"drop_protected", "the host's IPsec policies want answers to its client protected, and they would leave in clear text",
		"A policy covers the client's address.",
		"Exempt the client or the virtual address from the policy (ip xfrm policy), or have the client come through the tunnel.",
	},
	{
		"drop_martian", "its source is an address that nobody can answer",
		"A source of 0.0.0.0, a multicast, loopback or broadcast address: forged, or a client that is misconfigured.",
		"Filter such sources where they enter the network (BCP 38). blixt drops shows the interface.",
	},
	{
		"drop_no_flow", "a RST or an ICMP error for an address that Blixt alone serves, and no flow that it belongs to",
		"The flow has ended before, or somebody guesses connections.",
		"Nothing. If clients complain, look whether their flows expire too early: the idle time-out of the frontend in blixt status.",
	},
	{
		"drop_flow_gone", "a late packet of a backend whose flow is gone",
		"The flow was idle for longer than its time-out, or ended, and the backend did not know.",
		"Let the application send keepalives more often than the idle time-out, or raise that (idleTimeouts in the BlixtGatewayConfig).",
	},
	{
		"drop_fragment", "a later fragment without the first one",
		"The first fragment was lost, or takes another path than the later ones: a router or a bond that hashes ports.",
		"Have routers and bonds hash addresses alone, or avoid fragments: a smaller MTU at the sender.",
	},
	{
		"drop_unsupported", "neither TCP, UDP nor ICMP, for an address that Blixt alone serves",
		"Somebody sends GRE, ESP, SCTP or the like to a virtual address.",
		"Give that protocol an address of its own: Gateway API routes TCP and UDP here.",
	},
	{
		"drop_new_flow", "the kernel had no memory or room for a new flow",
		"The node is out of memory, or the tables of flows are full.",
		"blixt status shows the tables. Choose larger ones (--flows of blixt bytecode build, or of blixt run), or give the node memory.",
	},
	{
		"drop_no_route", "no route leads on, and there is nobody to tell: a blackhole route, an ICMP error, a later fragment",
		"A route of type blackhole, or the route to the client or the backend is gone.",
		"On the node: ip route get ADDRESS, with the addresses that blixt drops shows.",
	},
	{
		"drop_forwarding_off", "IP forwarding is off on the interface that it came in by",
		"net.ipv4.conf.INTERFACE.forwarding, or net.ipv6.conf.all.forwarding, is 0.",
		"sysctl -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1, and write it into /etc/sysctl.d.",
	},
	{
		"drop_no_source", "this node has no address of the packet's family to translate the source to",
		"An IPv6 frontend with IPv6 backends elsewhere, on a node without an IPv6 address; or the address was just lost.",
		"Give the node an address of that family, or use backends of the other one.",
	},
	{
		"drop_hop_limit", "the hop limit of an ICMP error or a later fragment is used up: that must not be answered",
		"As reject_hop_limit: traceroute, or a loop.",
		"As reject_hop_limit.",
	},
	{
		"drop_answer_limit", "it would have been rejected, but too many were answered in this second",
		"A flood, or a scan of ports: answers are limited, since their senders may be forged.",
		"blixt drops shows to whom. Nothing, if it is an attack; else the cure of the reject_ reason beside it.",
	},
	{
		"drop_too_big", "it is larger than the path, and can be neither answered nor split: merged segments, IP options, ICMP",
		"Receive offload (GRO, LRO) merges segments that the way to the backend has no room for.",
		"Make the MTU of the interfaces towards clients and backends equal, or switch LRO off: ethtool -K INTERFACE lro off.",
	},
	{
		"drop_error", "the kernel refused to change the packet",
		"Rarely: the kernel is out of memory, or the packet is one that the program cannot extend.",
		"Look at dmesg. If it goes on, report it with the packets that blixt drops -o json shows.",
	},
	{
		"reject_source", "a BlixtPolicy does not admit its source",
		"The source is denied, or a policy names those who are allowed and it is not among them: of either family.",
		"blixt trace CLIENT SERVER names the policy, blixt policy shows its lists. Pods that are masqueraded come with their node's address.",
	},
	{
		"reject_rate", "a BlixtPolicy limits new flows, and this one is over the limit",
		"One source, or all of them, begin more flows in a second than the policy lets this node begin. Each node counts for itself.",
		"If the load is meant, raise newPerSecond or burst of the policy that blixt trace names. Clients behind one NAT are one source.",
	},
	{
		"reject_concurrent", "a BlixtPolicy limits concurrent flows, and there are as many already",
		"Connections that clients keep open, or that nobody closes; of UDP: flows that last until their idle time-out.",
		"If the load is meant, raise concurrent of the policy that blixt trace names. Shorter idle time-outs end what nobody uses.",
	},
	{
		"reject_unenforced", "a BlixtPolicy restricts its frontend, and could not be enforced",
		"The tables of the data plane have no room for the policy, which was never in force before.",
		"The policy's condition Programmed, and blixt status, name the table. Use fewer or shorter lists of sources.",
	},
	{
		"reject_unproven", "its client has to prove first that its address is not forged, and was told how",
		"More SYNs come in a second than the policy's synChallenge allows, or it says Always. Honest clients answer, and get through.",
		"Nothing, in a flood. If honest clients fail, look for a firewall between that drops acknowledgements of nothing, or the RST that answers them.",
	},
}

// ReasonOf returns the reason of a name, or nil.
func ReasonOf(name string) *Reason {
	for i := range Reasons {
		if Reasons[i].Name == name {
			return &Reasons[i]
		}
	}
	return nil
}
