package probe

import (
	"fmt"
	"net/netip"
	"time"

	"waxseal/agent/mirror"
)

// A router's own traffic is small beside what it forwards. What goes to one
// destination is told when it is more than budgetRate, and follows what is
// forwarded for budgetSeconds.
const (
	budgetRate    = 64 << 10 // bytes a second to one destination
	budgetSeconds = 10
)

// origin is struct orig_key of mirror.h.
type origin struct {
	Destination [16]byte
	Port        uint16
	Proto       uint8
	Family      uint8
}

// sent is struct orig of mirror.h.
type sent struct{ Packets, Bytes uint64 }

// budget follows what the router originates, by destination.
type budget struct {
	before map[origin]sent
	track  map[origin]*correlation
}

func newBudget() *budget { return &budget{before: map[origin]sent{}, track: map[origin]*correlation{}} }

// look compares one second of originated traffic with what was forwarded.
func (b *budget) look(o *object, old, current sums, now time.Time, took time.Duration, emit func(mirror.Observation)) {
	if took <= 0 {
		return
	}
	var forwarded uint64
	for name, c := range current {
		forwarded += c.Forwarded - old[name].Forwarded
	}
	seen := map[origin]sent{}
	var key origin
	var value sent
	for all := o.Origins.Iterate(); all.Next(&key, &value); {
		seen[key] = value
	}
	for key, total := range seen {
		packets, bytes := total.Packets-b.before[key].Packets, total.Bytes-b.before[key].Bytes
		if total.Bytes < b.before[key].Bytes { // it was pushed out and came back
			packets, bytes = total.Packets, total.Bytes
		}
		c := b.track[key]
		if c == nil {
			if float64(bytes) < budgetRate*took.Seconds() {
				continue
			}
			c = &correlation{}
			b.track[key] = c
		}
		c.add(float64(packets), float64(forwarded), float64(bytes) >= budgetRate*took.Seconds())
		if r, full := c.coefficient(); full && c.over() {
			emit(key.observation(now, packets, bytes, r))
		}
	}
	for key, c := range b.track {
		if _, there := seen[key]; !there || c.idle() {
			delete(b.track, key)
		}
	}
	b.before = seen
}

func (k origin) observation(now time.Time, packets, bytes uint64, r float64) mirror.Observation {
	destination := address(k.Destination, k.Family)
	return mirror.Observation{
		Kind: mirror.Budget, Time: now, Detector: "budget",
		Subject: fmt.Sprintf("budget/%d/%s", k.Proto, netip.AddrPortFrom(destination, k.Port)),
		Outer:   mirror.Flow{Destination: destination, Protocol: k.Proto, DestinationPort: k.Port},
		Target:  destination.String(), Count: max(packets, 1), Bytes: bytes,
		Cause:  "the router sends much of its own to one destination",
		Detail: fmt.Sprintf("%d bytes in the last second; correlation with what it forwards: %.2f", bytes, r),
	}
}
