package mirror

import (
	"net/netip"
	"strings"
	"time"
)

// lag is how much later than its effect a thing may be seen: tables without
// notifications are read once a second.
const lag = 5 * time.Second

// rank orders what can explain what: a fact is explained only by one of a
// higher rank, so explanations never run in a circle.
func (f *fact) rank() int {
	switch f.Kind {
	case Rule:
		return 9
	case Program:
		return 8
	case Socket:
		return 7
	case Device:
		return 6
	case Inside, Duplicate, Hub:
		return 5
	case Misroute:
		return 4
	case Bypass:
		return 3
	case Early, Budget:
		return 2
	}
	return 0
}

// relate looks again for what explains each of the facts, and for what each of
// them explains, and tells whether any of that is new.
func (j *Judge) relate(facts ...*fact) bool {
	changed := false
	for _, f := range facts {
		if f.rank() == 0 {
			continue
		}
		before := f.parent
		f.parent = nil
		for _, e := range j.order {
			j.offer(f, e)
			if f != e && j.offer(e, f) {
				changed = true
			}
		}
		changed = changed || f.parent != before
	}
	return changed
}

// offer makes e the explanation of f, if it is the best so far. The choice does
// not depend on the order in which they were seen.
func (j *Judge) offer(f, e *fact) bool {
	if f == e || f.parent == e || !j.explains(e, f) || f.parent != nil && !j.closer(e, f.parent, f) {
		return false
	}
	f.parent = e
	return true
}

func (j *Judge) closer(a, b, f *fact) bool {
	x, y := j.fit(a, f), j.fit(b, f)
	switch {
	case x != y:
		return x > y
	case a.rank() != b.rank():
		return a.rank() > b.rank()
	}
	return a.key < b.key
}

// explains tells whether e can be why f was seen.
func (j *Judge) explains(e, f *fact) bool {
	if e.rank() <= f.rank() && !j.feeds(e, f) || f.rank() == 0 || e.Harmless || f.Harmless || j.elsewhere(e.Observation) || j.elsewhere(f.Observation) {
		return false
	}
	if e.first.After(f.last.Add(lag)) || e.over && f.first.After(e.last.Add(lag)) {
		return false
	}
	return j.fit(e, f) >= 0
}

// fit says how well e explains f; below zero it does not.
func (j *Judge) fit(e, f *fact) int {
	switch {
	case j.feeds(e, f):
		return 3
	case e.ofPackets():
		return sameWay(e, f)
	case f.Kind == Bypass:
		return j.fitBypass(e, f)
	case f.ofPackets():
		return j.fitPackets(e, f)
	}
	return fitSettings(e, f)
}

// feeds tells whether a rule sends what comes by a port into a device from which
// another rule takes it.
func (j *Judge) feeds(e, f *fact) bool {
	return e.Kind == Rule && f.Kind == Rule && e.Target == f.In && j.ports[e.In] && !j.ports[f.In] && f.In != ""
}

// sameWay relates what the hooks saw of one stream in two ways.
func sameWay(e, f *fact) int {
	switch {
	case f.Kind == Budget:
		return when(destination(e.Observation) == destination(f.Observation) && destination(f.Observation) != "", 1)
	case f.Kind == Early:
		return when(e.In == f.In || e.leaves() == f.leaves(), 1)
	case f.Kind == Misroute:
		return when(e.In == f.In && e.leaves() == f.leaves(), 1)
	}
	return -1
}

func when(yes bool, fit int) int {
	if yes {
		return fit
	}
	return -1
}

// fitBypass relates frames that no hook of ours saw to what can send or take
// them beside the hooks.
func (j *Judge) fitBypass(e, f *fact) int {
	at := f.at()
	if e.Kind != Program && e.Kind != Socket {
		return -1
	}
	if e.In == at || e.leaves() == at {
		return 2
	}
	return when(e.Kind == Socket && e.In == "", 0)
}

// at is the port at which something was seen.
func (f *fact) at() string {
	if f.In != "" {
		return f.In
	}
	return f.leaves()
}

// fitPackets relates copies to what can have made them.
func (j *Judge) fitPackets(e, f *fact) int {
	from, to := j.fitFrom(e, f), j.fitTo(e, f)
	if from < 0 || to < 0 {
		return -1
	}
	switch {
	case e.Kind == Device && f.Kind == Hub && e.does(unlearning):
	case e.Kind == Device && from+to == 0:
		return -1 // a device is there for many reasons
	case e.Kind == Rule && e.does(steering) && f.Kind != Misroute:
		return -1 // it sends elsewhere, and not twice
	}
	return 4*to + from
}

func (j *Judge) fitFrom(e, f *fact) int {
	hook := e.In
	if hook == "" {
		hook = e.Out
	}
	switch {
	case hook == "":
		return 0
	case hook == f.In:
		return 2
	case hook == f.FIB, hook == f.Out, hook == f.leaves(), f.In == "":
		return 1
	case !j.ports[hook]:
		return 0 // a bridge, a VLAN or a bond above the port
	}
	return -1
}

func (j *Judge) fitTo(e, f *fact) int {
	to := e.sendsTo()
	address, isAddress := parseAddr(to)
	switch {
	case to == "":
		return when(e.Kind != Device || e.does(unlearning) == (f.Kind == Hub), 0)
	case isAddress && f.Encap != "":
		return when(address == f.Outer.Destination, 3)
	case isAddress && destination(f.Observation) != "":
		return when(address.String() == destination(f.Observation), 3)
	case isAddress:
		return 1 // a next hop shows in no header
	case j.ports[to]:
		return when(to == f.leaves() && f.Encap == "", 3)
	case e.Copy != "" && e.Copy == f.leaves():
		return 3 // a tunnel, and that is where it leads
	case f.Encap != "":
		return 2
	}
	return 1
}

// fitSettings relates things that are configured.
func fitSettings(e, f *fact) int {
	same := func(a, b string) bool { return a != "" && a == b }
	switch {
	case f.Kind == Device && (same(e.Target, f.In) || same(e.Target, f.Target) || f.named(e.Target)):
		return 3
	case f.Kind == Device && e.Kind == Program && f.does(xdp):
		return when(same(e.In, f.In), 2)
	case f.Kind == Device:
		return when(f.does(promiscuous) && !e.does(looking) && (same(e.In, f.In) || e.Kind == Socket && e.In == ""), 1)
	case f.Process.PID != 0 && f.Process.PID == e.Process.PID && (same(e.In, f.In) || e.In == "" || f.In == ""):
		return 2
	case f.Kind == Program && e.Kind == Rule:
		return when(same(e.In, f.In) && e.does(program), 1)
	case f.Kind == Socket && e.Kind == Rule:
		return when(e.does(looking) && f.does(looking), 1)
	}
	return -1
}

// named tells whether a device is the one that the fact is about.
func (f *fact) named(device string) bool {
	return device != "" && (f.In == device || strings.Contains("/"+f.Subject+"/", "/"+device+"/"))
}

func parseAddr(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	return a, err == nil
}
