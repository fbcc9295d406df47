package config

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe/netlink"
)

// From include/uapi/linux/xfrm.h.
const (
	xfrmNewPolicy     = 0x13 // XFRM_MSG_NEWPOLICY
	xfrmDelPolicy     = 0x14
	xfrmGetPolicy     = 0x15
	xfrmUpdatePolicy  = 0x19
	xfrmFlushPolicy   = 0x1d
	xfrmPolicies      = 4   // XFRMNLGRP_POLICY
	sizeofPolicyID    = 64  // struct xfrm_userpolicy_id
	sizeofPolicy      = 168 // struct xfrm_userpolicy_info
	policyPriority    = 152 // in it, after selector, limits and counters
	policyDirection   = 160
	sizeofTemplate    = 64 // struct xfrm_user_tmpl
	templateFamily    = 24
	templateMode      = 48
	templates         = 5 // XFRMA_TMPL
	modeTunnel        = 1 // XFRM_MODE_TUNNEL
	selectorFamily    = 40
	selectorLengthDst = 42
	selectorLengthSrc = 43
)

var policyDirections = map[byte]string{0: "in", 1: "out", 2: "fwd"}

// readIPsec lists the policies that put packets into an IPsec tunnel.
func (s *space) readIPsec(ctx context.Context) (all []finding, err error) {
	if s.ipsec == nil {
		if err := s.openIPsec(); err != nil {
			return nil, err
		}
	}
	err = s.ipsec.Dump(ctx, xfrmGetPolicy, make([]byte, sizeofPolicyID), func(m netlink.Message) error {
		f, ok, err := policyFinding(m)
		if ok {
			all = append(all, f)
		}
		return err
	})
	if err = gone(err); err != nil {
		return nil, fmt.Errorf("IPsec policies: %w", err)
	}
	return all, nil
}

// openIPsec listens to the policies, if the kernel has loaded what they are for.
func (s *space) openIPsec() error {
	if !loaded("xfrm_user") {
		return errNotLoaded
	}
	var conn, push *netlink.Conn
	err := s.inside(func() (err error) {
		if conn, err = netlink.Dial(unix.NETLINK_XFRM); err != nil {
			return err
		}
		s.keep(conn)
		if push, err = netlink.Dial(unix.NETLINK_XFRM, xfrmPolicies); err != nil {
			return err
		}
		s.keep(push)
		return nil
	})
	if err != nil {
		return fmt.Errorf("IPsec: %w", err)
	}
	s.ipsec = conn
	s.addListener(&listener{name: "xfrm", conn: push, digest: s.digestIPsec})
	return nil
}

func (s *space) digestIPsec(m netlink.Message) []event {
	switch m.Type {
	case xfrmNewPolicy, xfrmUpdatePolicy:
		e := event{area: s.ipsecArea, process: processOf(m.PID, s.netns.Inode)}
		if f, ok, err := policyFinding(m); err == nil && ok {
			e.findings = []finding{f}
		}
		return []event{e}
	case xfrmDelPolicy, xfrmFlushPolicy:
		return []event{{area: s.ipsecArea}}
	}
	return nil
}

// policyFinding reads a policy; ok is false where it puts nothing into a tunnel.
func policyFinding(m netlink.Message) (f finding, ok bool, err error) {
	rest, err := m.Rest(sizeofPolicy)
	if err != nil {
		return f, false, err
	}
	a, err := attributes(rest)
	if err != nil {
		return f, false, fmt.Errorf("IPsec policy: %w", err)
	}
	b, t := m.Body, a[templates].Data
	direction := b[policyDirection]
	if direction != 1 || len(t) < sizeofTemplate || t[templateMode] != modeTunnel {
		return f, false, nil
	}
	to := xfrmAddress(t, binary.NativeEndian.Uint16(t[templateFamily:]))
	family := binary.NativeEndian.Uint16(b[selectorFamily:])
	selector := fmt.Sprintf("from %s/%d to %s/%d", xfrmAddress(b[16:], family), b[selectorLengthSrc], xfrmAddress(b, family), b[selectorLengthDst])
	f = finding{to: to, Observation: mirror.Observation{
		Kind: mirror.Rule, Detector: "xfrm", Cause: "route into an IPsec tunnel", Target: to.String(),
		Subject: fmt.Sprintf("ipsec/%s/%s/%d", policyDirections[direction], selector, binary.NativeEndian.Uint32(b[policyPriority:])),
		Detail:  selector + " goes to " + to.String(),
	}}
	return f, true, nil
}

// xfrmAddress reads xfrm_address_t, 16 bytes.
func xfrmAddress(b []byte, family uint16) netip.Addr {
	if family == unix.AF_INET6 {
		return netip.AddrFrom16([16]byte(b[:16]))
	}
	return netip.AddrFrom4([4]byte(b[:4]))
}
