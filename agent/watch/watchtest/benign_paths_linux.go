package watchtest

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// overVXLAN routes between the client and a host behind a tunnel to the
// collector.
func overVXLAN(l *Lab) error {
	err := errors.Join(
		l.Router.Lines(l.fill(vxlanDevice)+"ip addr add 10.71.8.1/24 dev vx0"),
		l.Collector.Lines(`ip link add vx0 up type vxlan id 71 remote 10.71.2.1 dstport 4789
			ip addr add 10.71.8.2/24 dev vx0
			ip route add 10.71.0.0/24 via 10.71.8.1`))
	if err != nil {
		return err
	}
	behind := *l
	behind.Server, behind.ServerAddress = l.Collector, netip.MustParseAddr("10.71.8.2")
	return carry(Load{UDP: 300, TCP: 50, ICMP: 20, Open: 5, Only: 4})(&behind)
}

// transit carries tunnels that customers have made themselves, with packets
// inside that the router also carries in the open.
func transit(l *Lab) error {
	out, err := openPort(l.Client, "eth0", false)
	if err != nil {
		return err
	}
	defer out.Close()
	ctx, stop := context.WithTimeout(context.Background(), window)
	defer stop()
	from, to := netip.AddrPortFrom(l.ClientAddress, 4789), netip.AddrPortFrom(l.ServerAddress, 4789)
	paced(ctx, 300, func(n uint64) {
		inner := datagram(portMAC(0), clientMAC, from, netip.AddrPortFrom(l.ServerAddress, 9), uint16(n), binary.BigEndian.AppendUint64(make([]byte, 100), n))
		out.Write(inner)
		out.Write(datagram(portMAC(0), clientMAC, from, to, uint16(n), inVXLAN(inner)))
	})
	return nil
}

// equalPaths spreads what goes to one prefix over two ports.
func equalPaths(l *Lab) error {
	err := errors.Join(
		l.Router.Set("ipv4.fib_multipath_hash_policy", "1"),
		l.Router.Lines(`ip route add 10.72.0.0/24 nexthop via 10.71.1.2 nexthop via 10.71.2.2
			ip -6 route add fd72::/64 nexthop via fd71:0:0:1::2 nexthop via fd71:0:0:2::2`),
		l.Server.Lines("ip route add local 10.72.0.0/24 dev lo"),
		l.Collector.Lines("ip route add local 10.72.0.0/24 dev lo"))
	if err != nil {
		return err
	}
	var conns []*net.UDPConn
	err = l.Client.Do(func() error {
		for i := range 64 {
			for _, to := range []string{"10.72.0.7", "fd72::7"} {
				conn, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: net.ParseIP(to), Port: 7000 + i})
				if err != nil {
					return err
				}
				conns = append(conns, conn)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(context.Background(), window)
	defer stop()
	paced(ctx, 1000, func(n uint64) { conns[n%uint64(len(conns))].Write(binary.BigEndian.AppendUint64(make([]byte, 50), n)) })
	for _, c := range conns {
		c.Close()
	}
	return nil
}

// traceroute makes the router answer with errors that quote what it received.
func traceroute(l *Lab) error {
	out, err := openPort(l.Client, "eth0", false)
	if err != nil {
		return err
	}
	defer out.Close()
	err = l.Router.Lines("ip route add prohibit 10.73.0.0/24\nip route add unreachable 10.74.0.0/24")
	if err != nil {
		return err
	}
	l.Router.Set("ipv4.icmp_ratelimit", "0")
	ctx, stop := context.WithTimeout(context.Background(), window)
	defer stop()
	targets := []netip.Addr{l.ServerAddress, netip.MustParseAddr("10.73.0.1"), netip.MustParseAddr("10.74.0.1"), netip.MustParseAddr("10.71.0.1")}
	paced(ctx, 300, func(n uint64) {
		frame := datagram(portMAC(0), clientMAC, netip.AddrPortFrom(l.ClientAddress, 9), netip.AddrPortFrom(targets[n%4], 33434), uint16(n), binary.BigEndian.AppendUint64(make([]byte, 50), n))
		ip := frame[macLength:]
		ip[8] = byte(1 + n/4%3) // hops
		ip[10], ip[11] = 0, 0
		binary.BigEndian.PutUint16(ip[10:], checksum(ip[:20]))
		out.Write(frame)
	})
	return nil
}

// redirects makes the router forward packets and quote them to the sender at
// the same time: it should have sent them to a neighbour.
func redirects(l *Lab) error {
	err := errors.Join(
		l.Router.Lines("ip route add 10.75.0.0/24 via 10.71.0.9\nip neigh add 10.71.0.9 lladdr 02:71:00:00:00:09 dev r0"),
		l.Router.Set("ipv4.conf.r0.send_redirects", "1"),
		l.Router.Set("ipv4.conf.all.send_redirects", "1"))
	if err != nil {
		return err
	}
	return l.sendTo(netip.MustParseAddr("10.75.0.1"), 300)
}

// dhcp keeps a packet socket open that receives answers to a DHCP client alone
// (RFC 2131: UDP port 68), as DHCP clients do.
func dhcp(l *Lab) error {
	in, err := openTap(l.Router, R0)
	if err != nil {
		return err
	}
	defer in.Close()
	filter, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 12, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: etherIPv4, SkipTrue: 8},
		bpf.LoadAbsolute{Off: 23, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: protoUDP, SkipTrue: 6},
		bpf.LoadAbsolute{Off: 20, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x1fff, SkipTrue: 4},
		bpf.LoadMemShift{Off: 14},
		bpf.LoadIndirect{Off: 16, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 68, SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 16},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return err
	}
	code := make([]unix.SockFilter, len(filter))
	for i, f := range filter {
		code[i] = unix.SockFilter{Code: f.Op, Jt: f.Jt, Jf: f.Jf, K: f.K}
	}
	if err := unix.SetsockoptSockFprog(in.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}); err != nil {
		return err
	}
	time.Sleep(window)
	return nil
}
