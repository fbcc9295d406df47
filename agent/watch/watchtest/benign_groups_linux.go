package watchtest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Multicast routing of IPv4 (linux/mroute.h).
const (
	mrtInit   = 200
	mrtAddVIF = 202
	mrtAddMFC = 204
	byIndex   = 8 // VIFF_USE_IFINDEX
)

// multicastRouting carries a group of the client to server and collector.
func multicastRouting(l *Lab) error {
	group := netip.MustParseAddr("239.71.0.1")
	fd, err := l.multicastRouter(group)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return l.sendTo(group, 300)
}

// multicastRouter opens the socket of a multicast router with one route.
func (l *Lab) multicastRouter(group netip.Addr) (fd int, err error) {
	err = l.Router.Do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_IGMP); err != nil {
			return err
		}
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, mrtInit, 1)
	})
	if err != nil {
		return 0, fmt.Errorf("multicast routing: %w", err)
	}
	route := append(l.ClientAddress.AsSlice(), group.AsSlice()...) // struct mfcctl
	route = binary.NativeEndian.AppendUint16(route, 0)
	route = append(route, make([]byte, 60-len(route))...)
	for i, port := range []string{R0, R1, R2} {
		index, err := l.Router.Index(port)
		if err != nil {
			return fd, err
		}
		vif := binary.NativeEndian.AppendUint16(nil, uint16(i)) // struct vifctl
		vif = append(vif, byIndex, 1, 0, 0, 0, 0)
		vif = binary.NativeEndian.AppendUint32(vif, uint32(index))
		vif = append(vif, 0, 0, 0, 0)
		if err := unix.SetsockoptString(fd, unix.IPPROTO_IP, mrtAddVIF, string(vif)); err != nil {
			return fd, fmt.Errorf("multicast port %s: %w", port, err)
		}
		if i > 0 {
			route[10+i] = 1 // from this TTL on
		}
	}
	if err := unix.SetsockoptString(fd, unix.IPPROTO_IP, mrtAddMFC, string(route)); err != nil {
		return fd, fmt.Errorf("multicast route: %w", err)
	}
	return fd, nil
}

// sendTo sends datagrams of the client to an address for the window.
func (l *Lab) sendTo(to netip.Addr, rate int) error {
	var conn *net.UDPConn
	err := l.Client.Do(func() (err error) {
		conn, err = net.ListenUDP("udp", &net.UDPAddr{IP: l.ClientAddress.AsSlice()})
		if err != nil {
			return err
		}
		raw, err := conn.SyscallConn()
		if err != nil {
			return err
		}
		var failed error
		err = raw.Control(func(fd uintptr) {
			failed = errors.Join(
				unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, 9),
				unix.SetsockoptInet4Addr(int(fd), unix.IPPROTO_IP, unix.IP_MULTICAST_IF, l.ClientAddress.As4()),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1))
		})
		return errors.Join(err, failed)
	})
	if err != nil {
		return fmt.Errorf("send to %s: %w", to, err)
	}
	defer conn.Close()
	ctx, stop := context.WithTimeout(context.Background(), window)
	defer stop()
	at := net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, port))
	paced(ctx, rate, func(n uint64) { conn.WriteToUDP(binary.BigEndian.AppendUint64(make([]byte, 100), n), at) })
	return nil
}

// groups sends to all stations, by their IP addresses and by one of a host.
func groups(l *Lab) error {
	for _, to := range []string{"10.71.0.255", "255.255.255.255", "224.0.0.251"} {
		if err := l.sendTo(netip.MustParseAddr(to), 200); err != nil {
			return err
		}
	}
	out, err := openPort(l.Client, "eth0", false)
	if err != nil {
		return err
	}
	defer out.Close()
	all := [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	for i := range 200 {
		out.Write(datagram(all, clientMAC, netip.AddrPortFrom(l.ClientAddress, 9), netip.AddrPortFrom(l.ServerAddress, 9), uint16(i), make([]byte, 102)))
		time.Sleep(time.Millisecond)
	}
	return nil
}

// hellos sends what VRRP and OSPF routers send: the same on every port.
func hellos(l *Lab) error {
	for _, h := range []struct {
		network string
		to      string
	}{{"ip4:112", "224.0.0.18"}, {"ip4:89", "224.0.0.5"}, {"ip6:89", "ff02::5"}} {
		for range 20 {
			for _, port := range []string{R0, R1, R2} {
				if err := l.hello(h.network, h.to, port); err != nil {
					return err
				}
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	return nil
}

func (l *Lab) hello(network, to, port string) error {
	return l.Router.Do(func() error {
		conn, err := net.ListenPacket(network, "")
		if err != nil {
			return err
		}
		defer conn.Close()
		raw, err := conn.(*net.IPConn).SyscallConn()
		if err != nil {
			return err
		}
		err = raw.Control(func(fd uintptr) { unix.SetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE, port) })
		if err != nil {
			return err
		}
		address := &net.IPAddr{IP: net.ParseIP(to)}
		if network[2] == '6' {
			address.Zone = port
		}
		_, err = conn.WriteTo([]byte("\x21\x01\x64\x01\x00\x01\x00\x00the same hello on each port"), address)
		return err
	})
}

// unknownUnicast sends to a station that the bridge does not know.
func unknownUnicast(l *Lab) error {
	out, err := openPort(l.Client, "eth0", false)
	if err != nil {
		return err
	}
	defer out.Close()
	ctx, stop := context.WithTimeout(context.Background(), window)
	defer stop()
	nobody := [6]byte{0x02, 0x71, 0, 0, 0x55, 0x55}
	paced(ctx, 300, func(n uint64) {
		out.Write(datagram(nobody, clientMAC, netip.AddrPortFrom(l.ClientAddress, 9), netip.MustParseAddrPort("10.71.0.77:9"), uint16(n), binary.BigEndian.AppendUint64(make([]byte, 100), n)))
	})
	return nil
}

// moves lets a station talk at one port and then at another.
func moves(l *Lab) error {
	mover := [6]byte{0x02, 0x71, 0, 0, 0x66, 0x66}
	from := netip.MustParseAddr("10.71.0.66")
	for _, n := range []*Namespace{l.Client, l.Collector, l.Client} {
		out, err := openPort(n, "eth0", false)
		if err != nil {
			return err
		}
		for i := range 50 {
			out.Write(datagram(portMAC(9), mover, netip.AddrPortFrom(from, 9), netip.MustParseAddrPort("10.71.0.1:9"), uint16(i), make([]byte, 100)))
			time.Sleep(time.Millisecond)
		}
		out.Close()
	}
	return carry(Everyday)(l)
}
