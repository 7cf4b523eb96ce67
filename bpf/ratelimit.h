/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * ratelimit.h - how many answers are sent (RFC 1812, 4.3.2.8 and RFC 4443,
 * 2.4 (f)). A source may be forged: whoever forges it would have this host send
 * to whom they choose, as fast as they send themselves.
 */
#ifndef BLIXT_RATELIMIT_H
#define BLIXT_RATELIMIT_H

#include "maps.h"

/*
 * What has a limit of its own, on each CPU: a flood of one kind, or to one
 * frontend, does not silence the answers of the others. A frontend's share is
 * SHARE_FRONTENDS + its index.
 */
enum answer_share {
	SHARE_PINGS,
	SHARE_UNSERVED,
	SHARE_DEVICES, /* not answers: questions to the FIB about the device of a reply, see trust.h */
	SHARE_QUESTIONS, /* whose packets are these: see undo.h */
	SHARE_CHALLENGES, /* at its own rate, see challenge.h */
	SHARE_FRONTENDS,
};

/* For answers about a known flow that cost an attacker more than they yield. */
#define UNLIMITED 0xffffffff

/*
 * Token buckets, by share. An element is the time when its bucket will be full:
 * it is as many tokens short as are refilled until then. So nothing has to
 * refill the bucket, and a clock of one tick of the kernel's timer suffices.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SHARE_FRONTENDS + MAX_FRONTENDS);
	__type(key, __u32);
	__type(value, __u64);
} answer_buckets SEC(".maps");

/*
 * Takes a token of a bucket for `burst` tokens, one of which is refilled in each interval.
 * *full is the time when it will be full. Returns false if there is none.
 */
static __always_inline bool take_token(__u64 *full, __u64 interval, __u64 burst)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	__u64 then = (*full > now ? *full : now) + interval;
	if (then - now > burst * interval)
		return false;
	*full = then;
	return true;
}

/* Takes a token of the share. Returns false if there is none. */
static __always_inline bool may_answer(__u32 share)
{
	if (share == UNLIMITED)
		return true;
	__u64 *full = bpf_map_lookup_elem(&answer_buckets, &share);
	return full && take_token(full, ANSWER_INTERVAL, ANSWER_BURST);
}

/* The same for challenges. */
static __always_inline bool may_challenge(void)
{
	__u32 share = SHARE_CHALLENGES;
	__u64 *full = bpf_map_lookup_elem(&answer_buckets, &share);
	return full && take_token(full, CHALLENGE_INTERVAL, CHALLENGE_BURST);
}

#endif /* BLIXT_RATELIMIT_H */
