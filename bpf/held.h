/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * held.h - later fragments that come before the first one of their datagram
 * (RFC 4787, REQ-14). Nobody knows yet where they go, and a program cannot have
 * the kernel keep a packet. So their bytes are kept in a map. When the first
 * fragment comes, copies of it are put back to where it came in, and each copy
 * is turned into one of the fragments that were kept.
 *
 * This happens at ingress only: what leaves has come through the queues of this
 * host, which keep the order.
 */
#ifndef BLIXT_HELD_H
#define BLIXT_HELD_H

#include "fragment.h"

/* Value of skb->tc_index, plus an index into `held`: the packet becomes that fragment. */
#define HELD_MARK 0xc000

/* Records that fragments may come from the backend p->to.dst. */
static __noinline void remember_backend(const struct packet *p)
{
	__u32 none = 0;
	if (!p)
		return;
	struct addr backend = p->to.dst;
	if (!bpf_map_lookup_elem(&backend_addresses, &backend))
		bpf_map_update_elem(&backend_addresses, &backend, &none, BPF_ANY);
}

/* Reports whether a fragment may be one of ours: it comes in, and to a frontend's address or from a backend. */
static __always_inline bool may_be_ours(const struct packet *p)
{
	if (p->egress || p->key.protocol == IPPROTO_ICMP || p->key.protocol == IPPROTO_ICMPV6)
		return false;
	return bpf_map_lookup_elem(&addresses, &p->key.dst) || bpf_map_lookup_elem(&backend_addresses, &p->key.src);
}

static __always_inline struct held_fragment *held_element(__u64 number)
{
	__u32 index = number % MAX_HELD;
	return bpf_map_lookup_elem(&held, &index);
}

/* Reports whether the fragment of that number is still there, and of use. */
static __always_inline bool still_held(__u64 number)
{
	const struct held_fragment *h = held_element(number);
	return h && h->number == number && now() - h->tick <= FRAGMENT_TICKS;
}

/* Stores the fragment in place of the oldest one. Returns its number, or 0. */
static __always_inline __u64 store_held(struct __sk_buff *ctx, const struct packet *p)
{
	__u32 zero = 0, len = p->len;
	__u64 *numbers = bpf_map_lookup_elem(&held_numbers, &zero);

	if (!numbers)
		return 0;
	__u64 number = __sync_fetch_and_add(numbers, 1) + 1;
	struct held_fragment *h = held_element(number);
	if (!h)
		return 0;
	/* Who reads the element meanwhile finds that out: see turn_into_held. Atomic operations keep the order of what is around them. */
	__sync_lock_test_and_set(&h->number, 0);
	/* Tests that the compiler can neither omit nor merge, close to their use: the verifier of Linux 6.12 follows no other. */
	asm volatile("" : "+r"(len));
	if ((__s32)len <= 0)
		return 0;
	asm volatile("" : "+r"(len));
	if (len > HELD_LEN || !load(ctx, p->l3, h->bytes, len))
		return 0;
	h->len = len;
	h->tick = now();
	__sync_lock_test_and_set(&h->number, number);
	return number;
}

/*
 * Says where a later fragment goes: completes its key if the first one was ours,
 * and keeps it if the first one has not come. It is stored before the first one
 * is looked up once more. The first one is remembered before it looks for
 * fragments that were kept. So one of them finds the other.
 */
static __noinline enum first_fragment follow_first(struct __sk_buff *ctx, struct packet *p)
{
	struct held_key key = {};

	if (!p)
		return FIRST_UNKNOWN;
	enum first_fragment first = recall_fragment(p);
	if (first != FIRST_UNKNOWN || p->released || !may_be_ours(p))
		return first;
	const struct config *c = config();
	if (!c || c->flags & CONFIG_DRAIN)
		return first; /* the next program keeps it */
	__u64 number = store_held(ctx, p);
	if (!number)
		return first;
	fragment_key(p, &key.datagram);
	for (int i = 0; i < HELD_SLOTS; i++) {
		key.slot = i;
		const __u64 *other = bpf_map_lookup_elem(&held_slots, &key);
		if (other && still_held(*other))
			continue;
		if (bpf_map_update_elem(&held_slots, &key, &number, other ? BPF_ANY : BPF_NOEXIST))
			continue;
		first = recall_fragment(p);
		if (first == FIRST_UNKNOWN)
			return FIRST_AWAITED;
		bpf_map_delete_elem(&held_slots, &key);
		return first;
	}
	return first;
}

/* Has the fragments that wait for this first one follow it. */
static __noinline void release_held(struct __sk_buff *ctx, const struct packet *p)
{
	struct held_key key = {};

	if (!p || p->egress)
		return;
	fragment_key(p, &key.datagram);
	for (int i = 0; i < HELD_SLOTS; i++) {
		key.slot = i;
		const __u64 *slot = bpf_map_lookup_elem(&held_slots, &key);
		if (!slot && i == 0)
			return;
		if (!slot)
			continue;
		__u64 number = *slot;
		bpf_map_delete_elem(&held_slots, &key);
		if (!still_held(number))
			continue;
		set_mark(ctx, HELD_MARK + number % MAX_HELD);
		bpf_clone_redirect(ctx, ctx->ifindex, BPF_F_INGRESS);
		set_mark(ctx, 0);
	}
}

/* Turns the packet into a fragment that was kept. Returns false if that is gone, or the kernel rejected a part. */
static __noinline bool turn_into_held(struct __sk_buff *ctx, __u32 index)
{
	__u8 version;
	int l3 = ip_offset(ctx, &version);
	struct held_fragment *h = bpf_map_lookup_elem(&held, &index);

	if (!h || l3 < 0)
		return false;
	__u64 number = h->number;
	__u32 len = h->len;
	if (number == 0 || bpf_skb_change_tail(ctx, l3 + len, 0))
		return false;
	asm volatile("" : "+r"(len)); /* as in store_held */
	if ((__s32)len <= 0)
		return false;
	asm volatile("" : "+r"(len));
	if (len > HELD_LEN || bpf_skb_store_bytes(ctx, l3, h->bytes, len, BPF_F_RECOMPUTE_CSUM))
		return false;
	return __sync_fetch_and_add(&h->number, 0) == number; /* not overwritten meanwhile */
}

/* Prepares a fragment to be rewritten, in its length and its identification. Returns false if the kernel rejected a part. */
static __noinline bool prepare_fragment(struct __sk_buff *ctx, struct packet *p)
{
	if (!p || !trim(ctx, p))
		return false;
	if (p->fragment == FIRST_FRAGMENT) {
		remember_fragment(p);
		release_held(ctx, p);
	}
	if (p->version == 6)
		return bpf_skb_store_bytes(ctx, p->fragment_at + IPV6_FRAGMENT_ID, &p->fragment_to, 4, BPF_F_RECOMPUTE_CSUM) == 0;
	__be16 id = p->fragment_to;
	p->ip_check = ~fold((__u64)(__u16)~p->ip_check + (__u16)~p->fragment_id + id); /* rewrite_ip stores it */
	return bpf_skb_store_bytes(ctx, p->l3 + IPV4_ID, &id, 2, 0) == 0;
}

/* Records that a first fragment was not ours, so that those that follow it are not kept. */
static __noinline void pass_fragment(struct __sk_buff *ctx, const struct packet *p)
{
	struct fragment_key key;
	struct fragment f = { .first_seen = now() };

	if (!p || !may_be_ours(p))
		return;
	fragment_key(p, &key);
	if (find_fragment(&key))
		return;
	bpf_map_update_elem(&new_fragments, &key, &f, BPF_ANY);
	release_held(ctx, p);
}

/* Turns a packet that we have put back into what its mark says. Returns false if that is not possible. */
static __always_inline bool heed_mark(struct __sk_buff *ctx, struct packet *p)
{
	__u32 mark = mark_of(ctx);

	if (mark == FIRST_PIECE)
		return insert_fragment_header(ctx, p);
	if (mark < HELD_MARK || mark >= HELD_MARK + MAX_HELD)
		return true; /* not one of ours */
	set_mark(ctx, 0);
	p->released = true;
	return turn_into_held(ctx, mark - HELD_MARK);
}

#endif /* BLIXT_HELD_H */
