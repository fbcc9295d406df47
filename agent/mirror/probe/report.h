// Events, and the limit on them: of one kind between the same ports three at
// once, then five a second that say how many they stand for.
#pragma once

#define TOLD_AT_ONCE 3
#define TOLD_A_SECOND 5
#define SECOND_NS 1000000000ULL

// allowed returns how many events the next one stands for, or 0 if it is not to
// be told now.
static __always_inline __u32 allowed(const struct limit_key *key, __u64 now)
{
	struct limit *l = bpf_map_lookup_elem(&limits, key), fresh = {.since = now, .told = 1, .total = 1};
	__u32 n;

	if (!l) {
		bpf_map_update_elem(&limits, key, &fresh, BPF_ANY);
		return 1;
	}
	l->held++;
	l->total++;
	if (now - l->since >= SECOND_NS / TOLD_A_SECOND && l->told >= TOLD_AT_ONCE) {
		l->since = now;
		l->told = TOLD_AT_ONCE - 1;
	}
	if (now - l->since >= 10 * SECOND_NS) {
		l->since = now;
		l->told = 0;
	}
	if (l->told >= TOLD_AT_ONCE)
		return 0;
	l->told++;
	n = l->held;
	l->held = 0;
	return n;
}

static __always_inline void report(struct frame *f, __u32 kind, const struct sig *s, const struct parsed *p, int inside,
				   __u32 encap, __u32 fib, __u32 first_if)
{
	struct limit_key key = {.kind = kind, .in_if = s->in_if, .eg_if = f->port, .first_if = first_if};
	__u32 n = allowed(&key, f->now);
	struct event *e;

	if (!n)
		return;
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		COUNT(f, lost, n);
		return;
	}
	e->ts = f->now;
	e->first_ts = s->ts;
	e->fp = s->fp;
	e->kind = kind;
	e->flags = s->flags;
	e->in_if = s->in_if;
	e->eg_if = f->port;
	e->first_if = first_if;
	e->fib_if = fib;
	e->n_in = s->n_in;
	e->n_eg = s->n_eg;
	e->len = f->len;
	e->count = n;
	e->encap = encap;
	e->mask = f->conf.mask;
	e->inner = p->flow;
	if (inside)
		e->outer = f->outer.flow;
	else
		__builtin_memset(&e->outer, 0, sizeof(e->outer));
	__builtin_memcpy(e->first_daddr, s->daddr, 16);
	e->first_dport = s->dport;
	e->first_proto = s->proto;
	e->first_encap = s->encap;
	e->pad = 0;
	bpf_ringbuf_submit(e, 0);
}
