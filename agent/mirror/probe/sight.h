// The table of sights: a packet that came in, and its copies that left.
//
// A bucket has a place for each port by which a packet may have come in. Who
// floods one port can push out sights of that port only (and of ports whose
// number is the same modulo 7).
#pragma once

static __always_inline struct bucket *bucket_of(__u64 fp)
{
	__u32 i = (fp >> 40) & (BUCKETS - 1);

	return bpf_map_lookup_elem(&sigs, &i);
}

static __always_inline __u32 way_of(const struct frame *f)
{
	return f->hooked ? f->in_way : STRANGE_WAY;
}

// fresh tells whether s is a sight of the packet fp.
static __always_inline int fresh(const struct sig *s, __u64 fp, __u64 now)
{
	return s->fp == fp && now - s->ts < (s->n_in ? FRESH_NS : OWN_NS);
}

static __always_inline void learn(const struct frame *f)
{
	struct mac_key key = {.bridge = f->bridge};
	struct mac value = {.ts = f->now, .ifindex = f->port};

	__builtin_memcpy(key.addr, f->smac, 6);
	if (!(key.addr[0] & 1))
		bpf_map_update_elem(&macs, &key, &value, BPF_ANY);
}

// learned returns the port behind which the bridge knows the destination, or 0.
static __always_inline __u32 learned(const struct frame *f)
{
	struct mac_key key = {.bridge = f->bridge};
	struct mac *m;

	__builtin_memcpy(key.addr, f->dmac, 6);
	m = bpf_map_lookup_elem(&macs, &key);
	return m && f->now - m->ts < LEARNED_NS ? m->ifindex : 0;
}

// replace makes s the sight of a new packet.
static __always_inline void replace(struct frame *f, struct sig *s, __u64 fp)
{
	if (s->fp && s->fp != fp && f->now - s->ts < YOUNG_NS && s->n_in && !s->n_eg)
		COUNT(f, pressed, 1);
	s->fp = fp;
	s->ts = f->now;
	s->in_if = f->in_if;
	s->eg_if = 0;
	s->n_in = 0;
	s->n_eg = 0;
	s->flags = 0;
	__builtin_memset(s->daddr, 0, sizeof(s->daddr));
	s->dport = 0;
	s->proto = 0;
	s->encap = 0;
}

// came notes that packet p came in, by itself or inside another one.
static __always_inline void came(struct frame *f, const struct parsed *p)
{
	struct bucket *b = bucket_of(p->fp);
	struct sig *s;

	if (!b)
		return;
	s = &b->way[way_of(f) & (WAYS - 1)];
	if (!fresh(s, p->fp, f->now))
		replace(f, s, p->fp);
	else if (!s->n_in && s->n_eg && f->now - s->ts < EARLY_NS) {
		s->in_if = f->port;
		report(f, KIND_EARLY, s, p, 0, 0, 0, s->eg_if);
	}
	s->ts = f->now;
	__sync_fetch_and_add(&s->n_in, 1);
}

// find looks for the sight of a packet of which it is not known by which port it came.
static __always_inline struct sig *find(struct bucket *b, __u64 fp, __u64 now)
{
#pragma unroll
	for (int i = 0; i < WAYS; i++)
		if (fresh(&b->way[i], fp, now))
			return &b->way[i];
	return 0;
}

// route returns the port of ours that the routing table says, or 0 if it says
// another device or nothing.
static __always_inline __u32 route(struct frame *f, struct __sk_buff *skb)
{
	const struct flow *w = &f->outer.flow;
	struct bpf_fib_lookup q = {};
	__u32 to;
	long err;

	if (!f->hooked || f->in_bridge || !(f->conf.flags & FLAG_FIB))
		return 0;
	q.ifindex = f->in_if;
	q.l4_protocol = w->proto;
	q.tot_len = 0;
	q.sport = bpf_htons(w->sport);
	q.dport = bpf_htons(w->dport);
	if (w->family == 4) {
		q.family = 2;
		q.ipv4_src = *(const __u32 *)w->src;
		q.ipv4_dst = *(const __u32 *)w->dst;
	} else {
		q.family = 10;
		__builtin_memcpy(q.ipv6_src, w->src, 16);
		__builtin_memcpy(q.ipv6_dst, w->dst, 16);
	}
	err = bpf_fib_lookup(skb, &q, sizeof(q), 0);
	if (err != BPF_FIB_LKUP_RET_SUCCESS && err != BPF_FIB_LKUP_RET_NO_NEIGH)
		return 0;
	to = q.ifindex;
	return to != f->in_if && bpf_map_lookup_elem(&ports, &to) ? to : 0;
}

// wrapped notes how the first copy left.
static __always_inline void wrapped(const struct frame *f, struct sig *s, int inside, __u32 encap)
{
	s->eg_if = f->port;
	if (!inside)
		return;
	s->flags |= FIRST_INSIDE;
	s->proto = f->outer.flow.proto;
	s->dport = f->outer.flow.dport;
	s->encap = encap < 255 ? encap : 255;
	__builtin_memcpy(s->daddr, f->outer.flow.dst, 16);
}

// left notes that a copy of packet p left by the port in hand, plain or inside
// another one. It returns 0 if no coming of it was seen.
static __always_inline int left(struct frame *f, struct __sk_buff *skb, const struct parsed *p, int inside, __u32 encap)
{
	struct bucket *b = bucket_of(p->fp);
	__u32 kind, fib = 0, first, n, way = way_of(f) & (WAYS - 1);
	struct sig *s;

	if (!b)
		return 1;
	// A copy may look as if it came in where it was made: tc's mirred says the
	// port of its filter, also at egress. So all places are looked at.
	s = &b->way[way];
	if (!fresh(s, p->fp, f->now))
		s = find(b, p->fp, f->now);
	if (!s) {
		if (f->group || inside && !(f->conf.flags & FLAG_LITE))
			return 0;
		s = &b->way[way];
		replace(f, s, p->fp);
		s->flags = f->in_if ? SEEN_OUT : SEEN_OUT | MADE_HERE;
		wrapped(f, s, inside, encap);
		s->n_eg = 1;
		return 0;
	}
	first = s->flags & SEEN_OUT ? s->eg_if : 0;
	n = __sync_fetch_and_add(&s->n_eg, 1) + 1;
	if (!inside)
		fib = route(f, skb);
	if (!first) {
		s->flags |= SEEN_OUT;
		wrapped(f, s, inside, encap);
	}
	// Of a packet whose coming was not seen, copies by one port are taken for
	// repetitions, and copies by two for a mirror.
	if (s->n_in ? n <= s->n_in : !inside && (first == f->port || !first)) {
		if (fib && fib != f->port)
			report(f, KIND_MISROUTE, s, p, inside, encap, fib, first);
		return s->n_in > 0;
	}
	kind = inside ? KIND_INSIDE : KIND_DUP;
	if (!inside && f->bridge && (f->in_bridge == f->bridge || !f->in_if && s->flags & MADE_HERE)) {
		fib = learned(f);
		kind = fib ? KIND_HUB : KIND_FLOOD;
	}
	report(f, kind, s, p, inside, encap, fib, first);
	// This copy is told. It must not weigh on the next packet that is the same.
	__sync_fetch_and_sub(&s->n_eg, 1);
	return 1;
}

// originated counts what the router sends by itself, by destination.
static __always_inline void originated(struct frame *f, __u32 len)
{
	struct orig_key key = {.dport = f->outer.flow.dport, .proto = f->outer.flow.proto, .family = f->outer.flow.family};
	struct orig *o, first = {.packets = 1, .bytes = len};

	__builtin_memcpy(key.daddr, f->outer.flow.dst, 16);
	o = bpf_map_lookup_elem(&origins, &key);
	if (!o) {
		bpf_map_update_elem(&origins, &key, &first, BPF_NOEXIST);
		return;
	}
	__sync_fetch_and_add(&o->packets, 1);
	__sync_fetch_and_add(&o->bytes, len);
}
