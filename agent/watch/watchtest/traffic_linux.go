package watchtest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Load is what the client sends to the server. The server answers everything.
type Load struct {
	UDP  int // datagrams a second and family
	TCP  int // messages of 600 bytes a second and family
	ICMP int // echo requests a second and family
	Open int // TCP connections a second and family
	Size int // bytes of a datagram; 0: 200
	Only int // 4 or 6; 0: both families
}

// Everyday is a load with a bit of everything.
var Everyday = Load{UDP: 300, TCP: 50, ICMP: 20, Open: 5}

// Traffic flows between client and server until it is stopped.
type Traffic struct {
	Sent, Answered atomic.Int64

	stop  context.CancelFunc
	wait  sync.WaitGroup
	close []io.Closer
}

// Traffic starts l between the lab's client and server.
func (l *Lab) Traffic(load Load) (*Traffic, error) {
	ctx, stop := context.WithCancel(context.Background())
	t := &Traffic{stop: stop}
	for _, pair := range []struct {
		family           int
		client, server   netip.Addr
		icmp             string
		request, partner uint8
	}{
		{4, l.ClientAddress, l.ServerAddress, "ip4:icmp", 8, 0},
		{6, l.ClientAddress6, l.ServerAddress6, "ip6:ipv6-icmp", 128, 129},
	} {
		if load.Only != 0 && load.Only != pair.family {
			continue
		}
		err := errors.Join(
			t.udp(ctx, l, pair.client, pair.server, load),
			t.tcp(ctx, l, pair.server, load),
			t.icmp(ctx, l, pair.icmp, pair.server, pair.request, load))
		if err != nil {
			t.Stop()
			return nil, fmt.Errorf("traffic: %w", err)
		}
	}
	return t, nil
}

// Stop ends the traffic.
func (t *Traffic) Stop() {
	t.stop()
	for _, c := range t.close {
		c.Close()
	}
	t.wait.Wait()
}

// port is the server's port for UDP and TCP.
const port = 7171

func (t *Traffic) udp(ctx context.Context, l *Lab, client, server netip.Addr, load Load) error {
	if load.UDP == 0 {
		return nil
	}
	at := net.UDPAddrFromAddrPort(netip.AddrPortFrom(server, port))
	var far, near *net.UDPConn
	err := l.Server.Do(func() (err error) { far, err = net.ListenUDP("udp", at); return })
	if err != nil {
		return err
	}
	t.close = append(t.close, far)
	t.goes(func() { echo(far) })
	if err := l.Client.Do(func() (err error) { near, err = net.DialUDP("udp", nil, at); return }); err != nil {
		return err
	}
	t.close = append(t.close, near)
	t.goes(func() { t.count(near) })
	size := load.Size
	if size == 0 {
		size = 200
	}
	message := make([]byte, size)
	t.goes(func() {
		paced(ctx, load.UDP, func(n uint64) {
			binary.BigEndian.PutUint64(message, n)
			if _, err := near.Write(message); err == nil {
				t.Sent.Add(1)
			}
		})
	})
	return nil
}

func (t *Traffic) tcp(ctx context.Context, l *Lab, server netip.Addr, load Load) error {
	if load.TCP == 0 && load.Open == 0 {
		return nil
	}
	at := netip.AddrPortFrom(server, port)
	var listener *net.TCPListener
	err := l.Server.Do(func() (err error) { listener, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at)); return })
	if err != nil {
		return err
	}
	t.close = append(t.close, listener)
	t.goes(func() { t.serve(ctx, listener) })
	if load.Open > 0 {
		t.goes(func() {
			paced(ctx, load.Open, func(uint64) {
				if conn, err := l.connect(at); err == nil {
					conn.Close()
				}
			})
		})
	}
	if load.TCP == 0 {
		return nil
	}
	near, err := l.connect(at)
	if err != nil {
		return err
	}
	t.close = append(t.close, near)
	t.goes(func() { t.count(near) })
	message := make([]byte, 600)
	t.goes(func() {
		paced(ctx, load.TCP, func(n uint64) {
			binary.BigEndian.PutUint64(message, n)
			near.SetWriteDeadline(time.Now().Add(5 * time.Second))
			if _, err := near.Write(message); err == nil {
				t.Sent.Add(1)
			}
		})
	})
	return nil
}

// connect opens a TCP connection from the client.
func (l *Lab) connect(to netip.AddrPort) (conn net.Conn, err error) {
	err = l.Client.Do(func() (err error) {
		conn, err = (&net.Dialer{Timeout: 3 * time.Second}).Dial("tcp", to.String())
		return
	})
	return
}

// serve sends back what comes by connections.
func (t *Traffic) serve(ctx context.Context, listener *net.TCPListener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		t.goes(func() {
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			io.Copy(conn, conn)
		})
	}
}

func (t *Traffic) icmp(ctx context.Context, l *Lab, network string, server netip.Addr, request uint8, load Load) error {
	if load.ICMP == 0 {
		return nil
	}
	var conn *net.IPConn
	err := l.Client.Do(func() (err error) {
		conn, err = net.DialIP(network, nil, &net.IPAddr{IP: server.AsSlice()})
		return
	})
	if err != nil {
		return err
	}
	t.close = append(t.close, conn)
	t.goes(func() { t.count(conn) })
	message := make([]byte, 64)
	message[0] = request
	binary.BigEndian.PutUint16(message[4:], 0x7171)
	t.goes(func() {
		paced(ctx, load.ICMP, func(n uint64) {
			binary.BigEndian.PutUint16(message[6:], uint16(n))
			binary.BigEndian.PutUint64(message[8:], n)
			message[2], message[3] = 0, 0
			if server.Is4() { // the kernel fills in the checksum of ICMPv6
				binary.BigEndian.PutUint16(message[2:], checksum(message))
			}
			if _, err := conn.Write(message); err == nil {
				t.Sent.Add(1)
			}
		})
	})
	return nil
}

func (t *Traffic) goes(f func()) {
	t.wait.Add(1)
	go func() { defer t.wait.Done(); f() }()
}

func (t *Traffic) count(from io.Reader) {
	buffer := make([]byte, 1<<16)
	for {
		_, err := from.Read(buffer)
		if errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) {
			return
		}
		if err == nil {
			t.Answered.Add(1)
		}
	}
}

func echo(conn *net.UDPConn) {
	buffer := make([]byte, 1<<16)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			conn.WriteToUDPAddrPort(buffer[:n], from)
		}
	}
}

// paced calls f rate times a second, in bursts of what a millisecond is due.
func paced(ctx context.Context, rate int, f func(n uint64)) {
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	begin := time.Now()
	for n := uint64(0); ; {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			due := uint64(now.Sub(begin).Seconds() * float64(rate))
			for ; n < due && ctx.Err() == nil; n++ {
				f(n)
			}
		}
	}
}

// checksum is the Internet checksum (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
