package hook

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe/netlink"
)

// Run guards the hooks until ctx is done.
func (g *Guard) Run(ctx context.Context, emit func(mirror.Observation)) error {
	if g.refused != nil {
		<-ctx.Done()
		return nil
	}
	leave, err := g.space.enter()
	if err != nil {
		return err
	}
	defer leave()
	g.tell(emit)
	for next := time.Now(); ctx.Err() == nil; next = time.Now().Add(g.interval) {
		g.listen(ctx, next, emit)
		g.round(ctx)
		g.tell(emit)
	}
	return nil
}

// say keeps an observation until the lock is free.
func (g *Guard) say(o mirror.Observation) { g.told = append(g.told, o) }

// tell emits what was kept.
func (g *Guard) tell(emit func(mirror.Observation)) {
	g.mu.Lock()
	told := g.told
	g.told = nil
	g.mu.Unlock()
	for _, o := range told {
		emit(o)
	}
}

// listen follows the notifications up to the next round.
func (g *Guard) listen(ctx context.Context, until time.Time, emit func(mirror.Observation)) {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	for ctx.Err() == nil {
		err := g.events.Receive(ctx, g.notified)
		switch {
		case err == nil:
			g.tell(emit)
		case ctx.Err() != nil:
		case errors.Is(err, netlink.ErrOverrun):
			g.overrun()
		default: // a notification that cannot be read is like one that was lost
			g.overrun()
			<-ctx.Done()
		}
	}
}

func (g *Guard) notified(m netlink.Message) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.note(m)
}

// note takes one notification. Those of the bridge family tell that a port
// joined or left a bridge, not that it came or went.
func (g *Guard) note(m netlink.Message) error {
	if len(m.Body) == 0 || m.Body[0] != unix.AF_UNSPEC || g.closed {
		return nil
	}
	d, err := parseDevice(m)
	if err != nil {
		return err
	}
	switch m.Type {
	case unix.RTM_NEWLINK:
		g.noteConduit(d)
		if p := g.meet(d); p != nil {
			g.hook([]*port{p})
		}
		if p := g.ports[d.index]; p != nil {
			g.guardXDP(p, d.xdp)
		}
	case unix.RTM_DELLINK:
		g.gone(d.index, d.moved, d.space)
	}
	return nil
}

// catchUp reads the notifications that wait, so that a port that was deleted is
// not taken for one whose hook was taken away.
func (g *Guard) catchUp() {
	if err := g.events.Pending(g.note); err != nil {
		g.missed = true
	}
}
