package inventory

import (
	"context"
	"sync"
	"time"

	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe/inventory/syscalls"
)

// watching is one Run. It belongs to one goroutine.
type watching struct {
	*Inventory
	ledger  *ledger
	emit    func(mirror.Observation)
	begun   bool      // the baseline was told
	last    time.Time // begin of the last round
	next    time.Time // begin of the next
	slowly  time.Time // begin of the last slow round
	failing map[string]bool

	entered bool // a process makes or enters a namespace
	opened  bool // a process opens or changes a packet socket
	placed  bool // a BPF program is put at its place
	writes  map[[2]int]time.Time
}

// Run tells what is there, marked as baseline, and then each difference, until
// ctx is done.
func (i *Inventory) Run(ctx context.Context, emit func(mirror.Observation)) error {
	w := &watching{Inventory: i, ledger: newLedger(i.config.Limit, emit), emit: emit, writes: map[[2]int]time.Time{}}
	events := make(chan syscalls.Event, alarmsKept)
	var listening sync.WaitGroup
	defer listening.Wait()
	if i.calls != nil {
		listening.Go(func() { i.listen(ctx, events) })
	}
	if i.events != nil {
		listening.Go(func() { i.listenModules(ctx, events) })
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-events:
			w.heard(e, time.Now())
		case <-timer.C:
			w.hear(events)
			w.look(ctx)
			w.next = time.Now().Add(w.pause(time.Now()))
		}
		timer.Reset(time.Until(w.next))
	}
}

// hear takes the events that have come already.
func (w *watching) hear(events <-chan syscalls.Event) {
	for range alarmsKept {
		select {
		case e := <-events:
			w.heard(e, time.Now())
		default:
			return
		}
	}
}

// look does one round and tells what it makes known.
func (w *watching) look(ctx context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	slow := now.Sub(w.slowly) >= slowInterval
	r, err := w.round(ctx, now, due{slow: slow, spaces: w.entered, ports: w.placed, away: w.opened || !w.ledger.ripening().IsZero()})
	if ctx.Err() != nil {
		return // what was cut short shows nothing
	}
	w.last, w.entered, w.placed, w.opened = now, false, false, false
	w.lost(now)
	if err != nil {
		w.fails([]error{err}, now)
		return
	}
	for _, scope := range r.scopes() {
		w.ledger.note(scope, now, r.seen[scope], !w.begun)
	}
	for _, k := range r.gone {
		for _, list := range []string{packetList, xdpList, queueList, endpointList} {
			w.ledger.note(k.scope(list), now, nil, false)
		}
	}
	if slow { // only such a round reads every list
		w.slowly = now
		w.fails(r.failures, now)
	}
	w.begun = true
}

// fails tells what cannot be read, once, and when it can be read again.
func (w *watching) fails(failures []error, now time.Time) {
	failing := map[string]bool{}
	for _, err := range failures {
		failing[err.Error()] = true
		if !w.failing[err.Error()] {
			w.emit(blind(err.Error(), now, false))
		}
	}
	for text := range w.failing {
		if !failing[text] {
			w.emit(blind(text, now, true))
		}
	}
	w.failing = failing
}

func blind(text string, now time.Time, gone bool) mirror.Observation {
	return mirror.Observation{Kind: mirror.Pressure, Time: now, Detector: "inventory", Subject: "inventory/" + text, Cause: "a list cannot be read in full", Detail: text, Gone: gone}
}

// pause is how long to wait for the next round: less than the interval if
// something settles sooner.
func (w *watching) pause(now time.Time) time.Duration {
	next := w.last.Add(w.config.Interval)
	if ripe := w.ledger.ripening(); !ripe.IsZero() && ripe.Before(next) {
		next = ripe
	}
	return max(next.Sub(now), time.Millisecond)
}
