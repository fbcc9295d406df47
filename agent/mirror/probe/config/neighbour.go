package config

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe/netlink"
)

// neighbour is struct ndmsg with its attributes (rtnetlink(7)): an entry of
// ARP, of neighbour discovery, or of a bridge's or VXLAN device's table.
type neighbour struct {
	device   int32
	state    uint16
	flags    byte
	address  netip.Addr
	hardware net.HardwareAddr
	place    string // VLAN and VNI
	bridge   bool   // it stands in a bridge's own table
}

func parseNeighbour(m netlink.Message) (neighbour, error) {
	rest, err := m.Rest(unix.SizeofNdMsg)
	if err != nil {
		return neighbour{}, err
	}
	a, err := attributes(rest)
	if err != nil {
		return neighbour{}, fmt.Errorf("neighbour: %w", err)
	}
	b := m.Body
	n := neighbour{device: int32(binary.NativeEndian.Uint32(b[4:])), state: binary.NativeEndian.Uint16(b[8:]), flags: b[10]}
	n.address, _ = netip.AddrFromSlice(a[unix.NDA_DST].Data)
	n.hardware = a[unix.NDA_LLADDR].Data
	n.place = fmt.Sprintf("%d/%d", a[unix.NDA_VLAN].Uint16(), max(a[unix.NDA_VNI].Uint32(), a[unix.NDA_SRC_VNI].Uint32()))
	_, n.bridge = a[unix.NDA_MASTER]
	return n, nil
}

// group tells whether a frame to the address goes to more than one.
func (n neighbour) group() bool { return len(n.hardware) > 0 && n.hardware[0]&1 != 0 }

// readNeighbours lists entries that copy or steer frames.
func (s *space) readNeighbours(ctx context.Context) ([]finding, error) {
	table, err := s.neighbours(ctx, unix.AF_BRIDGE, 0)
	if err != nil {
		return nil, fmt.Errorf("bridge addresses: %w", err)
	}
	all := s.forwarding(table)
	if table, err = s.neighbours(ctx, unix.AF_UNSPEC, 0); err != nil {
		return nil, fmt.Errorf("neighbours: %w", err)
	}
	for _, n := range table {
		if n.group() && n.address.IsValid() && !n.address.IsMulticast() && n.state&unix.NUD_NOARP == 0 {
			f := s.neighbourFinding(n, "group", "neighbour with a group address: every port gets a copy")
			f.Target = n.address.String()
			all = append(all, f)
		}
	}
	if table, err = s.neighbours(ctx, unix.AF_UNSPEC, unix.NTF_PROXY); err != nil {
		return nil, fmt.Errorf("neighbour proxies: %w", err)
	}
	for _, n := range table {
		if n.flags&unix.NTF_PROXY != 0 {
			all = append(all, s.neighbourFinding(n, "proxy", "neighbour proxy: takes the route to another"))
		}
	}
	return all, nil
}

func (s *space) neighbourFinding(n neighbour, what, cause string) finding {
	name := s.links.name(n.device)
	return finding{device: n.device, Observation: mirror.Observation{
		Kind: mirror.Rule, Detector: "rtnetlink", Cause: cause,
		Subject: fmt.Sprintf("neighbour/%s/%s/%s", name, n.address, what),
		Detail:  fmt.Sprintf("%s on %s is %s", n.address, name, n.hardware),
	}}
}

func (s *space) neighbours(ctx context.Context, family, flags byte) (all []neighbour, err error) {
	body := make([]byte, unix.SizeofNdMsg)
	body[0], body[10] = family, flags
	err = s.route.Dump(ctx, unix.RTM_GETNEIGH, body, func(m netlink.Message) error {
		n, err := parseNeighbour(m)
		all = append(all, n)
		return err
	})
	return all, gone(err)
}

// forwarding looks at the tables of bridges and VXLAN devices.
func (s *space) forwarding(table []neighbour) (all []finding) {
	type entry struct {
		device          int32
		hardware, place string
	}
	remotes := map[entry][]netip.Addr{}
	first := map[entry]neighbour{}
	for _, n := range table {
		if n.address.IsValid() {
			e := entry{n.device, n.hardware.String(), n.place}
			remotes[e], first[e] = append(remotes[e], n.address), n
		} else if f, ok := s.pinned(n); ok {
			all = append(all, f)
		}
	}
	for _, e := range slices.SortedFunc(maps.Keys(remotes), func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.device, b.device), cmp.Compare(a.hardware, b.hardware), cmp.Compare(a.place, b.place))
	}) {
		if len(remotes[e]) > 1 {
			all = append(all, s.replicated(first[e], remotes[e]))
		}
	}
	return all
}

// replicated is an address for which a VXLAN device sends to several others.
// The kernel allows that for groups and for what is not known
// (drivers/net/vxlan/vxlan_core.c, vxlan_fdb_update_existing): so VXLAN floods
// where there is no multicast, and so it copies if it is kept from learning.
func (s *space) replicated(n neighbour, to []netip.Addr) finding {
	name := s.links.name(n.device)
	slices.SortFunc(to, netip.Addr.Compare)
	return finding{to: to[0], Observation: mirror.Observation{
		Kind: mirror.Device, Detector: "rtnetlink", Cause: "vxlan floods to several remotes", In: name,
		Subject: fmt.Sprintf("fdb/%s/%s/%s", name, n.hardware, n.place), Target: fmt.Sprint(to),
		Detail: fmt.Sprintf("frames to %s on %s go to %v", n.hardware, name, to),
	}}
}

// pinned is an address that a bridge was told to send to a port: it was not
// learned, and its owner cannot move it.
func (s *space) pinned(n neighbour) (finding, bool) {
	told := n.bridge && n.state&unix.NUD_NOARP != 0 && n.flags&unix.NTF_EXT_LEARNED == 0 && !n.group()
	if !told {
		return finding{}, false
	}
	name := s.links.name(n.device)
	return finding{device: n.device, Observation: mirror.Observation{
		Kind: mirror.Rule, Detector: "rtnetlink", Cause: "static layer 2 route", Target: name,
		Subject: fmt.Sprintf("fdb/%s/%s/%s", name, n.hardware, n.place),
		Detail:  fmt.Sprintf("frames to %s go to %s, whatever is learned", n.hardware, name),
	}}, true
}
