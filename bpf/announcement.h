/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * announcement.h - messages from node to node in the packets of a flow: their
 * places, how they are written, read and signed. announce.h and undo.h tell who
 * sends them when, and what they do.
 *
 * A message is the last 40 bytes of a packet, where receivers that know nothing of
 * it ignore it:
 *
 *   within, TCP: the payload of a SYN that has none, behind two bytes
 *   within, UDP: the surplus area behind a datagram (RFC 9868), behind two bytes at
 *                an even offset
 *   alone, TCP:  the only option of a segment without payload (RFC 6994)
 *   alone, UDP:  the surplus area behind an empty datagram
 *
 * The two bytes are a checksum (the OCS of RFC 9868): with them the sum of all that
 * is added, and of its length, is zero. So no checksum of the packet changes, but one
 * that a device has yet to compute.
 */
#ifndef BLIXT_ANNOUNCEMENT_H
#define BLIXT_ANNOUNCEMENT_H

#include "answer.h"
#include "siphash.h"

#define ANNOUNCEMENT_ID 0xb117
#define OPTION_TCP 253
#define OPTION_UDP 127
#define MESSAGE_LEN sizeof(struct announcement)
/* The checksum and the message. */
#define TAIL_LEN (2 + MESSAGE_LEN)
#define TCP_ALONE_LEN (sizeof(struct tcphdr) + MESSAGE_LEN)
#define UDP_ALONE_LEN (sizeof(struct udphdr) + TAIL_LEN)

/* How a packet announces its client. */
enum announce_how {
	ANNOUNCE_NOT,
	ANNOUNCE_WITHIN, /* in the packet */
	ANNOUNCE_AHEAD,	 /* by a message alone, in front of it */
};

static __always_inline const struct announce_config *announcing_config(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&announcing, &zero);
}

/* Reports whether a port is one to which peers translate sources. */
static __always_inline bool is_peers_port(const struct announce_config *c, __be16 port)
{
	__u32 n = bpf_ntohs(port);
	return (n >= c->ports_min && n <= c->ports_max) || (n >= PRIVILEGED_MIN && n < PRIVILEGED_END);
}

/* Returns the time that messages have. */
static __always_inline __u32 announcement_time(void)
{
	return bpf_ktime_get_coarse_ns() >> 24;
}

/* Returns the hash of a frontend's address and port. All nodes have to agree. */
static __always_inline __u16 service_hash(const struct addr *a, __be16 port)
{
	const __u64 *w = (const __u64 *)a;
	__u64 h = (w[0] + port) * 0xff51afd7ed558ccdULL;
	h ^= h >> 32;
	h = (h + w[1]) * 0xc4ceb9fe1a85ec53ULL;
	return h >> 48;
}

/* Returns which connection of a client's it is that goes to this frontend, from this port of the client's own. */
static __always_inline __u32 connection(const struct addr *service, __be16 service_port, __be16 port)
{
	return (__u32)bpf_htons(service_hash(service, service_port)) << 16 | port;
}

/* Returns the exponent of the least power of two that is not less than n ticks. */
static __always_inline __u8 exponent(__u32 n)
{
	__u8 e = 0;
	for (int i = 0; i < 31 && (1U << e) < n; i++)
		e++;
	return e;
}

/* Reports whether the message is an option of a TCP segment. */
static __always_inline bool is_option(const struct packet *p, bool alone)
{
	return alone && p->key.protocol == IPPROTO_TCP;
}

/* Sets p->told.carrier: who gets the message, as whose packet. */
static __always_inline void set_carrier(struct packet *p, const struct addr *src, const struct addr *dst, __be16 sport, __be16 dport)
{
	struct flow_key *k = &p->told.carrier;
	k->src = *src;
	k->dst = *dst;
	k->sport = sport;
	k->dport = dport;
	k->protocol = p->key.protocol;
	__builtin_memset(k->pad, 0, sizeof(k->pad));
}

/* Completes p->told, of which carrier, client, port, idle and service are set, and signs it. Returns false if there is no key. */
static __always_inline bool complete_message(struct packet *p, __u8 flags, __be32 time)
{
	const struct announce_config *c = announcing_config();
	struct announcement *m = &p->told.message;
	if (!c)
		return false;
	__u32 key = c->key;
	m->kind = is_option(p, flags & ANNOUNCEMENT_ALONE) ? OPTION_TCP : OPTION_UDP;
	m->len = MESSAGE_LEN;
	m->id = bpf_htons(ANNOUNCEMENT_ID);
	m->flags = flags | key << ANNOUNCEMENT_KEY_SHIFT;
	m->time = time;
	m->boot = bpf_htons(c->boot);
	__u64 mac = sign(p, key);
	__builtin_memcpy(m->mac, &mac, sizeof(mac));
	return mac;
}

/* Sets that nothing is announced. */
static __always_inline void clear_message(struct packet *p)
{
	__builtin_memset(&p->told.message, 0, sizeof(p->told.message));
}

/* Returns the checksum in front of the message, with `len` bytes in all. */
static __always_inline __u16 message_check(const struct packet *p, __u32 len)
{
	__u16 check = ~fold((__u64)(__u32)bpf_csum_diff(NULL, 0, (__be32 *)&p->told.message, MESSAGE_LEN, 0) + bpf_htons(len));
	return check ? check : 0xffff; /* RFC 9868: zero would mean "none" */
}

/*
 * Puts p->told behind the packet, before that is rewritten. Returns false if the
 * kernel rejected a part.
 */
__noinline bool append_message(struct __sk_buff *ctx, struct packet *p)
{
	if (!p)
		return false;
	__u32 pad = (p->len - (p->l4 - p->l3)) & 1, len = pad + TAIL_LEN, at = p->l3 + p->len + pad;
	__u16 check = message_check(p, len);
	__u8 zero = 0; /* there may be padding of a short frame */
	bool partial = checksum_kind(ctx, p) == PARTIAL_CHECKSUM;

	if (!resize(ctx, p, p->len + len) || (pad && bpf_skb_store_bytes(ctx, at - 1, &zero, 1, 0)) || bpf_skb_store_bytes(ctx, at, &check, 2, 0) ||
	    bpf_skb_store_bytes(ctx, at + 2, &p->told.message, MESSAGE_LEN, 0))
		return false;
	p->len += len;
	p->grown = len;
	if (partial) /* what a device sums is longer now, by what sums to nothing only with its length */
		p->l4_check = fold((__u64)p->l4_check + bpf_htons(len));
	return true;
}

/* Removes the message behind the packet. Returns false if the kernel rejected a part. */
static __always_inline bool cut_message(struct __sk_buff *ctx, struct packet *p)
{
	bool udp = p->key.protocol == IPPROTO_UDP;
	__u32 len = udp ? p->surplus : p->payload;

	if (checksum_kind(ctx, p) == PARTIAL_CHECKSUM) {
		p->l4_check = fold((__u64)p->l4_check + (__u16)~bpf_htons(len));
		if (bpf_skb_store_bytes(ctx, p->l4 + (udp ? UDP_CHECK : TCP_CHECK), &p->l4_check, 2, 0))
			return false;
	}
	__u16 check = p->ip_check;
	if (!resize(ctx, p, p->len - len))
		return false;
	if (p->version == 4 && check != p->ip_check && bpf_skb_store_bytes(ctx, p->l3 + IPV4_CHECK, &p->ip_check, 2, 0))
		return false;
	p->len -= len;
	p->segment = p->len;
	p->payload = p->surplus = 0;
	return true;
}

/* Reports whether the packet is of a form that may carry a message. */
static __always_inline bool may_carry(const struct packet *p)
{
	if (p->fragment != WHOLE)
		return false;
	if (p->key.protocol == IPPROTO_UDP)
		return p->surplus == TAIL_LEN || p->surplus == TAIL_LEN + 1;
	return p->payload ? p->payload == TAIL_LEN && (p->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN
			  : p->tcp_header == TCP_ALONE_LEN;
}

/* Reports whether the message of a packet that may carry one stands alone in it. */
static __always_inline bool stands_alone(const struct packet *p)
{
	if (p->key.protocol == IPPROTO_UDP)
		return p->len - p->surplus == p->l4 - p->l3 + sizeof(struct udphdr) && p->surplus == TAIL_LEN;
	return !p->payload;
}

/* Loads p->told of a packet that may carry a message. Returns false if it is none of ours, or of another version. */
static __always_inline bool load_message(struct __sk_buff *ctx, struct packet *p)
{
	struct announcement *m = &p->told.message;
	bool option = is_option(p, stands_alone(p));
	__u32 end = p->l3 + p->len;
	__u16 check = 0;

	if (!load(ctx, end - MESSAGE_LEN, m, MESSAGE_LEN) || m->kind != (option ? OPTION_TCP : OPTION_UDP) || m->len != MESSAGE_LEN ||
	    m->id != bpf_htons(ANNOUNCEMENT_ID))
		return false;
	set_carrier(p, &p->key.src, &p->key.dst, p->key.sport, p->key.dport);
	/* Without the right checksum the rest of the packet would have a wrong one. */
	return option || (load(ctx, end - TAIL_LEN, &check, 2) && check == message_check(p, p->payload ? p->payload : p->surplus));
}

/* Reports whether p->told, which a packet has carried, is signed with one of our keys. */
static __always_inline bool is_genuine(const struct packet *p)
{
	const struct announcement *m = &p->told.message;
	__u64 mac = sign(p, m->flags >> ANNOUNCEMENT_KEY_SHIFT), found;

	__builtin_memcpy(&found, m->mac, sizeof(found));
	bool alone = m->flags & ANNOUNCEMENT_ALONE, empty = p->key.protocol == IPPROTO_UDP; /* a client may send empty datagrams */
	return mac && mac == found && (alone == stands_alone(p) || (!alone && empty));
}

/* Gives the IP header this length and the addresses of p->told.carrier, of a whole packet made here. */
static __always_inline bool write_ip(struct __sk_buff *ctx, const struct packet *p, __u32 len)
{
	const struct flow_key *k = &p->told.carrier;

	if (p->version == 4) {
		struct iphdr old, new;
		if (!load(ctx, p->l3, &old, sizeof(old)))
			return false;
		new = old;
		new.tot_len = bpf_htons(len);
		new.frag_off &= bpf_htons(IPV4_DF);
		new.ttl = ANSWER_HOP_LIMIT;
		new.saddr = unmap_ipv4(&k->src);
		new.daddr = unmap_ipv4(&k->dst);
		new.check = 0;
		old.check = ~old.check;
		__u64 sum = (__u64)old.check;
		old.check = 0;
		new.check = ~fold(sum + difference(&old, &new, 5));
		return !bpf_skb_store_bytes(ctx, p->l3, &new, sizeof(new), 0);
	}
	struct ipv6hdr ip;
	if (!load(ctx, p->l3, &ip, sizeof(ip)))
		return false;
	ip.payload_len = bpf_htons(len - sizeof(ip));
	ip.hop_limit = ANSWER_HOP_LIMIT;
	__builtin_memcpy(&ip.saddr, &k->src, sizeof(k->src));
	__builtin_memcpy(&ip.daddr, &k->dst, sizeof(k->dst));
	if (p->fragment != WHOLE) { /* it is all of its datagram (RFC 6946) */
		__be16 whole = 0;
		if (bpf_skb_store_bytes(ctx, p->fragment_at + 2, &whole, 2, BPF_F_RECOMPUTE_CSUM))
			return false;
	}
	return !bpf_skb_store_bytes(ctx, p->l3, &ip, sizeof(ip), BPF_F_RECOMPUTE_CSUM);
}

/*
 * Turns the packet into one with the tuple p->told.carrier that carries p->told alone;
 * of TCP a segment with the numbers and flags p->rst. IP options and extension
 * headers stay: see make_rst. Returns false if the kernel rejected a part.
 */
__noinline bool write_alone(struct __sk_buff *ctx, struct packet *p)
{
	if (!p)
		return false;
	const struct flow_key *k = &p->told.carrier;
	bool tcp = p->key.protocol == IPPROTO_TCP;
	bool partial = checksum_partial(ctx, p->l4 + (tcp ? TCP_CHECK : UDP_CHECK));
	__u32 len = tcp ? TCP_ALONE_LEN : UDP_ALONE_LEN;
	__u8 *header = (__u8 *)p->alone;

	__builtin_memset(p->alone, 0, sizeof(p->alone));
	if (tcp) {
		struct tcphdr *h = (struct tcphdr *)header;
		h->source = k->sport;
		h->dest = k->dport;
		h->seq = bpf_htonl(p->rst.seq);
		h->ack_seq = bpf_htonl(p->rst.ack);
		h->doff = TCP_ALONE_LEN / 4;
		header[13] = p->rst.flags;
		h->window = 0xffff; /* so that no firewall that follows windows narrows that of the sender */
		__builtin_memcpy(header + sizeof(*h), &p->told.message, MESSAGE_LEN);
		__u64 sum = pseudo_sum(p, &k->src, &k->dst, IPPROTO_TCP, len);
		if (!partial)
			sum += (__u32)bpf_csum_diff(NULL, 0, (__be32 *)header, TCP_ALONE_LEN, 0);
		h->check = partial ? fold(sum) : ~fold(sum);
	} else {
		struct udphdr *h = (struct udphdr *)header;
		h->source = k->sport;
		h->dest = k->dport;
		h->len = bpf_htons(sizeof(*h));
		*(__u16 *)(header + sizeof(*h)) = message_check(p, TAIL_LEN);
		__builtin_memcpy(header + sizeof(*h) + 2, &p->told.message, MESSAGE_LEN);
		__u64 sum = pseudo_sum(p, &k->src, &k->dst, IPPROTO_UDP, partial ? len : sizeof(*h));
		if (!partial)
			sum += (__u32)bpf_csum_diff(NULL, 0, (__be32 *)header, sizeof(*h), 0);
		h->check = partial ? fold(sum) : ~fold(sum);
		if (!h->check)
			h->check = 0xffff; /* RFC 768: zero would mean "none" */
	}
	if (bpf_skb_change_tail(ctx, p->l4 + len, 0) || !write_ip(ctx, p, p->l4 - p->l3 + len))
		return false;
	return !bpf_skb_store_bytes(ctx, p->l4, header, tcp ? TCP_ALONE_LEN : UDP_ALONE_LEN, BPF_F_RECOMPUTE_CSUM);
}

/* Sends p->told alone to where the packet came from, with its tuple turned round. Returns the verdict. */
static __always_inline int send_message_back(struct __sk_buff *ctx, struct packet *p, __u8 flags, __be32 time)
{
	set_carrier(p, &p->key.dst, &p->key.src, p->key.dport, p->key.sport);
	if (!complete_message(p, flags | ANNOUNCEMENT_ALONE, time) || !write_alone(ctx, p))
		return drop(COUNTER_DROP_ERROR);
	return reflect(ctx, p);
}

#endif /* BLIXT_ANNOUNCEMENT_H */
