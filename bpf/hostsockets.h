/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * hostsockets.h - sockets of the host on addresses that it shares with
 * frontends. Where the host listens, the host wins: its sshd, its tunnels and
 * its routing daemon get their packets, whatever frontend has their port. Its
 * own connections get their answers, whatever port they come from.
 *
 * The host is asked when a flow would begin. A TCP flow that is older than the
 * host's socket goes on. UDP flows may last for ever, those of a tunnel do: so
 * about them the host is asked again, once a tick.
 */
#ifndef BLIXT_HOSTSOCKETS_H
#define BLIXT_HOSTSOCKETS_H

#include "reserve.h"

/* The state of a socket: the kernel's numbers, of which it tells user space nothing. */
enum socket_state {
	NO_SOCKET = 0,
	SOCKET_TIME_WAIT = 6, /* TCP: only waits for late segments */
	SOCKET_UNCONNECTED = 7, /* UDP: for datagrams of everybody */
	SOCKET_LISTENS = 10, /* TCP */
};

static __always_inline int socket_state(struct __sk_buff *ctx, struct bpf_sock_tuple *tuple, __u32 size, bool udp)
{
	int state = NO_SOCKET;
	struct bpf_sock *s;

	if (udp) {
		s = bpf_sk_lookup_udp(ctx, tuple, size, BPF_F_CURRENT_NETNS, 0);
		if (s) {
			state = s->state;
			bpf_sk_release(s);
		}
		return state;
	}
	s = bpf_skc_lookup_tcp(ctx, tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (s) {
		state = s->state;
		asm volatile("" : "+r"(state)); /* the verifier wants each kind of socket to have instructions of its own */
		bpf_sk_release(s);
	}
	return state;
}

/*
 * Returns the state of the host's socket that the packet is for or, if `answers`,
 * of the one that answers to the packet are for. The kernel looks for it as it does
 * for a packet that comes in by this device. It finds wildcard sockets, those
 * of IPv6 that serve IPv4 too, and its own (VXLAN, WireGuard). It does not find
 * sockets of another device or of another address (127.0.0.1), nor those that are
 * connected to somebody else.
 *
 * A SYN begins another connection than the one in TIME_WAIT, which hides
 * whether anybody listens. No connection has the source port 0.
 */
__noinline int find_socket(struct __sk_buff *ctx, const struct packet *p, bool answers)
{
	struct bpf_sock_tuple t = {};

	if (!p)
		return NO_SOCKET;
	const struct flow_key *k = &p->key;
	const struct addr *src = answers ? &k->dst : &k->src, *dst = answers ? &k->src : &k->dst;
	__be16 sport = answers ? k->dport : k->sport, dport = answers ? k->sport : k->dport;
	bool v4 = p->version == 4;
	__u32 size = v4 ? sizeof(t.ipv4) : sizeof(t.ipv6);

	if (v4) {
		t.ipv4.saddr = unmap_ipv4(src);
		t.ipv4.daddr = unmap_ipv4(dst);
		t.ipv4.sport = sport;
		t.ipv4.dport = dport;
	} else {
		__builtin_memcpy(t.ipv6.saddr, src, sizeof(*src));
		__builtin_memcpy(t.ipv6.daddr, dst, sizeof(*dst));
		t.ipv6.sport = sport;
		t.ipv6.dport = dport;
	}
	int state = socket_state(ctx, &t, size, is_udp(k));
	if (state != SOCKET_TIME_WAIT || !is_syn(p))
		return state;
	if (v4)
		t.ipv4.sport = 0;
	else
		t.ipv6.sport = 0;
	return socket_state(ctx, &t, size, false);
}

/* Reports whether a frontend on an address that the host shares has this port. */
__noinline bool is_shared_frontend(const struct addr *addr, __be16 port, __u8 protocol)
{
	struct frontend_key key = { .port = port, .protocol = protocol };
	if (!addr)
		return false;
	key.addr = *addr;
	const struct address *a = bpf_map_lookup_elem(&addresses, addr);
	return a && !(a->flags & ADDRESS_EXCLUSIVE) && find_frontend_at(a, &key);
}

/* Tells the agent that the host listens at the frontend of the packet. */
static __always_inline void record_host_listens(const struct packet *p)
{
	struct frontend_key key = { .addr = p->key.dst, .port = p->key.dport, .protocol = p->key.protocol };
	__u32 tick = now();
	find_frontend(&key); /* by its own port, whichever of its range it is */
	__u32 *last = bpf_map_lookup_elem(&host_listens, &key);
	if (!last)
		bpf_map_update_elem(&host_listens, &key, &tick, BPF_ANY);
	else if (*last != tick)
		*last = tick;
}

/*
 * Reports whether a packet that would begin a flow, to a frontend on an
 * address that the host shares, is for the host. The counter tells why.
 */
__noinline bool is_for_host(struct __sk_buff *ctx, const struct packet *p)
{
	if (!p)
		return false;
	int state = find_socket(ctx, p, false);
	if (state == SOCKET_LISTENS || state == SOCKET_UNCONNECTED)
		record_host_listens(p);
	if (state != NO_SOCKET) {
		count(COUNTER_HOST_LISTENS);
		return true;
	}
	/* A connection that the host masquerades has no socket. This one is older than the frontend: see hostports.h. */
	if (!in_snat_range(p->key.dport) || !reserved(&p->key))
		return false;
	if (!is_udp(&p->key))
		refresh_reservations(p);
	count(COUNTER_NOT_OURS);
	return true;
}

/* Reports whether the host has got a socket for the packet of a UDP flow since the flow began. */
__noinline bool host_took_over(struct __sk_buff *ctx, const struct packet *p)
{
	if (!p)
		return false;
	const struct address *a = bpf_map_lookup_elem(&addresses, &p->key.dst);
	return a && !(a->flags & ADDRESS_EXCLUSIVE) && find_socket(ctx, p, false) != NO_SOCKET;
}

#endif /* BLIXT_HOSTSOCKETS_H */
