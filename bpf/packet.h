/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * packet.h - parses an skb into a struct packet.
 *
 * Headers are copied to the stack, not read in place. That works on non-linear
 * skbs, too, and nothing has to be checked again after a helper has moved the
 * packet.
 */
#ifndef BLIXT_PACKET_H
#define BLIXT_PACKET_H

#include "blixt.h"

#define IPV4_DF 0x4000
#define IPV4_MF 0x2000
#define IPV4_OFFSET 0x1fff
#define IPV6_MF 0x0001
#define IPV6_OFFSET 0xfff8

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

#define ICMP_HEADER_LEN 8

enum fragment_kind {
	WHOLE,
	FIRST_FRAGMENT,
	LATER_FRAGMENT, /* carries no layer-4 header */
};

enum parsed {
	PARSED,		/* TCP or UDP, key complete */
	PARSED_ICMP,	/* key without ports */
	PARSED_UNKNOWN, /* another protocol or a later fragment, key without ports */
	NOT_IP, /* or IPv6 with addresses of IPv4 */
	MALFORMED,
};

/* A route, as the FIB returns it. */
struct route {
	struct bpf_redir_neigh via;
	__u32 ifindex;
	__u32 mtu;	 /* of the path, set if the packet is larger; with has_macs in any case */
	struct addr src; /* the node's address on that route; zero: unknown */
	bool no_neighbour; /* its hardware address is not known */
	bool has_macs;	 /* macs and mtu are known */
	__u8 macs[12];	 /* destination and source of the link header */
	bool by_kernel;	 /* the kernel has to look up the next hop itself */
};

/* The first bytes of an IPv6 extension header. RFC 8200, 4. */
struct extension {
	__u8 next, len;
	__be16 offset; /* of a fragment header; its lowest bit: more fragments follow */
	__u32 id;      /* of a fragment header */
};

/* What is left of a packet that is being split: see split.h. */
struct rest {
	__u64 flags; /* of bpf_redirect: to which hook of the device */
	__u32 ifindex;
	__u32 l3;
	__u32 left, offset; /* bytes behind the headers, and their place in the datagram */
	__u32 most;	    /* bytes of one fragment */
	bool v4;
	bool more; /* the packet was a fragment itself, and not the last one */
	__u64 header[6]; /* of the next fragment: struct iphdr, or struct ipv6hdr and struct extension */
};

/* A token that was taken of a bucket: see policy.h. */
struct taken {
	__u64 old, then; /* what the bucket was, and is if nobody has taken another one; then 0: none was taken */
};

/*
 * The packet in work. There is one per CPU, in a map: with the frames of the
 * functions that handle it, it would not fit on the stack of 512 bytes.
 */
struct packet {
	struct flow_key key; /* protocol is that of the last header, ICMP included */
	__u32 len;	     /* bytes from the IP header on */
	__u32 segment;	     /* the same, of the largest packet that segmentation (GSO) will make of it */
	__u32 seq;	     /* TCP */
	__u32 ack;	     /* TCP */
	__be32 flow_info;    /* what rules of the FIB may ask for: IPv4: the type of service; IPv6: traffic class and flow label */
	__u32 fragment_id;   /* as on the wire */
	__u32 fragment_to;   /* the one that it gets */
	__u16 l3;	     /* offset of the IP header: 0 on devices without a link header */
	__u16 l4;	     /* offset of the layer-4 header */
	__u16 fragment_at;   /* IPv6: offset of the fragment header */
	__u8 version;	     /* 4 or 6 */
	__u8 hop_limit;
	__u8 tcp_flags;
	__u8 icmp_type;
	__u8 fragment; /* enum fragment_kind */
	__u8 fragment_next; /* of a fragment: type of the header that the fragmented data begins with */
	__u16 ip_check; /* IPv4: the header's checksum, in network byte order */
	bool dont_fragment;
	__u16 l4_check; /* TCP and UDP: the checksum, in network byte order */
	bool complete;	/* skb->csum is the sum of the whole packet (CHECKSUM_COMPLETE); set by rewrite_ip */
	bool due; /* the first packet of its flow in this tick, or the flow is half open: time for what each packet need not pay */
	bool egress;	    /* seen at the egress hook */
	bool host;	    /* made by a socket of this host */
	bool shared;	    /* to an address of ours that the host shares; set when no flow is found */
	bool checked;	    /* its flow has just begun, or the source of it has just been chosen */
	bool released;	    /* a fragment that was kept until the first one came */
	__u8 tcp_header;    /* bytes of the TCP header */
	__u8 announce;	    /* enum announce_how */
	bool unannounced;   /* the first datagram of a flow whose source is translated, and does not carry a message */
	bool hears_alone;   /* its backend's node hears messages that stand alone */
	__u8 grown;	    /* bytes that the program has added behind a datagram: part of len */
	bool for_its_mac;   /* it has come in for the MAC address of the device that fib_device has returned */
	__u8 limited;	    /* bit i: policy i of its frontend limits flows */
	__u8 ends;	    /* elements of end that are in use */
	bool refused;	    /* it would establish a flow, which is one too many for a policy */
	bool adopted;	    /* in mid-stream, and policies have admitted it */
	bool asked;	    /* the flow that it begins takes the place of one that policies have admitted */
	bool ahead;	    /* its clone, which our program is about to see, becomes p->told */
	__u32 payload;	    /* TCP: bytes behind the header */
	__u32 surplus;	    /* UDP: bytes behind the datagram */
	/* For the record of its flow, see record.h: */
	__u32 connect;	    /* as in struct flow_record, if this packet tells */
	__u32 rtt;
	__u32 trial;	    /* backend of the client's slot, if that is on trial and another one gets the packet; 0: it is not */
	__u8 ended;	    /* enum end_reason: the flow has ended; 0: it has not */
	__u8 ended_by;	    /* enum record_by: this packet is the first FIN, or the RST */
	/* What becomes of the packet. Not cleared for each one: written before it is read. */
	struct flow to;	   /* its flow's entry, with the tuple that it gets */
	struct flow reply; /* of a new flow: the other direction's entry */
	struct flow_key reply_key; /* and the key of that */
	struct route route;
	struct rest rest;
	struct {
		__u32 seq, ack; /* host byte order */
		__u8 flags;
	} rst; /* the reset, or the segment that carries p->told, to turn it into */
	struct {
		struct flow_key carrier; /* tuple of the packet that carries the message */
		struct announcement message;
	} told; /* what the packet announces, or is to announce: see announcement.h */
	__u64 policies; /* of the frontend, as in `frontend_policies`: those that are still asked */
	struct taken taken[FRONTEND_POLICIES][2]; /* of each policy: for the source, and for all */
	struct {
		struct addr client;
		__u32 frontend;
	} end[MAX_ENDS]; /* established flows that have gone: see end_concurrent() in concurrent.h */
	struct flow_key tomb_key; /* of the tombstone that its flow leaves: see bury() in flow.h */
	struct flow_key record_key; /* of the flow's record */
	struct packet_record record; /* that is made or written */
	struct frontend_key service; /* of the frontend that a packet was for which is rejected or dropped */
	__u64 alone[8]; /* the layer-4 header of a message that stands alone */
	struct {
		__u8 type, code;
		__u16 check;
		__be32 rest; /* second word of the ICMP header: its meaning depends on the type */
		__u8 quote[QUOTE_MAX + 4 + PARTIAL_PADDING]; /* zeros follow the quote */
	} icmp; /* the error to answer with */
};

/* Copies `len` bytes of the packet. Returns false if it has fewer. */
static __always_inline bool load(struct __sk_buff *ctx, __u32 at, void *to, __u32 len)
{
	return bpf_skb_load_bytes(ctx, at, to, len) == 0;
}

/*
 * The same for headers that every packet has: without a helper call where they
 * are linear. It may copy four bytes at a time, as IP headers are aligned on
 * machines that need it.
 */
static __always_inline bool load_header(struct __sk_buff *ctx, __u32 at, void *to, const __u32 len)
{
	const void *from = (const void *)(long)ctx->data + at;
	if (at < MAX_DIRECT_OFFSET && from + len <= (const void *)(long)ctx->data_end) {
		__builtin_memcpy(to, __builtin_assume_aligned(from, 4), len);
		return true;
	}
	return load(ctx, at, to, len);
}

static __always_inline void map_ipv4(struct addr *to, __be32 from)
{
	__u32 *w = (__u32 *)to;
	w[0] = 0;
	w[1] = 0;
	w[2] = bpf_htonl(0xffff);
	w[3] = from;
}

static __always_inline __be32 unmap_ipv4(const struct addr *a)
{
	return ((const __u32 *)a)[3];
}

/* Reports whether a single host can have this address, so that it may be answered. RFC 1122, 3.2.1.3 and RFC 4291, 2.7. */
static __always_inline bool is_unicast(const struct packet *p, const struct addr *a)
{
	const __u32 *w = (const __u32 *)a;
	if (p->version == 4)
		return a->bytes[12] > 0 && a->bytes[12] < 224;
	return a->bytes[0] != 0xff && (w[0] | w[1] | w[2] | w[3]) != 0;
}

/*
 * Reports whether this is an IPv4-mapped or IPv4-compatible address (RFC 4291,
 * 2.5.5). No host may use them on the wire: what they mean is an IPv4 packet
 * that has evaded all checks of IPv4 packets. Linux drops mapped sources, but
 * behind us, and keys of flows hold IPv4 addresses in the same form.
 */
static __always_inline bool embeds_ipv4(const struct addr *a)
{
	const __u32 *w = (const __u32 *)a;
	if (w[0] | w[1])
		return false;
	return w[2] == bpf_htonl(0xffff) || (!w[2] && bpf_ntohl(w[3]) > 1); /* not :: and ::1 */
}

static __always_inline bool same_addr(const struct addr *a, const struct addr *b)
{
	const __u64 *x = (const __u64 *)a, *y = (const __u64 *)b;
	return x[0] == y[0] && x[1] == y[1];
}

/* Returns the IP version of an EtherType, or 0. */
static __always_inline __u8 ip_version(__be16 proto)
{
	return proto == bpf_htons(ETH_P_IP) ? 4 : proto == bpf_htons(ETH_P_IPV6) ? 6 : 0;
}

/*
 * Reports whether these six bytes of the packet are those that its network header
 * begins with. So with the length: up to there an IPv6 header without a flow label
 * may equal a MAC address.
 */
static __always_inline bool is_network_header(struct __sk_buff *ctx, const __u8 *bytes)
{
	__u8 net[6];
	return !bpf_skb_load_bytes_relative(ctx, 0, net, sizeof(net), BPF_HDR_START_NET) && !__builtin_memcmp(net, bytes, sizeof(net));
}

/*
 * Returns the offset of the IP header, or -1. A program cannot see whether its
 * device has link headers (tun, WireGuard and IP-in-IP have none), so both
 * layouts are tried. Only where both fit (as for a source in 8.0.64.0/20) a
 * helper call decides.
 */
static __always_inline int ip_offset(struct __sk_buff *ctx, __u8 *version)
{
	__u8 head[20]; /* as long as the shortest IP header */
	__be16 proto = ctx->protocol;

	*version = ip_version(proto);
	bool tagged = proto == bpf_htons(ETH_P_8021Q) || proto == bpf_htons(ETH_P_8021AD);
	if ((!*version && !tagged) || !load_header(ctx, 0, head, sizeof(head)))
		return -1;
	if (tagged) {
		/* The tag is in the frame, not in the skb: a VLAN device without offload sends such frames. */
		if (*(__be16 *)(head + 12) != proto)
			return -1;
		*version = ip_version(*(__be16 *)(head + 16));
		return *version && head[18] >> 4 == *version ? ETH_HLEN + 4 : -1;
	}
	bool with = *(__be16 *)(head + 12) == proto && head[14] >> 4 == *version;
	bool without = head[0] >> 4 == *version;
	if (with && without)
		with = is_network_header(ctx, head + ETH_HLEN);
	return with ? ETH_HLEN : without ? 0 : -1;
}

static __always_inline enum parsed parse_ipv4(struct __sk_buff *ctx, struct packet *p)
{
	struct iphdr ip;

	if (!load_header(ctx, p->l3, &ip, sizeof(ip)))
		return MALFORMED;
	p->len = bpf_ntohs(ip.tot_len);
	if (p->len == 0 && ctx->gso_size) /* BIG TCP: too long for the field */
		p->len = ctx->len - p->l3;
	p->l4 = p->l3 + ip.ihl * 4;
	if (ip.ihl < 5 || p->len < ip.ihl * 4 || p->l3 + p->len > ctx->len)
		return MALFORMED;
	map_ipv4(&p->key.src, ip.saddr);
	map_ipv4(&p->key.dst, ip.daddr);
	p->key.protocol = ip.protocol;
	p->hop_limit = ip.ttl;
	p->flow_info = ip.tos;
	p->ip_check = ip.check;
	__u16 fragment = bpf_ntohs(ip.frag_off);
	p->dont_fragment = fragment & IPV4_DF;
	if (fragment & (IPV4_MF | IPV4_OFFSET)) {
		p->fragment = fragment & IPV4_OFFSET ? LATER_FRAGMENT : FIRST_FRAGMENT;
		p->fragment_id = ip.id;
		p->fragment_next = ip.protocol;
	}
	return PARSED;
}

/* Reports whether this is a header between the fixed one and layer 4 that carries nothing for us. */
static __always_inline bool is_extension(__u8 protocol)
{
	return protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_ROUTING || protocol == IPPROTO_DSTOPTS ||
	       protocol == IPPROTO_FRAGMENT;
}

/*
 * Skips extension headers: moves *at and *next from the first one to what
 * follows the last one. *fragment gets the fragment header and *fragment_at its
 * place; its offset stays zero if there is none or the packet is whole (RFC
 * 6946). In a later fragment data follows, so the walk ends. Returns false if
 * the packet is too short.
 */
static __always_inline bool skip_extensions(struct __sk_buff *ctx, __u32 *at, __u8 *next, struct extension *fragment,
					   __u32 *fragment_at)
{
	fragment->offset = 0;
	for (int i = 0; i < MAX_EXTENSION_HEADERS && is_extension(*next); i++) {
		struct extension ext;
		if (!load(ctx, *at, &ext, sizeof(ext)))
			return false;
		bool fragmented = *next == IPPROTO_FRAGMENT;
		*at += fragmented ? sizeof(ext) : (ext.len + 1) * 8;
		*next = ext.next;
		if (fragmented && ext.offset & bpf_htons(IPV6_OFFSET | IPV6_MF)) {
			*fragment = ext;
			*fragment_at = *at - sizeof(ext);
			if (ext.offset & bpf_htons(IPV6_OFFSET))
				break;
		}
	}
	return true;
}

static __always_inline enum parsed parse_ipv6(struct __sk_buff *ctx, struct packet *p)
{
	struct ipv6hdr ip;
	struct extension fragment;

	if (!load_header(ctx, p->l3, &ip, sizeof(ip)))
		return MALFORMED;
	p->len = sizeof(ip) + bpf_ntohs(ip.payload_len);
	if (ip.payload_len == 0 && ctx->gso_size)
		p->len = ctx->len - p->l3;
	if (p->l3 + p->len > ctx->len)
		return MALFORMED;
	__builtin_memcpy(&p->key.src, &ip.saddr, sizeof(struct addr) * 2);
	if (embeds_ipv4(&p->key.src) || embeds_ipv4(&p->key.dst))
		return NOT_IP;
	p->hop_limit = ip.hop_limit;
	p->flow_info = *(__be32 *)&ip & bpf_htonl(0x0fffffff);
	p->dont_fragment = true; /* routers never fragment IPv6 */

	__u32 at = p->l3 + sizeof(ip), fragment_at = 0;
	__u8 next = ip.nexthdr;
	if (!skip_extensions(ctx, &at, &next, &fragment, &fragment_at) || at > p->l3 + p->len)
		return MALFORMED;
	if (fragment.offset) {
		p->fragment = fragment.offset & bpf_htons(IPV6_OFFSET) ? LATER_FRAGMENT : FIRST_FRAGMENT;
		p->fragment_id = fragment.id;
		p->fragment_next = fragment.next;
		p->fragment_at = fragment_at;
	}
	p->l4 = at;
	p->key.protocol = next;
	return PARSED;
}

/* Parses the layer-4 header at p->l4. Lengths are checked against that of the IP header. */
static __always_inline enum parsed parse_l4(struct __sk_buff *ctx, struct packet *p)
{
	__u32 left = p->len - (p->l4 - p->l3);

	if (p->key.protocol == IPPROTO_TCP) {
		struct tcphdr tcp;
		if (left < sizeof(tcp) || !load_header(ctx, p->l4, &tcp, sizeof(tcp)))
			return MALFORMED;
		__u32 header = tcp.doff * 4;
		if (header < sizeof(tcp) || header > left)
			return MALFORMED;
		p->key.sport = tcp.source;
		p->key.dport = tcp.dest;
		p->seq = bpf_ntohl(tcp.seq);
		p->ack = bpf_ntohl(tcp.ack_seq);
		p->l4_check = tcp.check;
		p->tcp_flags = ((__u8 *)&tcp)[13];
		p->tcp_header = header;
		p->payload = left - header;
		if (ctx->gso_size)
			p->segment = p->l4 - p->l3 + header + ctx->gso_size;
		/* The extension header that tells the length of a larger packet (RFC 2675) is in none of its segments. */
		if (p->version == 6 && p->len - sizeof(struct ipv6hdr) > 0xffff && p->l4 - p->l3 > sizeof(struct ipv6hdr))
			p->segment -= sizeof(struct extension);
		return PARSED;
	}
	if (p->key.protocol == IPPROTO_UDP) {
		struct udphdr udp;
		if (left < sizeof(udp) || !load_header(ctx, p->l4, &udp, sizeof(udp)))
			return MALFORMED;
		p->key.sport = udp.source;
		p->key.dport = udp.dest;
		p->l4_check = udp.check;
		if (p->fragment == WHOLE && !ctx->gso_size && bpf_ntohs(udp.len) >= sizeof(udp) && bpf_ntohs(udp.len) < left)
			p->surplus = left - bpf_ntohs(udp.len);
		if (ctx->gso_size)
			p->segment = p->l4 - p->l3 + sizeof(udp) + ctx->gso_size;
		return PARSED;
	}
	if (p->key.protocol == (p->version == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6)) {
		if (left < ICMP_HEADER_LEN || !load(ctx, p->l4, &p->icmp_type, 1))
			return MALFORMED;
		return PARSED_ICMP;
	}
	return PARSED_UNKNOWN;
}

/* Parses the packet, of which the caller has cleared everything before p->to. A function of its own: its frame is not below those that follow. */
__noinline int parse(struct __sk_buff *ctx, struct packet *p)
{
	if (!p)
		return MALFORMED;
	int l3 = ip_offset(ctx, &p->version);
	if (l3 < 0)
		return NOT_IP;
	p->l3 = l3;
	enum parsed ip = p->version == 4 ? parse_ipv4(ctx, p) : parse_ipv6(ctx, p);
	if (ip != PARSED)
		return ip;
	p->segment = p->len;
	if (p->fragment == LATER_FRAGMENT)
		return PARSED_UNKNOWN;
	return parse_l4(ctx, p);
}

#endif /* BLIXT_PACKET_H */
