package probe

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"waxseal/agent/mirror"
)

func named(index uint32) string {
	if index == 0 {
		return ""
	}
	return fmt.Sprintf("r%d", index-1)
}

func at0(ns uint64) time.Time { return time.Unix(0, int64(ns)) }

func TestTheCopyIsToldFromTheOriginal(t *testing.T) {
	const r0, r1, r2 = 1, 2, 3
	for name, c := range map[string]struct {
		event     event
		kind      mirror.Kind
		out, copy string
	}{
		"the original first":              {event{Kind: 1, In: r0, FirstOut: r1, Out: r2, FIB: r1}, mirror.Duplicate, "r1", "r2"},
		"the copy first":                  {event{Kind: 1, In: r0, FirstOut: r2, Out: r1, FIB: r1}, mirror.Duplicate, "r1", "r2"},
		"by one port twice":               {event{Kind: 1, In: r0, FirstOut: r1, Out: r1, FIB: r1}, mirror.Duplicate, "r1", "r1"},
		"routing says nothing":            {event{Kind: 1, In: r0, FirstOut: r1, Out: r2}, mirror.Duplicate, "r1", "r2"},
		"inside another one":              {event{Kind: 2, In: r0, FirstOut: r1, Out: r2}, mirror.Inside, "r1", "r2"},
		"inside another one, first":       {event{Kind: 1, In: r0, FirstOut: r2, Out: r1, FIB: r1, Flags: firstInside | seenOut}, mirror.Inside, "r1", "r2"},
		"by a port that routing says not": {event{Kind: 3, In: r0, Out: r2, FIB: r1}, mirror.Misroute, "r1", "r2"},
		"before it came":                  {event{Kind: 6, In: r0, FirstOut: r2, Out: r0}, mirror.Early, "", "r2"},
		"a bridge that knows better":      {event{Kind: 4, In: r0, FirstOut: r1, Out: r2, FIB: r1}, mirror.Hub, "r1", "r2"},
		"a bridge that does not know":     {event{Kind: 5, In: r0, FirstOut: r1, Out: r2}, mirror.Flood, "r1", "r2"},
	} {
		o, err := c.event.observation(named, at0)
		if err != nil || o.Kind != c.kind || o.In != "r0" || o.Out != c.out || o.Copy != c.copy {
			t.Errorf("%s: %s in %s out %s copy %s, %v: want %s out %s copy %s", name, o.Kind, o.In, o.Out, o.Copy, err, c.kind, c.out, c.copy)
		}
	}
}

func TestEventOfAnotherSizeOrKindIsRefused(t *testing.T) {
	var b bytes.Buffer
	if err := binary.Write(&b, binary.NativeEndian, event{Kind: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := decode(b.Bytes()); err != nil {
		t.Errorf("an event: %v", err)
	}
	for _, n := range []int{0, 1, b.Len() - 1} {
		if _, err := decode(b.Bytes()[:n]); err == nil {
			t.Errorf("%d bytes were taken for an event", n)
		}
	}
	for _, kind := range []uint32{0, 7, 1 << 31} {
		if _, err := (event{Kind: kind}).observation(named, at0); err == nil {
			t.Errorf("kind %d has a meaning", kind)
		}
	}
}

// The ring has a struct of C; what is in the ring is one event.
func TestEventHasTheSizeOfTheHeaders(t *testing.T) {
	if n := binary.Size(event{}); n != 176 {
		t.Errorf("event of %d bytes: struct event of mirror.h has 176", n)
	}
}

func TestWrappingIsNamedAsFarAsTheOuterHeaderTells(t *testing.T) {
	for _, c := range []struct {
		proto   uint8
		port    uint16
		between uint32
		want    string
	}{
		{4, 0, 0, "ipip"}, {41, 0, 0, "ipip"}, {47, 0, 4, "gre"}, {47, 0, 30, "erspan"}, {17, 4789, 30, "vxlan"},
		{17, 6081, 30, "geneve"}, {17, 37008, 20, "tzsp"}, {17, 9, 8, "udp"}, {6, 443, 40, "tcp"}, {1, 0, 8, "icmp"}, {99, 0, 0, "unknown"},
	} {
		if got := wrapping(c.proto, c.port, c.between); got != c.want {
			t.Errorf("protocol %d, port %d: %s, want %s", c.proto, c.port, got, c.want)
		}
	}
}

func TestSamplingFollowsTheLoadInNestedMasks(t *testing.T) {
	for _, c := range []struct {
		mask uint32
		n    uint64
		want uint32
	}{
		{0, 100, 0}, {0, 500, 0}, {0, 5000, 15}, {15, 300, 15}, {15, 50, 7}, {7, 0, 3}, {1<<16 - 1, 1 << 40, 1<<16 - 1},
	} {
		if got := next(c.mask, c.n, 0.1); got != c.want {
			t.Errorf("mask %d, %d samples in 100 ms: %d, want %d", c.mask, c.n, got, c.want)
		}
	}
	if got := next(3, 100, 0); got != 3 {
		t.Errorf("no time has passed: %d", got)
	}
}

func TestCorrelationIsThatOfWhatMovesTogether(t *testing.T) {
	var together, apart, flat correlation
	for i := range budgetSeconds {
		x := float64(i * i % 7)
		together.add(x, 3*x+1, true)
		apart.add(x, -x, true)
		flat.add(5, x, i > 0)
	}
	if r, full := together.coefficient(); r < 0.99 || !full || !together.over() {
		t.Errorf("together: %f, %v", r, full)
	}
	if r, _ := apart.coefficient(); r > -0.99 {
		t.Errorf("apart: %f", r)
	}
	if r, _ := flat.coefficient(); r != 0 || flat.over() || flat.idle() {
		t.Errorf("flat: %f, over %v, idle %v", r, flat.over(), flat.idle())
	}
}

func TestWrongConfigurationsAreRefused(t *testing.T) {
	for _, c := range []Config{{Mode: "half"}, {Sample: 3}, {Sample: 1 << 17}} {
		if p, err := Open(c); err == nil {
			p.Close()
			t.Errorf("%+v was taken", c)
		}
	}
}
