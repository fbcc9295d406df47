package hook

import (
	"errors"
	"fmt"
	"time"

	"waxseal/agent/mirror"
)

// bypass is what was missing on a port, and when that was last said.
type bypass struct {
	missing uint64
	since   time.Time
	told    time.Time
}

// tellEvery bounds how often a bypass that goes on is told.
const tellEvery = time.Second

// count reads what our programs have counted on a port; nil: it cannot.
func (g *Guard) count(p *port) *Count {
	if g.config.Count == nil {
		p.uncount = errors.New("nothing counts packets at the hooks")
		return nil
	}
	c, err := g.config.Count(p.index)
	if p.uncount = err; err != nil {
		return nil
	}
	return &c
}

// guardCounters compares the device's counters with ours, which were read
// before and after them.
func (g *Guard) guardCounters(p *port, d device, before, after *Count, now time.Time) {
	if before == nil || after == nil {
		return
	}
	if p.uncount = d.comparable(); p.uncount != nil {
		return
	}
	g.compare(p, received, ingress, reading{d.counters.received, d.counters.lostIn, before.Received, after.Received}, now)
	p.ledgers[sent].queued = d.qdisc != "noqueue"
	g.compare(p, sent, egress, reading{d.counters.sent, 0, before.Sent, after.Sent}, now)
}

// comparable is an error where the device counts what no hook can see even if
// nobody hides anything.
func (d device) comparable() error {
	if err := d.switched(); err != nil {
		return err
	}
	if !d.counters.known {
		return errors.New("the kernel tells no counters of this device")
	}
	return nil
}

// switched is an error for a port of a switch chip.
func (d device) switched() error {
	if d.kind != "dsa" {
		return nil
	}
	return errors.New("the switch chip forwards by itself and counts that too: what it copies is seen by a neighbour's counters only")
}

func (g *Guard) compare(p *port, way direction, s side, r reading, now time.Time) {
	l, b := &p.ledgers[way], &p.bypassed[way]
	l.way = way
	if p.seats[s].hold == nil || p.seats[s].trouble != "" { // what passes now is told as tampering
		*l = ledger{way: way, queued: l.queued}
		return
	}
	if missing := l.add(r); missing > 0 {
		if b.missing == 0 {
			b.since = now.Add(-time.Duration(sure[way]) * g.interval)
		}
		b.missing += missing
	}
	if b.missing > 0 && now.Sub(b.told) >= tellEvery {
		g.say(p.bypass(way, *b, r))
		b.missing, b.told = 0, now
	}
}

// bypass is an observation of packets that no hook saw.
func (p *port) bypass(way direction, b bypass, r reading) mirror.Observation {
	o := mirror.Observation{
		Kind: mirror.Bypass, Time: time.Now(), First: b.since, Detector: detector,
		Subject: "counters/" + p.name + "/" + way.String(), Count: b.missing,
		Cause:  fmt.Sprintf("the port %s packets that passed no hook", way),
		Detail: fmt.Sprintf("device %d, hook %d", r.device, r.after.Segments),
	}
	if way == received {
		o.In = p.name
	} else {
		o.Out, o.Copy = p.name, p.name
	}
	if p.xdp.program != 0 {
		o.Detail += fmt.Sprintf(", XDP program %d is on the port", p.xdp.program)
		o.Process = holder(p.xdp.program, 0)
	}
	return o
}
