package config

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe/netlink"
)

const sizeofGenl = 4 // struct genlmsghdr: command, version, reserved

// wireguard asks for the peers of WireGuard devices, whose changes the kernel
// does not announce.
type wireguard struct {
	conn   *netlink.Conn
	family uint16 // number of the generic netlink family; 0: not asked yet
}

// readWireGuard lists the peers of all WireGuard devices. Where there is no
// device it asks nothing, for asking loads the module.
func (s *space) readWireGuard(ctx context.Context) (all []finding, err error) {
	for _, l := range s.links.all() {
		if l.kind != "wireguard" {
			continue
		}
		if s.wg.family == 0 {
			if s.wg.family, err = s.wg.ask(ctx); err != nil {
				return nil, fmt.Errorf("wireguard: %w", err)
			}
		}
		found, err := s.wg.peers(ctx, l.name)
		if err != nil {
			return nil, fmt.Errorf("peers of %s: %w", l.name, err)
		}
		all = append(all, found...)
	}
	return all, nil
}

// ask finds the number of the family "wireguard" (CTRL_CMD_GETFAMILY).
func (w *wireguard) ask(ctx context.Context) (uint16, error) {
	body := netlink.AppendString([]byte{unix.CTRL_CMD_GETFAMILY, 1, 0, 0}, unix.CTRL_ATTR_FAMILY_NAME, unix.WG_GENL_NAME)
	answers, err := w.conn.Request(ctx, unix.GENL_ID_CTRL, 0, body)
	if err != nil {
		return 0, err
	}
	for _, m := range answers {
		rest, err := m.Rest(sizeofGenl)
		if err != nil {
			return 0, err
		}
		a, err := attributes(rest)
		if err != nil {
			return 0, err
		}
		if id := a[unix.CTRL_ATTR_FAMILY_ID].Uint16(); id != 0 {
			return id, nil
		}
	}
	return 0, errors.New("generic netlink does not know it")
}

func (w *wireguard) peers(ctx context.Context, device string) (all []finding, err error) {
	body := netlink.AppendString([]byte{unix.WG_CMD_GET_DEVICE, 1, 0, 0}, unix.WGDEVICE_A_IFNAME, device)
	seen := map[string]bool{} // a peer with many prefixes comes in several messages
	err = w.conn.Dump(ctx, w.family, body, func(m netlink.Message) error {
		found, err := peerFindings(m, device)
		for _, f := range found {
			if !seen[f.Subject] {
				seen[f.Subject] = true
				all = append(all, f)
			}
		}
		return err
	})
	return all, gone(err)
}

// peerFindings reads the answer to WG_CMD_GET_DEVICE (include/uapi/linux/wireguard.h).
func peerFindings(m netlink.Message, device string) (all []finding, err error) {
	rest, err := m.Rest(sizeofGenl)
	if err != nil {
		return nil, err
	}
	a, err := attributes(rest)
	if err != nil {
		return nil, err
	}
	for p, err := range netlink.Attributes(a[unix.WGDEVICE_A_PEERS].Data) {
		if err != nil {
			return nil, err
		}
		peer, err := attributes(p.Data)
		if err != nil {
			return nil, err
		}
		key := base64.StdEncoding.EncodeToString(peer[unix.WGPEER_A_PUBLIC_KEY].Data)
		f := finding{Observation: mirror.Observation{
			Kind: mirror.Device, Detector: "wireguard", Cause: "new WireGuard peer", In: device,
			Subject: "wireguard/" + device + "/" + key, Detail: "public key " + key,
		}}
		if end := endpoint(peer[unix.WGPEER_A_ENDPOINT].Data); end.IsValid() {
			f.Target, f.to = end.Addr().String(), end.Addr()
			f.Detail += " at " + end.String()
		}
		all = append(all, f)
	}
	return all, nil
}

// endpoint reads struct sockaddr_in or sockaddr_in6.
func endpoint(b []byte) netip.AddrPort {
	if len(b) < unix.SizeofSockaddrInet4 {
		return netip.AddrPort{}
	}
	port := binary.BigEndian.Uint16(b[2:])
	switch family := binary.NativeEndian.Uint16(b); {
	case family == unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port)
	case family == unix.AF_INET6 && len(b) >= 24:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])), port)
	}
	return netip.AddrPort{}
}
