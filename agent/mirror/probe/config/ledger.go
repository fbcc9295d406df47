package config

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"waxseal/agent/mirror"
)

// maxFindings is how many things of one list of the kernel are kept. Whoever
// makes more is told of as pressure, and does not fill our memory.
const maxFindings = 4096

// nameWithin is how long after a thing was seen an announcement can be that of
// its making, and not of another change to it.
const nameWithin = time.Second

// finding is one thing that can copy, as one list of the kernel shows it.
type finding struct {
	mirror.Observation
	device int32      // index of the device that it copies to; 0: none
	to     netip.Addr // address that it copies to; zero: none
	held   int32      // index of a device whose holder is wanted; 0: none
	seen   time.Time  // when it was first seen; zero: when the watch began
	loose  bool       // the detail is an example: another one is no news
}

// same tells whether nothing that people would want to know has changed.
func (f finding) same(g finding) bool {
	return f.Cause == g.Cause && f.In == g.In && f.Target == g.Target && f.Harmless == g.Harmless && (f.loose || f.Detail == g.Detail)
}

// ledger is what one list was last seen to hold, by subject.
type ledger struct {
	known map[string]finding
	full  bool // more than maxFindings were offered
}

func newLedger() *ledger { return &ledger{known: map[string]finding{}} }

// see keeps a finding and tells whether it is news. It also is if only now we
// hear who did it: a list may have been read before its announcement was.
func (l *ledger) see(f finding) bool {
	old, known := l.known[f.Subject]
	named := old.Process == (mirror.Process{}) && f.Process != (mirror.Process{}) && f.seen.Sub(old.seen) < nameWithin
	if known && old.same(f) && !named {
		return false
	}
	if !known && len(l.known) >= maxFindings {
		l.full = true
		return false
	}
	l.known[f.Subject] = f
	return true
}

// replace makes the ledger hold what a list holds now, and returns what came
// and what went.
func (l *ledger) replace(list []finding) (came, went []finding) {
	there := map[string]bool{}
	l.full = false
	for _, f := range list {
		there[f.Subject] = true
	}
	for _, subject := range slices.Sorted(maps.Keys(l.known)) {
		if !there[subject] {
			went = append(went, l.known[subject])
			delete(l.known, subject)
		}
	}
	for _, f := range list {
		if l.see(f) {
			came = append(came, f)
		}
	}
	return came, went
}

// all is everything that is known, by subject.
func (l *ledger) all() []finding {
	return slices.SortedFunc(maps.Values(l.known), func(a, b finding) int { return cmp.Compare(a.Subject, b.Subject) })
}
