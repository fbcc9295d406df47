package config

import (
	"context"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe/netlink"
)

// From include/uapi/linux/pkt_sched.h and rtnetlink.h, in which struct tcmsg
// is family, padding, ifindex, handle, parent, info.
const (
	sizeofTcmsg  = 20
	sharedBlock  = -1         // TCM_IFINDEX_MAGIC_BLOCK: parent is the number of a block that several devices use
	parentRoot   = 0xffffffff // TC_H_ROOT
	parentClsact = 0xfffffff1 // TC_H_CLSACT, and of the ingress qdisc
	hookIngress  = 0xfffffff2 // clsact, TC_H_MIN_INGRESS
	hookEgress   = 0xfffffff3 // clsact, TC_H_MIN_EGRESS
	ingressOnly  = 0xffff0000 // handle of the ingress and clsact qdisc
)

// tcMessage is the header of a qdisc, class, chain or filter, and its attributes.
type tcMessage struct {
	device         int32
	handle, parent uint32
	info           uint32
	attrs          map[uint16]netlink.Attr
}

func parseTC(m netlink.Message) (tcMessage, error) {
	rest, err := m.Rest(sizeofTcmsg)
	if err != nil {
		return tcMessage{}, err
	}
	word := func(at int) uint32 { return binary.NativeEndian.Uint32(m.Body[at:]) }
	t := tcMessage{device: int32(word(4)), handle: word(8), parent: word(12), info: word(16)}
	if t.attrs, err = attributes(rest); err != nil {
		return tcMessage{}, fmt.Errorf("tc message of device %d: %w", t.device, err)
	}
	return t, nil
}

func (t tcMessage) kind() string { return t.attrs[unix.TCA_KIND].String() }

// place is a list of filters: a device and what of it they hang on.
type place struct {
	device int32
	parent uint32
}

// readTC lists all filters, on all devices, and what of them copies.
func (s *space) readTC(ctx context.Context) ([]finding, error) {
	all, places, err := s.readQdiscs(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range places {
		found, err := s.readFilters(ctx, p)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	actions, err := s.readActions(ctx)
	return append(all, actions...), err
}

// readQdiscs lists where filters can be.
func (s *space) readQdiscs(ctx context.Context) (all []finding, places []place, err error) {
	classful := map[int32]bool{}
	err = s.route.Dump(ctx, unix.RTM_GETQDISC, make([]byte, sizeofTcmsg), func(m netlink.Message) error {
		q, err := parseTC(m)
		if err != nil {
			return err
		}
		switch q.kind() {
		case "noqueue", "":
		case "clsact":
			all = append(all, s.empty(q))
			places = append(places, place{q.device, hookIngress}, place{q.device, hookEgress})
		case "ingress":
			all = append(all, s.empty(q))
			places = append(places, place{q.device, q.handle})
		default:
			if q.handle != 0 {
				places = append(places, place{q.device, q.handle})
			}
			classful[q.device] = classful[q.device] || q.handle != 0 && hasClasses[q.kind()]
		}
		return nil
	})
	for device := range classful {
		if err == nil && classful[device] {
			var more []place
			more, err = s.readClasses(ctx, device)
			places = append(places, more...)
		}
	}
	return all, places, err
}

// hasClasses are the qdiscs whose classes can hold filters of their own
// (struct Qdisc_class_ops, tcf_block, in net/sched/sch_*.c).
var hasClasses = map[string]bool{"htb": true, "hfsc": true, "cbq": true, "atm": true}

func (s *space) readClasses(ctx context.Context, device int32) (places []place, err error) {
	body := make([]byte, sizeofTcmsg)
	binary.NativeEndian.PutUint32(body[4:], uint32(device))
	err = s.route.Dump(ctx, unix.RTM_GETTCLASS, body, func(m netlink.Message) error {
		c, err := parseTC(m)
		if err == nil && len(places) < maxFindings {
			places = append(places, place{device, c.handle})
		}
		return err
	})
	return places, gone(err)
}

// readFilters lists the filters of one place, of all its chains.
func (s *space) readFilters(ctx context.Context, p place) (all []finding, err error) {
	body := make([]byte, sizeofTcmsg)
	binary.NativeEndian.PutUint32(body[4:], uint32(p.device))
	binary.NativeEndian.PutUint32(body[12:], p.parent)
	err = s.route.Dump(ctx, unix.RTM_GETTFILTER, body, func(m netlink.Message) error {
		found, err := s.filter(m, p.device, p.parent)
		all = append(all, found...)
		return err
	})
	return all, gone(err)
}

// empty is a qdisc to which filters can be added. By itself it does nothing.
func (s *space) empty(q tcMessage) finding {
	name := s.links.name(q.device)
	return finding{Observation: mirror.Observation{
		Kind: mirror.Rule, Detector: "tc", Subject: "qdisc/" + name + "/" + q.kind(), Cause: "tc " + q.kind() + " qdisc", In: name, Harmless: true,
	}}
}

// hook names what of a device a filter hangs on.
func hook(parent uint32) string {
	switch parent {
	case hookIngress, ingressOnly, parentClsact:
		return "ingress"
	case hookEgress:
		return "egress"
	case parentRoot:
		return "root"
	}
	return fmt.Sprintf("%x:%x", parent>>16, parent&0xffff)
}
