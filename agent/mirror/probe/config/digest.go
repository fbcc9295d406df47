package config

import (
	"golang.org/x/sys/unix"

	"waxseal/agent/mirror/probe/netlink"
)

// digestRoute reads one rtnetlink notification, at once, while the process that
// asked for the change may still be there. What it cannot read it leaves to the
// lists.
func (s *space) digestRoute(m netlink.Message, devices, tc *area) []event {
	switch m.Type {
	case unix.RTM_NEWLINK:
		return s.digestLink(m, devices, tc)
	case unix.RTM_DELLINK:
		return []event{{area: devices}, {area: tc}}
	case unix.RTM_NEWTFILTER, unix.RTM_NEWQDISC, unix.RTM_NEWACTION, unix.RTM_NEWCHAIN:
		e := event{area: tc, process: processOf(m.PID, s.netns.Inode)}
		if m.Type == unix.RTM_NEWTFILTER {
			e.findings, _ = s.filter(m, 0, 0)
		}
		return []event{e}
	case unix.RTM_DELTFILTER, unix.RTM_DELQDISC, unix.RTM_DELACTION, unix.RTM_DELCHAIN:
		return []event{{area: tc}}
	}
	return nil
}

func (s *space) digestLink(m netlink.Message, devices, tc *area) []event {
	e := event{area: devices, process: processOf(m.PID, s.netns.Inode)}
	l, err := parseLink(m)
	if err != nil || len(m.Body) > 0 && m.Body[0] == unix.AF_BRIDGE {
		return []event{e} // a bridge tells of its port: the list has it whole
	}
	old, known := s.links.get(l.index)
	s.links.set(l)
	e.findings = s.device(l, s.links.all())
	if known && old.name == l.name {
		return []event{e}
	}
	return []event{e, {area: tc}} // rules are named by their device
}
