package watchtest

import (
	"encoding/binary"
	"net/netip"
)

// Ethernet types and IP protocol numbers (IANA).
const (
	etherIPv4   = 0x0800
	etherIPv6   = 0x86dd
	etherTEB    = 0x6558 // transparent Ethernet bridging, in GRE
	etherERSPAN = 0x88be // ERSPAN type II, in GRE (draft-foschiano-erspan-03)
	protoIPIP   = 4
	protoIPv6   = 41
	protoUDP    = 17
	protoGRE    = 47
)

// macLength is that of an Ethernet header without tags.
const macLength = 14

// wrap puts a frame that was taken from a port into what a collector expects.
// It returns nil for a frame that it has no use for.
type wrap func(frame []byte) []byte

func rawFrame(frame []byte) []byte { return frame }

// packetOf is the frame's IP packet.
func packetOf(frame []byte) []byte {
	if len(frame) <= macLength {
		return nil
	}
	switch binary.BigEndian.Uint16(frame[12:]) {
	case etherIPv4, etherIPv6:
		return frame[macLength:]
	}
	return nil
}

// packetOf4 is the frame's IPv4 packet.
func packetOf4(frame []byte) []byte {
	if p := packetOf(frame); len(p) > 0 && p[0]>>4 == 4 {
		return p
	}
	return nil
}

// inGRE is RFC 2784 with an IP packet.
func inGRE(frame []byte) []byte {
	p := packetOf(frame)
	if p == nil {
		return nil
	}
	return append(binary.BigEndian.AppendUint16([]byte{0, 0}, binary.BigEndian.Uint16(frame[12:])), p...)
}

// inGREWithKey is GRE with key and sequence number (RFC 2890) around a frame.
func inGREWithKey(frame []byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte{0x30, 0}, etherTEB)
	return append(append(b, 0, 0, 0, 71, 0, 0, 0, 1), frame...)
}

// inERSPAN is GRE with a sequence number and ERSPAN type II around a frame.
func inERSPAN(frame []byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte{0x10, 0}, etherERSPAN)
	b = append(b, 0, 0, 0, 1)                                      // sequence number
	return append(append(b, 0x10, 1, 0, 71, 0, 0, 0, 0), frame...) // version 1, VLAN 1, session 71
}

// inVXLAN is RFC 7348 without its UDP header.
func inVXLAN(frame []byte) []byte { return append([]byte{8, 0, 0, 0, 0, 0, 71, 0}, frame...) }

// inTZSP is TaZmen Sniffer Protocol, version 1, a received Ethernet packet.
func inTZSP(frame []byte) []byte { return append([]byte{1, 0, 0, 1, 1}, frame...) }

// atOddOffset puts an IP packet behind 13 bytes that mean nothing.
func atOddOffset(frame []byte) []byte {
	p := packetOf(frame)
	if p == nil {
		return nil
	}
	return append([]byte("thirteen byte"), p...)
}

// farInside puts a frame behind 301 bytes that mean nothing.
func farInside(frame []byte) []byte { return append(make([]byte, 301), frame...) }

// truncated cuts what w makes to a snap length of the frame.
func truncated(length int, w wrap) wrap {
	return func(frame []byte) []byte { return w(frame[:min(len(frame), length)]) }
}

// each keeps one frame in n.
func each(n int, w wrap) wrap {
	seen := 0
	return func(frame []byte) []byte {
		if seen++; seen%n != 0 {
			return nil
		}
		return w(frame)
	}
}

// to gives a frame other MAC addresses and one hop less.
func to(destination, source [6]byte, w wrap) wrap {
	return func(frame []byte) []byte {
		frame = w(frame)
		if packetOf(frame) == nil {
			return nil
		}
		copy(frame, destination[:])
		copy(frame[6:], source[:])
		if p := frame[macLength:]; p[0]>>4 == 4 {
			p[8]--
			p[10], p[11] = 0, 0
			binary.BigEndian.PutUint16(p[10:], checksum(p[:20]))
		} else {
			p[7]--
		}
		return frame
	}
}

// datagram is a whole frame with a UDP datagram over IPv4.
func datagram(destinationMAC, sourceMAC [6]byte, source, destination netip.AddrPort, id uint16, payload []byte) []byte {
	b := append(append([]byte{}, destinationMAC[:]...), sourceMAC[:]...)
	b = binary.BigEndian.AppendUint16(b, etherIPv4)
	ip := []byte{0x45, 0}
	ip = binary.BigEndian.AppendUint16(ip, uint16(28+len(payload)))
	ip = binary.BigEndian.AppendUint16(ip, id)
	ip = append(ip, 0, 0, 64, protoUDP, 0, 0)
	ip = append(append(ip, source.Addr().AsSlice()...), destination.Addr().AsSlice()...)
	binary.BigEndian.PutUint16(ip[10:], checksum(ip))
	b = append(b, ip...)
	b = binary.BigEndian.AppendUint16(b, source.Port())
	b = binary.BigEndian.AppendUint16(b, destination.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	return append(append(b, 0, 0), payload...) // checksum 0: none (RFC 768)
}
