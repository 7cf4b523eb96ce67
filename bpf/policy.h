/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * policy.h - what a new flow is asked before it begins: whether every policy of its
 * frontend admits its source, and whether it is within the limits of each.
 *
 * Packets of flows that have begun are not asked, nor are those of flows that another
 * node has announced: that node has asked. A client of this host or of its pods
 * is asked as any other one.
 *
 * Limits hold on this node alone, and exactly. In any time t no more than t / interval + burst
 * flows begin, on however many CPUs: see take(). Fewer may, where CPUs
 * contend: by at most one for each CPU at a time. The limit of concurrent flows
 * is asked for here, and enforced when a flow is established: see concurrent.h.
 * Until then nothing is counted, so that forged packets use up nobody's limit.
 *
 * A source that `limited_sources` has forgotten begins anew, with all of its
 * burst. It is forgotten when so many others were asked for since: whoever can forge
 * that many is held by the limit of all sources alone.
 */
#ifndef BLIXT_POLICY_H
#define BLIXT_POLICY_H

#include "challenge.h"
#include "concurrent.h"

/* Not a refusal. */
#define ADMITTED REFUSALS

/* A TCP segment that begins no connection: of one that began at another node, or before this program did. */
static __always_inline bool is_adopted(const struct packet *p)
{
	return p->key.protocol == IPPROTO_TCP && !(p->tcp_flags & TCP_SYN);
}

/* Returns what the policy has against the packet's source: REFUSED_SOURCE or ADMITTED. */
static __always_inline __u32 ask_sources(const struct packet *p, __u64 sources_word)
{
	struct source_key key = { .bits = 32 + 128, .set = (__u32)sources_word, .addr = p->key.src };
	const __u32 *verdict = key.set ? bpf_map_lookup_elem(&sources, &key) : NULL;
	if (verdict && *verdict != SOURCE_UNLISTED)
		return *verdict == SOURCE_ALLOWED ? ADMITTED : REFUSED_SOURCE;
	return sources_word >> 32 & POLICY_ONLY_ALLOWED ? REFUSED_SOURCE : ADMITTED; /* an empty set admits nobody, too */
}

/* Returns when a bucket will be full that gives a token now, or 0 if it has none: see take_token in ratelimit.h. */
static __always_inline __u64 full_after(__u64 full, __u64 now, __u64 interval, __u64 burst)
{
	__u64 then = (full > now ? full : now) + interval;
	return then - now > burst * interval ? 0 : then;
}

static __always_inline bool has_token(const __u64 *full, __u64 interval, __u64 burst)
{
	return full_after(*(const volatile __u64 *)full, bpf_ktime_get_ns(), interval, burst);
}

/*
 * Takes a token of a bucket that all CPUs share, and notes how to give it back. Each of
 * those who succeed moves *full by an interval, and to no more than a whole burst from now:
 * so many there are in any time. Who loses the race as often as it
 * tries gets none: by then as many others have got one.
 */
__noinline bool take(__u64 *full, __u64 interval, __u64 burst, struct taken *t)
{
	if (!full || !t)
		return false;
	for (int i = 0; i < BUCKET_TRIES; i++) {
		__u64 old = *(volatile __u64 *)full;
		__u64 then = full_after(old, bpf_ktime_get_ns(), interval, burst);
		if (!then)
			return false;
		if (__sync_val_compare_and_swap(full, old, then) == old) {
			t->old = old;
			t->then = then;
			return true;
		}
	}
	return false;
}

/* Gives the token back, unless somebody has taken another one since: then the bucket has given one too few, never one too many. */
static __always_inline void give_back(__u64 *full, const struct taken *t)
{
	if (t->then)
		__sync_val_compare_and_swap(full, t->then, t->old);
}

/* Returns which limit of a policy refuses the flow, or ADMITTED. Takes nothing. */
__noinline __u32 ask_limits(const struct packet *p, __u32 id)
{
	const struct policy *y = bpf_map_lookup_elem(&policies, &id);
	const struct policy_state *s = bpf_map_lookup_elem(&policy_states, &id);
	if (!p || !y || !s)
		return ADMITTED;
	if (y->source_interval || y->source_concurrent) {
		const struct limited_source_key *key = limited_source_key(id, y, &p->key.src);
		const struct limited_source *l = key ? bpf_map_lookup_elem(&limited_sources, key) : NULL;
		if (l && y->source_concurrent && (__s32)l->concurrent >= (__s32)y->source_concurrent)
			return REFUSED_SOURCE_CONCURRENT;
		if (l && y->source_interval && !p->asked && !has_token(&l->full, y->source_interval, y->source_burst))
			return REFUSED_SOURCE_RATE;
	}
	if (y->total_concurrent && (__s32)s->concurrent >= (__s32)y->total_concurrent)
		return REFUSED_TOTAL_CONCURRENT;
	if (y->total_interval && !p->asked && !has_token(&s->full, y->total_interval, y->total_burst))
		return REFUSED_TOTAL_RATE;
	return ADMITTED;
}

/* Takes the tokens of a policy, or none. The same. */
__noinline __u32 take_tokens(struct packet *p, __u32 id, __u32 i)
{
	const struct policy *y = bpf_map_lookup_elem(&policies, &id);
	struct policy_state *s = bpf_map_lookup_elem(&policy_states, &id);
	if (!p || !y || !s)
		return ADMITTED;
	struct limited_source *l = NULL;
	struct taken *of_source = &p->taken[i & 3][0], *of_all = &p->taken[i & 3][1];

	if (y->source_interval) {
		const struct limited_source_key *key = limited_source_key(id, y, &p->key.src);
		l = key ? limited_source(key, s, false) : NULL;
		if (l && !take(&l->full, y->source_interval, y->source_burst, of_source))
			return REFUSED_SOURCE_RATE;
	}
	if (y->total_interval && !take(&s->full, y->total_interval, y->total_burst, of_all)) {
		if (l)
			give_back(&l->full, of_source);
		of_source->then = 0;
		return REFUSED_TOTAL_RATE;
	}
	return ADMITTED;
}

/* Gives the tokens back that were taken of a policy. */
__noinline int give_tokens_back(struct packet *p, __u32 id, __u32 i)
{
	const struct policy *y = bpf_map_lookup_elem(&policies, &id);
	struct policy_state *s = bpf_map_lookup_elem(&policy_states, &id);

	if (!p || !y || !s)
		return 0;
	give_back(&s->full, &p->taken[i & 3][1]);
	if (!p->taken[i & 3][0].then)
		return 0;
	const struct limited_source_key *key = limited_source_key(id, y, &p->key.src);
	struct limited_source *l = key ? bpf_map_lookup_elem(&limited_sources, key) : NULL;
	if (l)
		give_back(&l->full, &p->taken[i & 3][0]);
	return 0;
}

/* Takes a token of a connection in mid-stream, if the policy limits new flows. The same. It is not given back: there are many. */
static __always_inline __u32 adopt(const struct policy *y, __u32 id)
{
	struct taken none;
	struct policy_state *s = y->source_interval | y->total_interval ? bpf_map_lookup_elem(&policy_states, &id) : NULL;
	return !s || take(&s->adopted, ADOPTED_INTERVAL, ADOPTED_BURST, &none) ? ADMITTED : REFUSED_ADOPTED;
}

/* What policies are asked, one after the other: all of them the first before any is asked the next. */
enum question {
	ASK_SOURCES,
	ASK_LIMITS,
	TAKE_TOKENS,
};

/*
 * Asks a policy, the i-th of its frontend. Returns ADMITTED, or the refusal, which is
 * counted; with DRY_RUN added if the policy does not mean it.
 */
#define DRY_RUN 0x100
#define RESET 0x200

__noinline int ask_policy(struct packet *p, __u32 id, __u32 i, __u32 question)
{
	const struct policy *y = bpf_map_lookup_elem(&policies, &id);
	__u32 refusal = ADMITTED;

	if (!p || !y)
		return ADMITTED;
	__u64 word = *(const volatile __u64 *)&y->sources;
	if (question == ASK_SOURCES) {
		if (y->source_interval | y->total_interval | y->source_concurrent | y->total_concurrent)
			p->limited |= 1 << (i & 3);
		refusal = ask_sources(p, word);
	} else if (is_adopted(p)) {
		refusal = question == TAKE_TOKENS ? adopt(y, id) : ADMITTED;
	} else {
		refusal = question == ASK_LIMITS ? ask_limits(p, id) : take_tokens(p, id, i);
	}
	struct policy_counters *c = refusal < REFUSALS ? bpf_map_lookup_elem(&policy_stats, &id) : NULL;
	if (!c)
		return ADMITTED;
	c->refused[refusal & (REFUSALS - 1)] += 1;
	__u32 flags = word >> 32;
	bool reset = flags & (refusal == REFUSED_SOURCE ? POLICY_RESET_SOURCES : POLICY_RESET_LIMITS) && refusal != REFUSED_ADOPTED;
	return refusal | (flags & POLICY_DRY_RUN ? DRY_RUN : 0) | (reset ? RESET : 0);
}

/* Refuses the packet. Returns the verdict. */
static __always_inline int refuse(struct __sk_buff *ctx, struct packet *p, __u32 frontend, __u32 refusal)
{
	__u32 counter = COUNTER_REJECT_RATE, why = refusal & 0xff;

	if (why == REFUSED_SOURCE)
		counter = COUNTER_REJECT_SOURCE;
	else if (why == REFUSED_SOURCE_CONCURRENT || why == REFUSED_TOTAL_CONCURRENT)
		counter = COUNTER_REJECT_CONCURRENT;
	if (refusal & RESET && p->key.protocol == IPPROTO_TCP && p->fragment == WHOLE)
		return answer_rst(ctx, p, counter, SHARE_FRONTENDS + frontend);
	return drop(counter);
}

/* Asks the policies p->policies of the frontend one question after the other. Returns 0 or a verdict. */
__noinline int ask_policies(struct __sk_buff *ctx, struct packet *p, __u32 frontend, __u32 first, __u32 last)
{
	if (!p)
		return TC_ACT_SHOT;
	for (__u32 question = ASK_SOURCES; question <= TAKE_TOKENS; question++) {
		if (question < first || question > last)
			continue;
		if (question != ASK_SOURCES && (!p->limited || (question == TAKE_TOKENS && p->asked)))
			break;
		if (question == TAKE_TOKENS)
			__builtin_memset(p->taken, 0, sizeof(p->taken));
		for (__u32 i = 0; i < FRONTEND_POLICIES; i++) {
			__u32 id = policy_id(p->policies, i);
			bool concerned = id && (question == ASK_SOURCES || p->limited >> i & 1);
			__u32 refusal = concerned ? ask_policy(p, id, i, question) : ADMITTED;
			if (refusal == ADMITTED)
				continue;
			if (refusal & DRY_RUN) { /* is not asked any more: nobody takes tokens for what is refused */
				p->policies &= ~(0xffffULL << i * POLICY_ID_BITS);
				continue;
			}
			for (__u32 n = 0; n < i && question == TAKE_TOKENS && !is_adopted(p); n++)
				give_tokens_back(p, policy_id(p->policies, n), n);
			return refuse(ctx, p, frontend, refusal);
		}
	}
	return 0;
}

/*
 * Admits what would begin a flow to the frontend. Returns 0, or the verdict about what is
 * refused. A frontend without policies costs one look-up in an array. Who may be forged
 * takes no tokens; who is denied is not even challenged.
 */
static __always_inline int admit(struct __sk_buff *ctx, struct packet *p, const struct frontend *fe)
{
	int verdict = 0;

	if (fe->flags & FRONTEND_REFUSES)
		return drop(COUNTER_REJECT_UNENFORCED);
	p->policies = policies_of(fe->index);
	if (p->policies)
		p->adopted = is_adopted(p);
	if (!fe->challenge)
		return p->policies ? ask_policies(ctx, p, fe->index, ASK_SOURCES, TAKE_TOKENS) : 0;
	if (p->policies)
		verdict = ask_policies(ctx, p, fe->index, ASK_SOURCES, ASK_SOURCES);
	if (!verdict)
		verdict = challenge(ctx, p, fe);
	if (!verdict && p->policies)
		verdict = ask_policies(ctx, p, fe->index, ASK_LIMITS, TAKE_TOKENS);
	return verdict;
}

#endif /* BLIXT_POLICY_H */
