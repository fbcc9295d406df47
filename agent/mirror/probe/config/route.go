package config

import (
	"context"
	"net/netip"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror/probe/netlink"
)

// maxLayers is how many devices on top of each other are followed to a port:
// a tunnel over a VLAN over a bond is three.
const maxLayers = 6

// wayOut is the port by which what a finding copies leaves the router; empty:
// it cannot be told.
func (s *space) wayOut(ctx context.Context, f finding) string {
	device := f.device
	if device == 0 && f.to.IsValid() {
		device = s.deviceTo(ctx, f.to)
	}
	for range maxLayers {
		l, known := s.links.get(device)
		if !known {
			return ""
		}
		below := s.below(ctx, l)
		if below == 0 || below == device {
			return l.name
		}
		device = below
	}
	return ""
}

// below is the device that carries what another one sends; 0: it sends itself,
// or that cannot be told.
func (s *space) below(ctx context.Context, l link) int32 {
	if to := l.remote(); to.IsValid() {
		return s.deviceTo(ctx, to)
	}
	if l.stacked() {
		return l.lower
	}
	return 0
}

// stacked tells whether a device sends by the one that it was made on.
func (l link) stacked() bool {
	switch l.kind {
	case "vlan", "macvlan", "macvtap", "ipvlan", "ipvtap", "macsec":
		return !l.peer
	}
	return false
}

// deviceTo asks the kernel by which device it would send to an address.
func (s *space) deviceTo(ctx context.Context, to netip.Addr) int32 {
	to = to.Unmap()
	body := make([]byte, unix.SizeofRtMsg)
	body[0], body[1] = unix.AF_INET, byte(to.BitLen())
	if to.Is6() {
		body[0] = unix.AF_INET6
	}
	body = netlink.AppendAttr(body, unix.RTA_DST, to.AsSlice())
	answers, err := s.route.Request(ctx, unix.RTM_GETROUTE, 0, body)
	if err != nil || len(answers) == 0 {
		return 0 // no route: the copy goes nowhere
	}
	rest, err := answers[0].Rest(unix.SizeofRtMsg)
	if err != nil {
		return 0
	}
	route, err := attributes(rest)
	if err != nil {
		return 0
	}
	return int32(route[unix.RTA_OIF].Uint32())
}

// readLinks lists the devices of the namespace.
func (s *space) readLinks(ctx context.Context) (map[int32]link, error) {
	all := map[int32]link{}
	err := s.route.Dump(ctx, unix.RTM_GETLINK, make([]byte, unix.SizeofIfInfomsg), func(m netlink.Message) error {
		l, err := parseLink(m)
		if err == nil {
			all[l.index] = l
		}
		return err
	})
	return all, err
}
