// Package netlink speaks netlink(7) with the kernel: requests with their
// answer, dumps, and notifications, each in plain messages and attributes.
//
// It knows no family: what a message means is the caller's. It never waits
// without a bound, never takes a message that another process sent for the
// kernel's, and never hides that messages were lost. A Conn belongs to the
// network namespace of the thread that dialled it.
package netlink

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What a caller decides on.
var (
	// ErrOverrun says that the kernel dropped notifications because nobody read
	// them in time (ENOBUFS). What they told must be read again by a dump.
	ErrOverrun = errors.New("netlink notifications were lost")
	// ErrChanged says that the list changed while it was dumped
	// (NLM_F_DUMP_INTR): entries may be missing or twice. Dump again.
	ErrChanged = errors.New("the list changed while it was read")
)

const (
	// answerWithin bounds a request or a dump whose context has no deadline.
	answerWithin = 5 * time.Second
	// bufferSize holds any datagram: the kernel's dumps are at most 32 KiB
	// (net/netlink/af_netlink.c, netlink_recvmsg), notifications are smaller.
	bufferSize = 64 << 10
)

// Conn is a netlink socket. Its methods may be called by several goroutines;
// requests take turns.
type Conn struct {
	file *os.File
	raw  syscall.RawConn
	push bool // it listens to groups

	mu     sync.Mutex // one request or Receive at a time
	seq    uint32     // under mu
	buffer []byte     // under mu
}

// Dial opens a socket of a protocol (unix.NETLINK_ROUTE, …). With groups
// (unix.RTNLGRP_LINK, …) it is for Receive, without it is for Request and Dump.
func Dial(protocol int, groups ...uint32) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, fmt.Errorf("netlink socket of protocol %d: %w", protocol, err)
	}
	if err := prepare(fd, groups); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("netlink socket of protocol %d: %w", protocol, err)
	}
	file := os.NewFile(uintptr(fd), "netlink")
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("netlink socket of protocol %d: %w", protocol, err)
	}
	return &Conn{file: file, raw: raw, push: len(groups) > 0, buffer: make([]byte, bufferSize)}, nil
}

func prepare(fd int, groups []uint32) error {
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	for _, group := range groups {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, int(group)); err != nil {
			return fmt.Errorf("group %d: %w", group, err)
		}
	}
	// The kernel's own words in errors (4.12), and no echo of what was asked.
	// A kernel without them answers without.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	return nil
}

// Close ends the connection; a waiting Receive returns os.ErrClosed.
func (c *Conn) Close() error { return c.file.Close() }

// SyscallConn gives the socket itself, for what netlink does not know.
func (c *Conn) SyscallConn() (syscall.RawConn, error) { return c.raw, nil }

// Strict lets the kernel filter dumps by what their header and attributes say
// (NETLINK_GET_STRICT_CHK, 4.20). An error means that it will not.
func (c *Conn) Strict() error { return c.option(unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1) }

// Room sets how many bytes of notifications the kernel keeps for the reader,
// above the system's maximum where the process may.
func (c *Conn) Room(bytes int) error {
	if c.option(unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes) == nil {
		return nil
	}
	return c.option(unix.SOL_SOCKET, unix.SO_RCVBUF, bytes)
}

func (c *Conn) option(level, name, value int) error {
	var failed error
	if err := c.raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), level, name, value) }); err != nil {
		return err
	}
	return failed
}

// Request sends one message and returns the answers that precede the kernel's
// acknowledgement: one for a get, mostly none for a change. flags are added to
// NLM_F_REQUEST|NLM_F_ACK. A refusal is an *Error.
func (c *Conn) Request(ctx context.Context, kind, flags uint16, body []byte) ([]Message, error) {
	var answers []Message
	err := c.converse(ctx, kind, flags|unix.NLM_F_ACK, body, func(m Message) error {
		m.Body = append([]byte(nil), m.Body...)
		answers = append(answers, m)
		return nil
	})
	return answers, err
}

// Dump asks for a list and gives each of its messages to each, which must not
// keep the body. After an error of each it still reads the list to its end.
func (c *Conn) Dump(ctx context.Context, kind uint16, body []byte, each func(Message) error) error {
	return c.converse(ctx, kind, unix.NLM_F_DUMP, body, each)
}

// converse sends a request and reads up to the message that ends the answer.
func (c *Conn) converse(ctx context.Context, kind, flags uint16, body []byte, each func(Message) error) error {
	if c.push {
		return errors.New("netlink: requests need a connection without groups")
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drain()
	c.seq++
	request := appendMessage(nil, kind, flags|unix.NLM_F_REQUEST, c.seq, body)
	if err := c.send(request); err != nil {
		return fmt.Errorf("netlink request %d: %w", kind, err)
	}
	answer := answer{seq: c.seq, each: each}
	for !answer.ended {
		datagram, err := c.read(ctx)
		if err != nil {
			return fmt.Errorf("netlink answer to request %d: %w", kind, err)
		}
		answer.take(datagram)
	}
	return answer.err
}

// Receive waits for notifications and gives those of one datagram to each,
// which must not keep the body. It returns ErrOverrun when some were lost, and
// the context's error when ctx is done.
func (c *Conn) Receive(ctx context.Context, each func(Message) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	datagram, err := c.read(ctx)
	if err != nil {
		return err
	}
	return tell(datagram, each)
}

// Pending gives the notifications that wait already to each, and waits for none.
func (c *Conn) Pending(each func(Message) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		datagram, err := c.waiting()
		if datagram == nil || err != nil {
			return err
		}
		if err := tell(datagram, each); err != nil {
			return err
		}
	}
}

func tell(datagram []byte, each func(Message) error) error {
	for m, err := range Messages(datagram) {
		if err != nil {
			return err
		}
		if err := each(m); err != nil {
			return err
		}
	}
	return nil
}
