// Reading packets: where the network header is, and the fingerprint of a
// packet. fingerprint.go is the same in Go; a test holds them together.
#pragma once

#define ETH_8021Q 0x8100
#define ETH_8021AD 0x88a8
#define ETH_QINQ1 0x9100
#define ETH_PPPOE 0x8864
#define ETH_MPLS 0x8847
#define ETH_IP 0x0800
#define ETH_IP6 0x86dd

#define PROTO_HOPOPTS 0
#define PROTO_ICMP 1
#define PROTO_IPIP 4
#define PROTO_TCP 6
#define PROTO_UDP 17
#define PROTO_IPV6 41
#define PROTO_ROUTING 43
#define PROTO_FRAGMENT 44
#define PROTO_GRE 47
#define PROTO_ICMP6 58
#define PROTO_DSTOPTS 60
#define PROTO_SCTP 132
#define PROTO_UDPLITE 136

// Headers are read with plain loads: the verifier lets them be unaligned where
// the CPU does (amd64, arm64, riscv64).
static __always_inline __u16 be16(const void *p) { return bpf_ntohs(*(const __u16 *)p); }
static __always_inline __u32 be32(const void *p) { return bpf_ntohl(*(const __u32 *)p); }
static __always_inline __u64 be64(const void *p) { return bpf_be64_to_cpu(*(const __u64 *)p); }

// scratch is one packet's bytes: head of the packet itself, body of what it carries.
struct scratch {
	__u8 bytes[SCRATCH + SLACK];
};

// what parse finds.
struct parsed {
	__u64 fp; // 0: not IP, or cut off within the header
	__u32 l4; // offset of what the packet carries
	struct flow flow;
};

// nh: NH is almost universal for a secret key (Black, Halevi, Krawczyk, Krovetz,
// Rogaway, "UMAC", 1999): nobody who does not know it can choose two packets
// with one fingerprint, or one that is not sampled.
static __always_inline __u64 nh(__u64 w, __u32 k0, __u32 k1)
{
	return (__u64)((__u32)w + k0) * (__u64)((__u32)(w >> 32) + k1);
}

static __always_inline __u64 mix(const struct config *c, __u64 w0, __u64 w1, __u64 w2, __u64 w3)
{
	__u64 h = c->seed + nh(w0, c->key[0], c->key[1]) + nh(w1, c->key[2], c->key[3]) +
		  nh(w2, c->key[4], c->key[5]) + nh(w3, c->key[6], c->key[7]);

	h ^= h >> 33;
	h *= 0xff51afd7ed558ccdULL;
	h ^= h >> 33;
	return h | 1;
}

static __always_inline int sampled(const struct config *c, __u64 fp)
{
	return ((fp >> 1) & c->mask) == 0;
}

// inside keeps an offset inside the scratch. The compiler may know already that
// it is, and then leave the mask out; but verifiers before Linux 6.3 know less,
// and where they follow a branch that cannot be taken, the bounds that they
// believe in contradict each other, and they refuse the pointer
// (kernel/bpf/verifier.c, adjust_ptr_min_max_vals). So the mask is made to stay.
static __always_inline __u32 inside(__u32 off)
{
	asm volatile("%0 &= %1" : "+r"(off) : "i"(SCRATCH - 1));
	return off;
}

// word reads up to eight bytes at off as a big-endian number; bytes from end on
// count as zero.
static __always_inline __u64 word(const struct scratch *s, __u32 off, __u32 end)
{
	__u64 v = be64(&s->bytes[inside(off)]);

	if (off >= end)
		return 0;
	if (end - off < 8)
		v &= ~0ULL << (8 * (8 - (end - off)));
	return v;
}

// transport fills the words that identify what an IP packet carries.
static __always_inline __u64 transport(const struct config *c, const struct scratch *s, __u32 off, __u32 end,
				       __u64 w0, __u64 w3, __u16 fragment, struct parsed *p)
{
	__u64 w1, w2;
	__u8 proto = p->flow.proto;

	p->l4 = off;
	if (fragment) { // not the first: no transport header
		w1 = word(s, off, end);
		w2 = word(s, off + 8, end);
		return mix(c, w0, w1, w2, w3);
	}
	if (proto == PROTO_TCP || proto == PROTO_UDP || proto == PROTO_SCTP || proto == PROTO_UDPLITE) {
		__u64 ports = word(s, off, end);

		p->flow.sport = ports >> 48;
		p->flow.dport = ports >> 32;
	}
	if (proto == PROTO_TCP) // sequence and acknowledgement numbers
		return mix(c, w0, word(s, off + 4, end), 0, w3);
	if (proto == PROTO_ICMP || proto == PROTO_ICMP6) { // type, sequence number, 8 bytes; the identifier changes under NAT
		__u64 h = word(s, off, end);

		w1 = (h >> 56) << 32 | (h & 0xffff);
		return mix(c, w0, w1, word(s, off + 8, end), w3);
	}
	if (proto == PROTO_UDP || proto == PROTO_UDPLITE)
		off += 8;
	else if (proto == PROTO_SCTP)
		off += 12;
	w1 = word(s, off, end);
	w2 = word(s, off + 8, end);
	return mix(c, w0, w1, w2, w3);
}

static __always_inline void parse4(const struct config *c, const struct scratch *s, __u32 off, __u32 len, struct parsed *p)
{
	const __u8 *h = &s->bytes[inside(off)];
	__u32 ihl = (h[0] & 15) * 4, total = be16(h + 2), end;
	__u16 fragment = be16(h + 6) & 0x1fff;

	if (off + 20 > len || ihl < 20 || total < ihl)
		return;
	end = off + total < len ? off + total : len;
	p->flow.family = 4;
	p->flow.proto = h[9];
	*(__u32 *)p->flow.src = *(const __u32 *)(h + 12);
	*(__u32 *)p->flow.dst = *(const __u32 *)(h + 16);
	p->fp = transport(c, s, off + ihl, end,
			  (__u64)be16(h + 4) << 48 | (__u64)total << 32 | (__u32)h[9] << 8 | 4, fragment, fragment, p);
}

static __always_inline void parse6(const struct config *c, const struct scratch *s, __u32 off, __u32 len, struct parsed *p)
{
	const __u8 *h = &s->bytes[inside(off)];
	__u32 payload = be16(h + 4), end, at = off + 40, label = be32(h) & 0xfffff, id = 0;
	__u8 next = h[6];
	__u16 fragment = 0;

	if (off + 40 > len)
		return;
	end = at + payload < len ? at + payload : len;
	p->flow.family = 6;
	__builtin_memcpy(p->flow.src, h + 8, 16);
	__builtin_memcpy(p->flow.dst, h + 24, 16);
#pragma unroll
	for (int i = 0; i < 4; i++) {
		const __u8 *x = &s->bytes[inside(at)];

		if (at + 8 > end)
			break;
		if (next == PROTO_HOPOPTS || next == PROTO_ROUTING || next == PROTO_DSTOPTS) {
			next = x[0];
			at += (x[1] + 1) * 8;
		} else if (next == PROTO_FRAGMENT) {
			next = x[0];
			fragment = be16(x + 2) >> 3;
			id = be32(x + 4);
			at += 8;
			if (fragment)
				break;
		} else {
			break;
		}
	}
	p->flow.proto = next;
	p->fp = transport(c, s, at, end,
			  (__u64)label << 44 | (__u64)payload << 28 | (__u32)next << 8 | 6, (__u64)id << 32 | fragment, fragment, p);
}

// parse reads the IP packet at off; bytes from len on are not there. What lies
// further than REACH is left out everywhere, so that a packet has one
// fingerprint however much of it was read.
static __always_inline void parse(const struct config *c, const struct scratch *s, __u32 off, __u32 len, struct parsed *p)
{
	__u8 version = s->bytes[inside(off)] >> 4;

	if (len > off + REACH)
		len = off + REACH;
	if (version == 4)
		parse4(c, s, off, len, p);
	else if (version == 6)
		parse6(c, s, off, len, p);
}
