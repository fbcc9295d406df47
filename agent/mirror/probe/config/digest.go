package config

import (
	"fmt"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror/probe/netlink"
)

// announcements are the groups of rtnetlink that are listened to. Neighbours
// are not: whoever sends many addresses would fill the queue.
var announcements = []uint32{
	unix.RTNLGRP_LINK, unix.RTNLGRP_TC, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE,
	unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_MROUTE, unix.RTNLGRP_IPV6_MROUTE,
}

// routeAreas are the lists that rtnetlink tells of.
type routeAreas struct {
	space                      *space
	devices, tc, rules, routes *area
}

// openRoute opens what is told and asked over rtnetlink.
func (s *space) openRoute() (err error) {
	if s.route, err = netlink.Dial(unix.NETLINK_ROUTE); err != nil {
		return err
	}
	s.keep(s.route)
	push, err := netlink.Dial(unix.NETLINK_ROUTE, announcements...)
	if err != nil {
		return fmt.Errorf("notifications of devices and tc: %w", err)
	}
	s.keep(push)
	if err := push.Room(roomForEvents); err != nil {
		return fmt.Errorf("notifications of devices and tc: %w", err)
	}
	r := routeAreas{
		s, newArea("devices", readEvery, s.readDevices), newArea("tc", readEvery, s.readTC),
		newArea("rules", readEvery, s.readRules), newArea("routes", readEvery, s.readRoutes),
	}
	s.areas = append(s.areas, r.devices, r.tc, r.rules, r.routes)
	s.listeners = append(s.listeners, &listener{name: "rtnetlink", conn: push, digest: r.digest})
	return nil
}

// digest reads one rtnetlink notification, at once, while the process that
// asked for the change may still be there. What it cannot read it leaves to the
// lists.
func (r routeAreas) digest(m netlink.Message) []event {
	s := r.space
	switch m.Type {
	case unix.RTM_NEWLINK:
		return r.link(m)
	case unix.RTM_DELLINK:
		return []event{{area: r.devices}, {area: r.tc}}
	case unix.RTM_NEWTFILTER, unix.RTM_NEWQDISC, unix.RTM_NEWACTION, unix.RTM_NEWCHAIN:
		e := event{area: r.tc, process: processOf(m.PID, s.netns.Inode)}
		if m.Type == unix.RTM_NEWTFILTER {
			e.findings, _ = s.filter(m, 0, 0)
		}
		return []event{e}
	case unix.RTM_DELTFILTER, unix.RTM_DELQDISC, unix.RTM_DELACTION, unix.RTM_DELCHAIN:
		return []event{{area: r.tc}}
	case unix.RTM_NEWRULE:
		e := event{area: r.rules, process: processOf(m.PID, s.netns.Inode)}
		e.findings, _ = ruleFindings(m)
		return []event{e}
	case unix.RTM_DELRULE:
		return []event{{area: r.rules}}
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return r.route(m)
	}
	return nil
}

// route reads a change of routing. A router has many that matter to nobody.
func (r routeAreas) route(m netlink.Message) []event {
	found, err := r.space.routeFindings(m)
	switch {
	case err != nil:
		return []event{{area: r.routes}}
	case len(found) == 0:
		return nil
	case m.Type == unix.RTM_DELROUTE:
		return []event{{area: r.routes}}
	}
	return []event{{area: r.routes, findings: found, process: processOf(m.PID, r.space.netns.Inode)}}
}

func (r routeAreas) link(m netlink.Message) []event {
	s := r.space
	e := event{area: r.devices, process: processOf(m.PID, s.netns.Inode)}
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
	return []event{e, {area: r.tc}} // rules are named by their device
}
