//go:build ignore

// Two programs for every port of a router. They count packets, remember which
// sampled packets came in, and report those of which more copies leave than
// came. They never drop, change or redirect a packet: the verdict is always
// "go on" (TC_ACT_UNSPEC, which is TCX_NEXT).
//
// Compiled twice: with SMALL for kernels without bpf_loop (before 5.17).

#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#include "mirror.h"
#include "packet.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct config);
} conf SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_PORTS);
	__type(key, __u32);
	__type(value, struct port);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_PORTS);
	__type(key, __u32);
	__type(value, struct counts);
} cnts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, BUCKETS);
	__type(key, __u32);
	__type(value, struct bucket);
} sigs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct mac_key);
	__type(value, struct mac);
} macs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct orig_key);
	__type(value, struct orig);
} origins SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct limit_key);
	__type(value, struct limit);
} limits SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

// frame is what is known of the packet in hand. It lives in a per-CPU map: it
// would not fit on the stack.
struct frame {
	struct config conf; // a copy: one packet is judged by one key
	__u64 now;
	__u32 port, bridge, slot; // where it is
	__u32 in_if, in_way;     // where it came in; 0: by no device
	__u32 in_bridge;
	__u32 len;
	__u32 l3; // offset of the network header; 0 with an IP version of 0: none
	__u8 hooked; // it came in by a port of ours
	__u8 group;  // to a group or to all
	__u8 dmac[6], smac[6];
	__u8 proto_is_ip;
	struct parsed outer, inner;
	struct scratch s;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct frame);
} frames SEC(".maps");

// budget of searches: bytes that may still be searched in this 10 ms, per CPU.
struct budget {
	__u64 since, left;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct budget);
} budgets SEC(".maps");

// counted returns the counters of the port in hand, for the rare paths.
static __always_inline struct counts *counted(const struct frame *f)
{
	__u32 slot = f->slot;

	return bpf_map_lookup_elem(&cnts, &slot);
}

#define COUNT(f, what, n)                              \
	do {                                           \
		struct counts *_c = counted(f);        \
		if (_c)                                \
			_c->what += (n);               \
	} while (0)

#include "report.h"
#include "sight.h"
#include "scan.h"

// locate finds the network header behind Ethernet, VLAN tags, PPPoE and MPLS
// labels. It returns 0 if there is none.
static __always_inline int locate(struct frame *f, __u32 len, __u32 flags, __u16 tag)
{
	const struct scratch *s = &f->s;
	__u32 off = 14;
	__u16 type;

	f->outer.flow.vlan = tag & 0xfff;
	if (flags & PORT_L3) {
		f->l3 = 0;
		f->group = 0;
		return 1;
	}
	__builtin_memcpy(f->dmac, s->bytes, 6);
	__builtin_memcpy(f->smac, s->bytes + 6, 6);
	type = be16(s->bytes + 12);
#pragma unroll
	for (int i = 0; i < 2; i++) {
		if (type != ETH_8021Q && type != ETH_8021AD && type != ETH_QINQ1)
			break;
		if (!f->outer.flow.vlan)
			f->outer.flow.vlan = be16(s->bytes + off) & 0xfff;
		type = be16(s->bytes + off + 2);
		off += 4;
	}
	if (type == ETH_PPPOE) {
		__u16 ppp = be16(s->bytes + off + 6);

		type = ppp == 0x21 ? ETH_IP : ppp == 0x57 ? ETH_IP6 : 0;
		off += 8;
	} else if (type == ETH_MPLS) {
#pragma unroll
		for (int i = 0; i < 4; i++) {
			__u8 bottom = s->bytes[off + 2] & 1;

			off += 4;
			if (bottom) {
				type = s->bytes[off] >> 4 == 4 ? ETH_IP : ETH_IP6;
				break;
			}
		}
	}
	f->l3 = off;
	return (type == ETH_IP || type == ETH_IP6) && off + 20 <= len;
}

// to_group tells whether the packet is one that a network copies by design: to
// all, or with a group's address in both headers. A group's hardware address
// with the address of one host is not.
static __always_inline __u8 to_group(const struct frame *f)
{
	const struct flow *w = &f->outer.flow;

	if (w->family == 4 && (w->dst[0] >> 4 == 14 || be32(w->dst) == 0xffffffff))
		return 1;
	if (w->family == 6 && w->dst[0] == 0xff)
		return 1;
	return (f->dmac[0] & f->dmac[1] & f->dmac[2] & f->dmac[3] & f->dmac[4] & f->dmac[5]) == 0xff;
}

// read fills the frame with the packet's head. It returns 0 if the packet is
// not to be looked at.
static __always_inline int read(struct frame *f, struct __sk_buff *skb, __u32 flags)
{
	__u32 n = skb->len;

	f->len = n;
	f->outer.fp = 0;
	f->outer.l4 = 0;
	__builtin_memset(&f->outer.flow, 0, sizeof(f->outer.flow));
	f->l3 = 0;
	f->proto_is_ip = 0;
	if (n > HEAD)
		n = HEAD;
	if (n < 15)
		return 0;
	if (bpf_skb_load_bytes(skb, 0, f->s.bytes, n))
		return 0;
	if (!locate(f, n, flags, skb->vlan_present ? skb->vlan_tci : 0))
		return 1;
	f->proto_is_ip = 1;
	parse(&f->conf, &f->s, f->l3, n, &f->outer);
	f->group = to_group(f);
	return 1;
}

// segments is how many packets of the wire the packet is. A host's or a tap's
// driver may leave gso_segs empty.
static __always_inline __u32 segments(const struct __sk_buff *skb)
{
	if (skb->gso_segs > 1)
		return skb->gso_segs;
	if (skb->gso_size && skb->len > skb->gso_size)
		return (skb->len + skb->gso_size - 1) / skb->gso_size;
	return 1;
}

// begin returns the frame of this CPU, for a packet on a port of ours.
static __always_inline struct frame *begin(struct __sk_buff *skb, const struct port **on, struct counts **cnt)
{
	__u32 zero = 0, ifindex = skb->ifindex;
	struct port *p = bpf_map_lookup_elem(&ports, &ifindex);
	struct config *c;
	struct frame *f;

	if (!p)
		return 0;
	f = bpf_map_lookup_elem(&frames, &zero);
	c = bpf_map_lookup_elem(&conf, &zero);
	if (!f || !c)
		return 0;
	*cnt = bpf_map_lookup_elem(&cnts, &p->slot);
	if (!*cnt)
		return 0;
	f->conf = *c;
	f->port = ifindex;
	f->bridge = p->bridge;
	f->slot = p->slot;
	*on = p;
	return f;
}

SEC("tc")
int waxseal_in(struct __sk_buff *skb)
{
	const struct port *p = 0;
	struct counts *cnt = 0;
	struct frame *f = begin(skb, &p, &cnt);

	if (!f || !cnt)
		return TC_ACT_UNSPEC;
	cnt->rx_packets++;
	cnt->rx_segments += segments(skb);
	cnt->rx_bytes += skb->len;
	if (f->conf.flags & (FLAG_OFF | FLAG_LITE))
		return TC_ACT_UNSPEC;
	if (!read(f, skb, p->flags) || !f->outer.fp)
		return TC_ACT_UNSPEC;
	f->in_if = f->port;
	f->in_way = p->way;
	f->hooked = 1;
	if (sampled(&f->conf, f->outer.fp)) {
		f->now = bpf_ktime_get_ns();
		cnt->sampled++;
		if (f->bridge)
			learn(f);
		if (!f->group)
			came(f, &f->outer);
	}
	if (!f->group && tunnels(f)) {
		f->now = bpf_ktime_get_ns();
		scan(f, skb, 1);
	}
	return TC_ACT_UNSPEC;
}

SEC("tc")
int waxseal_out(struct __sk_buff *skb)
{
	const struct port *p = 0, *from;
	struct counts *cnt = 0;
	struct frame *f = begin(skb, &p, &cnt);
	int seen = 1;

	if (!f || !cnt)
		return TC_ACT_UNSPEC;
	cnt->tx_packets++;
	cnt->tx_segments += segments(skb);
	cnt->tx_bytes += skb->len;
	f->in_if = skb->ingress_ifindex;
	if (f->in_if)
		cnt->forwarded++;
	else
		cnt->originated++;
	if (f->conf.flags & FLAG_OFF)
		return TC_ACT_UNSPEC;
	if (!read(f, skb, p->flags))
		return TC_ACT_UNSPEC;
	from = f->in_if ? bpf_map_lookup_elem(&ports, &f->in_if) : 0;
	f->hooked = !!from;
	f->in_way = from ? from->way : 0;
	f->in_bridge = from ? from->bridge : 0;
	f->now = bpf_ktime_get_ns();
	if (!f->in_if && !f->group)
		{
		cnt->originated_bytes += skb->len;
		originated(f, skb->len);
	};
	if (f->outer.fp && sampled(&f->conf, f->outer.fp)) {
		cnt->sampled++;
		seen = left(f, skb, &f->outer, 0, 0);
	}
	// What came in by no port of ours may carry what did; and so may what came
	// in by one but as something else.
	if (!f->group && (!f->hooked || !seen || tunnels(f)))
		scan(f, skb, 0);
	return TC_ACT_UNSPEC;
}

char _license[] SEC("license") = "GPL";
