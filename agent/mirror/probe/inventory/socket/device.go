package socket

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror/probe/netlink"
)

// Device is what a socket may be bound to.
type Device struct {
	Name string
	Type uint16 // ARPHRD_…, include/uapi/linux/if_arp.h
}

// Framed tells whether what a raw socket gets of the device begins with an
// Ethernet header.
func (d Device) Framed() bool { return d.Type == unix.ARPHRD_ETHER || d.Type == unix.ARPHRD_LOOPBACK }

// DeviceAt is the device with an index.
func DeviceAt(ctx context.Context, index int) (Device, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return Device{}, err
	}
	defer conn.Close()
	header := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(header[4:], uint32(index))
	answers, err := conn.Request(ctx, unix.RTM_GETLINK, 0, header)
	if err != nil {
		return Device{}, fmt.Errorf("device %d: %w", index, err)
	}
	for _, m := range answers {
		if m.Type == unix.RTM_NEWLINK {
			return parseDevice(m)
		}
	}
	return Device{}, fmt.Errorf("device %d: %w", index, unix.ENODEV)
}

func parseDevice(m netlink.Message) (Device, error) {
	rest, err := m.Rest(unix.SizeofIfInfomsg)
	if err != nil {
		return Device{}, err
	}
	d := Device{Type: binary.NativeEndian.Uint16(m.Body[2:])}
	for a, err := range netlink.Attributes(rest) {
		if err != nil {
			return Device{}, err
		}
		if a.Type == unix.IFLA_IFNAME {
			d.Name = a.String()
		}
	}
	return d, nil
}

// InodeOfNetlink is the inode of the netlink socket of a protocol with a port;
// 0: there is none (/proc/net/netlink: "sk Eth Pid Groups Rmem Wmem Dump Locks
// Drops Inode").
func InodeOfNetlink(protocol int, port uint32) (uint64, error) {
	inode := uint64(0)
	err := read("netlink", 1, func(fields []string) (bool, error) {
		if len(fields) < 10 || fields[1] != strconv.Itoa(protocol) {
			return true, nil
		}
		if n, err := strconv.ParseInt(strings.TrimSpace(fields[2]), 10, 64); err != nil || uint32(n) != port {
			return true, nil
		}
		n, err := strconv.ParseUint(fields[9], 10, 64)
		inode = n
		return false, err
	})
	return inode, err
}
