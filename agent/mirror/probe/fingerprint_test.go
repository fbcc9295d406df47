package probe

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/cilium/ebpf"
)

// What follows is packet.h in Go. The programs are held against it, so each
// explains the other.

// Of mirror.h.
const (
	reach   = 160
	headLen = 224
)

func be16(b []byte, off uint32) uint32 {
	if int(off)+2 > len(b) {
		return 0
	}
	return uint32(binary.BigEndian.Uint16(b[off:]))
}

func be32(b []byte, off uint32) uint32 { return be16(b, off)<<16 | be16(b, off+2) }

func at(b []byte, off uint32) uint8 {
	if int(off) >= len(b) {
		return 0
	}
	return b[off]
}

// locate returns the offset of the network header behind Ethernet, tags, PPPoE
// and MPLS labels.
func locate(b []byte) (uint32, bool) {
	if len(b) < 15 {
		return 0, false
	}
	kind, off := be16(b, 12), uint32(14)
	for range 2 {
		if kind != 0x8100 && kind != 0x88a8 && kind != 0x9100 {
			break
		}
		kind = be16(b, off+2)
		off += 4
	}
	switch kind {
	case 0x8864:
		kind = map[uint32]uint32{0x21: 0x0800, 0x57: 0x86dd}[be16(b, off+6)]
		off += 8
	case 0x8847:
		for range 4 {
			bottom := at(b, off+2)&1 == 1
			off += 4
			if bottom {
				kind = 0x86dd
				if at(b, off)>>4 == 4 {
					kind = 0x0800
				}
				break
			}
		}
	}
	return off, (kind == 0x0800 || kind == 0x86dd) && int(off)+20 <= len(b)
}

// fingerprint is 0 for what has none.
func (s settings) fingerprint(frame []byte) uint64 {
	head := frame[:min(len(frame), headLen)]
	off, ok := locate(head)
	if !ok {
		return 0
	}
	p := head[off:]
	p = p[:min(len(p), reach)]
	switch at(p, 0) >> 4 {
	case 4:
		return s.ipv4(p)
	case 6:
		return s.ipv6(p)
	}
	return 0
}

func (s settings) ipv4(p []byte) uint64 {
	ihl, total := uint32(p[0]&15)*4, be16(p, 2)
	if len(p) < 20 || ihl < 20 || total < ihl {
		return 0
	}
	fragment := be16(p, 6) & 0x1fff
	w0 := uint64(be16(p, 4))<<48 | uint64(total)<<32 | uint64(p[9])<<8 | 4
	return s.transport(p[:min(uint32(len(p)), total)], ihl, p[9], w0, uint64(fragment), fragment != 0)
}

func (s settings) ipv6(p []byte) uint64 {
	if len(p) < 40 {
		return 0
	}
	payload, next, off := be16(p, 4), p[6], uint32(40)
	end := p[:min(uint32(len(p)), 40+payload)]
	var fragment, id uint32
	for range 4 {
		if int(off)+8 > len(end) {
			break
		}
		if next == 0 || next == 43 || next == 60 {
			next, off = end[off], off+(uint32(end[off+1])+1)*8
			continue
		}
		if next != 44 {
			break
		}
		fragment, id = be16(end, off+2)>>3, be32(end, off+4)
		next = end[off]
		if off += 8; fragment != 0 {
			break
		}
	}
	w0 := uint64(be32(p, 0)&0xfffff)<<44 | uint64(payload)<<28 | uint64(next)<<8 | 6
	return s.transport(end, off, next, w0, uint64(id)<<32|uint64(fragment), fragment != 0)
}

// word reads eight bytes; what is not there counts as zero.
func word(p []byte, off uint32) uint64 {
	var b [8]byte
	if int(off) < len(p) {
		copy(b[:], p[off:])
	}
	return binary.BigEndian.Uint64(b[:])
}

func (s settings) transport(p []byte, off uint32, proto uint8, w0, w3 uint64, later bool) uint64 {
	switch {
	case later:
	case proto == 6:
		return s.mix(w0, word(p, off+4), 0, w3)
	case proto == 1 || proto == 58:
		h := word(p, off)
		return s.mix(w0, (h>>56)<<32|h&0xffff, word(p, off+8), w3)
	case proto == 17 || proto == 136:
		off += 8
	case proto == 132:
		off += 12
	}
	return s.mix(w0, word(p, off), word(p, off+8), w3)
}

func (s settings) mix(words ...uint64) uint64 {
	h := s.Seed
	for i, w := range words {
		h += uint64(uint32(w)+s.Key[2*i]) * uint64(uint32(w>>32)+s.Key[2*i+1])
	}
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	return h | 1
}

// runnable tells whether the kernel makes a test run of a frame: it takes none that
// is cut off within the header that its type promises.
func runnable(frame []byte) bool {
	return len(frame) >= 54 || len(frame) >= 34 && be16(frame, 12) != 0x86dd
}

// loopback is the device as which test packets come in.
const loopback = 1

// skbuff is the part of struct __sk_buff that a test run reads (linux/bpf.h).
type skbuff struct {
	Len, PktType, Mark, QueueMapping, Protocol, VLANPresent, VLANTCI, VLANProto, Priority, IngressIfindex, Ifindex uint32
	_                                                                                                              [37]uint32
}

// seen runs the ingress program over a frame and returns the fingerprints that
// the table holds then.
func seen(t testing.TB, o *object, s settings, frame []byte) []uint64 {
	t.Helper()
	if err := o.set(s); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Ingress.Run(&ebpf.RunOptions{Data: frame, Context: skbuff{Ifindex: loopback}}); err != nil {
		t.Fatalf("frame of %d bytes: %v", len(frame), err)
	}
	want := s.fingerprint(frame)
	var found []uint64
	for _, fp := range []uint64{want, 0} {
		if fp == 0 {
			continue
		}
		var b [8]sight
		if err := o.Sights.Lookup(uint32(fp>>40)&8191, &b); err != nil {
			t.Fatal(err)
		}
		for _, each := range b {
			if each.Fingerprint == fp && each.Came > 0 {
				found = append(found, fp)
			}
		}
	}
	return found
}

// sight is struct sig of mirror.h.
type sight struct {
	Fingerprint, Time uint64
	In, Out           uint32
	Came, Left        uint32
	Flags             uint32
	Destination       [16]byte
	Port              uint16
	Proto, Encap      uint8
}

// sampledBy tells how many packets of the loopback port were looked at.
func sampledBy(t testing.TB, o *object) uint64 {
	t.Helper()
	c, err := o.counts(0)
	if err != nil {
		t.Fatal(err)
	}
	return c.Sampled
}

// same fails unless program and twin agree on the frame.
func same(t testing.TB, o *object, s settings, frame []byte) {
	t.Helper()
	if !runnable(frame) {
		return
	}
	before := sampledBy(t, o)
	found := seen(t, o, s, frame)
	looked := sampledBy(t, o) - before
	want := s.fingerprint(frame)
	if (want != 0) != (looked == 1) {
		t.Fatalf("frame %x: fingerprint %x, %d looks by %s", frame, want, looked, o.name)
	}
	if want != 0 && !group(frame) && len(found) != 1 {
		t.Fatalf("frame %x: %s has not the fingerprint %x", frame, o.name, want)
	}
}

// group tells whether a frame is to many, and is therefore not remembered.
func group(frame []byte) bool {
	all := true
	for _, b := range frame[:6] {
		all = all && b == 0xff
	}
	off, ok := locate(frame[:min(len(frame), headLen)])
	if !ok {
		return all
	}
	if p := frame[off:]; p[0]>>4 == 4 {
		return all || p[16]>>4 == 14 || be32(p, 16) == 0xffffffff
	} else if len(p) >= 40 {
		return all || p[24] == 0xff
	}
	return all
}

func ready(t testing.TB, name string) (*object, settings) {
	t.Helper()
	o := loaded(t, name)
	if err := o.Ports.Put(uint32(loopback), place{}); err != nil {
		t.Fatal(err)
	}
	var random [40]byte
	r := rand.New(rand.NewPCG(1, 2))
	for i := range random {
		random[i] = byte(r.Uint32())
	}
	return o, secret(random)
}

func TestProgramAndTwinAgreeOnEveryLengthOfEveryPacket(t *testing.T) {
	for name := range objects {
		t.Run(name, func(t *testing.T) {
			o, s := ready(t, name)
			for what, frame := range crafted() {
				t.Run(what, func(t *testing.T) {
					for n := 34; n <= len(frame); n++ {
						same(t, o, s, frame[:n])
					}
				})
			}
		})
	}
}

func TestFingerprintIsThatOfThePacketNotOfItsWay(t *testing.T) {
	_, s := secret([40]byte{1}), secret([40]byte{1: 7, 9: 3, 20: 5})
	frame := crafted()["udp"]
	want := s.fingerprint(frame)
	change := func(offsets ...int) []byte {
		b := append([]byte(nil), frame...)
		for _, o := range offsets {
			b[o] ^= 0x5a
		}
		return b
	}
	for what, offsets := range map[string][]int{
		"hardware addresses": {0, 6}, "TTL and checksum": {22, 24, 25}, "addresses": {26, 30}, "ports and checksum": {34, 36, 40}, "service class": {15},
	} {
		if got := s.fingerprint(change(offsets...)); got != want {
			t.Errorf("%s: another fingerprint", what)
		}
	}
	for what, offset := range map[string]int{"identification": 18, "protocol": 23, "payload": 42} {
		if s.fingerprint(change(offset)) == want {
			t.Errorf("%s: the same fingerprint", what)
		}
	}
	tagged := append(append(append([]byte(nil), frame[:12]...), 0x81, 0, 0, 7), frame[12:]...)
	if s.fingerprint(tagged) != want {
		t.Error("a VLAN tag makes another fingerprint")
	}
	if secret([40]byte{2}).fingerprint(frame) == want {
		t.Error("another key makes the same fingerprint")
	}
}

func FuzzFingerprint(f *testing.F) {
	for _, frame := range crafted() {
		f.Add(frame)
	}
	type pair struct {
		o *object
		s settings
	}
	var pairs []pair
	for name := range objects {
		o, s := ready(f, name)
		pairs = append(pairs, pair{o, s})
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) > 2000 { // a page is all that a test run takes, and no more is read
			return
		}
		for _, p := range pairs {
			same(t, p.o, p.s, frame)
		}
	})
}
