package config

import (
	"encoding/binary"
	"fmt"
	"net"
	"sync"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror/probe/netlink"
)

// link is a network device, as far as it matters here.
type link struct {
	index       int32
	name        string
	kind        string // of rtnetlink: "vxlan", "bridge"; empty: hardware, or a driver without one
	flags       uint32 // IFF_*
	promiscuous uint32 // how many want it to be (IFLA_PROMISCUITY); 0 also where the kernel does not say
	allmulti    uint32 // how many want all multicast
	master      int32
	lower       int32 // the device below (IFLA_LINK), in namespace peer
	peer        bool  // lower is in another namespace
	port        string
	xdp         []uint32 // ids of programs
	hardware    string   // address
	data        map[uint16]netlink.Attr
	slave       map[uint16]netlink.Attr
}

// parseLink reads RTM_NEWLINK and RTM_DELLINK (rtnetlink(7), struct ifinfomsg).
func parseLink(m netlink.Message) (link, error) {
	rest, err := m.Rest(unix.SizeofIfInfomsg)
	if err != nil {
		return link{}, err
	}
	l := link{index: int32(binary.NativeEndian.Uint32(m.Body[4:])), flags: binary.NativeEndian.Uint32(m.Body[8:])}
	for a, err := range netlink.Attributes(rest) {
		if err != nil {
			return link{}, fmt.Errorf("device %d: %w", l.index, err)
		}
		switch a.Type {
		case unix.IFLA_IFNAME:
			l.name = a.String()
		case unix.IFLA_ADDRESS:
			l.hardware = net.HardwareAddr(a.Data).String()
		case unix.IFLA_MASTER:
			l.master = int32(a.Uint32())
		case unix.IFLA_LINK:
			l.lower = int32(a.Uint32())
		case unix.IFLA_LINK_NETNSID:
			l.peer = true
		case unix.IFLA_PROMISCUITY:
			l.promiscuous = a.Uint32()
		case unix.IFLA_ALLMULTI:
			l.allmulti = a.Uint32()
		case unix.IFLA_XDP:
			err = l.readXDP(a.Data)
		case unix.IFLA_LINKINFO:
			err = l.readInfo(a.Data)
		}
		if err != nil {
			return link{}, fmt.Errorf("device %s: %w", l.name, err)
		}
	}
	return l, nil
}

func (l *link) readInfo(b []byte) (err error) {
	info, err := attributes(b)
	if err != nil {
		return err
	}
	l.kind, l.port = info[unix.IFLA_INFO_KIND].String(), info[unix.IFLA_INFO_SLAVE_KIND].String()
	if l.data, err = attributes(info[unix.IFLA_INFO_DATA].Data); err != nil {
		return err
	}
	l.slave, err = attributes(info[unix.IFLA_INFO_SLAVE_DATA].Data)
	return err
}

func (l *link) readXDP(b []byte) error {
	for a, err := range netlink.Attributes(b) {
		if err != nil {
			return err
		}
		switch a.Type {
		case unix.IFLA_XDP_PROG_ID, unix.IFLA_XDP_DRV_PROG_ID, unix.IFLA_XDP_SKB_PROG_ID, unix.IFLA_XDP_HW_PROG_ID:
			if id := a.Uint32(); id != 0 {
				l.xdp = append(l.xdp, id)
			}
		}
	}
	return nil
}

// attributes reads a list in which each type stands once. The last one counts.
// What it returns is a copy.
func attributes(b []byte) (map[uint16]netlink.Attr, error) {
	if len(b) == 0 {
		return nil, nil
	}
	all := map[uint16]netlink.Attr{}
	for a, err := range netlink.Attributes(append([]byte(nil), b...)) {
		if err != nil {
			return nil, err
		}
		all[a.Type] = a
	}
	return all, nil
}

// linkTable is the devices of a namespace by index.
type linkTable struct {
	mu    sync.RWMutex
	links map[int32]link
}

func (t *linkTable) get(index int32) (link, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	l, ok := t.links[index]
	return l, ok
}

// name of a device; one that is not known yet, or no longer, by its number.
func (t *linkTable) name(index int32) string {
	if l, ok := t.get(index); ok {
		return l.name
	}
	return fmt.Sprintf("device %d", index)
}

func (t *linkTable) set(l link) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.links == nil {
		t.links = map[int32]link{}
	}
	t.links[l.index] = l
}

func (t *linkTable) replace(all map[int32]link) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.links = all
}

func (t *linkTable) all() map[int32]link {
	t.mu.RLock()
	defer t.mu.RUnlock()
	all := make(map[int32]link, len(t.links))
	for index, l := range t.links {
		all[index] = l
	}
	return all
}
