package config

import (
	"context"
	"fmt"

	"waxseal/agent/mirror"
)

// tell emits a finding, with the port by which the copy leaves.
func (s *space) tell(ctx context.Context, emit func(mirror.Observation), f finding, baseline bool) {
	o := f.Observation
	o.Time, o.Netns, o.Count = s.config.Now(), s.called, 1
	o.Baseline = baseline
	if o.Process == (mirror.Process{}) && f.held != 0 {
		if l, known := s.links.get(f.held); known {
			o.Process = holderOf(l)
		}
	}
	if o.Copy == "" {
		o.Copy = s.wayOut(ctx, f)
	}
	emit(o)
}

func (s *space) tellGone(emit func(mirror.Observation), f finding) {
	o := f.Observation
	o.Time, o.Netns, o.Count, o.Gone = s.config.Now(), s.called, 1, true
	o.Process = mirror.Process{} // who took it away is another matter
	emit(o)
}

// tellAllGone tells that the namespace has ended with all that was in it.
func (s *space) tellAllGone(ctx context.Context, emit func(mirror.Observation)) {
	for _, a := range s.areas {
		for _, f := range a.ledger.all() {
			s.tellGone(emit, f)
		}
	}
}

func (s *space) pressure(a *area) mirror.Observation {
	return mirror.Observation{
		Kind: mirror.Pressure, Time: s.config.Now(), Detector: "config", Netns: s.called, Count: 1,
		Subject: "config/" + a.name, Cause: "table pressure",
		Detail: fmt.Sprintf("more than %d entries of %s are kept; others are not looked at", maxFindings, a.name),
	}
}

// overrun tells that announcements were lost. What they said is read from the
// lists, but not what came and went meanwhile, nor who did it.
func (s *space) overrun() mirror.Observation {
	return mirror.Observation{
		Kind: mirror.Overrun, Time: s.config.Now(), Detector: "config", Netns: s.called, Count: 1,
		Subject: "config/announcements", Cause: "announcements of the kernel were lost", Detail: "all lists are read again",
	}
}
