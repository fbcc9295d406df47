package hook

import "testing"

// flow is what happens on a port between two rounds, in packets of one segment
// unless it says otherwise.
type flow struct {
	rounds  int
	passed  uint64 // through the hook, and out, in each round
	size    uint64 // segments of a packet; 0: one
	hidden  uint64 // past the hook
	queued  uint64 // of passed, how many stay in a queue, once
	drained uint64 // what leaves a queue, once
	dropped uint64 // of passed, in each round, after the hook
	lost    uint64 // counted by the device and dropped before the hook, in each round
	waiting uint64 // counted by the device and not yet by the hook, at each look
	between uint64 // packets that pass while the counters are read
	packets bool   // the device counts packets, not segments
}

func TestOnlyPacketsThatNoHookSawAreMissing(t *testing.T) {
	idle, some, full := flow{rounds: 20}, flow{rounds: 20, passed: 20}, flow{rounds: 20, passed: 5000}
	for name, c := range map[string]struct {
		way    direction
		queued bool
		flows  []flow
		least  uint64
		most   uint64
	}{
		"nothing at all":            {sent, false, []flow{idle, idle}, 0, 0},
		"idle, busy, idle":          {sent, false, []flow{idle, full, idle, some}, 0, 0},
		"read at different times":   {sent, false, []flow{idle, {rounds: 40, passed: 5000, between: 300}, idle}, 0, 0},
		"received, on their way":    {received, false, []flow{idle, {rounds: 40, passed: 5000, waiting: 900}, idle}, 0, 0},
		"received and dropped":      {received, false, []flow{idle, {rounds: 300, passed: 100, lost: 50}, idle}, 0, 0},
		"the device counts packets": {sent, false, []flow{idle, {rounds: 300, passed: 500, size: 40, packets: true}, idle, some}, 0, 0},
		"dropped in the queue":      {sent, true, []flow{idle, {rounds: 300, passed: 500, dropped: 400}, idle, some}, 0, 0},
		"a queue for 20 s, which then drains": {sent, true,
			[]flow{idle, {rounds: 1, passed: 2000, queued: 1000}, {rounds: 400, passed: 500}, {rounds: 1, drained: 1000}, idle}, 0, 0},
		"a ring at the start, counted late": {sent, true, []flow{idle, some, {rounds: 1, drained: 200}, idle}, 0, 0},
		"a few frames of the device's own":  {sent, false, append([]flow{idle}, strays(100)...), 0, 0},

		"a bypass of an idle port":       {sent, false, []flow{idle, {rounds: 1, hidden: 30}, idle}, 30, 30},
		"of one with a queue":            {sent, true, []flow{some, {rounds: 20, hidden: 50}, idle}, 700, 1000},
		"of one that is busy":            {sent, false, []flow{full, {rounds: 4, passed: 5000, hidden: 10}, full}, 30, 40},
		"beside drops before":            {sent, false, []flow{full, {rounds: 1, passed: 100, dropped: 100}, {rounds: 220}, {rounds: 1, hidden: 30}, idle}, 30, 30},
		"what XDP takes of an idle port": {received, false, []flow{idle, {rounds: 1, hidden: 30}, idle}, 30, 30},
		"what XDP takes of a busy port":  {received, false, []flow{full, {rounds: 60, passed: 5000, hidden: 2000}, idle}, 90000, 120000},
		"slowly, for a long time":        {sent, false, append([]flow{idle}, slow(60)...), 40, 61},
	} {
		missing := play(&ledger{way: c.way, queued: c.queued}, c.flows)
		if missing < c.least || missing > c.most {
			t.Errorf("%s: %d packets are missing, want %d to %d", name, missing, c.least, c.most)
		}
	}
}

// strays are single frames, one in 30 s.
func strays(n int) (all []flow) {
	for range n {
		all = append(all, flow{rounds: 1, hidden: 1}, flow{rounds: 600, passed: 3})
	}
	return all
}

// slow is one packet in each fourth round.
func slow(n int) (all []flow) {
	for range n {
		all = append(all, flow{rounds: 1, hidden: 1}, flow{rounds: 3})
	}
	return all
}

func play(l *ledger, flows []flow) (missing uint64) {
	var device, lost uint64
	var ours Tally
	for _, f := range flows {
		for range f.rounds {
			size := max(f.size, 1)
			ours.Packets += f.passed
			ours.Segments += f.passed * size
			out := f.passed - f.queued - f.dropped
			if !f.packets {
				out *= size
			}
			device += out + f.hidden + f.drained + f.lost
			lost += f.lost
			before, after := ours, ours
			after.Packets += f.between
			after.Segments += f.between
			for _, t := range []*Tally{&before, &after} {
				t.Packets -= min(f.waiting, t.Packets)
				t.Segments -= min(f.waiting*size, t.Segments)
			}
			missing += l.add(reading{device: device, lost: lost, before: before, after: after})
		}
	}
	return missing
}

func TestACounterThatBeginsAgainIsNoBypass(t *testing.T) {
	l := &ledger{way: sent}
	for i := range uint64(100) {
		device, ours := i*10, i*10
		if i >= 50 { // the programs were loaded anew
			ours = (i - 50) * 10
		}
		if i >= 80 { // the driver began again
			device = (i - 80) * 10
		}
		if n := l.add(reading{device: device, before: Tally{ours, ours}, after: Tally{ours, ours}}); n > 0 {
			t.Errorf("round %d: %d packets are missing", i, n)
		}
	}
}
