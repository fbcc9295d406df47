package probe

import (
	"context"
	"fmt"
	"time"

	"waxseal/agent/mirror"
)

// tend adapts the sampling and reports what the counters show, until ctx is done.
func (p *Probe) tend(ctx context.Context, emit func(mirror.Observation)) {
	ticker := time.NewTicker(tuneEvery)
	defer ticker.Stop()
	t := tender{probe: p, emit: emit, before: p.sums(), last: time.Now(), budget: newBudget()}
	t.summed, t.summedAt = t.before, t.last
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			t.round(ctx, n, now)
		}
	}
}

// tender is the probe's own work between events.
type tender struct {
	probe  *Probe
	emit   func(mirror.Observation)
	before sums
	last   time.Time

	summed   sums
	summedAt time.Time
	budget   *budget
}

// sums are the counters of the ports, by name.
type sums map[string]count

func (p *Probe) sums() sums {
	s := sums{}
	for name, slot := range p.places.slots() {
		if c, err := p.object.counts(slot); err == nil {
			s[name] = c
		}
	}
	return s
}

func (t *tender) round(ctx context.Context, n int, now time.Time) {
	p := t.probe
	if n%linksEvery == 0 {
		_ = p.places.refresh(ctx) // the hooks see to ports that come and go
	}
	current := p.sums()
	var sampled uint64
	for name, c := range current {
		sampled += c.Sampled - t.before[name].Sampled
	}
	p.tune(n, sampled, now.Sub(t.last))
	t.before, t.last = current, now
	if n%sumEvery == sumEvery-1 {
		t.tell(current, now)
		t.summed, t.summedAt = current, now
	}
}

// tune sets the mask and, in mode duty, switches the programs on and off.
func (p *Probe) tune(n int, sampled uint64, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.settings
	on := s.Flags&flagOff == 0
	if p.config.Sample == 0 && on {
		s.Mask = next(s.Mask, sampled, took.Seconds())
	}
	if p.config.Mode == Duty {
		s.Flags |= flagOff
		if n%dutyPeriod == 0 {
			s.Flags &^= flagOff
		}
	}
	if s == p.settings || p.object.set(s) != nil {
		return
	}
	p.settings = s
}

// Of sights that were overwritten before their packet had left, this part of the
// sampled is told.
const pressedPart = 20 // one in 20

// tell emits what a second's counters show.
func (t *tender) tell(current sums, now time.Time) {
	for name, c := range current {
		old := t.summed[name]
		if n := c.Lost - old.Lost; n > 0 {
			t.emit(mirror.Observation{
				Kind: mirror.Overrun, Time: now, Detector: "ring", In: name, Subject: "ring/" + name, Count: n,
				Cause: "events were lost: the ring between kernel and agent was full",
			})
		}
		if n, of := c.Pressed-old.Pressed, c.Sampled-old.Sampled; n > 0 && n*pressedPart > of {
			t.emit(mirror.Observation{
				Kind: mirror.Pressure, Time: now, Detector: "table", In: name, Subject: "table/" + name, Count: n,
				Cause:  "table pressure",
				Detail: fmt.Sprintf("%d of %d sights were overwritten within 100 ms", n, of),
			})
		}
	}
	t.budget.look(t.probe.object, t.summed, current, now, now.Sub(t.summedAt), t.emit)
}
