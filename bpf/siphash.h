/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * siphash.h - SipHash-2-4, a keyed hash that nobody can compute who does not know
 * the key (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012).
 */
#ifndef BLIXT_SIPHASH_H
#define BLIXT_SIPHASH_H

#include "packet.h"

struct sip_state {
	__u64 v0, v1, v2, v3;
};

static __always_inline __u64 rotate(__u64 word, const int bits)
{
	return word << bits | word >> (64 - bits);
}

static __always_inline void sip_round(struct sip_state *s)
{
	s->v0 += s->v1;
	s->v1 = rotate(s->v1, 13) ^ s->v0;
	s->v0 = rotate(s->v0, 32);
	s->v2 += s->v3;
	s->v3 = rotate(s->v3, 16) ^ s->v2;
	s->v0 += s->v3;
	s->v3 = rotate(s->v3, 21) ^ s->v0;
	s->v2 += s->v1;
	s->v1 = rotate(s->v1, 17) ^ s->v2;
	s->v2 = rotate(s->v2, 32);
}

static __always_inline void sip_word(struct sip_state *s, __u64 word)
{
	s->v3 ^= word;
	sip_round(s);
	sip_round(s);
	s->v0 ^= word;
}

/* Returns the state of a hash with this key. */
static __always_inline struct sip_state sip_begin(__u64 k0, __u64 k1)
{
	struct sip_state s = {
		k0 ^ 0x736f6d6570736575ULL, k1 ^ 0x646f72616e646f6dULL, k0 ^ 0x6c7967656e657261ULL, k1 ^ 0x7465646279746573ULL,
	};
	return s;
}

/* Returns the hash of whole words, of `len` bytes together. */
static __always_inline __u64 sip_end(struct sip_state *s, __u64 len)
{
	sip_word(s, len << 56); /* no bytes are left: the last word has the length alone */
	s->v2 ^= 0xff;
	for (int i = 0; i < 4; i++)
		sip_round(s);
	return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

/* Bytes that are hashed: the tuple, and the message without its MAC. */
#define SIGNED_LEN (sizeof(struct flow_key) + __builtin_offsetof(struct announcement, mac))

/* Returns the hash of p->told with the key of this index, or 0 if there is no such key. */
__noinline __u64 sign(const struct packet *p, __u32 index)
{
	const struct announce_key *k = bpf_map_lookup_elem(&announce_keys, &index);
	if (!p || !k)
		return 0;
	const __u64 *key = (const __u64 *)k, *words = (const __u64 *)&p->told;
	__u64 k0 = key[0], k1 = key[1];
	if (!(k0 | k1))
		return 0;
	struct sip_state s = sip_begin(k0, k1);
	for (__u32 i = 0; i < SIGNED_LEN / 8; i++)
		sip_word(&s, words[i]);
	return sip_end(&s, SIGNED_LEN);
}

#endif /* BLIXT_SIPHASH_H */
