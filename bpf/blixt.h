/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * blixt.h - map keys, values, limits and counters.
 *
 * This is the whole contract between the data plane and whoever writes its
 * maps; the Go types are generated from it. Changing a size, an offset or a
 * meaning here needs a new BLIXT_LAYOUT, which is part of a map's name so
 * that an agent never writes into maps it does not understand.
 *
 * Addresses are 16 bytes in network byte order, IPv4 as ::ffff:a.b.c.d
 * (RFC 4291, 2.5.5.2). Ports are in network byte order. All else is in the
 * byte order of the host.
 */
#ifndef BLIXT_H
#define BLIXT_H

#include <linux/types.h>

#define BLIXT_LAYOUT 1

/*
 * Table sizes. Memory is for a table that is full; arrays and the LRU table
 * take theirs at load time, `flows` grows with use.
 */
enum limit {
	/* 4,096 listeners on one node is 64 full Gateways; 4096 * (20+64+32) B = 0.5 MB. */
	MAX_FRONTENDS = 4096,
	/* Every frontend may have an address of its own; 4096 * (16+4+32) B = 0.2 MB. */
	MAX_ADDRESSES = 4096,
	/* A backend is one endpoint of one frontend; 65536 * (32+8) B = 2.6 MB. */
	MAX_BACKENDS = 65536,
	/* Established flows, two entries of about 144 B each: 75 MB when full. At most 4 M by choice at load time. */
	MAX_FLOWS = 262144,
	/* Flows whose client has not yet proven to hear the backend; two entries each, taken at load time: 19 MB. */
	MAX_NEW_FLOWS = 65536,
	/* Slots of all rings together, 4 B each: 16 MB by default, 32 MB at most. */
	MAX_RING_SLOTS = 4194304,
	/* Datagrams whose later fragments are on their way; about 96 B each: 1.6 MB. */
	MAX_FRAGMENTS = 16384,
	/* Interfaces whose packets are counted apart; an interface index is folded into this range. */
	MAX_LINKS = 4096,
};

/* One tick is 2^30 ns, about 1.07 s, of CLOCK_MONOTONIC: a shift instead of a division per packet. */
#define TICK_SHIFT 30

enum address_flag {
	/* The address is served by nobody but Blixt: unserved ports are refused and ping is answered. */
	ADDRESS_EXCLUSIVE = 1,
};

/* Key of `addresses`, and every address elsewhere. */
struct addr {
	__u8 bytes[16];
};

/* Value of `addresses`. */
struct address {
	__u32 flags; /* enum address_flag */
};

/* Key of `frontends`: 20 bytes. */
struct frontend_key {
	struct addr addr;
	__be16 port;
	__u8 protocol; /* IPPROTO_TCP or IPPROTO_UDP */
	__u8 pad;
};

/*
 * Value of `frontends`: 64 bytes. Immutable while it is in the map, but for
 * idle_ticks, which the kernel replaces with the entry as a whole.
 */
struct frontend {
	__u32 index;	  /* of this frontend in `published` and `frontend_counters` */
	__u32 flags;	  /* none yet */
	__u32 idle_ticks; /* a flow without packets for longer is forgotten */
	__u32 policy;	  /* reserved, zero */
	__u32 affinity;	  /* reserved, zero */
	__u32 reserved[11];
};

/*
 * An element of `published`, by frontend index: which ring serves. It is one
 * 64-bit word so that one store publishes, and one load reads, all of it:
 * bits 0-23 the first slot, 24-43 the number of slots (0: reject everything),
 * 44-63 a generation that changes with every publication.
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
	/* Not a backend: the connection is refused (TCP: RST, UDP: dropped). */
	BACKEND_REJECT = 0,
};

enum backend_flag {
	/* On this node: reached through its own stack, and it sees the client's address. */
	BACKEND_LOCAL = 1,
};

/*
 * An element of `backends`, by backend id: 32 bytes. One endpoint of one
 * frontend, so that withdrawing a permission ends the flows of that frontend
 * alone. An odd generation is in use, an even one is free; it only ever
 * grows, and an entry is immutable between two generations.
 */
struct backend {
	struct addr addr;
	__be16 port;
	__u16 flags; /* enum backend_flag */
	__u32 generation;
	__u32 frontend; /* index of its frontend */
	__u32 reserved;
};

/* Key of `flows` and `new_flows`: a packet's own tuple, before translation. 40 bytes. */
struct flow_key {
	struct addr src;
	struct addr dst;
	__be16 sport;
	__be16 dport;
	__u8 protocol; /* IPPROTO_TCP or IPPROTO_UDP */
	__u8 pad[3];
};

enum flow_flag {
	/* From the backend to the client. */
	FLOW_REPLY = 1,
	/* The source of the forward direction is rewritten to an address of this node. */
	FLOW_SNAT = 2,
	/* Translated packets go on through the stack; without it they are redirected past it. */
	FLOW_STACK = 4,
	/* Translate at egress only, of the device that the client is behind. */
	FLOW_EGRESS = 8,
	/* The sender of this direction has sent a FIN. */
	FLOW_FIN = 16,
	/* The sender of this direction has sent a RST. */
	FLOW_RST = 32,
	/* The client is a socket of this host: replies reach it by way of lo. */
	FLOW_HOST = 64,
	/* Forward entry in `new_flows`: the backend has answered. */
	FLOW_ANSWERED = 128,
	/* In `flows`. */
	FLOW_ESTABLISHED = 256,
	/* Translated packets come in again by the device that they were leaving by. */
	FLOW_REENTER = 512,
};

/*
 * Value of `flows` and `new_flows`: 64 bytes. A flow has two entries, one a
 * direction; each holds the tuple that its packets get. Reversed, that tuple
 * is the key of the other entry.
 *
 * A connection of the host itself that met a flow is one too, with backend
 * BACKEND_REJECT, generation 0 and frontend NO_FRONTEND. In `new_flows` one
 * entry alone, whose tuple is its key's, notes a port that the host uses.
 */
enum { NO_FRONTEND = 0xffffffff };

struct flow {
	struct addr src;
	struct addr dst;
	__be16 sport;
	__be16 dport;
	__u32 backend;	  /* id ... */
	__u32 generation; /* ... and generation: a mismatch means that the backend is gone */
	__u32 frontend;	  /* index */
	__u32 last_seen;  /* tick of the last packet of this direction */
	__u32 idle_ticks; /* copied from the frontend */
	__u32 flags;	  /* enum flow_flag */
	__u32 ack;	  /* TCP, with FLOW_ANSWERED: the acknowledgement that proves the client saw the answer */
};

_Static_assert(sizeof(struct addr) == 16, "an address is 16 bytes");
_Static_assert(sizeof(struct frontend_key) == 20, "a frontend key is 20 bytes");
_Static_assert(sizeof(struct frontend) == 64, "a frontend is 64 bytes");
_Static_assert(sizeof(struct backend) == 32, "a backend is 32 bytes");
_Static_assert(sizeof(struct flow_key) == 40, "a flow key is 40 bytes");
_Static_assert(sizeof(struct flow) == 64, "a flow is 64 bytes");

/* Key of `fragments`: what the fragments of one datagram have in common. 40 bytes. */
struct fragment_key {
	struct addr src;
	struct addr dst;
	__u32 id; /* as on the wire: 16 bits for IPv4, 32 for IPv6 */
	__u8 next; /* what follows the header that says so: IPv6 may have more headers before layer 4 */
	__u8 pad[3];
};

/* Value of `fragments`: what only the first fragment carries. 8 bytes. */
struct fragment {
	__be16 sport;
	__be16 dport;
	__u8 protocol;
	__u8 pad[3];
};

enum config_flag {
	/* Serve the flows that are known, leave everything else to the next program. */
	CONFIG_DRAIN = 1,
};

/*
 * The one element of `blixt_layout_1`: 80 bytes. Written last of all, so it says what the maps hold.
 *
 * A promise for every BLIXT_LAYOUT: the name of this map begins with
 * blixt_layout_, its key 0 is there, and flags, snat_min and snat_max keep
 * their place and meaning, CONFIG_DRAIN its bit. So an upgrade can have a
 * program drain whose layout it does not know, and leave it its ports.
 */
struct config {
	__u64 epoch;	  /* of the leader that sent the state */
	__u64 sequence;	  /* of the state within the epoch */
	__u64 state_hash; /* of the state */
	__u32 flags;	  /* enum config_flag */
	__u16 snat_min;	  /* first source port of translated flows, host byte order */
	__u16 snat_max;	  /* last one */
	struct addr node4; /* SNAT source where the kernel (before 6.7) cannot say which; zero: none */
	struct addr node6;
	__u64 reserved[2];
};

_Static_assert(__builtin_offsetof(struct config, flags) == 24, "an upgrade relies on it");
_Static_assert(__builtin_offsetof(struct config, snat_min) == 28, "an upgrade relies on it");
_Static_assert(__builtin_offsetof(struct config, snat_max) == 30, "an upgrade relies on it");

/* Value of `frontend_counters`, per CPU: 48 bytes. */
struct frontend_counters {
	__u64 new_flows;     /* flows that got a backend */
	__u64 rejected;	     /* packets that met a reject slot or an empty frontend */
	__u64 packets;	     /* to backends */
	__u64 bytes;	     /* to backends, from the IP header on */
	__u64 reply_packets; /* from backends */
	__u64 reply_bytes;
};

/*
 * Index into `counters`, per CPU. The name in lower case without COUNTER_ is
 * what status shows. DROP_ and REJECT_ end a packet, all others only note.
 */
enum counter {
	COUNTER_NOT_OURS,	       /* passed on untouched */
	COUNTER_MALFORMED,	       /* passed on untouched: header truncated or lengths inconsistent */
	COUNTER_FORWARDED,	       /* translated, towards a backend */
	COUNTER_REPLIED,	       /* translated, towards a client */
	COUNTER_ICMP_FORWARDED,	       /* ICMP error translated, towards a backend */
	COUNTER_ICMP_REPLIED,	       /* ICMP error translated, towards a client */
	COUNTER_PING_ANSWERED,	       /* echo request to an exclusive address answered */
	COUNTER_FLOW_NEW,	       /* flow created */
	COUNTER_FLOW_ESTABLISHED,      /* flow answered by its backend and continued by its client */
	COUNTER_FLOW_TABLE_FULL,       /* flow stays among the new ones, which may be evicted: `flows` is full */
	COUNTER_FLOW_EXPIRED,	       /* flow idle for too long met a packet and was forgotten */
	COUNTER_FLOW_PORT_CHANGED,     /* flow got another source port because its own was taken */
	COUNTER_HOST_TRANSLATED,       /* of the host itself: translated, because a flow has the source port that it chose */
	COUNTER_DRAINED,	       /* passed on: new flow while draining */
	COUNTER_HOP_LIMIT_PASSED,      /* passed on for the stack to answer: hop limit used up */
	COUNTER_REJECT_NO_BACKEND,     /* refused: frontend without a backend, or reject slot */
	COUNTER_REJECT_UNSERVED,       /* refused: port of an exclusive address without a frontend */
	COUNTER_REJECT_BACKEND_GONE,   /* reset: the backend of the flow is gone */
	COUNTER_REJECT_TOO_BIG,	       /* answered with the path MTU */
	COUNTER_DROP_NO_FLOW,	       /* RST or ICMP error for an exclusive address without a flow */
	COUNTER_DROP_FRAGMENT,	       /* later fragment for an exclusive address, its first one not seen */
	COUNTER_DROP_UNSUPPORTED,      /* protocol other than TCP, UDP, ICMP for an exclusive address */
	COUNTER_DROP_NEW_FLOW,	       /* the kernel had no room for a new flow */
	COUNTER_DROP_PORTS_EXHAUSTED,  /* no source port left towards the backend */
	COUNTER_DROP_NO_ROUTE,	       /* the FIB knows no way, or forbids it */
	COUNTER_DROP_FORWARDING_OFF,   /* IP forwarding is off on the interface the packet came in by */
	COUNTER_DROP_NO_SOURCE,	       /* no address of this node to translate the source to */
	COUNTER_DROP_HOP_LIMIT,	       /* reply with its hop limit used up */
	COUNTER_DROP_TOO_BIG,	       /* larger than the path MTU, and the sender did not forbid fragmentation */
	COUNTER_DROP_ERROR,	       /* the kernel refused a rewrite */
	COUNTERS,
};

#endif /* BLIXT_H */
