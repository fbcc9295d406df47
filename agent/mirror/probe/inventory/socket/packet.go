// Package socket lists the sockets of one network namespace that take frames,
// packets or connections, in the words of the kernel.
//
// It opens what it reads for one look and closes it again: an open socket or
// file would keep the namespace alive after everybody else has left it. It
// judges nothing and finds no owners. Its functions speak of the namespace that
// the calling thread is in.
package socket

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"waxseal/agent/mirror/probe/netlink"
)

// ErrUnsupported says that this kernel cannot list such sockets in this way:
// the part of it is not built in and not loaded.
var ErrUnsupported = errors.New("the kernel has no such list")

// ErrTooMany says that a list was longer than was asked for.
var ErrTooMany = errors.New("more entries than are looked at")

// Packet is a socket of AF_PACKET (packet(7)).
type Packet struct {
	Inode    uint32
	Type     uint8  // SOCK_RAW, SOCK_DGRAM, SOCK_PACKET
	Protocol uint16 // Ethernet type that it takes; ETH_P_ALL: all; 0: it only sends
	Index    int    // of the device it is bound to; 0: all
	Version  int    // of its rings: 0 is TPACKET_V1
	Running  bool   // it is hooked to the device
	RX, TX   *Ring  // memory that it shares with the kernel; nil: none
	Fanout   *Fanout
	Promisc  []int // devices that it holds in promiscuous mode
	Filter   []bpf.RawInstruction
	// Partial says that the kernel told neither type of rings, nor fan-out, nor filter.
	Partial bool
}

// Ring is the size of a ring (struct packet_diag_ring).
type Ring struct{ BlockSize, Blocks, FrameSize, Frames uint32 }

// Fanout tells how frames are shared out among the sockets of a group
// (PACKET_FANOUT): the group and the way.
type Fanout struct{ Group, Mode uint16 }

// struct packet_diag_req and packet_diag_msg, include/uapi/linux/packet_diag.h.
const (
	byFamily   = 20 // SOCK_DIAG_BY_FAMILY
	showAll    = 1 | 2 | 4 | 8 | 32
	attrInfo   = 0
	attrGroups = 1
	attrRX     = 2
	attrTX     = 3
	attrFanout = 4
	attrFilter = 7

	packetHeader = 16
	promiscuous  = 1      // PACKET_MR_PROMISC, include/uapi/linux/if_packet.h
	flagRunning  = 1 << 0 // PDI_RUNNING
	maxFilter    = 4096   // BPF_MAXINSNS
)

// Packets lists the packet sockets, at most limit.
func Packets(ctx context.Context, limit int) ([]Packet, error) {
	request := make([]byte, 20)
	request[0] = unix.AF_PACKET
	binary.NativeEndian.PutUint32(request[8:], showAll)
	binary.NativeEndian.PutUint64(request[12:], ^uint64(0)) // INET_DIAG_NOCOOKIE
	return diag(ctx, request, limit, parsePacket)
}

// diag asks sock_diag(7) for the sockets of one family.
func diag[T any](ctx context.Context, request []byte, limit int, parse func([]byte) (T, error)) ([]T, error) {
	conn, err := netlink.Dial(unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	defer conn.Close()
	var found []T
	err = conn.Dump(ctx, byFamily, request, func(m netlink.Message) error {
		if m.Type != byFamily {
			return nil
		}
		if len(found) >= limit {
			return ErrTooMany
		}
		one, err := parse(m.Body)
		if err == nil {
			found = append(found, one)
		}
		return err
	})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	if errors.Is(err, netlink.ErrChanged) {
		err = nil // what came or went meanwhile is told at the next look
	}
	return found, err
}

func parsePacket(body []byte) (Packet, error) {
	if len(body) < packetHeader || body[0] != unix.AF_PACKET {
		return Packet{}, fmt.Errorf("%w: %d bytes are no packet socket", netlink.ErrMalformed, len(body))
	}
	p := Packet{
		Type:     body[1],
		Protocol: binary.NativeEndian.Uint16(body[2:]),
		Inode:    binary.NativeEndian.Uint32(body[4:]),
	}
	for a, err := range netlink.Attributes(body[packetHeader:]) {
		if err != nil {
			return Packet{}, err
		}
		if err := p.take(a); err != nil {
			return Packet{}, fmt.Errorf("packet socket %d: %w", p.Inode, err)
		}
	}
	return p, nil
}

func (p *Packet) take(a netlink.Attr) error {
	switch a.Type {
	case attrInfo:
		if len(a.Data) < 24 {
			return short(a)
		}
		p.Index = int(int32(binary.NativeEndian.Uint32(a.Data)))
		p.Version = int(int32(binary.NativeEndian.Uint32(a.Data[4:])))
		p.Running = binary.NativeEndian.Uint32(a.Data[20:])&flagRunning != 0
	case attrGroups:
		return p.takeGroups(a)
	case attrRX, attrTX:
		return p.takeRing(a)
	case attrFanout:
		if len(a.Data) < 4 {
			return short(a)
		}
		v := binary.NativeEndian.Uint32(a.Data)
		p.Fanout = &Fanout{Group: uint16(v), Mode: uint16(v >> 16)}
	case attrFilter:
		return p.takeFilter(a)
	}
	return nil
}

// takeGroups reads struct packet_diag_mclist: index, count, type, length of the
// address, address of 32 bytes.
func (p *Packet) takeGroups(a netlink.Attr) error {
	const size = 44
	if len(a.Data)%size != 0 {
		return short(a)
	}
	for b := a.Data; len(b) > 0; b = b[size:] {
		if binary.NativeEndian.Uint16(b[8:]) == promiscuous {
			p.Promisc = append(p.Promisc, int(int32(binary.NativeEndian.Uint32(b))))
		}
	}
	return nil
}

func (p *Packet) takeRing(a netlink.Attr) error {
	if len(a.Data) < 28 {
		return short(a)
	}
	ring := &Ring{
		BlockSize: binary.NativeEndian.Uint32(a.Data),
		Blocks:    binary.NativeEndian.Uint32(a.Data[4:]),
		FrameSize: binary.NativeEndian.Uint32(a.Data[8:]),
		Frames:    binary.NativeEndian.Uint32(a.Data[12:]),
	}
	if ring.Blocks == 0 {
		return nil
	}
	if a.Type == attrRX {
		p.RX = ring
	} else {
		p.TX = ring
	}
	return nil
}

// takeFilter reads struct sock_filter: code, jump if true, jump if false, k. A
// socket without a classic filter, or with one that is not told, has an empty one.
func (p *Packet) takeFilter(a netlink.Attr) error {
	const size = 8
	if len(a.Data)%size != 0 || len(a.Data) > maxFilter*size {
		return short(a)
	}
	for b := a.Data; len(b) > 0; b = b[size:] {
		p.Filter = append(p.Filter, bpf.RawInstruction{
			Op: binary.NativeEndian.Uint16(b), Jt: b[2], Jf: b[3], K: binary.NativeEndian.Uint32(b[4:]),
		})
	}
	return nil
}

func short(a netlink.Attr) error {
	return fmt.Errorf("%w: attribute %d of %d bytes", netlink.ErrMalformed, a.Type, len(a.Data))
}
