// Package mirror judges what probes saw of a router's traffic and of what could
// copy it: observations become incidents, merged, with a severity and a cause.
//
// It is pure. It opens nothing and reads no clock: the time of everything is
// that of the observations and of the ticks it is given, so every judgement can
// be written down in a test.
package mirror

import (
	"net/netip"
	"time"
)

// Kind is what an observation or an incident is about.
type Kind string

// What the hooks on the ports see of packets and counters.
const (
	Duplicate Kind = "duplicate" // a packet left more often than it came
	Inside    Kind = "inside"    // a packet that came also left inside another one, which the router made
	Misroute  Kind = "misroute"  // a packet left by a port that routing does not say
	Hub       Kind = "hub"       // a bridge floods a packet whose destination it has learned
	Flood     Kind = "flood"     // a bridge floods a packet whose destination it does not know
	Early     Kind = "early"     // a packet left before it was seen to come: something copies in front of our hook
	Bypass    Kind = "bypass"    // the port's own counters show packets that no hook saw
	Budget    Kind = "budget"    // the router originates more to one destination than its budget, in step with what it forwards
)

// What the watch on configuration sees. Observation.Subject names the thing.
const (
	Rule      Kind = "rule"      // a rule that copies or diverts: tc, nft, iptables, policy routing
	Device    Kind = "device"    // a device that copies or carries away: tunnel, tap, promiscuous port, bridge that does not learn
	Socket    Kind = "socket"    // a socket that takes copies: packet socket, AF_XDP, NFLOG, NFQUEUE
	Program   Kind = "program"   // a BPF program or link
	Listener  Kind = "listener"  // a socket that listens on the network
	Module    Kind = "module"    // a kernel module
	Namespace Kind = "namespace" // a network namespace
	Debug     Kind = "debug"     // a process that writes into another one, or debugs it
)

// What the watch sees of itself.
const (
	Tamper   Kind = "tamper"   // a hook of ours was detached, displaced, moved, or something stands in front of it
	Pressure Kind = "pressure" // a table is so full that sights are lost: "table pressure"
	Overrun  Kind = "overrun"  // events were lost between kernel and agent
	Frozen   Kind = "frozen"   // the agent did not run for a while
)

// Observation is one thing that a probe saw. It judges nothing. Fields that do
// not apply are zero.
type Observation struct {
	Kind     Kind
	Time     time.Time // when the kernel showed it
	First    time.Time // of the earlier sight it is compared with; zero: none
	Detector string    // what saw it, for example "tc-egress", "rtnetlink", "packet_diag", "bpf-walk"

	// Of packets. A port is a network device with a hook of ours, by name.
	In     string // where the original came in; empty: the router made it
	Out    string // where it left
	Copy   string // where the copy left; the port that is not FIB, where that is known
	FIB    string // the port that routing says
	Inner  Flow   // the packet that was copied
	Outer  Flow   // the packet it travelled in; zero: none
	Encap  string // how it was wrapped: "gre", "erspan", "vxlan", "geneve", "ipip", "udp", "unknown"; empty: it was not
	Count  uint64 // sampled packets that this observation stands for, at least 1
	Bytes  uint64 // of those packets; 0: not known
	Sample uint32 // one packet in Sample is looked at; 0: all

	// Of configuration.
	Netns    string  // network namespace: a name of /run/netns, or "net:[inode]"; empty: that of the ports
	Subject  string  // the thing, spelled the same each time it is seen: "tc/r0/ingress/49152/1", "packet/inode/123"
	Cause    string  // what it does, in an engineer's words: "tc mirred mirror", "nft dup", "promiscuous mode"
	Target   string  // where it copies to: a device, an address, a file; empty: not known
	Detail   string  // the rest, for people: the rule's text, the socket's filter
	Process  Process // who did or holds it; zero: the kernel does not tell
	Gone     bool    // the thing is no longer there
	Baseline bool    // the thing was there when the watch began
	Harmless bool    // the probe knows that it takes no transit traffic, for example a filter that accepts none; it is kept for the inventory
}

// Flow is who speaks to whom.
type Flow struct {
	Source          netip.Addr `json:"src,omitzero"`
	Destination     netip.Addr `json:"dst,omitzero"`
	Protocol        uint8      `json:"proto,omitempty"` // IANA protocol number
	SourcePort      uint16     `json:"sport,omitempty"`
	DestinationPort uint16     `json:"dport,omitempty"`
	VLAN            uint16     `json:"vlan,omitempty"` // outermost VLAN id; 0: untagged
}

// Process is a process of this machine.
type Process struct {
	PID  int    `json:"pid,omitempty"`
	Comm string `json:"comm,omitempty"` // as in /proc/PID/comm
	Exe  string `json:"exe,omitempty"`  // as in /proc/PID/exe
}
