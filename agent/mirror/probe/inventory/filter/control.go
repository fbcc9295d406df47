package filter

import (
	"fmt"
	"slices"
)

// Ethernet types that carry traffic of others through a router or a bridge. A
// socket that takes another type gets none of it.
var transit = []uint16{
	0x0000,         // nothing is known of it
	0x0001, 0x0003, // ETH_P_802_3, ETH_P_ALL
	0x0800, 0x86dd, // IPv4, IPv6
	0x8100, 0x88a8, 0x9100, 0x9200, 0x9300, // VLAN tags, also makers' own
	0x8847, 0x8848, // MPLS
	0x8864,         // PPPoE session
	0x6558, 0x880b, // bridged Ethernet, PPP (as in GRE)
	0x894f,                                         // network service header
	0x88e5,                                         // MACsec
	0x88e7,                                         // backbone service tag
	0x4305,                                         // batman-adv
	0x00f5, 0x00f6, 0x00f7, 0x00f8, 0x00f9, 0x00fa, // phonet to MAP: mobile networks' packets
}

// Carries tells whether frames of an Ethernet type can be transit traffic.
func Carries(protocol uint16) bool { return slices.Contains(transit, protocol) }

// Protocols by which hosts and routers of one link speak to each other and that
// no router forwards as a rule (IANA protocol numbers).
var linkProtocols = map[byte]string{2: "IGMP", 88: "EIGRP", 89: "OSPF", 103: "PIM", 112: "VRRP"}

// UDP ports of the same kind (IANA): a router relays DHCP itself.
var linkPorts = map[uint32]string{
	67: "DHCP", 68: "DHCP", 546: "DHCPv6", 547: "DHCPv6",
	3784: "BFD", 3785: "BFD", 4784: "BFD",
}

// Group addresses that bridges do not pass on (IEEE 802.1Q, table 8-1) and
// those of makers' own discovery protocols.
var linkGroups = map[[6]byte]string{
	{0x01, 0x00, 0x0c, 0xcc, 0xcc, 0xcc}: "CDP",
	{0x01, 0x00, 0x0c, 0xcc, 0xcc, 0xcd}: "PVST",
	{0x01, 0xe0, 0x52, 0xcc, 0xcc, 0xcc}: "FDP",
	{0x00, 0xe0, 0x2b, 0x00, 0x00, 0x00}: "EDP",
	{0x01, 0x00, 0x81, 0x00, 0x01, 0x00}: "SONMP",
	{0x01, 0x00, 0x81, 0x00, 0x01, 0x01}: "SONMP",
	{0x01, 0x80, 0xc2, 0x00, 0x00, 0x14}: "IS-IS",
	{0x01, 0x80, 0xc2, 0x00, 0x00, 0x15}: "IS-IS",
	{0x09, 0x00, 0x2b, 0x00, 0x00, 0x05}: "IS-IS",
}

// maxLength is the greatest length of an IEEE 802.3 frame; from 0x600 on the
// field is a type. Linux routes nothing that is framed with a length.
const maxLength = 1500

// control names the link's own protocol that a packet of this path must be, or "".
func (s *state) control(layout Layout) string {
	network := uint32(0)
	if layout == Ethernet {
		network = 14
		if word := s.group(); word != "" {
			return word
		}
		if most, ok := s.most["h12"]; ok && most <= maxLength {
			return "LLC"
		}
		if t, ok := s.known("h12"); ok {
			return s.ofType(uint16(t), network)
		}
	}
	if s.etype >= 0 {
		return s.ofType(uint16(s.etype), network)
	}
	// IS-IS without its MAC header: LLC fe fe 03, then ISO 10589's 83.
	if head, ok := s.known("h0"); layout == Network && ok && head == 0xfefe && s.byteIs(3, 0x83) {
		return "IS-IS"
	}
	return ""
}

func (s *state) byteIs(at uint32, want byte) bool {
	b, known := s.bytes[at]
	return known && b == want
}

func (s *state) group() string {
	var mac [6]byte
	for i := range mac {
		b, known := s.bytes[uint32(i)]
		if !known {
			return ""
		}
		mac[i] = b
	}
	if mac[5] < 0x10 && [5]byte(mac[:5]) == [5]byte{0x01, 0x80, 0xc2, 0x00, 0x00} {
		return "reserved group addresses"
	}
	return linkGroups[mac]
}

// ofType names the protocol of an Ethernet type, for IP by what follows.
func (s *state) ofType(t uint16, network uint32) string {
	switch {
	case !Carries(t):
		return fmt.Sprintf("Ethernet type 0x%04x", t)
	case t == 0x0800:
		return s.ofIPv4(network)
	case t == 0x86dd:
		return s.ofIPv6(network)
	}
	return ""
}

func (s *state) ofIPv4(network uint32) string {
	protocol, known := s.bytes[network+9]
	if known && protocol == 17 {
		header := fmt.Sprintf("((b%d&0xf)<<0x2)", network)
		return s.ports(
			fmt.Sprintf("h[%s+%d]", header, network), fmt.Sprintf("h[%s+%d]", header, network+2),
			fmt.Sprintf("h%d", network+20), fmt.Sprintf("h%d", network+22))
	}
	if !known {
		return ""
	}
	return linkProtocols[protocol]
}

func (s *state) ofIPv6(network uint32) string {
	next, known := s.bytes[network+6]
	switch {
	case !known:
		return ""
	case next == 44: // a fragment; what it is of follows
		return linkProtocols[s.bytes[network+40]]
	case next == 17:
		return s.ports(fmt.Sprintf("h%d", network+40), fmt.Sprintf("h%d", network+42))
	case next == 58: // ICMPv6: multicast listeners and neighbours (RFC 2710, 3810, 4861)
		kind, known := s.bytes[network+40]
		if known && (kind >= 130 && kind <= 137 || kind == 143) {
			return "neighbour discovery"
		}
		return ""
	}
	return linkProtocols[next]
}

func (s *state) ports(names ...string) string {
	for _, name := range names {
		if port, ok := s.known(name); ok && linkPorts[port] != "" {
			return linkPorts[port]
		}
	}
	return ""
}
