package inventory

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"waxseal/agent/mirror"
)

// ledger remembers what has been told, so that nothing is told twice and what
// vanishes is told. It belongs to one goroutine.
type ledger struct {
	limit int // things remembered of one kind
	known map[string]map[string]*entry
	count map[mirror.Kind]int
	full  map[mirror.Kind]bool // and that was told
	emit  func(mirror.Observation)
}

// entry is one thing.
type entry struct {
	last   mirror.Observation // as it was told, or will be
	since  time.Time          // of the first sight
	told   bool
	ripens time.Time // from when on it is told; before, it may still be in the making
}

// Things in the making. A process that opens a packet socket attaches the
// filter a moment later, and a question to a name server opens a datagram
// socket for as long as the answer takes.
const (
	settleSocket   = 20 * time.Millisecond
	settleDatagram = 900 * time.Millisecond
)

func newLedger(limit int, emit func(mirror.Observation)) *ledger {
	return &ledger{limit: limit, known: map[string]map[string]*entry{}, count: map[mirror.Kind]int{}, full: map[mirror.Kind]bool{}, emit: emit}
}

// note takes everything that a look has seen in one scope: what is new or
// changed is told, and what was there and is not any more. baseline marks the
// first look.
func (l *ledger) note(scope string, now time.Time, seen []mirror.Observation, baseline bool) {
	before := l.known[scope]
	if before == nil {
		before = map[string]*entry{}
		l.known[scope] = before
	}
	present := make(map[string]bool, len(seen))
	for _, o := range seen {
		key := string(o.Kind) + "\x00" + o.Subject
		if present[key] {
			continue
		}
		present[key] = true
		o.Time, o.Baseline = now, baseline
		l.one(before, key, o, baseline)
	}
	for _, key := range vanished(before, present) {
		l.gone(before[key], now)
		delete(before, key)
	}
	if len(before) == 0 {
		delete(l.known, scope)
	}
}

// vanished lists what is no longer there, the oldest first.
func vanished(before map[string]*entry, present map[string]bool) []string {
	var keys []string
	for key := range before {
		if !present[key] {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b string) int {
		return cmp.Or(before[a].since.Compare(before[b].since), cmp.Compare(a, b))
	})
	return keys
}

func (l *ledger) one(before map[string]*entry, key string, o mirror.Observation, baseline bool) {
	e := before[key]
	if e == nil {
		if !l.room(o) {
			return
		}
		e = &entry{last: o, since: o.Time, ripens: o.Time}
		if !baseline {
			e.ripens = o.Time.Add(settles(o))
		}
		before[key] = e
	}
	if !e.told {
		now := o.Time
		o.Time = e.since
		e.last = o
		if o.Harmless && o.Kind == mirror.Socket || !now.Before(e.ripens) {
			e.told = true
			l.emit(o)
		}
		return
	}
	if e.same(o) {
		return
	}
	if e.last.Netns != o.Netns { // the namespace got a name, or lost it
		l.gone(e, o.Time)
		l.count[o.Kind]++
	}
	o.Baseline = baseline
	e.last = o
	l.emit(o)
}

// same tells whether a thing is as it was told.
func (e *entry) same(o mirror.Observation) bool {
	o.Time, o.Baseline = e.last.Time, e.last.Baseline
	return o == e.last
}

// settles says how long a thing has to be there before it is told.
func settles(o mirror.Observation) time.Duration {
	switch {
	case o.Kind == mirror.Socket && !o.Harmless:
		return settleSocket
	case o.Kind == mirror.Listener && o.Cause != tcpListener:
		return settleDatagram
	}
	return 0
}

// gone tells that a thing has vanished. A socket that vanished before it had
// settled has taken copies all the same; a datagram socket was a question.
func (l *ledger) gone(e *entry, now time.Time) {
	l.count[e.last.Kind]--
	if !e.told && e.last.Kind == mirror.Listener {
		return
	}
	o := e.last
	if !e.told {
		l.emit(o)
	}
	o.Time, o.Gone, o.Baseline = now, true, false
	l.emit(o)
	if l.full[o.Kind] && l.count[o.Kind] < l.limit/2 {
		l.full[o.Kind] = false
		l.emit(mirror.Observation{Kind: mirror.Pressure, Time: now, Detector: "inventory", Subject: pressureOn(o.Kind), Cause: tablePressure, Gone: true})
	}
}

const tablePressure = "table pressure"

func pressureOn(kind mirror.Kind) string { return "inventory/" + string(kind) }

// room tells whether one more thing of a kind is remembered. That it is not is
// told once.
func (l *ledger) room(o mirror.Observation) bool {
	if l.count[o.Kind] < l.limit {
		l.count[o.Kind]++
		return true
	}
	if !l.full[o.Kind] {
		l.full[o.Kind] = true
		l.emit(mirror.Observation{
			Kind: mirror.Pressure, Time: o.Time, Detector: "inventory", Subject: pressureOn(o.Kind), Cause: tablePressure,
			Detail: fmt.Sprintf("more than %d of kind %s: the rest is not told", l.limit, o.Kind),
		})
	}
	return false
}

// ripening is when the next thing in the making will have settled; zero: none is.
func (l *ledger) ripening() time.Time {
	next := time.Time{}
	for _, scope := range l.known {
		for _, e := range scope {
			if !e.told && e.last.Kind == mirror.Socket && (next.IsZero() || e.ripens.Before(next)) {
				next = e.ripens
			}
		}
	}
	return next
}
