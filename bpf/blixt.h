/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * blixt.h - map keys, values and counters.
 *
 * Together with the enums of limits.h this is the whole contract between the
 * data plane and whoever writes its maps; the Go types are generated from it.
 * Changing a size, an offset or a meaning here needs a new BLIXT_LAYOUT. The
 * layout is part of a map's name, so that an agent never writes into maps that
 * it does not understand.
 *
 * Addresses are 16 bytes in network byte order, IPv4 as ::ffff:a.b.c.d
 * (RFC 4291, 2.5.5.2). Ports are in network byte order. All other numbers are
 * in the byte order of the host.
 */
#ifndef BLIXT_H
#define BLIXT_H

#include <linux/types.h>

#include "limits.h"

/* The version of this contract: also the number in the name of the map blixt_layout_2. */
enum layout {
	BLIXT_LAYOUT = 2,
};

enum address_flag {
	/* Only Blixt serves this address: it rejects packets to unserved ports and answers ping. */
	ADDRESS_EXCLUSIVE = 1,
	/* It has an element in `port_ranges`: frontends that serve more than their own port. */
	ADDRESS_RANGES = 2,
};

/* Key of `addresses`, and every address elsewhere. */
struct addr {
	__u8 bytes[16];
};

/* Value of `addresses`. */
struct address {
	__u32 flags; /* enum address_flag */
};

/* Key of `frontends` and, with port 0, of `port_ranges`: 20 bytes. */
struct frontend_key {
	struct addr addr;
	__be16 port;
	__u8 protocol; /* IPPROTO_TCP or IPPROTO_UDP */
	__u8 pad;
};

enum frontend_flag {
	/* Flows that begin get a record: see record.h. */
	FRONTEND_RECORDS = 1,
	/* Without a backend, what would begin a connection is dropped: TCP, too. */
	FRONTEND_DROP_NO_BACKEND = 2,
	/* No flow begins: the policy that would admit it could not be enforced. */
	FRONTEND_REFUSES = 4,
	/* The slot of the ring depends on the first bits of the client's address alone: see affinity.h. */
	FRONTEND_AFFINITY = 8,
	/* A flow to a port of the frontend's range gets the same port of the backend; */
	FRONTEND_KEEP_PORT = 16,
	/* or a port that is as much above the backend's as its own is above first_port. There may be no such port: then none of the backend's. */
	FRONTEND_SHIFT_PORT = 32,
};

/*
 * Value of `frontends`: 64 bytes. An entry never changes while it is in the
 * map, except idle_ticks: an update replaces the entry as a whole.
 */
struct frontend {
	__u32 index;	  /* of this frontend in `published`, `frontend_stats` and `client_rtt` */
	__u32 flags;	  /* enum frontend_flag */
	__u32 idle_ticks; /* a flow that sees no packet for longer expires */
	__u32 challenge;  /* new flows in a second from which clients are challenged: see challenge.h; 0: never, 1: always */
	__u32 affinity;	  /* whose memory of clients it shares: see affinity.h; 0: nothing is remembered */
	__u32 affinity_ticks; /* how long a client is remembered */
	__u8 affinity_bits;   /* of the client's 16 bytes that count */
	__u8 pad[3];
	__u16 first_port; /* that leads to the backend's own, host byte order */
	__u16 pad2;
	__u32 reserved[8];
};

/* Ports that a frontend serves beside its own. The frontend of a port itself comes first. */
struct port_range {
	__u16 first; /* host byte order */
	__u16 last;
	__be16 port; /* of the frontend, in `frontends` */
	__u16 pad;
};

/* Value of `port_ranges`: the first range that has a port serves it. An element with last 0 ends them. 128 bytes. */
struct port_ranges {
	struct port_range of[MAX_PORT_RANGES];
};

/*
 * Policies: what a new flow to a frontend is asked. See policy.h.
 *
 * An element of `frontend_policies`, by frontend index, is one 64-bit word: the ids of up
 * to four policies, 16 bits each, from the lowest bits on; 0 ends them. All of
 * them have to admit the flow. So one store changes what is asked.
 */
enum policies_of_frontend {
	FRONTEND_POLICIES = 4,
	POLICY_ID_BITS = 16,
};

enum policy_flag {
	/* What it would refuse is counted, and admitted. */
	POLICY_DRY_RUN = 1,
	/* A source that no prefix has is refused. */
	POLICY_ONLY_ALLOWED = 2,
	/* TCP that is refused for its source is answered with a RST, */
	POLICY_RESET_SOURCES = 4,
	/* and TCP that is refused by a limit. */
	POLICY_RESET_LIMITS = 8,
};

/*
 * Element of `policies`, by id: what one policy demands of the flows to one of its targets. 64
 * bytes. An element is written before a frontend has its id. Then its words change one by
 * one: a burst is set before its interval, and the interval is cleared before its
 * burst. Id 0 is no policy.
 */
struct policy {
	__u64 sources; /* bits 0-31: the set in `sources`, 0: none is asked. Bits 32-63: enum policy_flag */
	__u64 source_interval; /* ns in which a source may begin one flow; 0: no limit */
	__u64 total_interval;  /* the same, of all sources */
	__u32 source_burst;    /* how many flows a source may begin at once */
	__u32 total_burst;
	__u32 source_concurrent; /* established flows that a source may have; 0: no limit */
	__u32 total_concurrent;
	__u8 source_bits4; /* of an IPv4 source's 16 bytes that count: 96 and more */
	__u8 source_bits6;
	__u8 pad[6];
	__u64 key; /* hash of whose the id is, by which it is found again; 0: nobody's. The program leaves it alone */
	__u64 reserved;
};

/* Element of `policy_states`, by id: what the limits of a policy have come to. 32 bytes. */
struct policy_state {
	__u64 full;	  /* CLOCK_MONOTONIC in ns: when all of total_burst may begin again, see ratelimit.h */
	__u64 adopted;	  /* the same, of flows that are taken over in mid-stream */
	__u32 concurrent; /* established flows. Whoever sweeps the flows corrects it */
	__u32 pad;
	__u64 evicted; /* sources that began anew, as `limited_sources` had forgotten them, or has no room */
};

/* Key of `limited_sources`: 20 bytes. */
struct limited_source_key {
	__u32 policy; /* id */
	struct addr addr; /* as many bits as count, and zeros */
};

/* Value of `limited_sources`: 16 bytes. */
struct limited_source {
	__u64 full;	  /* as in struct policy_state */
	__u32 concurrent; /* the same */
	__u32 pad;
};

/* Key of `sources`: 24 bytes. */
struct source_key {
	__u32 bits; /* 32, of the set, and those of addr that count: 96 and more for IPv4 */
	__u32 set;
	struct addr addr;
};

/* Value of `sources`. */
enum source_verdict {
	SOURCE_ALLOWED = 1,
	SOURCE_DENIED = 2,
	/* As if no prefix had it: of ::ffff:0:0/96, where a shorter prefix of IPv6 covers all of IPv4. */
	SOURCE_UNLISTED = 3,
};

/* Why a policy refuses a flow: index of policy_counters.refused. */
enum refusal {
	REFUSED_SOURCE,		   /* its source is denied, or not among those that are allowed */
	REFUSED_SOURCE_RATE,	   /* its source begins too many flows */
	REFUSED_TOTAL_RATE,	   /* all sources do */
	REFUSED_SOURCE_CONCURRENT, /* its source has too many flows */
	REFUSED_TOTAL_CONCURRENT,  /* all sources do */
	REFUSED_ADOPTED,	   /* too many connections that this node does not know, in mid-stream */
	REFUSALS = 8,
};

/* Element of `policy_stats`, by id, per CPU: flows that were refused, or would be with POLICY_DRY_RUN. 64 bytes. */
struct policy_counters {
	__u64 refused[REFUSALS];
};

/* Key of `affinities` and `udp_affinities`: 20 bytes. */
struct affinity_key {
	__u32 group; /* frontend.affinity */
	struct addr client; /* as many bits as count, and zeros */
};

/* Value of `affinities` and `udp_affinities`: the backend that a client had last. 20 bytes. */
struct affinity {
	struct addr backend;
	__u32 last_new; /* tick of the client's last new flow */
};

/* Key of `affinity_backends`, whose values are the ids of backends that get new flows: 20 bytes. */
struct affinity_backend_key {
	__u32 frontend; /* index */
	struct addr addr;
};

/*
 * Element of `backend_health`, by backend id: how its flows begin. 32 bytes. Shared by all CPUs.
 * The program writes it for backends with BACKEND_JUDGED alone; whoever gives the id to another backend clears it first.
 */
struct health {
	__u32 consecutive; /* failures since the last answer */
	__u32 failures;	   /* in all */
	__u32 answers;	   /* in all */
	__u32 prefix;	   /* hash of the client's prefix of the first of the consecutive failures */
	__u32 others;	   /* 1: a later one of these was of another prefix */
	__u32 trial;	   /* tick in which a backend with BACKEND_TRIAL got its last flow; 0: none, or it has answered that */
	__u32 unanswered;  /* failures by silence; the rest were refused */
	__u32 answer_within; /* 2^-20 s: a SYN that is repeated later has failed. It is written before BACKEND_JUDGED is set, the program leaves it alone */
};

_Static_assert(sizeof(struct port_ranges) == 128, "the ranges of an address are 128 bytes");
_Static_assert(sizeof(struct policy) == 64, "a policy is 64 bytes");
_Static_assert(sizeof(struct policy_state) == 32, "the state of a policy is 32 bytes");
_Static_assert(sizeof(struct source_key) == 24, "a source is 24 bytes");
_Static_assert(sizeof(struct policy_counters) == 64, "the counters of a policy are 64 bytes");
_Static_assert(sizeof(struct health) == 32, "the health of a backend is 32 bytes");

/*
 * An element of `published`, by frontend index: the ring that serves the
 * frontend. It is one 64-bit word, so that one store publishes all of it and
 * one load reads all of it: bits 0-23 are the first slot, 24-43 the number of
 * slots (0: reject everything), 44-63 a generation that changes with every
 * publication.
 */
enum published_bits {
	RING_OFFSET_BITS = 24,
	RING_SIZE_BITS = 20,
	RING_GENERATION_BITS = 20,
};

/*
 * `rings` is one slab of 32-bit slots, two to a 64-bit array element (array
 * elements are rounded up to 8 bytes), the even slot in the low half. A slot
 * holds a backend id.
 */
enum backend_id {
	/* Not a backend: packets are rejected (TCP: answered with RST, UDP: dropped). */
	BACKEND_REJECT = 0,
};

enum backend_flag {
	/* On this node: reached through the node's own stack, so that it sees the client's address. */
	BACKEND_LOCAL = 1,
	/* A datagram of one of its flows begins a new flow, if the ring selects another backend. */
	BACKEND_NOT_SERVING = 2,
	/* Elsewhere, but reached through the node's own stack, as far as the packet comes in: its firewall and IPsec policies hold. */
	BACKEND_STACK = 4,
	/* IPsec policies of the host cover it: nothing may be sent to it past the stack. It is never set or cleared in an element. */
	BACKEND_PROTECTED = 8,
	/* The program at its node undoes the translation of sources, and messages within a flow's first packet get there: see announce.h. */
	BACKEND_HEARS_WITHIN = 16,
	/* The same of messages that stand alone. */
	BACKEND_HEARS_ALONE = 32,
	/* It is counted how its flows begin: see health.h. */
	BACKEND_JUDGED = 64,
	/* It gets one flow at a time, to find out whether it is healthy again. */
	BACKEND_TRIAL = 128,
};

/*
 * An element of `backends`, by backend id: 32 bytes. A backend is one endpoint
 * of one frontend, so that withdrawing a permission ends the flows of that
 * frontend alone. While the generation is odd the element is in use, while it
 * is even the element is free. A generation only ever grows, and an element
 * changes only together with its generation, except BACKEND_NOT_SERVING,
 * BACKEND_STACK, BACKEND_HEARS_WITHIN, BACKEND_HEARS_ALONE, BACKEND_JUDGED, BACKEND_TRIAL and ref.
 */
struct backend {
	struct addr addr;
	__be16 port;
	__u16 flags; /* enum backend_flag */
	__u32 generation;
	__u32 frontend; /* index of its frontend */
	__u32 ref;	/* index in `ref_stats` of the backendRef that it is an endpoint of; 0: not counted */
};

/* Key of `flows`, `new_flows` and `udp_flows`: the tuple of a packet before its translation. 40 bytes. */
struct flow_key {
	struct addr src;
	struct addr dst;
	__be16 sport;
	__be16 dport;
	__u8 protocol; /* IPPROTO_TCP or IPPROTO_UDP */
	__u8 pad[3];
};

/*
 * FLOW_REPLY, _SNAT, _STACK, _EGRESS, _HOST, _REENTER and _MASQUERADE never
 * change in an entry. Which combinations exist, and what each means, is in way.h.
 */
enum flow_flag {
	/* This direction is from the backend to the client. */
	FLOW_REPLY = 1,
	/* The source of the forward direction is translated to an address of this node. */
	FLOW_SNAT = 2,
	/* Translated packets continue through the stack; without it they are redirected past it. */
	FLOW_STACK = 4,
	/* Reply: translated at egress only, of the device that leads to the client. */
	FLOW_EGRESS = 8,
	/* The sender of this direction has sent a FIN, and the other side has acknowledged it. */
	FLOW_FIN = 16,
	/* The sender of this direction has sent a RST that its receiver obeys. */
	FLOW_RST = 32,
	/* The client is a socket of this host: replies are redirected to lo. */
	FLOW_HOST = 64,
	/* The backend has answered. TCP: of the forward entry, UDP: of the reply entry. */
	FLOW_ANSWERED = 128,
	/* The entry is in `flows`. */
	FLOW_ESTABLISHED = 256,
	/* Translated packets are reflected to ingress of the device by which they were leaving. */
	FLOW_REENTER = 512,
	/* The other side has sent a FIN that this side has not acknowledged yet. */
	FLOW_PEER_FIN = 1024,
	/* Entry in `new_flows`: either side has sent a RST, or both a FIN. The flow only translates late segments. */
	FLOW_CLOSED = 2048,
	/* A tombstone: ends late packets of a backend whose flow is gone. */
	FLOW_GONE = 4096,
	/* Translated packets get the mark config.masquerade_mark, by which the host's own NAT translates their source. */
	FLOW_MASQUERADE = 8192,
	/* More than one packet of this direction was seen in a tick: it is worth a slot in `flow_cache`. */
	FLOW_BUSY = 16384,
	/* It may have a slot there. */
	FLOW_CACHED = 32768,
	/* The backend's node is told the client: see announce.h. */
	FLOW_ANNOUNCED = 65536,
	/* The source of the forward direction is undone: it becomes the client's, whom another node has announced. See undo.h. */
	FLOW_UNDONE = 131072,
	/* Translated packets come in again, by the device that leads to their source. */
	FLOW_COMES_IN = 262144,
	/* The source of this direction is a node, and stays what it is. Such a flow has one entry, which changes nothing. */
	FLOW_PLAIN = 524288,
	/* Forward, undone, TCP: announced by a message alone, and the segment that follows it has not come yet. Plain: its node has been asked, and has not answered. */
	FLOW_AWAITED = 1048576,
	/* There is a record of it: see record.h. Of both entries. */
	FLOW_RECORDED = 2097152,
	/* Before the backend has answered, it or its host has refused the flow: counted once. */
	FLOW_REFUSED = 4194304,
	/* It counts as a failure of its backend: once. Of the entry that has FLOW_ANSWERED. */
	FLOW_FAILED = 8388608,
	/* Once it is proven, its backend is remembered: see affinity.h. Of both entries. */
	FLOW_AFFINITY = 16777216,
	/* Begun by a segment in mid-stream, which policies have not charged as a new flow. Forward, TCP. */
	FLOW_ADOPTED = 33554432,
};

/*
 * Value of `flows`, `new_flows` and `udp_flows`: 96 bytes. A flow has two
 * entries, one for each direction. An entry holds the tuple that packets of its
 * direction get; reversed, that tuple is the key of the other entry.
 *
 * A connection of the host itself whose source port had to be translated is a
 * flow, too (hostports.h): with backend BACKEND_REJECT, generation 0 and
 * frontend NO_FRONTEND. So are flows with FLOW_UNDONE and FLOW_PLAIN.
 */
enum no_flow_of {
	NO_FRONTEND = 0xffffffff,
	NO_GENERATION = 0xffffffff, /* of a tombstone: no backend has it */
};

struct flow {
	__u32 tag; /* hash of the key. The first member, as the kernel writes it first: see same_flow() in flow.h */
	__be16 sport;
	__be16 dport;
	struct addr src;
	struct addr dst;
	__u32 backend;	  /* id of the backend */
	__u32 generation; /* of the backend: if its element has another one, the backend is gone */
	__u32 frontend;	  /* index of the frontend */
	__u32 last_seen;  /* tick of the last packet of this direction */
	__u32 idle_ticks; /* copied from the frontend */
	__u32 flags;	  /* enum flow_flag */
	__u32 next;	  /* TCP: the sequence number that the sender of this direction sends next */
	__u32 ack;	  /* TCP: the highest acknowledgement number that the sender of this direction has sent */
	__u32 ifindex;	  /* the interface by which replies come into this host: see trust.h */
	__u32 ref;	  /* that of the backend when the flow began. FLOW_UNDONE: the connection, see connection_of() in undo.h */
	__u32 born;	  /* tick of the first packet; 0: unknown. FLOW_UNDONE: idle_ticks of the flow when it is established */
	__u32 fin;	  /* with FLOW_PEER_FIN: the acknowledgement number with which this side acknowledges the other side's FIN */
	__u32 syn;	  /* forward, TCP: the number with which the backend acknowledges the last SYN that came while it was connected */
	__u32 astray;	  /* forward, TCP: the tick since which the FIB names another source than the flow has; 0: it does not. See source.h */
};

/*
 * Members of struct flow that mean something else in some entries:
 *
 *   fin     forward, FLOW_ANNOUNCED, TCP that is not established: how many SYNs have announced its client
 *           forward, FLOW_UNDONE and FLOW_AWAITED: 1: a SYN is to follow
 *   ack     forward, FLOW_ANNOUNCED, UDP: how many announcements there were
 *   next    forward, FLOW_ANNOUNCED or FLOW_UNDONE, UDP: the tick of the last announcement
 *           forward, FLOW_PLAIN and FLOW_AWAITED: the tick of the first question
 *   syn     reply, FLOW_UNDONE, TCP: 1: the last segment that was repeated went past the peer
 *           TCP, neither undone nor established: the time in 2^-20 s, forward: of the first SYN, reply: of the SYN-ACK; 0: there was more than one
 *   astray  forward, FLOW_UNDONE: stamp_of() the newest announcement, see undo.h
 *           reply, FLOW_COMES_IN: the interface by which packets come in
 *   ifindex forward, FLOW_UNDONE: the interface that leads to the client
 */

_Static_assert(sizeof(struct addr) == 16, "an address is 16 bytes");
_Static_assert(sizeof(struct frontend_key) == 20, "a frontend key is 20 bytes");
_Static_assert(sizeof(struct frontend) == 64, "a frontend is 64 bytes");
_Static_assert(sizeof(struct backend) == 32, "a backend is 32 bytes");
_Static_assert(sizeof(struct flow_key) == 40, "a flow key is 40 bytes");
_Static_assert(sizeof(struct flow) == 96, "a flow is 96 bytes");

/* Key of `fragments` and `new_fragments`: what all fragments of one datagram have in common. 40 bytes. */
struct fragment_key {
	struct addr src;
	struct addr dst;
	__u32 id; /* as on the wire: 16 bits for IPv4, 32 for IPv6 */
	__u8 next; /* type of the header that the fragmented data begins with: in IPv6 not always layer 4 */
	__u8 pad[3];
};

/* Value of `fragments` and `new_fragments`: what a datagram's first fragment tells about all of them. 16 bytes. */
struct fragment {
	__be16 sport;
	__be16 dport;
	__u8 protocol;
	__u8 pad[3];
	__u32 id;	  /* that they get, as on the wire */
	__u32 first_seen; /* tick of the first fragment */
};

/* Key of `silent_neighbours`: 20 bytes. */
struct next_hop {
	__u32 ifindex;
	struct addr addr;
};

/* Value of `silent_neighbours`: ticks of packets to a neighbour whose hardware address was not known. 16 bytes. */
struct silence {
	__u32 first;
	__u32 last;
	__u32 asked;	/* the last one that was given to the kernel, which asks for the address for three seconds then */
	__u32 answered; /* 1 if a later one was answered */
};

/* Key of `protected_clients`: 20 bytes. */
struct client_prefix {
	__u32 bits; /* of addr that count: 96 and more for IPv4 */
	struct addr addr;
};

/* Key of `held_slots`: a datagram's later fragments that came before the first. 44 bytes. */
struct held_key {
	struct fragment_key datagram;
	__u32 slot; /* 0, 1, ... */
};

/* Element of `held`: a later fragment, from its IP header on. */
struct held_fragment {
	__u64 number; /* of all fragments that were kept; 0: being written */
	__u32 tick;
	__u32 len;
	__u8 bytes[HELD_LEN];
};

enum config_flag {
	/* Serve the known flows and pass everything else on to the next program. */
	CONFIG_DRAIN = 1,
	/*
	 * A previous program is in front of this one, and sees its packets first. Its flows
	 * are unknown, so new flows to backends of this node get a port of ours, which
	 * those do not have. What backends send to ports of the cluster, for no flow that is
	 * known, is kept from the host: see is_lost. One of layout 1 does not mark the replies that it has
	 * translated, so they are not taken for connections from a frontend's port.
	 */
	CONFIG_UPGRADING = 2,
	/* Somebody reads the ring buffers: samples of packets that are rejected or dropped are written there. */
	CONFIG_SAMPLE_DROPS = 4,
};

/*
 * The one element of `blixt_layout_2`: 128 bytes. It is written after all other
 * maps, so it tells which state they hold.
 *
 * A promise for every BLIXT_LAYOUT: the name of this map begins with
 * blixt_layout_, its key 0 exists, flags, snat_min and snat_max keep their
 * offsets and meanings, and CONFIG_DRAIN keeps its bit. So an upgrade can
 * drain a program whose layout it does not know, and can avoid its ports.
 */
struct config {
	__u64 epoch;	  /* of the leader that sent the state */
	__u64 sequence;	  /* of the state within the epoch */
	__u64 state_hash; /* of the state */
	__u32 flags;	  /* enum config_flag */
	__u16 snat_min;	  /* first source port for translated flows, host byte order */
	__u16 snat_max;	  /* last one */
	struct addr node4; /* SNAT source where the kernel (before 6.7) does not know one; zero: none */
	struct addr node6;
	__u64 seed; /* of client_hash: every node of a cluster has the same one */
	__u32 flows_nearly_full; /* from this number of established flows on, each frontend has to keep to its share */
	__u32 flows_share;	 /* the number of established flows that each frontend may have then */
	__u64 unserved_udp[4]; /* bit PORT_HASH(p): no UDP frontend on a shared address has such a port p. 0: unknown. It spares a look-up */
	__u32 masquerade_mark; /* of packets whose source the host's own NAT is to translate; 0: none */
	__u32 cache_epoch; /* whoever changes it makes the program forget all of `flow_cache`, see cache.h */
	__u16 ports_min;   /* all ports that snat_min to snat_max have ever named, for flows may be older than those, */
	__u16 ports_max;   /* host byte order; both are 0: they have never changed */
	__u32 pad;
};

/*
 * Bits of a byte of `interest`, which tell why packets of an address concern
 * the program: see interest.h.
 */
enum interest_flag {
	/* Packets to the address: a frontend's, or of a flow to one. A writer sets it before the address is in `addresses`. */
	INTEREST_VIP = 1,
	/* The host shares it: it is not exclusive. The same. */
	INTEREST_SHARED = 2,
	/* The address is this host's, or the source that a flow gets. */
	INTEREST_HOST = 4,
	/* Packets from the address, at egress: a flow has to be looked for. */
	INTEREST_FROM = 8,
	/* Packets from the address, at ingress: a peer's, whose sources may have to be undone. A writer sets it before the address is in `peers`. */
	INTEREST_PEER = 16,
	/* A flow has needed a bit of this byte since a writer last cleared this one. */
	INTEREST_FRESH = 128,
};

/* The one element of `interest`: a byte for each hash of an address, see interest_hash(). Changed by atomic operations on its words. */
struct interest_bytes {
	__u8 of[INTEREST_SIZE];
};

enum cached_flag {
	/* The direction is from the backend to the client. */
	CACHED_REPLY = 1,
	/* Its packets leave past the stack, by a known interface. Without it they continue through the stack. */
	CACHED_REDIRECT = 2,
	/* They get the mark config.masquerade_mark. */
	CACHED_MASQUERADE = 4,
	/* They come in again, by a known interface: see come_in in route.h. */
	CACHED_COMES_IN = 8,
	/* They pass as they are: FLOW_PLAIN. */
	CACHED_PLAIN = 16,
	/* Its flow has a record: they are counted in `slot_counts`, too. */
	CACHED_RECORDED = 32,
};

/*
 * Slot of `flow_cache`: one direction of a flow, with all that its packets need.
 * 128 bytes, two cache lines. See cache.h. Sums are those of 16-bit words in
 * ones' complement, folded, in network byte order (RFC 1071).
 */
struct cached_flow {
	__u32 version; /* odd: being written */
	__u32 stamp;   /* of the tick in which it was written, and of config.cache_epoch */
	struct addr src; /* the key: the tuple before the translation */
	struct addr dst;
	__be16 sport;
	__be16 dport;
	__u8 protocol; /* 0: an empty slot */
	__u8 hook;     /* 4 or 6, the IP version, and 128 for packets that are seen at egress */
	__u16 pseudo;  /* sum of the pseudo header without the length */
	__u32 backend; /* as in struct flow */
	__u32 generation;
	__u64 numbers; /* TCP: next of struct flow in the lower half, ack in the upper one. The entry may be up to NUMBERS_BEHIND bytes behind each */
	struct addr to_src; /* the tuple after it */
	struct addr to_dst;
	__be16 to_sport;
	__be16 to_dport;
	__u8 flags; /* enum cached_flag */
	__u8 dscp;  /* redirected packets: of the packet for which the FIB was asked, in the upper six bits */
	__u16 mtu;  /* redirected packets: of their way */
	__u16 addresses; /* the sum of the addresses after the translation less that before */
	__u16 tuple;	 /* the same, of addresses and ports */
	__u32 from;	 /* replies: the interface by which they come into this host */
	__u32 ifindex;	 /* redirected packets: the interface by which they leave, or come in, */
	__u8 macs[12];	 /* and their link header up to the EtherType */
};

/* Element of `flow_cache`. */
struct cache_set {
	struct cached_flow ways[CACHE_WAYS];
};

_Static_assert(sizeof(struct cached_flow) == 128, "a slot is 128 bytes");
_Static_assert(__builtin_offsetof(struct cached_flow, to_src) == 64, "what tells whose the slot is, is one cache line");

/*
 * The one element of `announcing`: how this node announces clients to others, and
 * undoes what others announce. 8 bytes. All zero: it does neither.
 */
struct announce_config {
	__u16 boot;	 /* of this node: each time it boots the next number, in a circle of 2^16 */
	__u8 key;	 /* index in `announce_keys` of the key that signs */
	__u8 flags;	 /* enum announcing_flag */
	__u16 ports_min; /* ports to which any node of the cluster may translate sources, */
	__u16 ports_max; /* host byte order; and the privileged ones, see limits.h */
};

enum announcing_flag {
	/* Undo what peers announce. */
	ANNOUNCING_UNDO = 1,
	/* Announce to backends with BACKEND_HEARS_WITHIN or BACKEND_HEARS_ALONE. */
	ANNOUNCING_TELL = 2,
};

/* Element of `announce_keys`: a key of SipHash-2-4. All zero: there is no such key. */
struct announce_key {
	__u8 bytes[16];
};

/*
 * Value of `peers`, by an address that another node translates sources to: 40
 * bytes. A writer inserts it with the boot number that it knows, or 0, and leaves it
 * alone as long as the node's addresses stay.
 */
struct peer {
	__u32 time;    /* of its newest message: see announce.h */
	__u16 boot;    /* of that message; before there was one, what the writer knows, or 0 */
	__u16 heard;   /* 1: there was one */
	__u64 undone;  /* flows of clients that it has announced */
	__u64 plain;   /* flows from its ports that it has not announced, or whose client's replies would not pass us */
	__u64 refused; /* messages: no key makes them genuine, or they are old */
	__u64 asked;   /* questions sent to it */
};

/* Of a message that a peer is probed with: where it is. */
enum probe_form {
	PROBE_WITHIN = 1, /* behind a SYN, or in the surplus area of a datagram with data */
	PROBE_ALONE = 2,  /* TCP: as an option of an acknowledgement; UDP: in the surplus area of an empty datagram */
};

/*
 * Value of `probes`: a packet of the agent's with this key that leaves becomes a
 * probe: from this node's address, with a message of this form that asks for an
 * answer. The key has the source 0 and one of the ports config.snat_min to snat_max
 * as its source port. 24 bytes.
 */
struct probe {
	__u32 form;	 /* enum probe_form */
	__u32 answered;	 /* 1: the program at the other node has answered */
	struct addr src; /* of the packet, as it leaves */
};

enum announcement_flag {
	/* It stands alone: as an option of a TCP segment without payload, or in the surplus area of an empty datagram. */
	ANNOUNCEMENT_ALONE = 1,
	/* Nothing is announced: the sender asks whose packets these are. */
	ANNOUNCEMENT_ASK = 2,
	/* The source is a node, and stays what it is. */
	ANNOUNCEMENT_PLAIN = 4,
	/* Alone, as an option of a SYN: the client's SYN follows. */
	ANNOUNCEMENT_OPENS = 8,
	/* A probe: nothing is announced, an answer is wanted. */
	ANNOUNCEMENT_PROBE = 16,
	/* The answer to a probe, which has the time of the probe. */
	ANNOUNCEMENT_ANSWER = 32,
	/* The upper two bits are the index of the key. */
	ANNOUNCEMENT_KEY_SHIFT = 6,
};

/*
 * A message from node to node about one tuple: 40 bytes, numbers in network byte
 * order. Where it is in a packet, and who sends it when: see announce.h.
 */
struct announcement {
	__u8 kind;  /* of an option: 253 in a TCP header (RFC 6994), 127 elsewhere (RFC 9868) */
	__u8 len;   /* 40 */
	__be16 id;  /* 0xb117: Blixt, version 1 */
	__u8 flags; /* enum announcement_flag */
	__u8 idle;  /* the flow may be without packets for 2^idle ticks */
	__be16 port; /* the client's */
	struct addr client;
	__be32 time;	/* of the sender's CLOCK_MONOTONIC, in 2^24 ns */
	__be16 boot;	/* of the sender */
	__be16 service; /* hash of the frontend's address and port: with client and port it names the connection */
	__u8 mac[8];	/* SipHash-2-4 of struct flow_key of the packet that carries it, and of the bytes in front of this */
};

_Static_assert(sizeof(struct announcement) == 40, "an announcement is 40 bytes, as many as the options of a TCP header");
_Static_assert(sizeof(struct announce_config) == 8, "it is one word");
_Static_assert(sizeof(struct peer) == 40, "a peer is 40 bytes");
_Static_assert(sizeof(struct probe) == 24, "a probe is 24 bytes");

/* Of a port, in either byte order. */
#define PORT_HASH(port) (((port) ^ (port) >> 8) & 0xff)

_Static_assert(sizeof(struct config) == 128, "a config is 128 bytes");
_Static_assert(__builtin_offsetof(struct config, flags) == 24, "upgrades rely on it");
_Static_assert(__builtin_offsetof(struct config, snat_min) == 28, "upgrades rely on it");
_Static_assert(__builtin_offsetof(struct config, snat_max) == 30, "upgrades rely on it");

/* How far a connection of the host from a port of ours has come. */
enum host_state {
	HOST_BEGUN, /* or UDP */
	HOST_OPEN,  /* TCP: answered */
	HOST_ENDED, /* TCP: the host has sent a FIN or a RST */
};

/* Value of `host_ports` and `masqueraded_ports`: the host uses the port. 8 bytes. */
struct host_port {
	__u32 last_seen; /* tick of the last packet that was looked at */
	__u32 state;	 /* enum host_state */
};

/* Value of `port_searches`: of one backend, in one tick. 12 bytes. */
struct port_search {
	__u32 tick;
	__u16 best;	   /* enum holder: all ports were taken, at best by such flows. 0: not known */
	__u16 exhausted;   /* the last scan found nobody who may be replaced */
	__u32 scanned; /* ports that were looked at one by one */
};

/* Value of `frontend_stats`, per CPU: 48 bytes. */
struct frontend_counters {
	__u64 new_flows;     /* flows that got a backend */
	__u64 rejected;	     /* packets rejected by a reject slot or by a frontend without backends */
	__u64 packets;	     /* to backends */
	__u64 bytes;	     /* to backends, from the IP header on */
	__u64 reply_packets; /* from backends */
	__u64 reply_bytes;
};

/*
 * A histogram of latencies: in `client_rtt`, and in struct ref_counters. 176 bytes.
 * Units are 2^-20 s (0.95 us). counts[0] is of those up to 2^6 units (2^-14 s, 61 us),
 * counts[i] of those above 2^(5+i) and up to 2^(6+i) units, and the last one of all above
 * 2^25 units (32 s), too.
 */
struct latency {
	__u64 sum; /* in units */
	__u64 counts[LATENCY_SLOTS];
};

/*
 * Element of `ref_stats`, by the ref of a backend: 256 bytes. Shared by all CPUs: at most
 * a few atomic additions for each flow. Element 0 is of no backendRef.
 */
struct ref_counters {
	__u64 flows;	   /* that got one of its endpoints */
	__u64 answered;	   /* of these, those that the endpoint has answered: TCP: with a SYN-ACK */
	__u64 reset;	   /* those that it refused with a RST */
	__u64 unreachable; /* those that it, or a router, refused with an ICMP error */
	struct latency connect; /* TCP: from the first SYN to the SYN-ACK */
	__u64 key; /* hash of the backendRef's names, by which its id is found again. The program leaves it alone */
	__u64 unanswered; /* flows that have ended without an answer, as whoever sweeps the flows has counted them. The same */
	__u64 reserved[4];
};

_Static_assert(sizeof(struct latency) == 176, "a histogram is 176 bytes");
_Static_assert(sizeof(struct ref_counters) == 256, "the counters of a backendRef are 256 bytes");

enum record_event {
	RECORD_END = 1,	     /* a flow has ended */
	RECORD_REJECTED = 2, /* a packet was rejected: reason is a counter */
	RECORD_DROPPED = 3,  /* a packet was dropped: the same */
};

/* Why a flow has ended. */
enum end_reason {
	RECORD_FIN = 1,	      /* both sides have sent a FIN */
	RECORD_RESET = 2,     /* one side has sent a RST */
	RECORD_IDLE = 3,      /* no packets for its idle time-out */
	RECORD_UNANSWERED = 4, /* the same, and the backend has never answered */
	RECORD_REFUSED = 5,   /* by the backend, which had not answered: RST */
	RECORD_BACKEND_GONE = 6, /* the backend, or the permission to use it, is gone */
	RECORD_SOURCE_GONE = 7, /* the address of this node is gone that its source was translated to */
	RECORD_MOVED = 8,     /* UDP: its backend does not serve any more, and another one does */
	RECORD_REPLACED = 9,  /* a new connection of the same tuple has taken its place */
	RECORD_PROTECTED = 10, /* the host's IPsec policies cover its client by now */
	RECORD_EVICTED = 11,  /* a table was full; or it has ended where nobody saw it */
	RECORD_DENIED = 12,   /* a policy does not admit its source any more */
	RECORD_MAX_AGE = 13,  /* it has lasted as long as a policy lets it */
};

/* Who ended a flow: the first that sent a FIN or a RST. */
enum record_by {
	RECORD_BY_NONE = 0,
	RECORD_BY_CLIENT = 1,
	RECORD_BY_BACKEND = 2,
};

/*
 * Value of `recorded`, by the key of a flow's forward entry, while the flow lasts; and
 * what the ring buffers `flow_log_0` to `flow_log_3` get when it ends. Whoever deletes it
 * from `recorded` writes it to a buffer: so once. Of packets that are rejected or dropped
 * it is in a struct packet_record. Zero is what is not known. 160 bytes.
 */
struct flow_record {
	__u64 began; /* CLOCK_BOOTTIME in ns: of the first packet; */
	__u64 ended; /* and of the last one, so far; of a rejected or dropped packet: the same */
	__u64 packets[2]; /* [0] from the client, [1] from the backend */
	__u64 bytes[2];	  /* the same, from the IP header on */
	struct addr client;
	struct addr server; /* the frontend's address */
	struct addr snat;   /* the source that the backend sees; of local backends the client's own */
	struct addr backend;
	__be16 client_port;
	__be16 server_port;
	__be16 snat_port;
	__be16 backend_port;
	__u32 frontend; /* index, or NO_FRONTEND */
	__u32 ref;
	__u32 backend_id;
	__u32 generation; /* of the backend */
	__u32 connect; /* from the first SYN to the SYN-ACK, in 2^-20 s; UDP: to the first answer. 0: not known */
	__u32 rtt;     /* from the SYN-ACK to the client's next segment, in 2^-20 s */
	__u32 ifindex; /* by which the first packet came in; 0: this host's own */
	__u32 sampled; /* rejected or dropped: how many packets of this reason on this CPU since the last record, this one included */
	__u8 event;    /* enum record_event; in `recorded`: 0 */
	__u8 reason;   /* enum end_reason, or enum counter */
	__u8 by;       /* enum record_by */
	__u8 protocol; /* IPPROTO_*, ICMP too */
	__u16 captured; /* bytes of the packet behind it */
	__u16 cpu;
};

/* What the ring buffers get of a packet that was rejected or dropped: 224 bytes. */
struct packet_record {
	struct flow_record record;
	__u8 packet[RECORD_PACKET_LEN]; /* its first bytes, from the IP header on */
};

/* Element of `drop_samples`, by enum counter, per CPU. */
struct drop_sample {
	__u64 full;    /* CLOCK_MONOTONIC in ns: when there is room for all of DROP_SAMPLE_BURST again */
	__u64 skipped; /* packets since the last record */
};

/*
 * Element of `slot_counts`, by index of a set in `flow_cache`: what packets that a slot
 * served count for its flow's record, as far as the record does not have it yet: bytes in
 * bits 0-39, packets in bits 40-63.
 */
struct slot_count {
	__u64 ways[CACHE_WAYS];
};

_Static_assert(sizeof(struct flow_record) == 160, "a record is 160 bytes");
_Static_assert(sizeof(struct packet_record) == 224, "with a packet it is 224 bytes");

/*
 * Index into `counters`, per CPU. Status shows the name in lower case without
 * COUNTER_. A packet that DROP_ or REJECT_ counts ends here; all other counters
 * only record an event.
 */
enum counter {
	COUNTER_NOT_OURS,	       /* passed on unchanged */
	COUNTER_WRONG_DEVICE,	       /* passed on unchanged: like an answer of a backend, but by an interface that does not lead to it */
	COUNTER_HOST_LISTENS,	       /* passed on unchanged: to a frontend whose port a socket of the host has */
	COUNTER_MALFORMED,	       /* passed on unchanged: header truncated or lengths inconsistent */
	COUNTER_FORWARDED,	       /* translated, towards a backend */
	COUNTER_REPLIED,	       /* translated, towards a client */
	COUNTER_ICMP_FORWARDED,	       /* ICMP error translated, towards a backend */
	COUNTER_ICMP_REPLIED,	       /* ICMP error translated, towards a client */
	COUNTER_PING_ANSWERED,	       /* echo request to an exclusive address answered, or a fragment of one */
	COUNTER_FLOW_NEW,	       /* flow created */
	COUNTER_FLOW_ESTABLISHED,      /* TCP flow answered by its backend and continued by its client */
	COUNTER_FLOW_CLOSED,	       /* flow of a connection that both sides have closed, or one has reset */
	COUNTER_FLOW_TABLE_FULL,       /* `flows` is full: the flow stays in `new_flows`, where it may be evicted */
	COUNTER_FLOW_OVER_SHARE,       /* the same: `flows` is nearly full, and the frontend has its share. The host's own flows have none */
	COUNTER_FLOW_EXPIRED,	       /* flow removed, when a packet arrived after its idle time-out */
	COUNTER_FLOW_PORT_CHANGED,     /* flow got another source port because its own was taken, or its SYN not answered; or another source, as its own is gone */
	COUNTER_FLOW_ANSWERED_ELSEWHERE, /* flow to a backend of this node whose answers leave by an interface without the program */
	COUNTER_HOST_TRANSLATED,       /* packet of the host itself translated: a flow has the source port that the host chose */
	COUNTER_DRAINED,	       /* passed on unchanged while draining: belongs to no known flow */
	COUNTER_FRAGMENT_HELD,	       /* later fragment kept: it is forwarded if its first one comes within half a minute */
	COUNTER_FRAGMENTED,	       /* packet split into fragments, which count as packets of their own: larger than the path MTU */
	COUNTER_REJECT_NO_BACKEND,     /* rejected: frontend without a backend, or reject slot */
	COUNTER_REJECT_UNSERVED,       /* rejected: port of an exclusive address without a frontend */
	COUNTER_REJECT_BACKEND_GONE,   /* rejected: the backend of the flow is gone, or for a minute the address that its source was translated to */
	COUNTER_REJECT_PORTS_EXHAUSTED, /* rejected: no source port left towards the backend */
	COUNTER_REJECT_TOO_BIG,	       /* answered with the path MTU */
	COUNTER_REJECT_UNREACHABLE,    /* answered: the FIB has no route, or one that says so, or the next hop does not answer */
	COUNTER_REJECT_HOP_LIMIT,      /* answered: hop limit used up */
	COUNTER_REJECT_PROTECTED,      /* answered: would be sent in clear text where the host's IPsec policies want it protected */
	COUNTER_DROP_PROTECTED,	       /* of a client whose answers the host's IPsec policies want protected: they would leave in clear text */
	COUNTER_DROP_MARTIAN,	       /* would begin a flow or get an answer, from a source that nobody can answer */
	COUNTER_DROP_NO_FLOW,	       /* RST or ICMP error for an exclusive address without a flow */
	COUNTER_DROP_FLOW_GONE,	       /* late packet of a backend whose flow is gone. TCP is answered with RST, unless the flow was announced and may come back */
	COUNTER_DROP_FRAGMENT,	       /* later fragment for an exclusive address, its first one not seen */
	COUNTER_DROP_UNSUPPORTED,      /* protocol other than TCP, UDP, ICMP for an exclusive address */
	COUNTER_DROP_NEW_FLOW,	       /* the kernel had no room for a new flow */
	COUNTER_DROP_NO_ROUTE,	       /* no route, and none to answer: a blackhole, an ICMP error, a later fragment */
	COUNTER_DROP_FORWARDING_OFF,   /* IP forwarding is off on the interface the packet came in by */
	COUNTER_DROP_NO_SOURCE,	       /* this node has no address to translate the source to */
	COUNTER_DROP_HOP_LIMIT,	       /* hop limit of an ICMP error or of a later fragment used up: must not be answered */
	COUNTER_DROP_ANSWER_LIMIT,     /* not answered: too many answers in this second */
	COUNTER_DROP_TOO_BIG,	       /* larger than the path MTU, and can be neither answered nor split: merged segments, IP options, ICMP */
	COUNTER_DROP_ERROR,	       /* the kernel rejected a rewrite */
	COUNTER_UNDONE,		       /* packet translated from a node's source to its client, or back. COUNTER_FORWARDED and COUNTER_REPLIED are those of our own flows */
	COUNTER_FLOW_UNDONE,	       /* flow created: another node has announced its client */
	COUNTER_FLOW_PLAIN,	       /* flow of another node that keeps that node's address, as it was not announced */
	COUNTER_UNDO_IMPOSSIBLE,       /* the same, as replies to the client would not pass the program */
	COUNTER_ANNOUNCED,	       /* message sent that tells the client of a flow */
	COUNTER_ANNOUNCE_ASKED,	       /* question sent: whose segment is this */
	COUNTER_ANNOUNCE_REFUSED,      /* message refused: no key makes it genuine, or it is old, or from no peer */
	COUNTER_PROBE_ANSWERED,	       /* probe of another node answered */
	COUNTER_RECORD_WRITTEN,	       /* record written to a ring buffer */
	COUNTER_RECORD_LOST,	       /* record lost: the ring buffer is full, as nobody reads it fast enough */
	COUNTER_RECORD_NO_ROOM,	       /* flow begun without a record: `recorded` is full */
	COUNTER_REJECT_SOURCE,	       /* refused: a policy does not admit the source */
	COUNTER_REJECT_RATE,	       /* refused: a policy's limit of new flows */
	COUNTER_REJECT_CONCURRENT,     /* refused: a policy's limit of concurrent flows */
	COUNTER_REJECT_UNENFORCED,     /* refused: the frontend's policy could not be enforced, for which there is no room */
	COUNTER_REJECT_UNPROVEN,       /* answered: the client has to prove first that its address is not forged */
	COUNTER_CLIENT_PROVEN,	       /* it has */
	COUNTER_AFFINITY_KEPT,	       /* flow begun with the backend that its client had before, not that of the ring */
	COUNTERS,
};

#endif /* BLIXT_H */
