package config

import (
	"context"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe/netlink"
)

// encapsulations are the light-weight tunnels of routes
// (enum lwtunnel_encap_types in include/uapi/linux/lwtunnel.h).
var encapsulations = map[uint16]string{1: "mpls", 2: "ip", 3: "ila", 4: "ip6", 5: "seg6", 6: "bpf", 7: "seg6local", 8: "rpl", 9: "ioam6", 10: "xfrm"}

// readRoutes lists routes that do more than routing does by itself. A table may
// hold a million routes, so they are told together, by table and device.
func (s *space) readRoutes(ctx context.Context) (all []finding, err error) {
	seen := map[string]bool{}
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6, familyMulticast4, familyMulticast6} {
		body := make([]byte, unix.SizeofRtMsg)
		body[0] = family
		err := s.route.Dump(ctx, unix.RTM_GETROUTE, body, func(m netlink.Message) error {
			found, err := s.routeFindings(m)
			for _, f := range found {
				if !seen[f.Subject] {
					seen[f.Subject] = true
					all = append(all, f)
				}
			}
			return err
		})
		if err := gone(err); err != nil {
			return nil, fmt.Errorf("%s routes: %w", familyName(family), err)
		}
	}
	return all, nil
}

// hop is one way of a route.
type hop struct {
	device int32
	encap  uint16
}

// hops are the ways of a route: one, or those of RTA_MULTIPATH, which are
// struct rtnexthop (length, flags, hops, device) with attributes.
func (r routeMessage) hops() ([]hop, error) {
	all := []hop{{int32(r.attrs[unix.RTA_OIF].Uint32()), r.attrs[unix.RTA_ENCAP_TYPE].Uint16()}}
	const sizeofHop = 8
	for b := r.attrs[unix.RTA_MULTIPATH].Data; len(b) > 0; {
		if len(b) < sizeofHop {
			return nil, fmt.Errorf("%w: %d bytes of a next hop", netlink.ErrMalformed, len(b))
		}
		size := int(binary.NativeEndian.Uint16(b))
		if size < sizeofHop || size > len(b) {
			return nil, fmt.Errorf("%w: next hop of %d bytes in %d", netlink.ErrMalformed, size, len(b))
		}
		inside, err := attributes(b[sizeofHop:size])
		if err != nil {
			return nil, err
		}
		all = append(all, hop{int32(binary.NativeEndian.Uint32(b[4:])), inside[unix.RTA_ENCAP_TYPE].Uint16()})
		b = b[min((size+3)&^3, len(b)):]
	}
	return all, nil
}

// routeFindings reads RTM_NEWROUTE and RTM_DELROUTE.
func (s *space) routeFindings(m netlink.Message) (all []finding, err error) {
	r, err := parseRoute(m)
	if err != nil {
		return nil, err
	}
	if r.flags&unix.RTM_F_CLONED != 0 {
		return nil, nil
	}
	hops, err := r.hops()
	if err != nil {
		return nil, err
	}
	if r.family == familyMulticast4 || r.family == familyMulticast6 {
		return []finding{s.multicastRoute(r, hops)}, nil
	}
	if r.kind != unix.RTN_UNICAST {
		return nil, nil
	}
	for _, h := range hops {
		if f, ok := s.routeBy(r, h); ok {
			all = append(all, f)
		}
	}
	return all, nil
}

// routeBy is one way of a unicast route, and whether it is worth telling.
func (s *space) routeBy(r routeMessage, h hop) (f finding, ok bool) {
	l, _ := s.links.get(h.device)
	tunnel := carriers[l.kind]
	switch {
	case h.encap != 0:
		f.Cause = "route that encapsulates: " + encapsulations[h.encap]
	case r.protocol == unix.RTPROT_KERNEL || h.device == 0:
		return f, false // comes with an address
	case tunnel.words != "" && !tunnel.harmless && !l.automatic():
		f.Cause = "route into a tunnel"
	case r.table < unix.RT_TABLE_DEFAULT || r.table > unix.RT_TABLE_LOCAL:
		f.Cause = "route of a policy table"
	default:
		return f, false
	}
	f.Kind, f.Detector, f.device, f.loose = mirror.Rule, "rtnetlink", h.device, true
	f.Target = s.links.name(h.device)
	f.Subject = fmt.Sprintf("route/%s/%d/%s/%d", familyName(r.family), r.table, f.Target, h.encap)
	f.Detail = fmt.Sprintf("table %d by %s, for example %s", r.table, f.Target, r.prefix())
	return f, true
}

// multicastRoute copies what is sent to a group to those who want it. No
// unicast packet takes it.
func (s *space) multicastRoute(r routeMessage, hops []hop) finding {
	f := finding{loose: true, Observation: mirror.Observation{Kind: mirror.Rule, Detector: "rtnetlink", Cause: "multicast route", Harmless: true}}
	f.Subject = fmt.Sprintf("mroute/%s/%d/%s/%x", familyName(r.family), r.table, r.prefix(), r.attrs[unix.RTA_SRC].Data)
	f.Detail = r.prefix() + " to"
	for _, h := range hops[1:] {
		f.Detail += " " + s.links.name(h.device)
	}
	if in := int32(r.attrs[unix.RTA_IIF].Uint32()); in != 0 {
		f.In = s.links.name(in)
	}
	return f
}
