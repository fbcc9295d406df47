// The search for packets inside a packet, at any offset: one way for every
// encapsulation, known or home-made.
#pragma once

#define BUDGET_NS 10000000ULL // 10 ms
#define BUDGET_BYTES 150000   // of one CPU in that time; about 3 % of it
#define SMALL_OFFSETS 128     // that the small program looks at
#define SMALL_CANDIDATES 4
#define CANDIDATES 32         // inner headers in one packet that are followed

// tunnels tells whether the packet is of a kind that carries others. What it
// carries is counted in both directions: a customer's tunnel brings its packets
// in and out once, the router may be the end of it, and a program may wrap a copy
// and leave it looking like a forwarded packet.
static __always_inline int tunnels(const struct frame *f)
{
	const struct flow *w = &f->outer.flow;

	return w->proto == PROTO_GRE || w->proto == PROTO_IPIP || w->proto == PROTO_IPV6 ||
	       w->proto == PROTO_UDP && (w->dport == 4789 || w->dport == 8472 || w->dport == 6081 || w->dport == 37008);
}

// plausible tells whether an IP header may begin at off. It is only there to
// save time: what counts is whether the fingerprint is one that was seen.
static __always_inline int plausible(const struct scratch *s, __u32 off)
{
	const __u8 *h = &s->bytes[inside(off)];
	__u8 proto;
	__u16 size;

	if (h[0] >> 4 == 4) {
		if ((h[0] & 15) < 5 || !h[8] || h[6] & 0x80)
			return 0;
		proto = h[9];
		size = be16(h + 2);
		if (size < 20)
			return 0;
	} else if (h[0] >> 4 == 6) {
		if (!h[7])
			return 0;
		proto = h[6];
		if (proto == PROTO_HOPOPTS || proto == PROTO_ROUTING || proto == PROTO_FRAGMENT || proto == PROTO_DSTOPTS || proto == PROTO_ICMP6)
			return 1;
	} else {
		return 0;
	}
	return proto == PROTO_TCP || proto == PROTO_UDP || proto == PROTO_ICMP || proto == 2 || proto == PROTO_IPIP ||
	       proto == PROTO_IPV6 || proto == PROTO_GRE || proto == 50 || proto == 51 || proto == 88 || proto == 89 ||
	       proto == 103 || proto == 112 || proto == 115 || proto == PROTO_SCTP || proto == PROTO_UDPLITE;
}

struct search {
	struct frame *f;
	struct __sk_buff *skb;
	__u32 len;   // bytes in f->s
	__u32 found; // candidates so far
};

// look follows the candidate at off, if there is one, of a packet that comes in
// or leaves.
static __always_inline int look(struct search *x, __u32 off, int in)
{
	struct frame *f = x->f;

	if (off + 20 > x->len)
		return 1;
	if (!plausible(&f->s, off))
		return 0;
	f->inner.fp = 0;
	f->inner.l4 = 0;
	__builtin_memset(&f->inner.flow, 0, sizeof(f->inner.flow));
	parse(&f->conf, &f->s, off, x->len, &f->inner);
	if (!f->inner.fp || !sampled(&f->conf, f->inner.fp))
		return 0;
	if (in)
		came(f, &f->inner);
	else
		left(f, x->skb, &f->inner, 1, off);
	return ++x->found >= CANDIDATES;
}

#ifndef SMALL
static long look_in(__u64 i, void *ctx)
{
	return look(ctx, inside(i), 1);
}

static long look_out(__u64 i, void *ctx)
{
	return look(ctx, inside(i), 0);
}
#else
// seek and follow are global functions, which the verifier looks at once and not
// once for each call.

// seek returns the first offset from which on a header may begin, or -1.
__noinline int seek(__u32 from)
{
	__u32 zero = 0;
	struct frame *f = bpf_map_lookup_elem(&frames, &zero);

	if (!f || from >= SMALL_OFFSETS)
		return -1;
	for (__u32 i = 0; i < SMALL_OFFSETS; i++)
		if (plausible(&f->s, from + i))
			return from + i;
	return -1;
}

static __always_inline int follow(struct __sk_buff *skb, __u32 off, __u32 len, int in)
{
	__u32 zero = 0;
	struct search x = {.skb = skb, .len = len, .f = bpf_map_lookup_elem(&frames, &zero)};

	if (!skb || !x.f || len > SCAN_MAX)
		return 0;
	return look(&x, inside(off), in);
}

__noinline int follow_in(struct __sk_buff *skb, __u32 off, __u32 len) { return follow(skb, off, len, 1); }
__noinline int follow_out(struct __sk_buff *skb, __u32 off, __u32 len) { return follow(skb, off, len, 0); }
#endif

// affordable takes n bytes from the budget of this CPU.
static __always_inline int affordable(struct frame *f, __u32 n)
{
	__u32 zero = 0;
	struct budget *b = bpf_map_lookup_elem(&budgets, &zero);

	if (!b)
		return 0;
	if (f->now - b->since > BUDGET_NS) {
		b->since = f->now;
		b->left = BUDGET_BYTES;
	}
	if (b->left < n) {
		COUNT(f, unscanned, 1);
		return 0;
	}
	b->left -= n;
	return 1;
}

static __always_inline void scan(struct frame *f, struct __sk_buff *skb, int in)
{
	__u32 off = f->proto_is_ip ? f->l3 + 20 : 14, n = f->len;

	if (f->proto_is_ip && f->outer.flow.family == 6)
		off += 20;
	if (off + 20 > n)
		return;
	n -= off;
	if (n > SCAN_MAX)
		n = SCAN_MAX;
	if (n < 20 || !affordable(f, n) || bpf_skb_load_bytes(skb, off, f->s.bytes, n))
		return;
	COUNT(f, scanned, 1);
#ifdef SMALL
	int at = -1;

	for (int i = 0; i < SMALL_CANDIDATES; i++) {
		at = seek(at + 1);
		if (at < 0)
			break;
		if (in)
			follow_in(skb, at, n);
		else
			follow_out(skb, at, n);
	}
#else
	struct search x = {.f = f, .skb = skb, .len = n};

	bpf_loop(n, in ? look_in : look_out, &x, 0);
#endif
}
