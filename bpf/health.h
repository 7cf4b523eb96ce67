/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * health.h - how the flows of backends begin, for whoever judges backends by it; and
 * backends that get one flow at a time, to find out whether they are healthy again.
 *
 * A flow has failed if its backend or a router refuses it before there was an answer, or if
 * its client repeats a SYN that nobody has answered in time. Silence is no failure of
 * UDP. A flow counts once as answered, and once as failed. A packet that no policy
 * admits begins no flow, so it does not count.
 *
 * With a range of ports a flow can lead to another port than the backend's own. That it fails says
 * nothing about the backend: anybody may try a port that is closed.
 */
#ifndef BLIXT_HEALTH_H
#define BLIXT_HEALTH_H

#include "affinity.h"
#include "latency.h"

/* Returns what is counted of the backend of a flow, or NULL if it is not judged, or if its id belongs to another backend by now. */
static __always_inline struct health *health_of(__u32 backend, __u32 generation)
{
	const struct backend *b = bpf_map_lookup_elem(&backends, &backend);
	if (!b || b->generation != generation || !(b->flags & BACKEND_JUDGED))
		return NULL;
	return bpf_map_lookup_elem(&backend_health, &backend);
}

/* Returns a hash of the client's /24 or /64, never 0. One client may be refused by itself: by a firewall in front of the backend. */
static __always_inline __u32 prefix_hash(const struct addr *client)
{
	const __u64 *w = (const __u64 *)client;
	bool v4 = !w[0] && (__u32)w[1] == bpf_htonl(0xffff);
	__u64 prefix = v4 ? w[1] & ~bpf_cpu_to_be64(0xff) : w[0];
	return prefix * 0xff51afd7ed558ccdULL >> 32 | 1;
}

/* Counts a flow that its backend has answered. What is 0 already is not written: all CPUs share the cache line. */
__noinline int judge_answer(__u32 backend, __u32 generation)
{
	struct health *h = health_of(backend, generation);
	if (!h)
		return 0;
	__sync_fetch_and_add(&h->answers, 1);
	if (h->consecutive) {
		h->consecutive = 0;
		h->others = 0;
		h->prefix = 0;
	}
	if (h->trial)
		h->trial = 0;
	return 0;
}

/*
 * Counts a flow of this client that has failed, if it leads to the backend's own port. f is the entry that has
 * FLOW_ANSWERED if its backend answers.
 */
__noinline int judge_failure(struct flow *f, const struct addr *client, __u32 backend_port, __u32 silent)
{
	if (!f || !client)
		return 0;
	__u32 id = f->backend;
	const struct backend *b = bpf_map_lookup_elem(&backends, &id);
	struct health *h = health_of(f->backend, f->generation);
	if (!h || !b || b->port != (__be16)backend_port || __sync_fetch_and_or(&f->flags, FLOW_FAILED) & FLOW_FAILED)
		return 0;
	__u32 hash = prefix_hash(client), first = __sync_val_compare_and_swap(&h->prefix, 0, hash);
	if (first && first != hash && !h->others)
		h->others = 1;
	if (silent)
		__sync_fetch_and_add(&h->unanswered, 1);
	__sync_fetch_and_add(&h->failures, 1);
	__sync_fetch_and_add(&h->consecutive, 1);
	return 0;
}

/* Counts that the SYN of the flow f, if there is one, has not been answered in time: p is a SYN of the same tuple. */
__noinline int judge_silence(const struct packet *p, struct flow *f)
{
	if (!p || !f || f->flags & (FLOW_CLOSED | FLOW_ANSWERED | FLOW_FAILED))
		return 0;
	const struct health *h = health_of(f->backend, f->generation);
	if (h && time_in_units() - f->syn > h->answer_within)
		judge_failure(f, &p->key.src, f->dport, true);
	return 0;
}

static __always_inline bool is_on_trial(__u32 id)
{
	const struct backend *b = bpf_map_lookup_elem(&backends, &id);
	return b && b->flags & BACKEND_TRIAL;
}

/*
 * Returns the id of the backend in the client's slot, if that is not on trial. Else it returns that of another slot,
 * always the same one for a client; or of its own, if there is no other, or it is not found.
 */
__noinline __u32 select_proven(struct packet *p, const struct frontend *fe)
{
	if (!p || !fe)
		return BACKEND_REJECT;
	__u32 id = select_backend(&p->key, fe);
	if (!is_on_trial(id))
		return id;
	__u32 hash = ring_hash(&p->key, fe);
	for (int i = 0; i < TRIAL_TRIES; i++) {
		hash = (hash ^ hash >> 16) * 0x85ebca6b + 0x9e3779b9;
		__u32 other = slot_backend(fe->index, hash);
		if (other != BACKEND_REJECT && !is_on_trial(other)) {
			p->trial = id;
			return other;
		}
	}
	return id;
}

/*
 * Returns the backend p->trial of a new flow, if it may have one now: the only one until it answers, or
 * TRIAL_TICKS have passed. Else it returns `id`, which select_proven has returned.
 */
__noinline __u32 try_again(const struct packet *p, __u32 id)
{
	if (!p || !p->trial)
		return id;
	__u32 i = p->trial, tick = now();
	struct health *h = bpf_map_lookup_elem(&backend_health, &i);
	if (!h)
		return id;
	__u32 last = h->trial;
	if (last && tick - last < TRIAL_TICKS)
		return id;
	return __sync_val_compare_and_swap(&h->trial, last, tick) == last ? i : id;
}

#endif /* BLIXT_HEALTH_H */
