package cost

import (
	"context"
	"encoding/binary"
	"fmt"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"waxseal/agent/watch/watchtest"
)

// A sender puts frames of 64 bytes, check sequence included, on the client's
// port as fast as the kernel takes them. The kernel forwards each before the
// call that sent it returns: veth has no queue, and its softirq runs on the
// sender's processor. So the sender's time is that of the forwarding.
type sender struct {
	fd       int
	frames   [batch][frameSize]byte
	vectors  [batch]unix.Iovec
	messages [batch]mmsghdr
	next     uint64
}

const (
	batch     = 64
	frameSize = 60 // and 4 of the check sequence, which nobody computes here
)

// mmsghdr is that of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// target is a prefix behind the server, so that the server drops what comes
// without an answer.
const target = "10.99.0.0/16"

// newSender readies a lab's client to send through its router.
func newSender(b *testing.B, lab *watchtest.Lab) *sender {
	b.Helper()
	if err := lab.Router.Run("ip", "route", "add", target, "via", lab.ServerAddress.String()); err != nil {
		b.Fatal(err)
	}
	index, err := lab.Client.Index("eth0")
	if err != nil {
		b.Fatal(err)
	}
	s := &sender{}
	err = lab.Client.Do(func() (err error) {
		s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return unix.Bind(s.fd, &unix.SockaddrLinklayer{Ifindex: index})
	})
	if err != nil {
		b.Fatal(fmt.Errorf("packet socket: %w", err))
	}
	b.Cleanup(func() { unix.Close(s.fd) })
	for i := range s.frames {
		copy(s.frames[i][:], template())
		s.vectors[i] = unix.Iovec{Base: &s.frames[i][0], Len: frameSize}
		s.messages[i].hdr.Iov, s.messages[i].hdr.Iovlen = &s.vectors[i], 1
	}
	return s
}

// template is a UDP packet from the client to the prefix behind the server.
func template() []byte {
	frame := []byte{2, 0x71, 0, 0, 0, 1, 2, 0x71, 0, 0, 0, 2, 8, 0}
	frame = append(frame, 0x45, 0, 0, frameSize-14, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0)
	frame = append(frame, 10, 71, 0, 2, 10, 99, 0, 1)
	frame = append(frame, 0x9c, 0x40, 0, 9, 0, frameSize-34, 0, 0)
	return append(frame, make([]byte, frameSize-len(frame))...)
}

// send sends one batch, in which no two packets are alike.
func (s *sender) send() error {
	for i := range s.frames {
		f := &s.frames[i]
		s.next++
		binary.BigEndian.PutUint16(f[18:], uint16(s.next))
		binary.BigEndian.PutUint64(f[42:], s.next)
		f[24], f[25] = 0, 0
		binary.BigEndian.PutUint16(f[24:], headerSum(f[14:34]))
	}
	for sent := 0; sent < batch; {
		n, _, failed := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.messages[sent])), uintptr(batch-sent), 0, 0, 0)
		if failed != 0 && failed != unix.ENOBUFS && failed != unix.EINTR {
			return fmt.Errorf("sendmmsg: %w", failed)
		}
		if failed == 0 {
			sent += int(n)
		}
	}
	return nil
}

// headerSum is the checksum of an IPv4 header whose own field is zero (RFC 1071).
func headerSum(header []byte) uint16 {
	var sum uint32
	for i := 0; i < len(header); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// saturate sends as fast as it can for a while and returns the nanoseconds a
// packet took: the mean over batches without those that took more than twice
// as long as the fastest quarter, because others had the processor meanwhile.
func (s *sender) saturate(b *testing.B, d time.Duration) float64 {
	b.Helper()
	var batches []float64
	for end := time.Now().Add(d); ; {
		begin := time.Now()
		if begin.After(end) {
			return trimmedMean(batches)
		}
		if err := s.send(); err != nil {
			b.Fatal(err)
		}
		batches = append(batches, float64(time.Since(begin).Nanoseconds())/batch)
	}
}

func trimmedMean(values []float64) float64 {
	limit := 2 * quantile(values, 0.25)
	sum, n := 0.0, 0
	for _, v := range values {
		if v <= limit {
			sum, n = sum+v, n+1
		}
	}
	return sum / float64(n)
}

// pace sends rate packets a second until ctx is done.
func (s *sender) pace(ctx context.Context, rate int) error {
	sent := 0
	for begin := time.Now(); ctx.Err() == nil; time.Sleep(time.Millisecond) {
		for due := int(time.Since(begin).Seconds() * float64(rate)); sent < due; sent += batch {
			if err := s.send(); err != nil {
				return err
			}
		}
	}
	return nil
}

// paced sends rate packets a second while f runs.
func (s *sender) paced(b *testing.B, rate int, f func()) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.pace(ctx, rate) }()
	f()
	cancel()
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
}
