/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * log.h - the ring buffers that tell people what has happened: how flows have ended
 * (record.h), and samples of packets that are rejected or dropped.
 *
 * Nothing here waits: a record for which a buffer has no room is lost, and counted.
 */
#ifndef BLIXT_LOG_H
#define BLIXT_LOG_H

#include "count.h"
#include "frontend.h"
#include "packet.h"
#include "ratelimit.h"

/* Wakes the reader up only if it is late: it looks several times a second anyway. */
#define WRITE_TO(log, data, size) \
	bpf_ringbuf_output(log, data, size, bpf_ringbuf_query(log, BPF_RB_AVAIL_DATA) > FLOW_LOG_SIZE / 2 ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP)

/* Writes p->record. */
static __always_inline int write_record(struct packet *p, __u32 whole)
{
	long failed;
	if (!p)
		return 0;
	__u32 cpu = bpf_get_smp_processor_id();
	__u32 size = whole ? sizeof(struct packet_record) : sizeof(struct flow_record);
	p->record.record.cpu = cpu;
	switch (cpu % FLOW_LOGS) {
	case 0:
		failed = WRITE_TO(&flow_log_0, &p->record, size);
		break;
	case 1:
		failed = WRITE_TO(&flow_log_1, &p->record, size);
		break;
	case 2:
		failed = WRITE_TO(&flow_log_2, &p->record, size);
		break;
	default:
		failed = WRITE_TO(&flow_log_3, &p->record, size);
		break;
	}
	count(failed ? COUNTER_RECORD_LOST : COUNTER_RECORD_WRITTEN);
	return 0;
}

/* Makes p->record of what the packet itself tells, and of the time. */
static __always_inline void make_record(struct packet *p)
{
	struct flow_record *r = &p->record.record;
	__builtin_memset(&p->record, 0, sizeof(p->record));
	r->began = r->ended = bpf_ktime_get_boot_ns();
	r->client = p->key.src;
	r->server = p->key.dst;
	r->client_port = p->key.sport;
	r->server_port = p->key.dport;
	r->protocol = p->key.protocol;
}

/* Writes a sample of a packet that is rejected or dropped: of the state in which it is. */
__noinline int sample(struct __sk_buff *ctx, struct packet *p, __u32 counter)
{
	const struct config *c = config();
	struct drop_sample *s = bpf_map_lookup_elem(&drop_samples, &counter);
	if (!p || !c || !s || !(c->flags & CONFIG_SAMPLE_DROPS))
		return 0;
	s->skipped += 1;
	if (!take_token(&s->full, DROP_SAMPLE_INTERVAL, DROP_SAMPLE_BURST))
		return 0;

	struct flow_record *r = &p->record.record;
	make_record(p);
	p->service.addr = r->server;
	p->service.port = r->server_port;
	p->service.protocol = r->protocol;
	const struct frontend *f = find_frontend_here(&p->service);
	r->frontend = f ? f->index : NO_FRONTEND;
	r->ifindex = ctx->ingress_ifindex;
	bool rejected = (counter >= COUNTER_REJECT_NO_BACKEND && counter <= COUNTER_REJECT_PROTECTED) ||
			(counter >= COUNTER_REJECT_SOURCE && counter <= COUNTER_REJECT_UNPROVEN);
	r->event = rejected ? RECORD_REJECTED : RECORD_DROPPED;
	r->reason = counter;
	r->sampled = s->skipped < 0xffffffff ? s->skipped : 0xffffffff;
	s->skipped = 0;
	__u32 len = ctx->len - p->l3;
	if (len > RECORD_PACKET_LEN)
		len = RECORD_PACKET_LEN;
	asm volatile("" : "+r"(len)); /* the verifier has to see the bounds of this register */
	if (len > 0 && len <= RECORD_PACKET_LEN && load(ctx, p->l3, p->record.packet, len))
		r->captured = len;
	return write_record(p, true);
}

#endif /* BLIXT_LOG_H */
