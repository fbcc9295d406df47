package config

import (
	"context"
	"errors"
	"time"

	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe/netlink"
)

// How often a list is read as a whole. Whatever it costs, reading takes at
// most a fiftieth of a core when nothing happens, a tenth while it changes.
const (
	readEvery    = time.Second
	restFactor   = 50
	hurryFactor  = 10
	settle       = 2 * time.Millisecond // changes mostly come several at a time
	readWithin   = 20 * time.Second
	loadedEvery  = 100 * time.Millisecond // whether the kernel has loaded what it had not
	readAttempts = 3                      // of a list that changes while it is read
)

// area is one list of the kernel: it is read as a whole, and compared with what
// it held before.
type area struct {
	name  string
	every time.Duration
	read  func(context.Context) ([]finding, error)

	ledger *ledger
	due    time.Time // when it is read next
	ended  time.Time // when it was last read
	took   time.Duration
	asked  []mirror.Process // who changed it since, as far as it was told
	told   bool             // that the ledger is full
}

func newArea(name string, every time.Duration, read func(context.Context) ([]finding, error)) *area {
	return &area{name: name, every: every, read: read, ledger: newLedger()}
}

// changed makes the area be read soon: it was told that something has changed.
func (a *area) changed(now time.Time, by mirror.Process) {
	soon := now.Add(settle)
	if rested := a.ended.Add(hurryFactor * a.took); rested.After(soon) {
		soon = rested
	}
	if soon.Before(a.due) {
		a.due = soon
	}
	if len(a.asked) < 2 && by != (mirror.Process{}) {
		a.asked = append(a.asked, by)
	}
}

// blame is who must have made what a reading shows as new: one process only is
// known to have changed the list.
func (a *area) blame() mirror.Process {
	if len(a.asked) == 0 || len(a.asked) > 1 && a.asked[0] != a.asked[1] {
		return mirror.Process{}
	}
	return a.asked[0]
}

// list reads the area, again if it changed meanwhile. complete is false where
// it never stood still: then what is missing may be there all the same.
func (a *area) list(ctx context.Context) (found []finding, complete bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	begin := time.Now()
	for range readAttempts {
		found, err = a.read(ctx)
		if !errors.Is(err, netlink.ErrChanged) {
			break
		}
	}
	a.ended = time.Now()
	a.took = a.ended.Sub(begin)
	a.due = a.ended.Add(max(a.every, restFactor*a.took))
	complete = err == nil
	if errors.Is(err, errNotLoaded) {
		complete, a.due = true, a.ended.Add(loadedEvery)
	}
	if errors.Is(err, netlink.ErrChanged) {
		err = nil
	}
	return found, complete, err
}
