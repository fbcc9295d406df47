package mirror

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"waxseal/measure/authorised"
)

// How long things count. The reasons are in docs/mirror-judgement.md.
const (
	quietAfter  = 30 * time.Second // sights of packets that do not come again are over
	quietTable  = 10 * time.Minute // a full table that is not told of again is over
	linger      = 2 * time.Second  // until an incident of which all is gone ends: what it did may be seen late
	reopenIn    = 10 * time.Second // what comes back so soon is the same incident
	reportEvery = time.Second      // of an incident of which only the counters change
	maxOpen     = 1024             // things that are kept of each sort
	maxEvidence = 32               // lines of evidence in one incident
)

// Config is what a judge goes by.
type Config struct {
	Ports      []string       // the ports that are watched, by name
	Authorised authorised.Set // the mirrors that are allowed on this router; zero: none
}

// Judge makes incidents of observations. It is not safe for concurrent use.
type Judge struct {
	ports   map[string]bool
	near    map[string]bool // namespaces, other than that of the ports, from which their traffic can be reached
	now     time.Time       // the latest time that was seen
	allowed authorised.Set

	facts   map[string]*fact
	order   []*fact // the facts, the oldest first
	kept    map[shelf]int
	streams map[string]int     // facts between two ports, by all but their destination
	matters []*matter          // the open ones, the oldest first
	ended   map[string]*matter // by the key of their root, for as long as they may be opened again
	ids     int
}

// NewJudge returns a judge that has seen nothing.
func NewJudge(c Config) *Judge {
	j := &Judge{
		near: map[string]bool{}, allowed: c.Authorised, streams: map[string]int{}, facts: map[string]*fact{},
		kept: map[shelf]int{}, ended: map[string]*matter{},
	}
	j.ports = names(c.Ports)
	return j
}

// Ports replaces the ports that are watched, and reports what that changes.
func (j *Judge) Ports(ports []string) []Incident {
	j.ports = names(ports)
	return j.topology()
}

// Near names a namespace from which the traffic of watched ports can be
// reached: what copies there matters as it does here.
func (j *Judge) Near(netns string) []Incident {
	j.near[netns] = true
	return j.topology()
}

// topology judges everything again.
func (j *Judge) topology() []Incident {
	j.relate(j.order...)
	return j.judge(j.regroup(), j.matters)
}

func names(list []string) map[string]bool {
	set := map[string]bool{}
	for _, name := range list {
		set[name] = true
	}
	return set
}

// Observe takes one observation and returns what is to be reported now.
func (j *Judge) Observe(o Observation) []Incident {
	j.advance(o.Time)
	if o.Kind == Tamper && o.Netns != "" && !j.near[o.Netns] { // a port was moved there
		return append(j.Near(o.Netns), j.Observe(o)...)
	}
	o.Harmless = o.Harmless || o.quotes()
	f, fresh := j.fact(o)
	if f == nil {
		return j.pressure(o)
	}
	if !f.add(o) && !fresh {
		return nil // a thing that was gone already
	}
	j.stray(f, o)
	if fresh || f.parent == nil || !f.ofPackets() {
		if j.relate(f) || fresh {
			return j.judge(j.regroup(), j.changed())
		}
	}
	return j.judge(nil, []*matter{f.matter})
}

// Tick ends what is over, and reports what time alone changes.
func (j *Judge) Tick(now time.Time) []Incident {
	if j.now.Sub(now) > stepBack {
		j.step(now)
	}
	j.advance(now)
	for _, f := range j.order {
		if span := f.passes(); !f.over && span > 0 && j.now.Sub(f.last) >= span {
			f.over, f.why, f.ended, f.matter.changed = true, fmt.Sprintf("no evidence for %s", span), j.now, true
		}
	}
	for key, m := range j.ended {
		if j.now.Sub(m.told.Time) > reopenIn {
			delete(j.ended, key)
		}
	}
	return j.judge(nil, slices.DeleteFunc(slices.Clone(j.matters), func(m *matter) bool { return !m.lively && !m.changed }))
}

// stepBack and stepOn are by how much a clock is set, rather than going wrong or
// standing still: routers without a battery begin in 1970.
const (
	stepBack = time.Minute
	stepOn   = 24 * time.Hour
)

func (j *Judge) advance(now time.Time) {
	if !j.now.IsZero() && now.Sub(j.now) > stepOn {
		j.step(now)
	}
	if now.After(j.now) {
		j.now = now
	}
}

// step moves all that was seen to a clock that was set.
func (j *Judge) step(now time.Time) {
	by := now.Sub(j.now)
	for _, f := range j.order {
		f.step(by)
	}
	for _, m := range j.matters {
		m.step(by)
	}
	for _, m := range j.ended {
		m.told.Time = m.told.Time.Add(by)
	}
	j.now = now
}

// fact returns the fact that an observation is about, a new one where there is
// none, or nil where there is no room.
func (j *Judge) fact(o Observation) (f *fact, fresh bool) {
	key := j.key(o)
	if f := j.facts[key]; f != nil {
		return f, false
	}
	if o.Gone {
		return &fact{over: true}, false // never heard of it
	}
	if f := j.replaced(o); f != nil {
		delete(j.facts, f.key)
		f.key, f.Subject, f.Process = key, o.Subject, better(o.Process, f.Process)
		j.facts[key] = f
		return f, false
	}
	s := j.shelfOf(o)
	if j.kept[s] >= maxOpen && o.Subject != fullTable {
		return nil, false
	}
	f = &fact{key: key, shelf: s, Observation: o, strays: map[string]string{}, hurried: map[string]bool{}}
	f.many = o.ofPackets() && strings.HasSuffix(key, "\x00"+toMany)
	j.facts[key] = f
	if o.ofPackets() {
		j.streams[f.pair()]++
	}
	j.order = append(j.order, f)
	j.kept[s]++
	return f, true
}

// replaced finds a rule that has just gone and does the same as a new one: whole
// sets of rules are loaded again, and get new numbers.
func (j *Judge) replaced(o Observation) *fact {
	if o.Kind != Rule {
		return nil
	}
	i := slices.IndexFunc(j.order, func(f *fact) bool {
		return f.over && f.Kind == Rule && f.Netns == o.Netns && f.In == o.In && f.Target == o.Target && f.Cause == o.Cause
	})
	if i < 0 {
		return nil
	}
	return j.order[i]
}

// fullTable is the subject of what the judge says of itself.
const fullTable = "judge"

// pressure stands for everything that there was no room for.
func (j *Judge) pressure(o Observation) []Incident {
	return j.Observe(Observation{
		Kind: Pressure, Time: o.Time, Detector: "judge", Subject: fullTable, Count: 1,
		Cause: fmt.Sprintf("table pressure: %d things of one sort are open, and more are not kept", maxOpen),
	})
}

// forget drops the facts of an incident that has ended.
func (j *Judge) forget(m *matter) {
	gone := map[*fact]bool{}
	for _, f := range m.facts {
		gone[f] = true
		delete(j.facts, f.key)
		j.kept[f.shelf]--
		if f.ofPackets() {
			if j.streams[f.pair()]--; j.streams[f.pair()] == 0 {
				delete(j.streams, f.pair())
			}
		}
	}
	j.order = slices.DeleteFunc(j.order, func(f *fact) bool { return gone[f] })
}
