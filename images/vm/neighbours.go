package vm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Neighbours are the hosts around a router, at the ends of its cables: a client
// at eth1 that sends to a server at eth2, and a collector at eth3 that nobody
// sends to. Host n is 10.66.n.2, and its router 10.66.n.1. They say no more than
// a wire shows them, so they can tell what no router can lie about: who got what.
type Neighbours struct {
	cables []*Cable
	routed atomic.Bool // the router has answered the client
	sent   atomic.Uint64
	got    [len(hosts)]atomic.Uint64
}

// Places of the hosts.
const (
	client = iota
	server
	collector
)

var hosts = [...]struct{ mac, ip []byte }{
	{[]byte{2, 0, 0, 0, 1, 2}, []byte{10, 66, 1, 2}},
	{[]byte{2, 0, 0, 0, 2, 2}, []byte{10, 66, 2, 2}},
	{[]byte{2, 0, 0, 0, 3, 2}, []byte{10, 66, 3, 2}},
}

// NewNeighbours returns the hosts around a router with three ports.
func NewNeighbours(v *VM) (*Neighbours, error) {
	if len(v.Cables) != len(hosts) {
		return nil, fmt.Errorf("%d ports: neighbours need %d", len(v.Cables), len(hosts))
	}
	return &Neighbours{cables: v.Cables}, nil
}

// Traffic is what the neighbours have seen, in packets of the client.
type Traffic struct {
	Sent      uint64 // by the client
	Delivered uint64 // to the server
	Copied    uint64 // to the collector, bare or inside other packets
}

func (t Traffic) String() string {
	return fmt.Sprintf("client sent %d, server got %d, collector got %d", t.Sent, t.Delivered, t.Copied)
}

// Traffic returns what has been seen so far.
func (n *Neighbours) Traffic() Traffic {
	return Traffic{n.sent.Load(), n.got[server].Load(), n.got[collector].Load()}
}

// Run lets the client send rate packets a second from when the router answers
// it, and all hosts answer ARP, until ctx is done or the router has been stopped.
func (n *Neighbours) Run(ctx context.Context, rate int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wait sync.WaitGroup
	errs := make([]error, len(hosts))
	for i := range hosts {
		wait.Go(func() { errs[i] = n.listen(i); cancel() })
	}
	n.awaitRouter(ctx)
	n.send(ctx, rate)
	for _, cable := range n.cables {
		_ = cable.conn.SetReadDeadline(time.Now()) // ends listen
	}
	wait.Wait()
	return errors.Join(errs...)
}

// awaitRouter asks for the router until it answers, or ctx is done.
func (n *Neighbours) awaitRouter(ctx context.Context) {
	for !n.routed.Load() && ctx.Err() == nil {
		_ = n.cables[client].Send(arpRequest()) // nothing has opened the other end yet, maybe
		sleep(ctx, 100*time.Millisecond)
	}
}

// send sends the client's packets. One that finds no router is lost, as on a
// cable that is unplugged.
func (n *Neighbours) send(ctx context.Context, rate int) {
	for begin := time.Now(); ctx.Err() == nil; sleep(ctx, 10*time.Millisecond) {
		due := uint64(time.Since(begin).Seconds() * float64(rate))
		for n.sent.Load() < due {
			_ = n.cables[client].Send(packet(n.sent.Add(1)))
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// marker begins the payload of the client's packets.
var marker = []byte("waxseal-client")

// packet returns the client's n-th UDP packet to the server.
func packet(n uint64) []byte {
	payload := binary.BigEndian.AppendUint64(append(bytes.Clone(marker), 0, 0), n)
	payload = append(payload, make([]byte, 64)...)
	udp := binary.BigEndian.AppendUint16(nil, 40000)
	udp = binary.BigEndian.AppendUint16(udp, 9)
	udp = binary.BigEndian.AppendUint16(udp, uint16(8+len(payload)))
	udp = append(udp, 0, 0) // no checksum: RFC 768
	ip := []byte{0x45, 0, 0, 0, byte(n >> 8), byte(n), 0x40, 0, 64, 17, 0, 0}
	binary.BigEndian.PutUint16(ip[2:], uint16(20+8+len(payload)))
	ip = append(append(ip, hosts[client].ip...), hosts[server].ip...)
	binary.BigEndian.PutUint16(ip[10:], checksum(ip))
	frame := append(portMAC(client+1), hosts[client].mac...)
	frame = append(frame, 8, 0) // IPv4: RFC 894
	return append(append(append(frame, ip...), udp...), payload...)
}

// checksum is that of an IPv4 header whose own field is zero (RFC 1071).
func checksum(header []byte) uint16 {
	var sum uint32
	for i := 0; i < len(header); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// listen counts the client's packets that come to a host, and answers ARP.
func (n *Neighbours) listen(host int) error {
	frame := make([]byte, 2048)
	for {
		size, err := n.cables[host].Receive(frame)
		if errors.Is(err, net.ErrClosed) || isTimeout(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if answer := arpAnswer(frame[:size], host); answer != nil {
			_ = n.cables[host].Send(answer) // the router asks again
		}
		if bytes.Contains(frame[:size], marker) {
			n.got[host].Add(1)
		}
		if host == client && isARPAnswer(frame[:size]) {
			n.routed.Store(true)
		}
	}
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// Beginnings of ARP frames about IPv4 addresses, after the two MAC addresses
// (RFC 826): EtherType, formats, operation.
var (
	arpAsks    = []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 1}
	arpAnswers = []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 2}
)

// arpRequest is the client's question for its router.
func arpRequest() []byte {
	own := hosts[client]
	frame := append(bytes.Repeat([]byte{0xff}, 6), own.mac...)
	frame = append(append(append(frame, arpAsks...), own.mac...), own.ip...)
	return append(frame, 0, 0, 0, 0, 0, 0, 10, 66, 1, 1)
}

func isARPAnswer(frame []byte) bool {
	return len(frame) >= 42 && bytes.Equal(frame[12:22], arpAnswers)
}

// arpAnswer returns a host's answer to a request for its address, or nil if
// frame is none.
func arpAnswer(frame []byte, host int) []byte {
	own := hosts[host]
	if len(frame) < 42 || !bytes.Equal(frame[12:22], arpAsks) || !bytes.Equal(frame[38:42], own.ip) {
		return nil
	}
	answer := append(bytes.Clone(frame[6:12]), own.mac...)
	answer = append(append(append(answer, arpAnswers...), own.mac...), own.ip...)
	return append(answer, frame[22:32]...)
}
