package netlink

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// read waits for one datagram of the kernel. The bytes are the Conn's own, up
// to the next read.
func (c *Conn) read(ctx context.Context) ([]byte, error) {
	wake := context.AfterFunc(ctx, func() { _ = c.file.SetReadDeadline(time.Unix(1, 0)) })
	defer wake()
	var n int
	var failed error
	err := os.ErrDeadlineExceeded
	for errors.Is(err, os.ErrDeadlineExceeded) { // also an earlier context's, which may come late
		_ = c.file.SetReadDeadline(time.Time{})
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		err = c.raw.Read(func(fd uintptr) bool {
			n, failed = c.receive(int(fd))
			return failed != unix.EAGAIN
		})
	}
	if err != nil { // the poller says so in words of its own
		return nil, fmt.Errorf("%w: %v", os.ErrClosed, err)
	}
	return c.datagram(n, failed)
}

// waiting is a datagram that is there already, or nil.
func (c *Conn) waiting() ([]byte, error) {
	var n int
	var failed error
	if err := c.raw.Control(func(fd uintptr) { n, failed = c.receive(int(fd)) }); err != nil {
		return nil, fmt.Errorf("%w: %v", os.ErrClosed, err)
	}
	if failed == unix.EAGAIN {
		return nil, nil
	}
	return c.datagram(n, failed)
}

func (c *Conn) datagram(n int, failed error) ([]byte, error) {
	switch {
	case failed == unix.ENOBUFS:
		return nil, ErrOverrun
	case failed != nil:
		return nil, failed
	case n > len(c.buffer):
		return nil, fmt.Errorf("a datagram of %d bytes was cut: %w", n, ErrOverrun)
	}
	return c.buffer[:n], nil
}

// receive takes datagrams until one is the kernel's own: any process may write
// to a netlink socket whose port it guesses (netlink(7), nl_pid 0 is the kernel).
func (c *Conn) receive(fd int) (int, error) {
	for {
		n, from, err := unix.Recvfrom(fd, c.buffer, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, err
		}
		if kernel, ok := from.(*unix.SockaddrNetlink); ok && kernel.Pid == 0 {
			return n, nil
		}
	}
}

// drain throws away what an abandoned request left on the socket: a dump that
// is not read to its end makes the kernel refuse the next one (EBUSY).
func (c *Conn) drain() {
	_ = c.raw.Control(func(fd uintptr) {
		for {
			if _, err := c.receive(int(fd)); err != nil && err != unix.ENOBUFS {
				return
			}
		}
	})
}

func (c *Conn) send(request []byte) error {
	var failed error
	err := c.raw.Control(func(fd uintptr) {
		failed = unix.Sendto(int(fd), request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	})
	if err != nil {
		return err
	}
	return failed
}
