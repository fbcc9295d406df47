package mirror

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// fact is one thing that observations tell of: a stream of copies between two
// ports, a rule, a socket. Its Observation is the earliest, with what later
// ones added.
type fact struct {
	Observation
	key    string
	shelf  shelf
	parent *fact // what explains it; nil: nothing known

	first, last time.Time
	ended       time.Time // when it was over
	times       []sight   // the latest sights, the earliest first
	earliest    []sight   // the first three
	count       uint64    // sampled packets, or sights
	over        bool
	why         string            // why it is over
	many        bool              // it is of more outer destinations than are told apart
	worst       Severity          // it never falls
	strays      map[string]string // by the ID of an authorised mirror: what of the traffic it does not name
	hurried     map[string]bool   // by the ID of an authorised mirror: it was faster than that allows
	matter      *matter
}

// sight is one observation of packets.
type sight struct {
	at     time.Time
	count  uint64
	copies float64 // how many packets that stands for
}

// shelf is what a fact counts against: whoever fills one does
// not push out what is on another.
type shelf int

const (
	traffic   shelf = iota // what the hooks see of packets
	settings               // what can copy, where the ports are
	inventory              // what is kept for the record: other namespaces, listeners, modules, what is harmless
	self                   // what the watch sees of itself
)

func (j *Judge) shelfOf(o Observation) shelf {
	switch {
	case o.ofPackets():
		return traffic
	case o.Kind == Tamper, o.Kind == Pressure, o.Kind == Overrun, o.Kind == Frozen:
		return self
	case o.Harmless, j.elsewhere(o), o.Kind == Listener, o.Kind == Module, o.Kind == Namespace:
		return inventory
	}
	return settings
}

func (o Observation) ofPackets() bool {
	switch o.Kind {
	case Duplicate, Inside, Misroute, Hub, Flood, Early, Bypass, Budget:
		return true
	}
	return false
}

// passes is how long after its last sight a fact is over; zero: it lasts until
// it is gone.
func (f *fact) passes() time.Duration {
	switch {
	case f.ofPackets(), f.Kind == Overrun, f.Kind == Frozen:
		return quietAfter
	case f.Kind == Pressure:
		return quietTable
	}
	return 0
}

// maxDestinations is how many outer destinations of copies between two ports
// are told apart; more are one stream to many.
const maxDestinations = 8

// key names the fact that an observation is about.
func (j *Judge) key(o Observation) string {
	if !o.ofPackets() {
		return strings.Join([]string{string(o.Kind), o.Netns, o.Subject}, "\x00")
	}
	to := destination(o)
	if o.quotes() {
		to = toSender
	}
	pair := strings.Join([]string{string(o.Kind), o.In, o.leaves(), ""}, "\x00")
	if j.facts[pair+to] == nil && j.streams[pair] >= maxDestinations {
		to = toMany
	}
	return pair + to
}

// pair is the key without the destination.
func (f *fact) pair() string { return f.key[:strings.LastIndexByte(f.key, 0)+1] }

// What stands in a key in place of a destination.
const (
	toMany   = "many"
	toSender = "sender"
)

// quotes tells of an ICMP error, such as a redirect, that goes to whoever sent
// the packet which it quotes (RFC 1122, section 3.2.2): he gets his own packet.
func (o Observation) quotes() bool {
	icmp := o.Encap == "icmp" || o.Encap == "unknown" && o.Outer.Protocol == 0
	return o.Kind == Inside && icmp && o.Outer.Destination.IsValid() && o.Outer.Destination == o.Inner.Source
}

// leaves is the port by which the copy left, as far as that is known.
func (o Observation) leaves() string {
	if o.Copy != "" {
		return o.Copy
	}
	return o.Out
}

// destination is where what left the router goes, if it is not where the
// packet itself goes.
func destination(o Observation) string {
	to := o.Outer.Destination
	if o.Kind == Budget && !to.IsValid() {
		to = o.Inner.Destination
	}
	if to == (netip.Addr{}) {
		return ""
	}
	return to.String()
}

const maxSights = 256 // in the window of the rate, so that a fast source fills no memory

// add takes an observation, and tells whether the fact goes on.
func (f *fact) add(o Observation) bool {
	if o.Gone {
		was := f.over
		f.over, f.why, f.ended = true, "gone", o.Time
		if o.Time.After(f.last) {
			f.last = o.Time
		}
		return !was
	}
	if f.first.IsZero() || o.Time.Before(f.first) {
		f.first, o.Process = o.Time, better(o.Process, f.Process)
		f.Observation = fill(o, f.Observation)
	} else {
		f.Observation = fill(f.Observation, o)
	}
	if o.Time.After(f.last) {
		f.last = o.Time
	}
	f.over, f.why = false, ""
	f.see(o)
	return true
}

func (f *fact) see(o Observation) {
	n := max(o.Count, 1)
	f.count += n
	s := sight{o.Time, n, float64(n) * float64(max(o.Sample, 1))}
	if f.shelf != self || !f.near(o.Time) {
		f.times = insert(f.times, s)
	}
	if len(f.times) > maxSights {
		f.times = slices.Delete(f.times, 0, len(f.times)-maxSights)
	}
	if f.earliest = insert(f.earliest, s); len(f.earliest) > enough {
		f.earliest = f.earliest[:enough]
	}
}

// near tells whether there is a sight in the same second: the watch tells of
// itself at length, and only for how long matters.
func (f *fact) near(at time.Time) bool {
	return slices.ContainsFunc(f.times, func(s sight) bool { return s.at.Truncate(time.Second).Equal(at.Truncate(time.Second)) })
}

// lasted is how long the sights went on without a pause.
func (f *fact) lasted() time.Duration {
	i := len(f.times) - 1
	for i > 0 && f.times[i].at.Sub(f.times[i-1].at) <= quietAfter {
		i--
	}
	return f.times[len(f.times)-1].at.Sub(f.times[i].at)
}

func insert(list []sight, s sight) []sight {
	i := len(list)
	for i > 0 && list[i-1].at.After(s.at) {
		i--
	}
	return slices.Insert(list, i, s)
}

// fill returns a with what only b knows.
func fill(a, b Observation) Observation {
	for _, s := range []struct {
		to   *string
		from string
	}{
		{&a.Out, b.Out}, {&a.Copy, b.Copy}, {&a.FIB, b.FIB}, {&a.Encap, b.Encap}, {&a.In, b.In},
		{&a.Cause, b.Cause}, {&a.Target, b.Target}, {&a.Detail, b.Detail}, {&a.Detector, b.Detector},
	} {
		if *s.to == "" {
			*s.to = s.from
		}
	}
	if a.Inner == (Flow{}) {
		a.Inner = b.Inner
	}
	if a.Outer == (Flow{}) {
		a.Outer = b.Outer
	}
	a.Process = better(a.Process, b.Process)
	a.Baseline = a.Baseline || b.Baseline
	a.Harmless = a.Harmless && b.Harmless
	return a
}

// better returns the process of which more is known.
func better(a, b Process) Process {
	if a.PID == 0 || a.PID == b.PID && len(a.Comm)+len(a.Exe) < len(b.Comm)+len(b.Exe) {
		return b
	}
	return a
}

// most returns the largest number of sampled packets within a span.
func (f *fact) most(span time.Duration) uint64 {
	var best, sum uint64
	from := 0
	for _, s := range f.times {
		sum += s.count
		for s.at.Sub(f.times[from].at) > span {
			sum -= f.times[from].count
			from++
		}
		best = max(best, sum)
	}
	return best
}

// sampled returns the sampled packets of the last ten seconds, and how many
// packets a second they stand for.
func (f *fact) sampled(now time.Time) (n, rate float64) {
	var copies float64
	since := now
	for _, s := range f.times {
		if now.Sub(s.at) < rateSpan {
			n += float64(s.count)
			copies += s.copies
			if s.at.Before(since) {
				since = s.at
			}
		}
	}
	return n, copies / min(max(now.Sub(since), time.Second), rateSpan).Seconds()
}

const rateSpan = 10 * time.Second

// port writes a port for people.
func port(name string) string {
	if name == "" {
		return "the router"
	}
	return name
}

func way(from, to string) string { return fmt.Sprintf("%s → %s", port(from), port(to)) }

// step moves a fact to a clock that was set.
func (f *fact) step(by time.Duration) {
	for _, t := range []*time.Time{&f.first, &f.last, &f.ended} {
		if !t.IsZero() {
			*t = t.Add(by)
		}
	}
	for _, list := range [][]sight{f.times, f.earliest} {
		for i := range list {
			list[i].at = list[i].at.Add(by)
		}
	}
}
