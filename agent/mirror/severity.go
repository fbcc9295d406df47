package mirror

import (
	"slices"
	"strings"
	"time"
)

// The thresholds. The reasons are in docs/mirror-judgement.md.
const (
	enough     = 3                // sampled packets of one stream that cannot be chance
	within     = 10 * time.Second // in which they have to be seen
	blindAfter = 60 * time.Second // of lost sights until the watch counts as blinded
)

// Words by which a source says what a thing does. They are looked for in
// Observation.Cause, without regard to case.
var (
	promiscuous = []string{"promisc"}
	hub         = []string{"hub", "ageing", "aging"}                // a whole bridge floods
	unlearning  = append([]string{"not learn", "learning"}, hub...) // or one of its ports does
	hidden      = []string{"hidden", "hides"}
	diverting   = []string{"redirect", "fwd"} // takes packets away, rather than copies of them
	copying     = []string{"clone", "redirect", "mirror", "copies", "copy", "devmap", "xsk"}
	steering    = []string{"policy", "ip rule", "routing", "route", "neighbour proxy"}
	xdp         = []string{"xdp"}
	program     = []string{"bpf"}
	sampling    = []string{"tc sample"}
	looking     = []string{"nft log", "nft queue", "nflog", "ulog", "nfqueue", "netfilter log", "netfilter queue"}
)

func (o Observation) does(words []string) bool {
	cause := strings.ToLower(o.Cause)
	return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(cause, w) })
}

// elsewhere tells whether a thing is in a namespace from which the traffic of
// the watched ports cannot be reached.
func (j *Judge) elsewhere(o Observation) bool { return o.Netns != "" && !j.near[o.Netns] }

// hint is the detector that only says when to look and who it may be. A flood
// of system calls, as a busy router makes, loses its events; the rounds see what
// is there all the same.
const hint = "sys_enter"

// grave says how much one fact matters by itself.
func (j *Judge) grave(f *fact) Severity {
	switch {
	case f.Harmless, j.elsewhere(f.Observation) && !f.ofPackets() && f.Kind != Tamper && f.Kind != Namespace:
		return Info
	case f.ofPackets():
		return f.graveOfPackets()
	}
	switch f.Kind {
	case Rule:
		return graveRule(f.Observation)
	case Socket:
		return level(f.does(looking), Notice, Alarm)
	case Program:
		return j.graveProgram(f.Observation)
	case Device:
		return graveDevice(f.Observation)
	case Tamper:
		return Alarm
	case Pressure, Overrun, Frozen:
		if f.Detector == hint {
			return Notice
		}
		return level(f.lasted() >= blindAfter, Alarm, Notice)
	case Module:
		return level(f.does(hidden), Alarm, later(f.Observation))
	}
	return later(f.Observation)
}

func level(yes bool, a, b Severity) Severity {
	if yes {
		return a
	}
	return b
}

// later is the severity of what is only worth knowing if it is new.
func later(o Observation) Severity { return level(o.Baseline, Info, Notice) }

func (f *fact) graveOfPackets() Severity {
	switch f.Kind {
	case Duplicate, Inside, Hub, Bypass:
		return level(f.most(within) >= enough, Alarm, Notice)
	case Flood:
		return Info
	}
	return Notice // Misroute, Early and Budget have lawful causes that the hooks cannot see
}

func graveRule(o Observation) Severity {
	switch {
	case o.does(steering), o.does(looking), o.does(sampling):
		return Notice
	}
	return Alarm
}

func (j *Judge) graveProgram(o Observation) Severity {
	attached := j.ports[o.In] || j.ports[o.Out]
	switch {
	case o.does(copying) && (attached || o.In+o.Out != ""):
		return Alarm
	case attached:
		return Notice
	}
	return later(o)
}

func graveDevice(o Observation) Severity {
	switch {
	case o.does(hub):
		return Alarm
	case o.does(promiscuous):
		return Notice
	}
	return later(o)
}
