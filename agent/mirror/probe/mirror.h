// What the programs and the Go side share. layout_test.go compares sizes and
// offsets of these structs with those of the Go side.
#pragma once

#define MAX_PORTS 256
#define BUCKETS 8192    // of the table of signatures, a power of two
#define WAYS 8          // of a bucket: one for each port number modulo 7, one for what no hook saw come in
#define STRANGE_WAY 7   // that one
#define SCRATCH 2048    // bytes of a packet that are looked at, a power of two
#define SLACK 128       // bytes behind them that a header at the last offset may reach into
#define REACH 160       // bytes of an IP packet that a fingerprint may depend on
#define HEAD 224        // bytes of a frame that are read for it: REACH and what may stand before
#define SCAN_MAX 1500   // bytes behind the outer header that are searched for an inner one

#define FRESH_NS 10000000000ULL // 10 s: a sight that is older is of another packet
#define OWN_NS 100000000ULL     // 100 ms: the same for packets of which no coming was seen
#define EARLY_NS 2000000ULL     // 2 ms: how long before its coming a packet may have left
#define YOUNG_NS 100000000ULL   // 100 ms: a sight that is overwritten sooner is lost too early
#define LEARNED_NS 30000000000ULL // 30 s: how long a bridge's learned address counts

// Kinds of events.
enum kind {
	KIND_DUP = 1,
	KIND_INSIDE,
	KIND_MISROUTE,
	KIND_HUB,
	KIND_FLOOD,
	KIND_EARLY,
};

// config.flags.
#define FLAG_OFF 1      // count packets only (the quiet time of mode duty)
#define FLAG_LITE 2     // ingress only counts (mode lite)
#define FLAG_FIB 4      // compare egress with the routing table

// port.flags.
#define PORT_L3 1 // frames have no Ethernet header

// sig.flags and event.flags: what is known of the sights.
#define FIRST_INSIDE 1 // the first copy left inside another packet
#define SEEN_OUT 2     // eg_if and daddr are of the first copy that left
#define MADE_HERE 4    // the packet came in by no device: the router made it

struct config {
	__u64 seed;
	__u32 key[8];
	__u32 mask; // a packet is looked at if ((fingerprint >> 1) & mask) == 0
	__u32 flags;
};

struct port {
	__u32 slot;   // place in counts
	__u32 way;    // place in a bucket: slot % STRANGE_WAY
	__u32 bridge; // index of the bridge that the port is in; 0: none
	__u32 flags;
};

// counts of a port on one CPU.
struct counts {
	__u64 rx_packets, rx_segments, rx_bytes;
	__u64 tx_packets, tx_segments, tx_bytes;
	__u64 forwarded;  // left, came in by a device
	__u64 originated; // left, came in by none
	__u64 originated_bytes;
	__u64 sampled;    // looked at, in and out
	__u64 scanned;    // searched for inner packets
	__u64 unscanned;  // not searched: the budget of searches was used up
	__u64 pressed;    // sights that were overwritten while young
	__u64 lost;       // events that found the ring full
};

// sig is a sight of one packet.
struct sig {
	__u64 fp; // 0: free
	__u64 ts; // of the last sight
	__u32 in_if, eg_if;
	__u32 n_in, n_eg;
	__u32 flags;
	__u8 daddr[16]; // outer destination of the first copy, if it left inside
	__u16 dport;    // as daddr
	__u8 proto;
	__u8 encap; // bytes before the inner header, at most 255
};

struct bucket {
	struct sig way[WAYS];
};

struct flow {
	__u8 src[16], dst[16]; // IPv4 in the first four bytes
	__u16 sport, dport;    // of TCP, UDP and SCTP, in host order
	__u16 vlan;
	__u8 family; // 4, 6; 0: not IP
	__u8 proto;
};

struct event {
	__u64 ts, first_ts, fp;
	__u32 kind, flags;
	__u32 in_if, eg_if, first_if, fib_if; // fib_if: the port that routing or the bridge says; 0: not known
	__u32 n_in, n_eg;
	__u32 len;   // bytes of the packet that left
	__u32 count; // events of this key that this one stands for
	__u32 encap; // bytes between the outer header and the inner one
	__u32 mask;
	struct flow inner, outer;
	__u8 first_daddr[16]; // as in sig
	__u16 first_dport;
	__u8 first_proto, first_encap;
	__u32 pad;
};

struct mac_key {
	__u32 bridge;
	__u8 addr[6];
	__u8 pad[2];
};

struct mac {
	__u64 ts;
	__u32 ifindex;
	__u32 pad;
};

struct limit_key {
	__u32 kind, in_if, eg_if, first_if;
};

struct limit {
	__u64 since; // begin of the second
	__u32 told;  // events in it
	__u32 held;  // events since the last that was told
	__u32 total;
	__u32 pad;
};

struct orig_key {
	__u8 daddr[16];
	__u16 dport;
	__u8 proto, family;
};

struct orig {
	__u64 packets, bytes;
};
