package probe

import "encoding/binary"

// ether puts an Ethernet header before what it carries.
func ether(kind uint16, rest ...[]byte) []byte {
	b := []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2}
	b = binary.BigEndian.AppendUint16(b, kind)
	for _, r := range rest {
		b = append(b, r...)
	}
	return b
}

// ip4 makes an IPv4 packet with options of a multiple of four bytes.
func ip4(proto uint8, fragment uint16, options, payload []byte) []byte {
	b := make([]byte, 20, 20+len(options)+len(payload))
	b[0] = 0x40 | uint8(5+len(options)/4)
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(options)+len(payload)))
	binary.BigEndian.PutUint16(b[4:], 0xbeef)
	binary.BigEndian.PutUint16(b[6:], fragment)
	b[8], b[9] = 64, proto
	copy(b[12:], []byte{192, 0, 2, 1, 198, 51, 100, 7})
	return append(append(b, options...), payload...)
}

func ip6(next uint8, payload []byte) []byte {
	b := make([]byte, 40, 40+len(payload))
	b[0], b[1], b[2], b[3] = 0x60, 0x01, 0x23, 0x45
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	b[6], b[7], b[8], b[24] = next, 64, 0x20, 0x20
	b[23], b[39] = 1, 2
	return append(b, payload...)
}

func bytesFrom(first, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(first + i)
	}
	return b
}

// crafted are frames with everything that a fingerprint has to find its way
// around.
func crafted() map[string][]byte {
	udp := bytesFrom(1, 48)
	tcp := bytesFrom(101, 40)
	extension := func(next uint8, eights int) []byte {
		b := make([]byte, 8*(eights+1))
		b[0], b[1] = next, uint8(eights)
		return b
	}
	fragment := func(next uint8, offset uint16) []byte {
		return []byte{next, 0, byte(offset >> 5), byte(offset<<3) | 1, 1, 2, 3, 4}
	}
	join := func(parts ...[]byte) []byte {
		var b []byte
		for _, p := range parts {
			b = append(b, p...)
		}
		return b
	}
	longer := ip4(17, 0, nil, udp)
	binary.BigEndian.PutUint16(longer[2:], 9000)
	shorter := ip4(17, 0, nil, udp)
	binary.BigEndian.PutUint16(shorter[2:], 30)
	tooShort := ip4(17, 0, nil, udp)
	binary.BigEndian.PutUint16(tooShort[2:], 19)
	many := ip4(17, 0, nil, udp)
	copy(many[16:], []byte{239, 1, 2, 3})
	return map[string][]byte{
		"udp":               ether(0x0800, ip4(17, 0, nil, udp)),
		"udp, no payload":   ether(0x0800, ip4(17, 0, nil, udp[:8])),
		"udp, 3 bytes":      ether(0x0800, ip4(17, 0, nil, udp[:11])),
		"udp, padded frame": append(ether(0x0800, ip4(17, 0, nil, udp[:11])), make([]byte, 30)...),
		"tcp":               ether(0x0800, ip4(6, 0x4000, nil, tcp)),
		"icmp":              ether(0x0800, ip4(1, 0, nil, udp)),
		"sctp":              ether(0x0800, ip4(132, 0, nil, udp)),
		"gre":               ether(0x0800, ip4(47, 0, nil, udp)),
		"esp":               ether(0x0800, ip4(50, 0, nil, udp)),
		"udp lite":          ether(0x0800, ip4(136, 0, nil, udp)),
		"options":           ether(0x0800, ip4(17, 0, bytesFrom(7, 40), udp)),
		"first fragment":    ether(0x0800, ip4(17, 0x2000, nil, udp)),
		"later fragment":    ether(0x0800, ip4(17, 0x2007, nil, udp)),
		"length too long":   ether(0x0800, longer),
		"length too short":  ether(0x0800, shorter),
		"length below head": ether(0x0800, tooShort),
		"to a group":        ether(0x0800, many),
		"vlan":              ether(0x8100, []byte{0, 7, 8, 0}, ip4(17, 0, nil, udp)),
		"qinq":              ether(0x88a8, []byte{0, 7, 0x81, 0, 0, 8, 8, 0}, ip4(6, 0, nil, tcp)),
		"three tags":        ether(0x88a8, []byte{0, 7, 0x81, 0, 0, 8, 0x81, 0, 0, 9, 8, 0}, ip4(6, 0, nil, tcp)),
		"pppoe":             ether(0x8864, []byte{0x11, 0, 0, 1, 0, 50, 0, 0x21}, ip4(17, 0, nil, udp)),
		"pppoe, ipv6":       ether(0x8864, []byte{0x11, 0, 0, 1, 0, 50, 0, 0x57}, ip6(6, tcp)),
		"pppoe, other":      ether(0x8864, []byte{0x11, 0, 0, 1, 0, 50, 0xc0, 0x21}, ip4(17, 0, nil, udp)),
		"mpls":              ether(0x8847, []byte{0, 1, 0, 64, 0, 2, 1, 64}, ip4(17, 0, nil, udp)),
		"mpls, ipv6":        ether(0x8847, []byte{0, 2, 1, 64}, ip6(17, udp)),
		"mpls, endless":     ether(0x8847, bytesFrom(0, 2), make([]byte, 60)),
		"ipv6 udp":          ether(0x86dd, ip6(17, udp)),
		"ipv6 tcp":          ether(0x86dd, ip6(6, tcp)),
		"ipv6 icmp":         ether(0x86dd, ip6(58, udp)),
		"ipv6 extensions":   ether(0x86dd, ip6(0, join(extension(43, 1), extension(60, 0), extension(17, 2), udp))),
		"ipv6 five":         ether(0x86dd, ip6(0, join(extension(0, 0), extension(0, 0), extension(0, 0), extension(0, 0), extension(17, 0), udp))),
		"ipv6 huge":         ether(0x86dd, ip6(60, join([]byte{17, 255}, make([]byte, 200)))),
		"ipv6 fragment":     ether(0x86dd, ip6(44, join(fragment(17, 0), udp))),
		"ipv6 later":        ether(0x86dd, ip6(44, join(fragment(17, 99), udp))),
		"arp":               ether(0x0806, bytesFrom(0, 46)),
		"version 5":         ether(0x0800, append([]byte{0x55}, bytesFrom(0, 60)...)),
		"ipv6 as ipv4":      ether(0x0800, ip6(17, udp)),
	}
}
