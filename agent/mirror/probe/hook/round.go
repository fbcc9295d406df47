package hook

import (
	"context"
	"errors"
	"time"

	"waxseal/agent/mirror"
)

const (
	listEvery  = time.Second // devices are listed at most that often after lost notifications
	retryEvery = time.Second // a program is put on a side at most that often: a fight is no busy loop
	detector   = "hook-guard"
)

// overrun remembers that notifications were lost: the devices are listed again.
func (g *Guard) overrun() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.missed = true
}

// round looks at every port once.
func (g *Guard) round(ctx context.Context) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || ctx.Err() != nil {
		return
	}
	now := time.Now()
	if g.missed && now.Sub(g.listed) >= listEvery {
		g.listed = now
		g.missed = g.resync(ctx) != nil
	}
	for _, p := range g.sorted() {
		g.guardPort(ctx, p, now)
	}
	g.dead = g.heart.beat()
	ended := time.Now()
	if o, ok := silence(g.last, now, ended, g.interval); ok {
		g.say(o)
	}
	g.last = ended
}

func (g *Guard) guardPort(ctx context.Context, p *port, now time.Time) {
	before := g.count(p)
	d, err := deviceNow(ctx, g.requests, p.index)
	if err == nil {
		g.guardXDP(p, d.xdp)
		g.guardCounters(p, d, before, g.count(p), now)
	}
	for _, s := range sides {
		if g.ports[p.index] == p {
			g.guardSeat(p, s, now)
		}
	}
	p.seen = true
}

// guardSeat sees to it that our program is on its side, and in front.
func (g *Guard) guardSeat(p *port, s side, now time.Time) {
	seat := &p.seats[s]
	if seat.hold == nil {
		if now.Sub(seat.tried) >= retryEvery {
			g.sit(p, s, now)
		}
		if seat.hold != nil {
			g.settled(p, s, "the program was put in its place again")
		}
		return
	}
	view, err := seat.hold.look()
	switch {
	case errors.Is(err, errNoDevice):
		g.absent(p, errors.Is(err, errMoved))
	case err != nil: // the next round asks again
	case !view.ours:
		if g.catchUp(); g.ports[p.index] == p {
			g.trouble(p, s, mirror.Observation{Cause: view.lost}, now)
		}
	default:
		if view.unpinned {
			g.say(p.seatTamper(s, mirror.Observation{Cause: "the pin of the hook was removed", Detail: "without it the hook goes with this process"}))
		}
		if o, strangers := g.strangers(s, seat, view.before); strangers {
			g.trouble(p, s, o, now)
		} else {
			g.settled(p, s, "the hook is in its place again")
		}
	}
}

// absent handles a port that is not in the namespace: its notification waits,
// or was lost.
func (g *Guard) absent(p *port, moved bool) {
	if g.catchUp(); g.ports[p.index] == p {
		g.gone(p.index, moved, -1)
		g.missed = true
	}
}

// trouble reports what is wrong with a seat, once, and takes the seat again.
func (g *Guard) trouble(p *port, s side, o mirror.Observation, now time.Time) {
	seat := &p.seats[s]
	what := o.Cause + ": " + o.Detail
	if seat.trouble != what {
		seat.trouble = what
		g.say(p.seatTamper(s, o))
	}
	if seat.stuck == what || now.Sub(seat.tried) < retryEvery {
		return
	}
	seat.tried = now
	seat.hold, seat.why = g.way.again(seat.hold, p.index, s, g.programs()[s])
	if seat.why != nil {
		seat.hold = nil
		return
	}
	view, err := seat.hold.look()
	if err != nil {
		return
	}
	if _, strangers := g.strangers(s, seat, view.before); view.ours && !strangers {
		g.settled(p, s, "the program was put in its place again")
		return
	}
	seat.stuck = what
}

// settled reports that a trouble is over.
func (g *Guard) settled(p *port, s side, how string) {
	seat := &p.seats[s]
	seat.stuck = ""
	if seat.trouble == "" {
		return
	}
	o := p.seatTamper(s, mirror.Observation{Cause: how, Detail: "it was: " + seat.trouble})
	o.Gone = true
	seat.trouble = ""
	g.say(o)
}

// seatTamper is an observation of a seat.
func (p *port) seatTamper(s side, o mirror.Observation) mirror.Observation {
	t := p.tamper("hook/", o.Cause, o.Detail)
	t.Subject += "/" + s.String()
	t.Process = o.Process
	if s == egress {
		t.In, t.Copy = "", p.name
	}
	return t
}

// tamper is an observation of a port.
func (p *port) tamper(subject, cause, detail string) mirror.Observation {
	return mirror.Observation{
		Kind: mirror.Tamper, Time: time.Now(), Detector: detector,
		In: p.name, Count: 1, Subject: subject + p.name, Cause: cause, Detail: detail, Baseline: !p.seen,
	}
}
