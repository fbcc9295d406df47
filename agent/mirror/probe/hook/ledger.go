package hook

// Tally is what a program has counted on one side of a port.
type Tally struct {
	Packets  uint64 // as the kernel hands them over
	Segments uint64 // as they go over the wire: a packet of GSO or GRO counts as its segments
}

// direction is which way packets go.
type direction int

const (
	received direction = iota // the device counts first, then the program
	sent                      // the program counts first, then the device
)

func (d direction) String() string { return [...]string{"received", "sent"}[d] }

// ledger compares what a device has counted in one direction with what our
// program has. It judges in rounds and reads no clock.
//
// What a device counts lies between our packets and our segments, less what a
// queue holds back or drops. So the difference device − segments never rises
// above its largest lawful value but by packets that no hook saw; it may fall:
// by drops, and by segments where the device counts packets. It falls a little
// and comes back when something is on its way between the two counters.
type ledger struct {
	way    direction
	queued bool // a queue lies between the program and the device's counter

	rounds    int
	reference int64      // the largest lawful difference
	first     Tally      // of the first round
	peak      int64      // the largest difference since then
	settled   bool       // what was on its way at the first round has been counted
	last      uint64     // of the device
	recent    [4]uint64  // our segments in the last rounds
	high      [200]int64 // the largest possible difference in the last rounds
	segmented [200]bool  // there were packets of several segments
	over      int        // rounds in a row above the reference
	previous  Tally
}

const (
	warmUp = 10 // rounds before anything is said
	stray  = 2  // packets that are never enough

	// What may be on its way at the start of a port that carries little: a ring
	// of a device that counts what it has sent, late. At the start of a busy one,
	// or when a queue stands: the largest default queue too (fq_codel, 10,240).
	ring     = 256
	ringFull = 10240 + ring
	busy     = 1000 // packets in the first rounds
	maxGSO   = 64   // segments of a packet: 64 KiB in frames of 1,024 bytes and more

	// forgiveEvery is how many rounds buy one packet: some devices count frames
	// of their own (LLDP, pause).
	forgiveEvery = 20
)

// sure is how many rounds an excess has to last. What is received may wait for
// a busy processor between the two counters.
var sure = [...]int{received: 4, sent: 2}

// reading is one look at both counters: ours before and after the device's.
type reading struct {
	device        uint64
	lost          uint64 // that the device counted but no hook may have seen
	before, after Tally
}

// add takes one reading and returns how many packets are surely missing from
// our count: 0, or an excess that has lasted.
func (l *ledger) add(r reading) uint64 {
	if l.rounds > 0 && (r.device < l.last || r.after.Segments < l.previous.Segments) { // a counter began again
		*l = ledger{way: l.way, queued: l.queued}
	}
	low := int64(r.device) - int64(r.lost) - int64(r.after.Segments)
	high := int64(r.device) - int64(r.lost) - int64(r.before.Segments)
	l.note(r, high)
	if !l.ready(r, high) {
		return 0
	}
	l.follow()
	if l.rounds%forgiveEvery == 0 && low > l.reference {
		l.reference++
	}
	if low-l.reference <= int64(stray+l.onItsWay()) {
		l.over = 0
		return 0
	}
	if l.over++; l.over < sure[l.way] {
		return 0
	}
	missing := low - l.reference
	l.reference, l.over = low, 0
	return uint64(missing)
}

// note keeps what the next rounds need.
func (l *ledger) note(r reading, high int64) {
	if l.rounds == 0 {
		l.first, l.previous, l.peak = r.after, r.after, high
	}
	more := Tally{r.after.Packets - l.previous.Packets, r.after.Segments - l.previous.Segments}
	l.recent[l.rounds%len(l.recent)] = more.Segments
	l.high[l.rounds%len(l.high)] = high
	l.segmented[l.rounds%len(l.high)] = more.Segments > more.Packets
	l.last, l.previous = r.device, r.after
	l.peak = max(l.peak, high)
	l.rounds++
}

// ready says whether there is a reference. On a port with a queue it begins
// generous, until that many packets of ours have pushed out what came before.
func (l *ledger) ready(r reading, high int64) bool {
	if l.rounds < warmUp {
		return false
	}
	passed := r.after.Packets - l.first.Packets
	if l.rounds == warmUp {
		l.reference, l.settled = l.peak, !l.queued
		if l.queued && passed >= busy {
			l.reference += ringFull
		} else if l.queued {
			l.reference += ring
		}
	}
	if !l.settled && passed >= 2*ringFull {
		l.settled, l.reference = true, min(l.reference, l.peak)
	}
	return true
}

// follow lowers the reference to what the difference has been for a whole
// window, and a standing queue could give back.
func (l *ledger) follow() {
	if l.rounds < len(l.high) {
		return
	}
	top, held := l.high[0], int64(0)
	for i, h := range l.high {
		top = max(top, h)
		if l.queued {
			held = max(held, ringFull)
		}
		if l.queued && l.segmented[i] {
			held = ringFull * maxGSO
		}
	}
	l.reference = min(l.reference, top+held)
}

// onItsWay bounds how far the device can be ahead of the program at an instant.
func (l *ledger) onItsWay() uint64 {
	var sum uint64
	if l.way == sent {
		return 0
	}
	for _, n := range l.recent {
		sum += n
	}
	return sum
}
