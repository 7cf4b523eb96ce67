/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* fragment.h - what the fragments of a datagram share: its ports, which only the first one carries, and its identification. */
#ifndef BLIXT_FRAGMENT_H
#define BLIXT_FRAGMENT_H

#include "flow.h"

#define IPV4_ID 4
#define IPV6_FRAGMENT_ID 4 /* in the fragment header */

static __always_inline void fragment_key(const struct packet *p, struct fragment_key *key)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->src = p->key.src;
	key->dst = p->key.dst;
	key->id = p->fragment_id;
	key->next = p->fragment_next;
}

/* Returns what is known of the datagram that the packet is a fragment of, or NULL. */
static __always_inline const struct fragment *find_fragment(const struct fragment_key *key)
{
	const struct fragment *f = bpf_map_lookup_elem(&fragments, key);
	if (!f)
		f = bpf_map_lookup_elem(&new_fragments, key);
	return f && now() - f->first_seen <= FRAGMENT_TICKS ? f : NULL;
}

/*
 * Returns a new identification. Of a datagram that gets another source, the one
 * that its sender has chosen may be in use by other senders who get the same
 * source, and the receiver would mix their fragments (RFC 6864, 5.3). A number
 * that the sender cannot choose also keeps it from adding fragments to the
 * datagrams of others.
 */
static __always_inline __u32 new_fragment_id(const struct packet *p)
{
	__u32 zero = 0;
	__u64 *last = bpf_map_lookup_elem(&fragment_ids, &zero);
	__u32 id = last ? __sync_fetch_and_add(last, 1) : 0;
	return p->version == 4 ? bpf_htons(id) : bpf_htonl(id);
}

/* Reports whether the backend of the packet's flow has ever answered. Of UDP only the reply entry tells. */
static __always_inline bool is_answered(const struct packet *p)
{
	struct flow_key k;

	if (p->to.flags & (FLOW_REPLY | FLOW_ANSWERED | FLOW_ESTABLISHED))
		return true;
	peer_key(&p->key, &p->to, &k);
	const struct flow *reply = find_flow(&k);
	return reply && reply->flags & FLOW_ANSWERED;
}

/* Stores what a first fragment tells about its datagram. A repeated one changes nothing. */
static __noinline void remember_fragment(struct packet *p)
{
	struct fragment_key key;
	if (!p)
		return;
	fragment_key(p, &key);
	const struct fragment *known = find_fragment(&key);
	if (known && known->sport == p->key.sport && known->dport == p->key.dport) {
		p->fragment_to = known->id;
		return;
	}
	struct fragment f = { .sport = p->key.sport, .dport = p->key.dport, .protocol = p->key.protocol, .first_seen = now() };
	f.id = p->fragment_to = new_fragment_id(p);
	bpf_map_delete_elem(&fragments, &key); /* or it would hide a new one in `new_fragments` */
	if (is_answered(p))
		bpf_map_update_elem(&fragments, &key, &f, BPF_ANY);
	else
		bpf_map_update_elem(&new_fragments, &key, &f, BPF_ANY);
}

/* What is known of the first fragment when a later one comes. */
enum first_fragment {
	FIRST_UNKNOWN,
	FIRST_AWAITED, /* the later one is kept until it comes */
	FIRST_NOT_OURS,
	FIRST_OURS,
};

/* Completes the key of a later fragment if the first one was ours. */
static __noinline enum first_fragment recall_fragment(struct packet *p)
{
	struct fragment_key key;
	if (!p)
		return FIRST_UNKNOWN;
	fragment_key(p, &key);
	const struct fragment *f = find_fragment(&key);
	if (!f)
		return FIRST_UNKNOWN;
	if (!f->protocol)
		return FIRST_NOT_OURS;
	p->key.sport = f->sport;
	p->key.dport = f->dport;
	p->key.protocol = f->protocol;
	p->fragment_to = f->id;
	return FIRST_OURS;
}

#endif /* BLIXT_FRAGMENT_H */
