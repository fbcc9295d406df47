package mirror

import (
	"fmt"
	"math"
	"slices"
	"time"

	"waxseal/measure/authorised"
)

// settle is how long a rule may wait for what shows where its copies go: they
// are seen by different sources.
const settle = 300 * time.Millisecond

// reach is how far an authorised mirror got in covering an incident. The one
// that got furthest says why it is not covered.
type reach int

const (
	otherTraffic reach = iota // it is about something else
	otherScope                // its ports are these, but the rest is not
	tooFast
	notNow
	waiting // nothing speaks against it, but where the copies go was not shown yet
	covered
)

// answer is what one authorised mirror says about an incident.
type answer struct {
	reach     reach
	reference string
	why       string
}

// weigh gives an incident its severity: what is authorised is information, and
// what only seems to be says why it is not.
func (j *Judge) weigh(m *matter, in *Incident) {
	a := j.authority(m)
	m.lively = a.reach > otherScope || slices.ContainsFunc(m.facts, func(f *fact) bool { return f.over || f.passes() > 0 })
	switch {
	case a.reach == covered:
		in.Severity, in.Authorised = Info, a.reference
		return
	case a.reach == waiting && j.now.Sub(m.opened) < settle:
		in.Severity = level(in.Severity == Alarm, Notice, in.Severity)
		return
	case a.reach == tooFast, a.reach == notNow:
		in.Severity = Alarm
	}
	if a.why != "" {
		in.Cause += "; " + a.why
	}
}

// authority asks all authorised mirrors about a matter.
func (j *Judge) authority(m *matter) answer {
	var best answer
	takes := slices.DeleteFunc(slices.Clone(m.facts), func(f *fact) bool { return !j.takes(f) })
	if len(takes) == 0 {
		return best
	}
	for _, e := range j.allowed.Entries() {
		if a := j.ask(e, m, takes); a.reach > best.reach {
			best = a
			best.reference = e.Reference
		}
	}
	return best
}

// takes tells whether a fact is a copy or makes one, so that it needs an
// approval.
func (j *Judge) takes(f *fact) bool {
	switch f.Kind {
	case Duplicate, Inside, Misroute, Hub:
		return true
	case Rule, Program, Socket:
		return j.grave(f) != Info
	}
	return false
}

// ask tells what one entry says.
func (j *Judge) ask(e authorised.Entry, m *matter, takes []*fact) answer {
	for _, f := range takes {
		if fed := f.Kind == Rule && f.parent != nil; !fed && !e.AllowsFrom(f.passed()...) {
			return answer{}
		}
	}
	shown := false
	for _, f := range takes {
		s, why := j.scope(e, f, m)
		if why != "" {
			return answer{reach: otherScope, why: fmt.Sprintf("not covered by %s, which allows %s", e.Reference, why)}
		}
		shown = shown || s
	}
	if m.root.hurried[e.ID] = m.root.hurried[e.ID] || j.tooFast(takes, e.MaxRate); m.root.hurried[e.ID] {
		return answer{reach: tooFast, why: fmt.Sprintf("faster than the %d packets a second of %s", e.MaxRate, e.Reference)}
	}
	if void := j.allowed.Void(e, j.now); void != "" {
		return answer{reach: notNow, why: fmt.Sprintf("%s does not count: %s", e.Reference, void)}
	}
	if !shown {
		return answer{reach: waiting, why: fmt.Sprintf("not shown to go where %s allows", e.Reference)}
	}
	return answer{reach: covered}
}

// passed lists the ports that the traffic passes by which the fact takes it.
func (f *fact) passed() []string {
	var ports []string
	for _, p := range []string{f.In, f.FIB, f.Out} {
		if p != "" && (p == f.In || p != f.leaves()) {
			ports = append(ports, p)
		}
	}
	if f.In == "" && !f.ofPackets() && f.Out != "" {
		ports = append(ports, f.Out)
	}
	return ports
}

// scope tells whether the fact is within what an entry names, or what of that
// it leaves, and whether it shows that copies go where the entry allows.
func (j *Judge) scope(e authorised.Entry, f *fact, m *matter) (shown bool, outside string) {
	if why := f.strays[e.ID]; why != "" {
		return false, why
	}
	if f.ofPackets() {
		return j.scopeOfPackets(e, f, m)
	}
	if !e.Allows(f.Cause) || (f.stays() || f.does(diverting)) && !e.Names(f.Cause) {
		return false, "no " + f.Cause
	}
	return j.scopeOfTarget(e, f, m)
}

// stays tells that what a fact takes goes to a process of this machine.
func (f *fact) stays() bool { return f.Kind == Socket || f.does(looking) || f.does(sampling) }

func (j *Judge) scopeOfPackets(e authorised.Entry, f *fact, m *matter) (shown bool, outside string) {
	switch out := f.leaves(); {
	case !e.Leaves():
		return false, "no copies that leave the router"
	case !e.AllowsTo(out) && !(f.Encap != "" && j.tunnels(e, m)):
		return false, "no copies to " + port(out)
	case f.Encap == "":
		return len(e.To) > 0 && len(e.Outer) == 0, "" // the next hop shows in no header
	case len(e.Outer) == 0:
		return false, "no copies inside other packets"
	case f.many:
		return false, "no copies to so many addresses"
	case !e.AllowsOuter(f.Outer.Destination):
		return false, "no copies to " + f.Outer.Destination.String()
	}
	return true, ""
}

// tunnels tells whether the entry names the device that a rule of this matter
// copies to.
func (j *Judge) tunnels(e authorised.Entry, m *matter) bool {
	return slices.ContainsFunc(m.facts, func(f *fact) bool {
		return !f.ofPackets() && f.Target != "" && slices.Contains(e.To, f.Target)
	})
}

// scopeOfTarget looks at where something that is configured sends copies.
func (j *Judge) scopeOfTarget(e authorised.Entry, f *fact, m *matter) (shown bool, outside string) {
	to := f.sendsTo()
	address, isAddress := parseAddr(to)
	switch {
	case f.stays(), to == "":
		return f.stays(), ""
	case slices.ContainsFunc(m.facts, func(g *fact) bool { return g.parent == f && g.Kind == Rule }):
		return false, "" // where the rule that takes it from there sends it is what counts
	case isAddress && len(e.Outer) == 0:
		return slices.Contains(e.To, f.Copy), "" // a next hop behind that port
	case isAddress:
		return e.AllowsOuter(address), unless(e.AllowsOuter(address), "no copies to "+to)
	case slices.Contains(e.To, to), f.Copy != "" && slices.Contains(e.To, f.Copy):
		return len(e.Outer) == 0 || j.endsAt(e, m, to), ""
	case j.ports[to], len(e.Outer) == 0:
		return false, unless(len(e.To) == 0 && e.Leaves(), "no copies to "+to)
	}
	return j.endsAt(e, m, to), ""
}

// endsAt tells whether a tunnel device of the matter ends at an address that
// the entry names.
func (j *Judge) endsAt(e authorised.Entry, m *matter, device string) bool {
	return slices.ContainsFunc(m.facts, func(f *fact) bool {
		address, ok := parseAddr(f.Target)
		return f.Kind == Device && f.named(device) && ok && e.AllowsOuter(address)
	})
}

func unless(yes bool, text string) string {
	if yes {
		return ""
	}
	return text
}

// stray notes whether a packet is outside of what an entry names.
func (j *Judge) stray(f *fact, o Observation) {
	if o.Gone || !f.copies() {
		return
	}
	for _, e := range j.allowed.Entries() {
		switch {
		case f.strays[e.ID] != "":
			continue
		case o.Inner.Source.IsValid() && !e.AllowsInner(o.Inner.Source, o.Inner.Destination):
			f.strays[e.ID] = fmt.Sprintf("no traffic of %s", o.Inner.Source)
		case !e.AllowsVLAN(o.Inner.VLAN):
			f.strays[e.ID] = fmt.Sprintf("no traffic of VLAN %d", o.Inner.VLAN)
		}
	}
}

// tooFast tells whether the samples cannot be of a rate that is allowed: n
// samples are n ± 3√n, so that few of them prove nothing.
func (j *Judge) tooFast(takes []*fact, allowed uint64) bool {
	var least float64
	for _, f := range counted(takes) {
		if n, rate := f.sampled(j.now); n > 0 {
			least += rate * max(0, 1-3/math.Sqrt(n))
		}
	}
	return least > float64(allowed)
}
