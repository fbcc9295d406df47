package probe

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror/probe/netlink"
)

const linkWithin = 2 * time.Second // for an answer of the kernel

// linkInfo is what must be known of a device to read its packets.
type linkInfo struct {
	index    uint32
	name     string
	hardware uint16 // ARPHRD_ of linux/if_arp.h
	master   uint32
	bridged  bool // the master is a bridge
}

// bare tells whether frames of the device begin with the network header
// (linux/if_arp.h: PPP, RAWIP, TUNNEL, TUNNEL6, SIT, IPGRE, NONE).
func (d linkInfo) bare() bool {
	switch d.hardware {
	case unix.ARPHRD_PPP, unix.ARPHRD_RAWIP, unix.ARPHRD_TUNNEL, unix.ARPHRD_TUNNEL6, unix.ARPHRD_SIT, unix.ARPHRD_IPGRE, unix.ARPHRD_NONE:
		return true
	}
	return false
}

func parseLink(m netlink.Message) (linkInfo, error) {
	rest, err := m.Rest(unix.SizeofIfInfomsg)
	if err != nil {
		return linkInfo{}, err
	}
	d := linkInfo{hardware: binary.NativeEndian.Uint16(m.Body[2:]), index: binary.NativeEndian.Uint32(m.Body[4:])}
	for a, err := range netlink.Attributes(rest) {
		if err != nil {
			return linkInfo{}, err
		}
		switch a.Type {
		case unix.IFLA_IFNAME:
			d.name = a.String()
		case unix.IFLA_MASTER:
			d.master = a.Uint32()
		case unix.IFLA_LINKINFO:
			if d.bridged, err = inBridge(a.Data); err != nil {
				return linkInfo{}, err
			}
		}
	}
	return d, nil
}

func inBridge(b []byte) (bool, error) {
	for a, err := range netlink.Attributes(b) {
		if err != nil {
			return false, err
		}
		if a.Type == unix.IFLA_INFO_SLAVE_KIND {
			return a.String() == "bridge", nil
		}
	}
	return false, nil
}

func linkRequest(index uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], index)
	return b
}

func oneLink(ctx context.Context, c *netlink.Conn, index uint32) (linkInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, linkWithin)
	defer cancel()
	answers, err := c.Request(ctx, unix.RTM_GETLINK, 0, linkRequest(index))
	if err != nil {
		return linkInfo{}, err
	}
	for _, m := range answers {
		if m.Type == unix.RTM_NEWLINK {
			return parseLink(m)
		}
	}
	return linkInfo{}, errors.New("no answer")
}

func allLinks(ctx context.Context, c *netlink.Conn) ([]linkInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, linkWithin)
	defer cancel()
	var all []linkInfo
	err := c.Dump(ctx, unix.RTM_GETLINK, linkRequest(0), func(m netlink.Message) error {
		d, err := parseLink(m)
		if err == nil {
			all = append(all, d)
		}
		return err
	})
	if errors.Is(err, netlink.ErrChanged) {
		err = nil // the next look tells more
	}
	return all, err
}
