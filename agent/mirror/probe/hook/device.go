package hook

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror/probe/netlink"
)

// device is a network device of the watched namespace, as RTM_NEWLINK and
// RTM_DELLINK tell it.
type device struct {
	index    uint32
	name     string
	kind     string // of IFLA_LINKINFO: "bridge", "veth", …; empty: a driver of hardware, or loopback
	parent   string // the device of a bus that it is, since 5.14
	hardware uint16 // ARPHRD_ of linux/if_arp.h
	lower    uint32 // the device that it stands on; 0: none, or in another namespace
	qdisc    string // at the root of its egress; "noqueue" holds nothing back
	moved    bool   // of RTM_DELLINK: it went to another namespace
	space    int32  // what this namespace calls that one; -1: not told
	xdp      xdp
	counters nic
}

// nic are the counters of the device itself (struct rtnl_link_stats64).
type nic struct {
	known           bool
	received, sent  uint64 // packets
	lostIn, lostOut uint64 // dropped or in error, in packets
}

// xdp is the program in front of everything (IFLA_XDP).
type xdp struct {
	mode    uint8 // XDP_ATTACHED_ of linux/if_link.h; 0: none
	program uint32
}

// Attributes and values of linux/if_link.h and linux/rtnetlink.h.
const (
	xdpMulti      = 4      // XDP_ATTACHED_MULTI: one of each mode
	skipStats     = 1 << 3 // RTEXT_FILTER_SKIP_STATS
	offsetOfDrops = 4 * 8  // rx_errors in struct rtnl_link_stats64
)

// modes are the words of XDP_ATTACHED_.
var modes = []string{"", "driver", "generic", "offloaded", "several"}

// parseDevice reads the body of RTM_NEWLINK or RTM_DELLINK.
func parseDevice(m netlink.Message) (device, error) {
	rest, err := m.Rest(unix.SizeofIfInfomsg)
	if err != nil {
		return device{}, err
	}
	d := device{
		space:    -1,
		hardware: binary.NativeEndian.Uint16(m.Body[2:]),
		index:    binary.NativeEndian.Uint32(m.Body[4:]),
	}
	for a, err := range netlink.Attributes(rest) {
		if err != nil {
			return device{}, err
		}
		if err := d.read(a); err != nil {
			return device{}, err
		}
	}
	if d.index == 0 {
		return device{}, fmt.Errorf("%w: a device without an index", netlink.ErrMalformed)
	}
	return d, nil
}

func (d *device) read(a netlink.Attr) (err error) {
	switch a.Type {
	case unix.IFLA_IFNAME:
		d.name = a.String()
	case unix.IFLA_LINK:
		d.lower = a.Uint32()
	case unix.IFLA_LINK_NETNSID:
		d.lower = 0 // the index is that of another namespace
	case unix.IFLA_QDISC:
		d.qdisc = a.String()
	case unix.IFLA_PARENT_DEV_NAME:
		d.parent = a.String()
	case unix.IFLA_NEW_NETNSID:
		d.moved, d.space = true, int32(a.Uint32())
	case unix.IFLA_NEW_IFINDEX:
		d.moved = true
	case unix.IFLA_STATS64:
		d.counters = parseNIC(a.Data)
	case unix.IFLA_LINKINFO:
		d.kind, err = kindOf(a.Data)
	case unix.IFLA_XDP:
		d.xdp, err = parseXDP(a.Data)
	}
	return err
}

func kindOf(b []byte) (string, error) {
	for a, err := range netlink.Attributes(b) {
		if err != nil {
			return "", err
		}
		if a.Type == unix.IFLA_INFO_KIND {
			return a.String(), nil
		}
	}
	return "", nil
}

func parseXDP(b []byte) (xdp, error) {
	var x xdp
	for a, err := range netlink.Attributes(b) {
		if err != nil {
			return xdp{}, err
		}
		switch a.Type {
		case unix.IFLA_XDP_ATTACHED:
			x.mode = min(a.Uint8(), xdpMulti)
		case unix.IFLA_XDP_PROG_ID, unix.IFLA_XDP_DRV_PROG_ID, unix.IFLA_XDP_SKB_PROG_ID, unix.IFLA_XDP_HW_PROG_ID:
			if x.program == 0 {
				x.program = a.Uint32()
			}
		}
	}
	return x, nil
}

func parseNIC(b []byte) nic {
	if len(b) < offsetOfDrops+4*8 {
		return nic{}
	}
	at := func(i int) uint64 { return binary.NativeEndian.Uint64(b[i*8:]) }
	return nic{known: true, received: at(0), sent: at(1), lostIn: at(4) + at(6), lostOut: at(5) + at(7)}
}

// physical tells whether a device is a port of the machine: hardware, or one of
// the ports of a switch chip (DSA). veth, bridges, VLANs, bonds, tunnels and
// loopback have a kind, or no bus; before 5.14 the kernel does not tell the bus.
func (d device) physical() bool {
	if d.hardware == unix.ARPHRD_LOOPBACK {
		return false
	}
	return d.kind == "dsa" || d.kind == "" && (d.parent != "" || d.hardware == unix.ARPHRD_ETHER)
}

// devices lists the namespace. A list that changed while it was read is read
// once more; what changes then also comes as a notification.
func devices(ctx context.Context, c *netlink.Conn) (map[uint32]device, error) {
	body := netlink.AppendUint32(make([]byte, unix.SizeofIfInfomsg), unix.IFLA_EXT_MASK, skipStats)
	var err error
	for range 3 {
		found := map[uint32]device{}
		err = c.Dump(ctx, unix.RTM_GETLINK, body, func(m netlink.Message) error {
			d, err := parseDevice(m)
			found[d.index] = d
			return err
		})
		if err == nil || errors.Is(err, netlink.ErrChanged) && len(found) > 0 {
			return found, nil
		}
		if !errors.Is(err, netlink.ErrChanged) {
			break
		}
	}
	return nil, fmt.Errorf("list network devices: %w", err)
}

// deviceNow asks for one device with its counters.
func deviceNow(ctx context.Context, c *netlink.Conn, index uint32) (device, error) {
	body := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(body[4:], index)
	answers, err := c.Request(ctx, unix.RTM_GETLINK, 0, body)
	if err != nil {
		return device{}, err
	}
	if len(answers) != 1 {
		return device{}, fmt.Errorf("%w: %d answers for one device", netlink.ErrMalformed, len(answers))
	}
	return parseDevice(answers[0])
}
