package netlink

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"golang.org/x/sys/unix"
)

// ErrMalformed says that bytes are no netlink messages or attributes.
var ErrMalformed = errors.New("malformed netlink message")

// Message is one netlink message (struct nlmsghdr and what follows).
type Message struct {
	Type  uint16
	Flags uint16
	Seq   uint32
	PID   uint32 // port of the socket that it answers, or whose act it tells
	Body  []byte
}

// Messages walks the messages of a datagram. A broken one is the last thing
// that it yields, as an error.
func Messages(b []byte) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		for len(b) > 0 {
			if len(b) < unix.SizeofNlMsghdr {
				yield(Message{}, fmt.Errorf("%w: %d bytes are no header", ErrMalformed, len(b)))
				return
			}
			size := binary.NativeEndian.Uint32(b)
			if size < unix.SizeofNlMsghdr || uint64(size) > uint64(len(b)) {
				yield(Message{}, fmt.Errorf("%w: length %d in %d bytes", ErrMalformed, size, len(b)))
				return
			}
			m := Message{
				Type:  binary.NativeEndian.Uint16(b[4:]),
				Flags: binary.NativeEndian.Uint16(b[6:]),
				Seq:   binary.NativeEndian.Uint32(b[8:]),
				PID:   binary.NativeEndian.Uint32(b[12:]),
				Body:  b[unix.SizeofNlMsghdr:size],
			}
			if !yield(m, nil) {
				return
			}
			b = b[min(align(int(size)), len(b)):]
		}
	}
}

// Rest is the body after a header of n bytes (struct ifinfomsg, tcmsg, …), or
// an error if there are fewer.
func (m Message) Rest(n int) ([]byte, error) {
	if len(m.Body) < n {
		return nil, fmt.Errorf("%w: %d bytes after the header of type %d, want %d", ErrMalformed, len(m.Body), m.Type, n)
	}
	return m.Body[n:], nil
}

// Error is the kernel's refusal of a request.
type Error struct {
	Errno unix.Errno
	Text  string // the kernel's own words; empty: it gave none
}

func (e *Error) Error() string {
	if e.Text == "" {
		return e.Errno.Error()
	}
	return e.Errno.Error() + ": " + e.Text
}

// Unwrap makes errors.Is(err, unix.ENOENT) work.
func (e *Error) Unwrap() error { return e.Errno }

// refusal reads the body of NLMSG_ERROR or NLMSG_DONE: an errno, negated, and
// with NLM_F_ACK_TLVS attributes after the header that is acknowledged.
func refusal(m Message) error {
	if len(m.Body) < 4 {
		if m.Type == unix.NLMSG_DONE {
			return nil
		}
		return fmt.Errorf("%w: an acknowledgement of %d bytes", ErrMalformed, len(m.Body))
	}
	code := int32(binary.NativeEndian.Uint32(m.Body))
	if code >= 0 {
		return nil
	}
	told := m.Body[4:]
	if m.Type == unix.NLMSG_ERROR {
		told = told[min(unix.SizeofNlMsghdr, len(told)):]
	}
	return &Error{Errno: unix.Errno(-int64(code)), Text: words(m.Flags, told)}
}

func words(flags uint16, attributes []byte) string {
	if flags&unix.NLM_F_ACK_TLVS == 0 {
		return ""
	}
	for a, err := range Attributes(attributes) {
		if err == nil && a.Type == unix.NLMSGERR_ATTR_MSG {
			return string(bytes.ToValidUTF8([]byte(a.String()), []byte("?")))
		}
	}
	return ""
}

// answer collects the messages of one conversation.
type answer struct {
	seq   uint32
	each  func(Message) error
	ended bool
	err   error // the first
}

// take reads one datagram. Messages of an earlier, abandoned request are skipped.
func (a *answer) take(datagram []byte) {
	for m, err := range Messages(datagram) {
		if err != nil {
			a.ended, a.err = true, errors.Join(a.err, err)
			return
		}
		if m.Seq == a.seq && !a.ended {
			a.one(m)
		}
	}
}

func (a *answer) one(m Message) {
	if m.Flags&unix.NLM_F_DUMP_INTR != 0 {
		a.fail(ErrChanged)
	}
	switch m.Type {
	case unix.NLMSG_ERROR, unix.NLMSG_DONE:
		a.ended = true
		a.fail(refusal(m))
	case unix.NLMSG_NOOP:
	case unix.NLMSG_OVERRUN:
		a.fail(ErrOverrun)
	default:
		if a.err == nil || errors.Is(a.err, ErrChanged) {
			a.fail(a.each(m))
		}
	}
}

// fail keeps the first error; any other goes before ErrChanged.
func (a *answer) fail(err error) {
	if err != nil && (a.err == nil || errors.Is(a.err, ErrChanged)) {
		a.err = err
	}
}

func appendMessage(b []byte, kind, flags uint16, seq uint32, body []byte) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(unix.SizeofNlMsghdr+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0) // from the kernel's point of view the socket's port says who asks
	return append(b, body...)
}

// align rounds up to NLMSG_ALIGNTO and NLA_ALIGNTO, both 4.
func align(n int) int { return (n + 3) &^ 3 }
