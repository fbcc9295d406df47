package watchtest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// tap is a packet socket on a device of the router.
type tap struct {
	fd  int
	out *unix.SockaddrLinklayer
}

// openTap opens a packet socket for all frames of device. Empty: of all.
func openTap(n *Namespace, device string) (*tap, error) {
	t := &tap{}
	address := &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL)}
	if device != "" {
		index, err := n.Index(device)
		if err != nil {
			return nil, err
		}
		address.Ifindex = index
	}
	err := n.Do(func() (err error) {
		if t.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL))); err != nil {
			return fmt.Errorf("packet socket: %w", err)
		}
		// A read that blocks for ever would not notice that the socket is closed.
		if err := unix.SetsockoptTimeval(t.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}); err != nil {
			return err
		}
		return unix.Bind(t.fd, address)
	})
	return t, err
}

// openPort opens a packet socket that sends by device and receives nothing.
// With bypass it goes round the device's queue, and so round tc.
func openPort(n *Namespace, device string, bypass bool) (*tap, error) {
	index, err := n.Index(device)
	if err != nil {
		return nil, err
	}
	t := &tap{out: &unix.SockaddrLinklayer{Ifindex: index}}
	err = n.Do(func() (err error) {
		if t.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return fmt.Errorf("packet socket: %w", err)
		}
		if !bypass {
			return nil
		}
		return unix.SetsockoptInt(t.fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1)
	})
	return t, err
}

// Write sends a frame by the port.
func (t *tap) Write(frame []byte) (int, error) {
	return len(frame), unix.Sendto(t.fd, frame, 0, t.out)
}

func (t *tap) Close() error { return unix.Close(t.fd) }

// pump reads frames that came in by the tap's device until stop is closed.
func (t *tap) pump(stop <-chan struct{}, take func(frame []byte)) {
	buffer := make([]byte, 1<<16)
	for {
		select {
		case <-stop:
			return
		default:
		}
		n, from, err := unix.Recvfrom(t.fd, buffer, 0)
		if err != nil {
			continue
		}
		if a, ok := from.(*unix.SockaddrLinklayer); ok && a.Pkttype != unix.PACKET_OUTGOING {
			take(buffer[:n])
		}
	}
}

// sniffer takes what comes in by r0 and writes what w makes of it to what
// sink opens. After delay, if that is not zero.
func sniffer(w wrap, sink func(*Lab) (io.WriteCloser, error), delay time.Duration) Start {
	return func(l *Lab) (func(), error) {
		out, err := sink(l)
		if err != nil {
			return nil, err
		}
		in, err := openTap(l.Router, R0)
		if err != nil {
			return nil, errors.Join(err, out.Close())
		}
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			in.pump(stop, func(frame []byte) {
				copied := w(append([]byte{}, frame...))
				if copied == nil {
					return
				}
				if delay > 0 {
					time.AfterFunc(delay, func() { out.Write(copied) })
					return
				}
				out.Write(copied)
			})
		}()
		return func() {
			close(stop)
			<-done
			time.Sleep(delay)
			in.Close()
			out.Close()
		}, nil
	}
}

// The ways out to the collector.

func overUDP(port int) func(*Lab) (io.WriteCloser, error) {
	return func(l *Lab) (io.WriteCloser, error) {
		return dial(l, &net.UDPAddr{IP: l.CollectorAddress.AsSlice(), Port: port})
	}
}

func overUDP6(port int) func(*Lab) (io.WriteCloser, error) {
	return func(l *Lab) (io.WriteCloser, error) {
		return dial(l, &net.UDPAddr{IP: l.CollectorAddress6.AsSlice(), Port: port})
	}
}

func dial(l *Lab, to *net.UDPAddr) (conn *net.UDPConn, err error) {
	err = l.Router.Do(func() (err error) { conn, err = net.DialUDP("udp", nil, to); return })
	return
}

func overIP(protocol int) func(*Lab) (io.WriteCloser, error) {
	return func(l *Lab) (io.WriteCloser, error) {
		return dialIP(l, fmt.Sprintf("ip4:%d", protocol), &net.IPAddr{IP: l.CollectorAddress.AsSlice()})
	}
}

func overIP6(protocol int) func(*Lab) (io.WriteCloser, error) {
	return func(l *Lab) (io.WriteCloser, error) {
		return dialIP(l, fmt.Sprintf("ip6:%d", protocol), &net.IPAddr{IP: l.CollectorAddress6.AsSlice()})
	}
}

func dialIP(l *Lab, network string, to *net.IPAddr) (conn *net.IPConn, err error) {
	err = l.Router.Do(func() (err error) { conn, err = net.DialIP(network, nil, to); return })
	return
}

// overTCP connects to the collector, which reads and forgets.
func overTCP(l *Lab) (io.WriteCloser, error) {
	at := &net.TCPAddr{IP: l.CollectorAddress.AsSlice(), Port: 7172}
	var listener *net.TCPListener
	err := l.Collector.Do(func() (err error) { listener, err = net.ListenTCP("tcp", at); return })
	if err != nil {
		return nil, err
	}
	go func() {
		defer listener.Close()
		if conn, err := listener.Accept(); err == nil {
			io.Copy(io.Discard, conn)
			conn.Close()
		}
	}()
	var conn *net.TCPConn
	err = l.Router.Do(func() (err error) { conn, err = net.DialTCP("tcp", nil, at); return })
	return conn, err
}

func overPort(bypass bool) func(*Lab) (io.WriteCloser, error) {
	return func(l *Lab) (io.WriteCloser, error) { return openPort(l.Router, R2, bypass) }
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }
