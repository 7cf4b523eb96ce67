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
	// Bad is whether somebody has to do something: it begins with Yes, No or Mostly not.
	Bad string `json:"bad,omitempty"`
}

// Reasons are all of them, in the order of their counters.
var Reasons = []Reason{
	{
		"reject_no_backend", "its frontend has no backend, or the reject share of its ring was chosen",
		"The route's Services have no ready endpoint, or a backendRef is invalid and takes its weight of the connections.",
		"blixt status names the frontend. Look at ResolvedRefs of the route, and at the EndpointSlices of its Services.",
		"Yes: clients are refused, since a Service has no endpoint, or for a while during a roll-out.",
	},
	{
		"reject_unserved", "no listener has this port of an address that Blixt alone serves",
		"The client uses a wrong port or protocol, the listener has no valid route, or somebody scans ports.",
		"Compare the port with the Gateway's listeners, and look at their conditions. Scans need no cure.",
		"Mostly not: scans of ports. Yes, if it grows with the connections of one of your clients.",
	},
	{
		"reject_backend_gone", "the backend of its flow was removed, or this node's address that the flow was translated to",
		"An endpoint was deleted or a permission withdrawn while connections lasted, or the node's address has changed.",
		"Nothing, if the change was meant: the client connects anew. Else let endpoints terminate gracefully, and keep the node's addresses.",
		"No, if a backend was removed on purpose: each of its connections counts once or twice.",
	},
	{
		"reject_ports_exhausted", "all source ports towards its backend are in use",
		"One endpoint has more connections through this node than --snat-ports has ports.",
		"Add endpoints, or widen the range of SNAT ports (snatPorts in the BlixtConfig, --snat-ports of a host).",
		"Yes: new connections to that endpoint are refused.",
	},
	{
		"reject_too_big", "it is larger than the path to the backend and must not be split; the sender is told the MTU",
		"Path MTU discovery at work: a tunnel on the way has a smaller MTU.",
		"Nothing, if it is rare. If connections hang, let ICMP \"fragmentation needed\" and \"packet too big\" pass on the way to clients.",
		"No: the sender learns the MTU and sends smaller packets.",
	},
	{
		"reject_unreachable", "there is no route to its destination, or the next hop does not answer",
		"The backend's machine is down, has another address, or this node lacks the route of the pod network.",
		"On the node: ip route get BACKEND; ip neigh show. Remove endpoints that are dead.",
		"Yes: clients wait for a backend that this node cannot reach.",
	},
	{
		"reject_hop_limit", "its hop limit (TTL) is used up",
		"traceroute, or a loop of routes.",
		"If it is not traceroute, look for a route that leads packets back: traceroute from this node to the backend.",
		"Yes, if it goes on: packets go round in a circle. A single traceroute is harmless.",
	},
	{
		"reject_protected", "it would leave in clear text although the host's IPsec policies want it protected",
		"A policy covers the backend, and the packet comes from a socket of this host.",
		"Exempt the backend from the policy (ip xfrm policy), or have the backend reached as the policy says.",
		"Yes: connections of this host fail, lest they leave in clear text.",
	},
	{
		"drop_protected", "the host's IPsec policies want answers to its client protected, and they would leave in clear text",
		"A policy covers the client's address.",
		"Exempt the client or the virtual address from the policy (ip xfrm policy), or have the client come through the tunnel.",
		"Yes: that client gets no answer.",
	},
	{
		"drop_martian", "its source is an address that nobody can answer",
		"A source of 0.0.0.0, a multicast, loopback or broadcast address: forged, or a client that is misconfigured.",
		"Filter such sources where they enter the network (BCP 38). blixt drops shows the interface.",
		"No: nobody could be answered.",
	},
	{
		"drop_no_flow", "a RST or an ICMP error for an address that Blixt alone serves, and no flow that it belongs to",
		"The flow has ended before, or somebody guesses connections.",
		"Nothing. If clients complain, look whether their flows expire too early: the idle time-out of the frontend in blixt status.",
		"No: the packet belongs to nothing.",
	},
	{
		"drop_flow_gone", "a late packet of a backend whose flow is gone",
		"The flow was idle for longer than its time-out, or ended, and the backend did not know.",
		"Let the application send keepalives more often than the idle time-out, or raise that (idleTimeouts in the BlixtGatewayConfig).",
		"Mostly not: a few are normal after connections have ended. Yes, if clients see connections that hang after a pause.",
	},
	{
		"drop_fragment", "a later fragment without the first one",
		"The first fragment was lost, or takes another path than the later ones: a router or a bond that hashes ports.",
		"Have routers and bonds hash addresses alone, or avoid fragments: a smaller MTU at the sender.",
		"Mostly not: what is left of a datagram that was lost. Yes, if it is the same client again and again.",
	},
	{
		"drop_unsupported", "neither TCP, UDP nor ICMP, for an address that Blixt alone serves",
		"Somebody sends GRE, ESP, SCTP or the like to a virtual address.",
		"Give that protocol an address of its own: Gateway API routes TCP and UDP here.",
		"No, unless that protocol was meant to be served.",
	},
	{
		"drop_new_flow", "the kernel had no memory or room for a new flow",
		"The node is out of memory, or the tables of flows are full.",
		"blixt status shows the tables. Choose larger ones (--flows of blixt bytecode build, or of blixt run), or give the node memory.",
		"Yes: new connections are lost.",
	},
	{
		"drop_no_route", "no route leads on, and there is nobody to tell: a blackhole route, an ICMP error, a later fragment",
		"A route of type blackhole, or the route to the client or the backend is gone.",
		"On the node: ip route get ADDRESS, with the addresses that blixt drops shows.",
		"Yes: packets of clients or answers to them are lost.",
	},
	{
		"drop_forwarding_off", "IP forwarding is off on the interface that it came in by",
		"net.ipv4.conf.INTERFACE.forwarding, or net.ipv6.conf.all.forwarding, is 0.",
		"sysctl -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1, and write it into /etc/sysctl.d.",
		"Yes: nothing that comes in by that interface is served.",
	},
	{
		"drop_no_source", "this node has no address of the packet's family to translate the source to",
		"An IPv6 frontend with IPv6 backends elsewhere, on a node without an IPv6 address; or the address was just lost.",
		"Give the node an address of that family, or use backends of the other one.",
		"Yes: those clients reach no backend on another machine.",
	},
	{
		"drop_hop_limit", "the hop limit of an ICMP error or a later fragment is used up: that must not be answered",
		"As reject_hop_limit: traceroute, or a loop.",
		"As reject_hop_limit.",
		"No, unless reject_hop_limit grows as well.",
	},
	{
		"drop_answer_limit", "it would have been rejected, but too many were answered in this second",
		"A flood, or a scan of ports: answers are limited, since their senders may be forged.",
		"blixt drops shows to whom. Nothing, if it is an attack; else the cure of the reject_ reason beside it.",
		"No: it protects this node and those whose addresses are forged.",
	},
	{
		"drop_too_big", "it is larger than the path, and can be neither answered nor split: merged segments, IP options, ICMP",
		"Receive offload (GRO, LRO) merges segments that the way to the backend has no room for.",
		"Make the MTU of the interfaces towards clients and backends equal, or switch LRO off: ethtool -K INTERFACE lro off.",
		"Yes: large transfers are slow or hang.",
	},
	{
		"drop_error", "the kernel refused to change the packet",
		"Rarely: the kernel is out of memory, or the packet is one that the program cannot extend.",
		"Look at dmesg. If it goes on, report it with the packets that blixt drops -o json shows.",
		"Yes, though it should never be seen.",
	},
	{
		"reject_source", "a BlixtPolicy does not admit its source",
		"The source is denied, or a policy names those who are allowed and it is not among them: of either family.",
		"blixt trace CLIENT SERVER names the policy, blixt policy shows its lists. Pods that are masqueraded come with their node's address.",
		"No: a policy asks for it. Yes, if the source was meant to be admitted.",
	},
	{
		"reject_rate", "a BlixtPolicy limits new flows, and this one is over the limit",
		"One source, or all of them, begin more flows in a second than the policy lets this node begin. Each node counts for itself.",
		"If the load is meant, raise newPerSecond or burst of the policy that blixt trace names. Clients behind one NAT are one source.",
		"No: a policy asks for it, and the client may try again.",
	},
	{
		"reject_concurrent", "a BlixtPolicy limits concurrent flows, and there are as many already",
		"Connections that clients keep open, or that nobody closes; of UDP: flows that last until their idle time-out.",
		"If the load is meant, raise concurrent of the policy that blixt trace names. Shorter idle time-outs end what nobody uses.",
		"No: a policy asks for it.",
	},
	{
		"reject_unenforced", "a BlixtPolicy restricts its frontend, and could not be enforced",
		"The tables of the data plane have no room for the policy, which was never in force before.",
		"The policy's condition Programmed, and blixt status, name the table. Use fewer or shorter lists of sources.",
		"Yes: nobody gets new connections to that frontend.",
	},
	{
		"reject_unproven", "its client has to prove first that its address is not forged, and was told how",
		"More SYNs come in a second than the policy's synChallenge allows, or it says Always. Honest clients answer, and get through.",
		"Nothing, in a flood. If honest clients fail, look for a firewall between that drops acknowledgements of nothing, or the RST that answers them.",
		"No: it is how clients prove their address. Each honest client counts once or twice.",
	},
}

// Counter explains a counter of what does not end a packet: it is served, or is none of
// Blixt's.
type Counter struct {
	// Name is the counter's, and What it counts.
	Name, What string
	// Watch is what it tells, if it grows; "": nothing.
	Watch string
}

// Counters are all of them, in the order of their counters.
var Counters = []Counter{
	{"not_ours", "Passed on unchanged: to no address and of no flow of Blixt.", "Nothing. It is the rest of the host's traffic."},
	{"wrong_device", "Passed on unchanged: like an answer of a backend, but it came by an interface that does not lead to it.", "If clients wait for answers, routes to a backend and back differ: ip route get BACKEND."},
	{"host_listens", "Passed on unchanged: a process of the host listens at this address and port, which it shares with Blixt.", "That process serves the clients, and not the backends: ss -ltnup shows which. Stop it, or use another port."},
	{"malformed", "Passed on unchanged: a header is cut off, or its lengths contradict each other.", "A broken sender, or somebody who tries what happens."},
	{"forwarded", "Translated, towards a backend.", ""},
	{"replied", "Translated, towards a client. Where it stands still while forwarded grows, no backend answers by this host.", ""},
	{"icmp_forwarded", "An ICMP error that was translated, towards a backend.", "Some are path MTU discovery at work."},
	{"icmp_replied", "An ICMP error that was translated, towards a client.", "Backends, or what is before them, say that they cannot be reached: blixt flows --reason refused."},
	{"ping_answered", "An echo request to an address that Blixt alone serves, answered by Blixt.", "It says that this node has the address, not that a backend works."},
	{"flow_new", "A flow has begun.", ""},
	{"flow_established", "A TCP flow that its backend has answered and its client has continued.", "If far fewer are established than begin, backends do not answer, or somebody floods."},
	{"flow_closed", "A TCP flow that both sides have closed, or one has reset.", ""},
	{"flow_table_full", "The table of established flows is full: the flow stays in the one of new flows, where it may be evicted.", "Larger tables: blixt run --flows, or blixt bytecode build --flows."},
	{"flow_over_share", "The same, while the table is nearly full and the frontend has its share of it.", "blixt top shows who has the flows."},
	{"flow_expired", "A flow was removed, as a packet came after its idle time-out.", "If connections hang after a pause: keepalives, or a longer idle time-out."},
	{"flow_port_changed", "A flow got another source port or address, since its own was taken, or is gone, or its SYN was not answered.", "A few are normal. Many: too few source ports (snatPorts), or an address of the host comes and goes."},
	{"flow_answered_elsewhere", "A flow to a backend of this host whose answers leave by an interface without the program.", "Its client gets no answer that it knows: attach the program there, too (--interface, or interfaces of the BlixtConfig)."},
	{"host_translated", "A packet of the host itself that was translated, since a flow has the source port that the host chose.", "Many: --snat-ports are the host's own ports, too."},
	{"drained", "Passed on unchanged while the program drains: it belongs to no flow that it knows. The next program serves it.", "Normal during an upgrade."},
	{"fragment_held", "A later fragment that was kept until its first one comes.", ""},
	{"fragmented", "A packet that was split, as it is larger than the path.", "It costs. Give the interfaces the same MTU."},
	{"undone", "A packet of another node whose source was set back to its client, or an answer to that.", "It is how backends see their clients."},
	{"flow_undone", "A flow of which another node has announced the client.", ""},
	{"flow_plain", "A flow of another node that keeps that node's address, since its client was not announced.", "Its backend sees the node. blixt doctor cluster, check client-addresses."},
	{"undo_impossible", "The same, since answers to the client would not pass the program.", "Attach it to the interface by which answers leave."},
	{"announced", "A message that tells another node of the client of a flow.", ""},
	{"announce_asked", "A question to another node, whose segment this is.", "Many: announcements are lost between the nodes."},
	{"announce_refused", "A message that was refused: not genuine, too old, or from nobody who is known.", "Many for longer than a minute: keys or clocks of nodes differ, or somebody forges."},
	{"probe_answered", "A probe of another node that was answered.", ""},
	{"record_written", "A record of a flow or a packet was written for blixt flows and blixt drops.", ""},
	{"record_lost", "A record was lost: nobody reads them fast enough.", "Traffic is not affected. Give the agent CPU, or record fewer Gateways."},
	{"record_no_room", "A flow began without a record, as there is no room for it.", "Traffic is not affected."},
	{"client_proven", "A client has proved that its address is not forged.", "Few of these and many reject_unproven are a flood."},
	{"affinity_kept", "A flow began with the backend that its client had before, and not that of the ring.", ""},
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
