package config

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe/netlink"
)

// From include/uapi/linux/fib_rules.h: struct fib_rule_hdr is family, lengths
// of destination and source, tos, table, two bytes, action, flags.
const (
	sizeofRule                 = 12
	fraDst, fraSrc             = 1, 2
	fraIn, fraGoto, fraOut     = 3, 4, 17
	fraPriority, fraMark       = 6, 10
	fraTable, fraProtocol      = 15, 21
	fraIPProto, fraUser        = 22, 20
	fraSportRange, fraDport    = 23, 24
	toTable, toGoto, toNothing = 1, 2, 3 // FR_ACT_TO_TBL, FR_ACT_GOTO, FR_ACT_NOP
)

// Families of multicast routes (RTNL_FAMILY_IPMR and _IP6MR, rtnetlink.h).
const familyMulticast4, familyMulticast6 = 128, 129

// familyName is a family of addresses as people say it.
func familyName(family byte) string {
	switch family {
	case unix.AF_INET, familyMulticast4:
		return "ip"
	case unix.AF_INET6, familyMulticast6:
		return "ip6"
	}
	return fmt.Sprintf("family %d", family)
}

// readRules lists the rules of policy routing that are not the kernel's own.
func (s *space) readRules(ctx context.Context) (all []finding, err error) {
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		body := make([]byte, sizeofRule)
		body[0] = family
		err := s.route.Dump(ctx, unix.RTM_GETRULE, body, func(m netlink.Message) error {
			found, err := ruleFindings(m)
			all = append(all, found...)
			return err
		})
		if err := gone(err); err != nil {
			return nil, fmt.Errorf("%s rules: %w", familyName(family), err)
		}
	}
	return all, nil
}

// ruleFindings reads RTM_NEWRULE.
func ruleFindings(m netlink.Message) ([]finding, error) {
	rest, err := m.Rest(sizeofRule)
	if err != nil {
		return nil, err
	}
	a, err := attributes(rest)
	if err != nil {
		return nil, fmt.Errorf("rule: %w", err)
	}
	header := m.Body[:sizeofRule]
	text, priority := ruleText(header, a), a[fraPriority].Uint32()
	if text == "" && (priority == 0 || priority >= 32766) || header[7] == toNothing {
		return nil, nil // the three rules that every namespace has, or no rule
	}
	f := finding{Observation: mirror.Observation{
		Kind: mirror.Rule, Detector: "rtnetlink", Cause: "policy routing rule", In: a[fraIn].String(),
	}}
	f.Detail = fmt.Sprintf("%s pref %d%s %s", familyName(header[0]), priority, text, ruleAction(header, a))
	f.Subject = "rule/" + f.Detail
	return []finding{f}, nil
}

// ruleText is what a rule selects; empty: everything.
func ruleText(header []byte, a map[uint16]netlink.Attr) string {
	var b strings.Builder
	for _, side := range []struct {
		word   string
		kind   uint16
		length byte
	}{{"from", fraSrc, header[2]}, {"to", fraDst, header[1]}} {
		if addr, ok := netip.AddrFromSlice(a[side.kind].Data); ok {
			fmt.Fprintf(&b, " %s %s/%d", side.word, addr, side.length)
		}
	}
	for _, name := range []struct {
		word string
		kind uint16
	}{{"iif", fraIn}, {"oif", fraOut}} {
		if v := a[name.kind].String(); v != "" {
			fmt.Fprintf(&b, " %s %s", name.word, v)
		}
	}
	if mark := a[fraMark].Uint32(); mark != 0 {
		fmt.Fprintf(&b, " fwmark 0x%x", mark)
	}
	if proto := a[fraIPProto].Uint8(); proto != 0 {
		fmt.Fprintf(&b, " ipproto %d", proto)
	}
	for _, more := range []uint16{fraUser, fraSportRange, fraDport} {
		if v, ok := a[more]; ok {
			fmt.Fprintf(&b, " attribute %d %x", more, v.Data)
		}
	}
	if header[3] != 0 {
		fmt.Fprintf(&b, " tos 0x%x", header[3])
	}
	return b.String()
}

func ruleAction(header []byte, a map[uint16]netlink.Attr) string {
	switch header[7] {
	case toTable:
		table := uint32(header[4])
		if v, ok := a[fraTable]; ok {
			table = v.Uint32()
		}
		return fmt.Sprintf("lookup %d", table)
	case toGoto:
		return fmt.Sprintf("goto %d", a[fraGoto].Uint32())
	}
	return fmt.Sprintf("action %d", header[7])
}

// routeMessage is struct rtmsg with its attributes.
type routeMessage struct {
	family, length, protocol, kind byte
	table, flags                   uint32
	attrs                          map[uint16]netlink.Attr
}

func parseRoute(m netlink.Message) (routeMessage, error) {
	rest, err := m.Rest(unix.SizeofRtMsg)
	if err != nil {
		return routeMessage{}, err
	}
	b := m.Body
	r := routeMessage{family: b[0], length: b[1], table: uint32(b[4]), protocol: b[5], kind: b[7], flags: binary.NativeEndian.Uint32(b[8:])}
	if r.attrs, err = attributes(rest); err != nil {
		return routeMessage{}, fmt.Errorf("route: %w", err)
	}
	if t, ok := r.attrs[unix.RTA_TABLE]; ok {
		r.table = t.Uint32()
	}
	return r, nil
}

func (r routeMessage) prefix() string {
	if to, ok := netip.AddrFromSlice(r.attrs[unix.RTA_DST].Data); ok {
		return netip.PrefixFrom(to, int(r.length)).String()
	}
	return "default"
}
