package probe

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"waxseal/agent/mirror"
)

// flow is struct flow of mirror.h.
type flow struct {
	Src, Dst     [16]byte
	Sport, Dport uint16
	VLAN         uint16
	Family       uint8
	Proto        uint8
}

// event is struct event of mirror.h.
type event struct {
	Time, First, Fingerprint uint64
	Kind, Flags              uint32
	In, Out, FirstOut, FIB   uint32 // indices of devices; 0: none or not known
	Came, Left               uint32
	Length                   uint32
	Count                    uint32
	Encap                    uint32
	Mask                     uint32
	Inner, Outer             flow
	FirstDestination         [16]byte // of the packet in which the first copy left
	FirstPort                uint16
	FirstProto, FirstEncap   uint8
	_                        uint32
}

// Flags of event (mirror.h).
const (
	firstInside = 1
	seenOut     = 2
	madeHere    = 4
)

// kinds of events (mirror.h).
var kinds = map[uint32]mirror.Kind{
	1: mirror.Duplicate, 2: mirror.Inside, 3: mirror.Misroute, 4: mirror.Hub, 5: mirror.Flood, 6: mirror.Early,
}

var detectors = map[mirror.Kind]string{mirror.Early: "tc-ingress"}

func decode(raw []byte) (event, error) {
	var e event
	if len(raw) != binary.Size(e) {
		return e, fmt.Errorf("event of %d bytes: want %d", len(raw), binary.Size(e))
	}
	err := binary.Read(bytes.NewReader(raw), binary.NativeEndian, &e)
	return e, err
}

// observation says in words what an event says in numbers. name gives the name
// of a device, wall the time of a kernel's time.
func (e event) observation(name func(uint32) string, wall func(uint64) time.Time) (mirror.Observation, error) {
	kind, ok := kinds[e.Kind]
	if !ok {
		return mirror.Observation{}, fmt.Errorf("event of kind %d is not known", e.Kind)
	}
	detector := detectors[kind]
	if detector == "" {
		detector = "tc-egress"
	}
	o := mirror.Observation{
		Kind: kind, Time: wall(e.Time), First: wall(e.First), Detector: detector,
		In: name(e.In), FIB: name(e.FIB), Inner: e.Inner.words(), Outer: e.Outer.words(),
		Count: uint64(e.Count), Bytes: uint64(e.Count) * uint64(e.Length), Sample: e.Mask + 1,
		Subject: "packets", Cause: causes[kind],
		Detail: fmt.Sprintf("came in %d times, left %d times", e.Came, e.Left),
	}
	original, copied := e.split(kind)
	o.Out, o.Copy = name(original), name(copied)
	switch {
	case kind == mirror.Inside:
		o.Encap = wrapping(e.Outer.Proto, e.Outer.Dport, e.Encap)
	case copied == e.FirstOut && e.Flags&firstInside != 0: // the copy left first, inside another packet
		o.Kind, o.Cause = mirror.Inside, causes[mirror.Inside]
		o.Outer = mirror.Flow{
			Destination: address(e.FirstDestination, familyOf(e.FirstDestination)),
			Protocol:    e.FirstProto, DestinationPort: e.FirstPort,
		}
		o.Encap = wrapping(e.FirstProto, e.FirstPort, uint32(e.FirstEncap))
	}
	return o, nil
}

var causes = map[mirror.Kind]string{
	mirror.Duplicate: "packets leave more often than they come",
	mirror.Inside:    "packets leave once more inside packets of the router's own",
	mirror.Misroute:  "packets leave by a port that routing does not say",
	mirror.Hub:       "a bridge sends packets also where their destination is not",
	mirror.Flood:     "a bridge floods packets to a destination that it has not learned",
	mirror.Early:     "packets leave before our hook sees them come",
}

// split tells the port of the original from that of the copy: the copy often
// leaves before the original.
func (e event) split(kind mirror.Kind) (original, copied uint32) {
	switch {
	case kind == mirror.Misroute, kind == mirror.Early && e.FirstOut == 0:
		return e.FIB, e.Out
	case kind == mirror.Early:
		return 0, e.FirstOut
	case kind == mirror.Inside:
		return e.FirstOut, e.Out
	case e.Flags&firstInside != 0 && e.FirstOut != 0:
		return e.Out, e.FirstOut
	case e.FIB != 0 && e.Out == e.FIB && e.FirstOut != 0:
		return e.Out, e.FirstOut
	}
	return e.FirstOut, e.Out
}

// wrapping names what stands between the outer and the inner header, as far as
// that is known from the outer one (RFC 2784, 7348, 8926; TZSP has no standard).
func wrapping(proto uint8, port uint16, between uint32) string {
	switch proto {
	case 4, 41:
		return "ipip"
	case 47:
		if between >= 8+8+14 {
			return "erspan"
		}
		return "gre"
	case 17:
		switch port {
		case 4789, 8472:
			return "vxlan"
		case 6081:
			return "geneve"
		case 37008:
			return "tzsp"
		}
		return "udp"
	case 6:
		return "tcp"
	case 1, 58:
		return "icmp"
	}
	return "unknown"
}

func (f flow) words() mirror.Flow {
	if f.Family == 0 {
		return mirror.Flow{}
	}
	return mirror.Flow{
		Source: address(f.Src, f.Family), Destination: address(f.Dst, f.Family),
		Protocol: f.Proto, SourcePort: f.Sport, DestinationPort: f.Dport, VLAN: f.VLAN,
	}
}

func address(a [16]byte, family uint8) netip.Addr {
	if family == 4 {
		return netip.AddrFrom4([4]byte(a[:4]))
	}
	if family == 6 {
		return netip.AddrFrom16(a)
	}
	return netip.Addr{}
}

// familyOf tells the family of an address that stands in 16 bytes; 0: there is none.
func familyOf(a [16]byte) uint8 {
	switch {
	case a == [16]byte{}:
		return 0
	case [12]byte(a[4:]) == [12]byte{}:
		return 4
	}
	return 6
}
