/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * limits.h - every size, bound and time-out of the data plane, with its unit
 * and its reason. The enums are part of the contract in blixt.h: Go constants
 * are generated from them. The #defines concern the program alone.
 */
#ifndef BLIXT_LIMITS_H
#define BLIXT_LIMITS_H

/*
 * Table sizes. The memory named is that of a full table; arrays and LRU
 * tables take theirs at load time, `flows` grows with use.
 */
enum limit {
	/* 4,096 listeners on one node is 64 full Gateways; 4096 * (20+64+32) B = 0.5 MB. */
	MAX_FRONTENDS = 4096,
	/* Every frontend may have an address of its own; 4096 * (16+4+32) B = 0.2 MB. */
	MAX_ADDRESSES = 4096,
	/* A backend is one endpoint of one frontend; 65536 * (32+8) B = 2.6 MB. */
	MAX_BACKENDS = 65536,
	/* Established TCP flows, two entries of 192 B each: 109 MB when full, 8 MB when empty. Up to 4 M may be chosen at load time. */
	MAX_FLOWS = 262144,
	/* TCP flows whose client has not yet proven that it receives the backend's answers; two entries of 192 B each: 26 MB. */
	MAX_NEW_FLOWS = 65536,
	/* UDP flows, two entries of 192 B each, and an eighth more: 63 MB. */
	MAX_UDP_FLOWS = 131072,
	/* Ports of ours that sockets of this host use, about 100 B each: 0.4 MB. */
	MAX_HOST_PORTS = 4096,
	/* Ports of ours that masqueraded connections of pods use, about 100 B each: 1.6 MB. */
	MAX_MASQUERADED_PORTS = 16384,
	/* Frontends at which the host itself listens, about 80 B each. Whoever has more loses only the report of some. */
	MAX_HOST_LISTENS = 256,
	/* Slots of all rings together, 4 B each: 16 MB by default, 32 MB at most. */
	MAX_RING_SLOTS = 4194304,
	/* Datagrams whose later fragments are still to come, of each of two kinds; about 104 B each: 3.4 MB. */
	MAX_FRAGMENTS = 16384,
	/* Later fragments that came before the first; about 1.5 KB each: 1.6 MB. */
	MAX_HELD = 1024,
	/* Bytes of one of them: what an Ethernet frame holds. */
	HELD_LEN = 1504,
	/* Addresses from which backends may send fragments; about 80 B each: 0.7 MB. */
	MAX_BACKEND_ADDRESSES = 8192,
	/* Next hops that do not answer, about 80 B each. */
	MAX_SILENT_NEIGHBOURS = 256,
	/* Prefixes of clients that the host's IPsec policies cover, about 80 B each in use. */
	MAX_CLIENT_PREFIXES = 65536,
	/* Bytes of `interest`: a power of two that stays in a core's cache. Of 1,000 other addresses, 8 share the byte of one of 1,000 of ours. */
	INTEREST_SIZE = 131072,
	/* Sets of `flow_cache`, of CACHE_WAYS slots of 128 B: 33.6 MB. A flow has two slots; one that finds none is served from its table. */
	CACHE_SETS = 131072,
	CACHE_WAYS = 2,
	/* Keys that sign announcements: the one in use, its predecessor, its successor, and one to spare. */
	MAX_ANNOUNCE_KEYS = 4,
	/* Addresses of other nodes, about 120 B each in use: 5,000 nodes with three. */
	MAX_PEERS = 16384,
	/* Packets by which the agent probes other nodes at the same time. */
	MAX_PROBES = 256,
	/* Hashes of tuples of announced UDP flows, 8 B each: 2 MB. A power of two. */
	MAX_ANNOUNCED_UDP = 262144,
	/* backendRefs that are counted one by one, 256 B each: 4 MB. */
	MAX_REFS = 16384,
	/* Flows that records are kept of while they last, about 270 B each in use; see record.h. */
	MAX_RECORDED = 262144,
	/* Bytes of each of the ring buffers for records, and their number: 4 MB. A power of two, a multiple of the page size. */
	FLOW_LOG_SIZE = 1048576,
	FLOW_LOGS = 4,
	/* Where the number of packets begins in struct slot_count. */
	SLOT_PACKETS_SHIFT = 40,
	/* Bytes of a rejected or dropped packet that its record has, from the IP header on. */
	RECORD_PACKET_LEN = 64,
	/* Slots of a histogram of latencies: see struct latency. */
	LATENCY_SLOTS = 21,
	/* Ranges of ports of one address and protocol. */
	MAX_PORT_RANGES = 16,
	/* Addresses with ranges, of each protocol: about 200 B each in use, however many ports. */
	MAX_RANGED_ADDRESSES = 4096,
	/* Policies, by target: 4096 * (64+32) B, and 64 B per CPU: 0.4 MB and 0.3 MB per CPU. */
	MAX_POLICIES = 4096,
	/* Prefixes of all lists of sources, and the largest list once more while it is replaced; about 100 B each in use: 28 MB. */
	MAX_SOURCES = 282144,
	/* Sources whose flows are counted, about 110 B each: 7 MB. When it is full, those are forgotten that were asked for least recently. */
	MAX_LIMITED_SOURCES = 65536,
	/* Clients whose backend is remembered, of each of two kinds, about 110 B each: 14 MB. The same. */
	MAX_AFFINITIES = 65536,
	/* Clients that have proven their address, about 90 B each: 6 MB. The same. */
	MAX_PROVEN = 65536,
	/* Interfaces with packet counters of their own; a larger interface index is taken modulo this number. */
	MAX_LINKS = 4096,
};

enum clock {
	/* The unit of all times in maps: a tick is 2^30 ns (1.07 s) of CLOCK_MONOTONIC. A shift is cheaper than a division. */
	TICK_SHIFT = 30,
};

/* Latencies are in units of 2^-20 s, so that powers of two of them are powers of two of seconds: ns * 2^52 / 10^9 / 2^32. */
#define NS_TO_UNITS(ns) ((ns) * 4503600ULL >> 32)
/* The first slot of a histogram holds up to 2^LATENCY_FIRST units: 61 us. */
#define LATENCY_FIRST 6

#define SECONDS_TO_TICKS(s) ((__u32)((s) * 1000000000ULL >> TICK_SHIFT))

/*
 * Time-outs of the ports of ours that the host itself uses (hostports.h), in
 * ticks. Those of other flows come with each frontend: idle_ticks.
 */
/* An open TCP connection: 2 h 4 min, the least that RFC 5382, REQ-5, allows a NAT. */
#define HOST_TCP_TICKS SECONDS_TO_TICKS(7440)
/* UDP, and a TCP connection that ends: as long as conntrack keeps the tuple by default (udp_timeout_stream, time_wait). */
#define HOST_TICKS SECONDS_TO_TICKS(120)

/* CPUs that are asked whether they have seen a packet of an interface: the verifier walks through all. The first ones suffice. */
#define MAX_CPUS 256
/*
 * Questions to the FIB about one packet that comes in by another device than
 * its flow expects. Each is answered with one of several next hops by a hash:
 * of two, eight miss one once in 256, of four once in 10. The next packet asks again.
 */
#define FIB_TRIES 8

/* How long a backend on trial gets no other flow: a SYN is repeated twice in it. */
#define TRIAL_TICKS SECONDS_TO_TICKS(5)
/* Slots in which a client looks for a backend that is not on trial. With half of them on trial, it misses one once in 65,536. */
#define TRIAL_TRIES 16

/*
 * How long the tuple of a flow that is not live is left alone where there are
 * others. A closed one: for as long as a Linux server keeps it in TIME_WAIT. One
 * whose handshake goes on: until a SYN was repeated after 1, 3 and 7 seconds.
 */
#define TIME_WAIT_TICKS SECONDS_TO_TICKS(60)
#define HANDSHAKE_TICKS SECONDS_TO_TICKS(10)

/* Source ports tried before all are looked through. With three quarters of all ports taken, 32 fail once in 10,000. */
#define PORT_TRIES 32
/* Of those, the ones that must be free: later ones may also be those of flows long past. */
#define FREE_PORT_TRIES 4
/* Source ports that are looked through for one backend in one tick, before the last scan: each takes up to 0.3 us, so all take 2 % of one CPU. */
#define SCAN_LIMIT 65536
/* How often a flow looks through all ports, as long as other CPUs claim those that it finds. Then it replaces one of a few. */
#define SCANS_OF_FLOW 4

/* Privileged source ports are translated to ports from 600 on, as nf_nat does: lower ones are those of well-known services. */
#define PRIVILEGED_MIN 600
#define PRIVILEGED_END 1024
/* Every privileged port has a place among the other ports, so far from the next that the places are spread over all of them. */
#define PRIVILEGED_SPREAD ((65535 - PRIVILEGED_END) / (PRIVILEGED_END - PRIVILEGED_MIN))

/*
 * Time-outs of TCP flows that are not established, in ticks; no longer than the
 * frontend's.
 */
/* Unanswered: a client gives up within about that time in which it has repeated its SYN five times (1 + 2 + 4 + 8 + 16 + 32 s). */
#define EMBRYONIC_TICKS SECONDS_TO_TICKS(63)
/* Answered but not established, half closed, closed: RFC 5382, REQ-5, and RFC 7857, 2.1. */
#define TRANSITORY_TICKS SECONDS_TO_TICKS(240)
/* How long a TCP connection is kept whose source address is gone and whose backend is silent: more than a lease or a cable is away for. */
#define SOURCE_GRACE_TICKS SECONDS_TO_TICKS(60)
/* UDP: how long datagrams of a flow that is gone are dropped. They may as well be of another use of the ports. */
#define TOMBSTONE_TICKS SECONDS_TO_TICKS(60)

/* Bytes that the client's first acknowledgement may be ahead of the answer: more than a server sends before it. A guess hits once in 65,536. */
#define PROOF_WINDOW (1U << 16)
/* How near to a sender's last sequence and acknowledgement numbers the next ones must be: far more than a burst of lost segments. */
#define SEQUENCE_WINDOW (1U << 20)

/* Bytes by which the numbers of a flow's entry are behind those of its slot in `flow_cache`, at most. A power of two, well below SEQUENCE_WINDOW. */
#define NUMBERS_BEHIND (1U << 18)
/* Of the packets of cached UDP flows one in so many (a power of two) is served from the table: the LRU list has to see that the flow is in use. */
#define CACHED_PER_LOOKUP 64

/*
 * Announcements of UDP flows. The first two datagrams carry one, later ones up to
 * the eighth until the backend has answered, and then one in each interval. Whoever
 * undoes a flow believes the last one three times as long. For longer than that
 * no other flow gets the port, if there is another one: see is_quiet in ports.h.
 */
#define ANNOUNCE_ALWAYS 2
#define ANNOUNCE_UNANSWERED 8
#define ANNOUNCE_INTERVAL SECONDS_TO_TICKS(9)
#define ANNOUNCED_TICKS SECONDS_TO_TICKS(26)
#define QUIET_TICKS SECONDS_TO_TICKS(37)
/* SYNs of a connection that announce its client: of the third one on a firewall may have dropped them. */
#define ANNOUNCED_SYNS 2
/* For how long segments become questions that nobody answers, as a program of an earlier version does. A client repeats a segment after 0.2, 0.4 and 0.8 seconds. */
#define ASKED_TICKS SECONDS_TO_TICKS(2)
/* By how much an announcement may be older than the newest one of the same node: 64 s in units of 2^24 ns. */
#define REPLAY_WINDOW ((__u32)(64000000000ULL >> 24))

/*
 * Records of rejected and dropped packets, of each reason and CPU: 8 at once, and one
 * each half second. So a flood costs next to nothing, and one reason hides no other.
 */
#define DROP_SAMPLE_BURST 8
#define DROP_SAMPLE_INTERVAL 500000000ULL /* ns */
/* Of MAX_RECORDED, how many flows may have that are not established: a flood with forged sources leaves the rest to others. */
#define MAX_RECORDED_NEW (MAX_RECORDED / 4 * 3)

/* A neighbour that has not answered for so long is taken for unreachable. The kernel does so after three seconds. */
#define SILENT_TICKS SECONDS_TO_TICKS(3)
/* After so long without a packet to it, it is given as long again. A client repeats its SYN after 1, 3 and 7 seconds. */
#define SILENCE_FORGOTTEN_TICKS SECONDS_TO_TICKS(10)

/* IPv6 extension headers that are skipped: more than RFC 8200, 4.1, recommends in one packet. */
#define MAX_EXTENSION_HEADERS 8
/* Bytes of an ICMP error, from its IP header on: what every host accepts (RFC 1812, 4.3.2.3 and RFC 4443, 2.4). */
#define ICMP4_ERROR_MAX 576
#define ICMP6_ERROR_MAX 1280
/* Bytes of a packet that an ICMP error quotes: what is left for IPv6 beside two headers of 40 and 8 bytes. */
#define QUOTE_MAX (ICMP6_ERROR_MAX - 48)
/* Zeros behind the quote where a device will write a checksum: it lies up to 16 bytes behind the place where its sum begins. */
#define PARTIAL_PADDING 20
/*
 * Answers that one CPU sends for each share of ratelimit.h: 4,000 a second, so
 * that a flood with forged sources makes it send 2 MB/s at most (RST: 0.2).
 * After a quiet second it sends 4,000 at once: a scan finds all of the 1,000
 * ports that nmap tries by default in their true state, and one of all 65,536
 * ports takes 15 s. Linux limits its ICMP errors to 10,000 a second in all.
 */
#define ANSWER_BURST 4000
#define ANSWER_INTERVAL 250000ULL /* ns */
/*
 * Challenges of clients that one CPU sends: 200,000 a second, at most 15 MB/s. They are the defence
 * against a flood, so the limit is far above that of other answers. A source that is forged gets
 * no more bytes by them than the forger sends.
 */
#define CHALLENGE_BURST 20000
#define CHALLENGE_INTERVAL 5000ULL /* ns */
/* For how long a client has proven its address: while it opens connection after connection, one in a minute takes a round trip longer. Whoever takes over the address profits no longer. */
#define PROVEN_TICKS SECONDS_TO_TICKS(60)
/* A cookie holds for this time at least, and for twice as long at most: a client answers at once. */
#define COOKIE_TICKS 4
/* How long clients are challenged after the last second with too many SYNs: floods come in waves. */
#define FLOOD_TICKS SECONDS_TO_TICKS(10)
/* How often a CPU tries to take a token of a bucket that others take tokens of at the same time. */
#define BUCKET_TRIES 8
/*
 * Connections in mid-stream that a node takes over, for each policy that limits new ones: as
 * many at once as other nodes that fail may have had, 16,384, and 10,000 a second after that. A forged
 * segment costs an entry of `new_flows`, a quarter of which that is, and one RST of a backend.
 */
#define ADOPTED_BURST 16384
#define ADOPTED_INTERVAL 100000ULL /* ns */
/* Established flows that one packet ends, at most: its own, and two whose ports another one gets. A power of two. */
#define MAX_ENDS 4
/* Time for which the fragments of a datagram belong together: as long as Linux waits for the last one (net.ipv4.ipfrag_time). */
#define FRAGMENT_TICKS SECONDS_TO_TICKS(30)
/* Later fragments of one datagram that are kept: of 12 KB for an MTU of 1,500. */
#define HELD_SLOTS 8
/* Fragments that one packet is split into: a datagram of 64 KB for an MTU of 1,280 makes 53. */
#define MAX_PIECES 64
/* Bytes of data in one of them: bpf_skb_adjust_room removes at most 4,095 at once, and a fragment's data is a multiple of 8. */
#define PIECE_MAX 4088
/* No link has a smaller MTU than that with headers (RFC 791, 3.2, allows 68 bytes). */
#define PIECE_MIN 256
/* Least MTU of a link that carries IPv6. RFC 8200, 5. */
#define IPV6_MIN_MTU 1280
/* Hop limit of packets made here: the default that RFC 1700 recommends. */
#define ANSWER_HOP_LIMIT 64
/* Headers below this offset are accessed in place: the verifier follows small variable offsets only. */
#define MAX_DIRECT_OFFSET 4000

#endif /* BLIXT_LIMITS_H */
