package watch

import (
	"fmt"
	"slices"
	"time"

	"waxseal/agent/mirror"
)

// State is the heartbeat of a watch.
type State struct {
	Rounds   uint64    // of the loop, ten a second
	Last     time.Time // when the last one was
	Observed uint64    // observations that were judged
	Lost     uint64    // observations for which there was no room
}

// State is that of the last round.
func (w *Watch) State() State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state
}

// loop judges until nothing more comes.
func (w *Watch) loop(over <-chan struct{}, report func(mirror.Incident)) {
	tell := func(list []mirror.Incident) {
		for _, in := range list {
			report(in)
		}
	}
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	last, lost, observed := w.opened, uint64(0), uint64(0)
	covered := w.covered()
	for {
		select {
		case o := <-w.queue:
			observed++
			tell(w.judge.Observe(o))
		case <-ticker.C:
			now := w.now()
			if gap := now.Sub(last); gap > frozenAfter {
				tell(w.judge.Observe(frozen(now, last, gap)))
			}
			if n := w.lost.Load(); n > lost {
				tell(w.judge.Observe(overrun(now, n-lost)))
				lost = n
			}
			tell(w.judge.Tick(now))
			last = now
			if w.round(now, observed, lost); w.State().Rounds%lookEvery == 0 {
				covered = w.look(covered)
			}
		case <-over:
			w.drain(tell)
			return
		}
	}
}

// drain judges what the sources emitted before they ended.
func (w *Watch) drain(tell func([]mirror.Incident)) {
	for {
		select {
		case o := <-w.queue:
			tell(w.judge.Observe(o))
		default:
			return
		}
	}
}

// lookEvery is how many rounds pass between looks at what can be watched.
const lookEvery = 10

// covered is what can be watched now, if anybody wants to know.
func (w *Watch) covered() []mirror.Capability {
	if w.changed == nil {
		return nil
	}
	return w.Capabilities()
}

// look tells what can be watched if that is not as before.
func (w *Watch) look(before []mirror.Capability) []mirror.Capability {
	now := w.covered()
	if w.changed != nil && !slices.Equal(now, before) {
		w.changed(now)
	}
	return now
}

func (w *Watch) round(now time.Time, observed, lost uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = State{Rounds: w.state.Rounds + 1, Last: now, Observed: observed, Lost: lost}
}

func frozen(now, last time.Time, gap time.Duration) mirror.Observation {
	return mirror.Observation{
		Kind: mirror.Frozen, Time: now, First: last, Detector: "watch", Subject: "watch", Count: 1,
		Cause: fmt.Sprintf("the watch did not run for %s", gap.Round(100*time.Millisecond)),
	}
}

func overrun(now time.Time, n uint64) mirror.Observation {
	return mirror.Observation{
		Kind: mirror.Overrun, Time: now, Detector: "watch", Subject: "watch/queue", Count: n,
		Cause: "more was seen than could be judged",
	}
}
