// Package syscalls tells when a process makes a system call that can begin a
// copy: opens or filters a packet socket, loads or attaches BPF, makes a network
// namespace, loads a module, writes into another process.
//
// It is an alarm clock and a hint at who did it, and never more: the call may
// fail, a flood of calls loses events, and calls by 32-bit programs are not
// seen. It changes no call and delays none by more than the filter's few
// instructions.
package syscalls

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// Event is one call, as it began.
type Event struct {
	Doing   Doing
	Process int    // as the watch sees it in /proc; 0: it cannot know
	Comm    string // 16 bytes at most, as the process calls itself
	Target  int    // of Writes: the other process
}

// Doing is what a call tries.
type Doing int

// What calls try.
const (
	Opens   Doing = iota // a packet socket or a change of one
	Loads                // a BPF program
	Places               // a BPF program at its place
	Spaces               // makes or enters a network namespace
	Modules              // loads a kernel module
	Writes               // attaches to another process, or writes into it
)

const (
	ringSize  = 64 << 10
	greetWait = 2 * time.Second
)

// registers says where the first three arguments are in struct pt_regs
// (arch/*/include/asm/ptrace.h), by GOARCH.
var registers = map[string][3]int16{"amd64": {112, 104, 96}, "arm64": {0, 8, 16}}

// Watch is a program at sys_enter.
type Watch struct {
	program *ebpf.Program
	events  *ebpf.Map
	self    *ebpf.Map
	link    link.Link
	reader  *ringbuf.Reader
	id      uint32
	shared  bool // the kernel counts processes as /proc does for us
	once    sync.Once
	closed  error // under once
}

// Open attaches. The error says what the kernel lacks.
func Open() (w *Watch, err error) {
	at, known := registers[runtime.GOARCH]
	if !known {
		return nil, fmt.Errorf("system calls: %w on %s", errors.ErrUnsupported, runtime.GOARCH)
	}
	w = &Watch{}
	defer func() {
		if err != nil {
			w.Close()
			w, err = nil, fmt.Errorf("system calls: %w", err)
		}
	}()
	if w.events, err = ebpf.NewMap(&ebpf.MapSpec{Name: "waxseal_calls", Type: ebpf.RingBuf, MaxEntries: ringSize}); err != nil {
		return w, err
	}
	if w.self, err = ebpf.NewMap(&ebpf.MapSpec{Name: "waxseal_self", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1}); err != nil {
		return w, err
	}
	if err = w.load(at); err != nil {
		return w, err
	}
	if w.reader, err = ringbuf.NewReader(w.events); err != nil {
		return w, err
	}
	if w.link, err = link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sys_enter", Program: w.program}); err != nil {
		return w, err
	}
	return w, w.greet()
}

func (w *Watch) load(at [3]int16) (err error) {
	w.program, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "waxseal_calls", Type: ebpf.RawTracepoint, License: "GPL",
		Instructions: append(asm.Instructions(nil), instructions(w.events.FD(), w.self.FD(), at)...),
	})
	if err != nil {
		return err
	}
	info, err := w.program.Info()
	if err != nil {
		return err
	}
	id, _ := info.ID()
	w.id = uint32(id)
	return nil
}

// greet learns which process the kernel takes us for: in a pid namespace that
// is another number than os.Getpid says. It makes a call that fails, with a
// number that nobody else can know.
func (w *Watch) greet() error {
	secret := rand.Uint32()
	_ = unix.Setns(-1, int(secret))
	w.reader.SetDeadline(time.Now().Add(greetWait))
	for {
		record, err := w.reader.Read()
		if err != nil {
			return fmt.Errorf("our own call was not seen: %w", err)
		}
		c, ok := parse(record.RawSample)
		if ok && c.number == unix.SYS_SETNS && uint32(c.args[0]) == ^uint32(0) && uint32(c.args[1]) == secret {
			w.reader.SetDeadline(time.Time{})
			w.shared = int(c.process) == os.Getpid()
			return w.self.Put(uint32(0), c.process)
		}
	}
}

// Owns tells whether a BPF program is this one.
func (w *Watch) Owns(program uint32) bool { return program == w.id }

// Read waits for the next event. After Close it is os.ErrClosed.
func (w *Watch) Read() (Event, error) {
	for {
		record, err := w.reader.Read()
		if err != nil {
			return Event{}, err
		}
		if c, ok := parse(record.RawSample); ok {
			return w.event(c), nil
		}
	}
}

func (w *Watch) event(c call) Event {
	e := Event{Doing: c.doing(), Comm: c.comm}
	if w.shared {
		e.Process = int(c.process)
		e.Target = c.target()
	}
	return e
}

// Close detaches. It may be called more than once.
func (w *Watch) Close() error {
	w.once.Do(func() { w.closed = w.detach() })
	return w.closed
}

func (w *Watch) detach() error {
	var errs []error
	if w.link != nil {
		errs = append(errs, w.link.Close())
	}
	if w.reader != nil {
		errs = append(errs, w.reader.Close())
	}
	if w.program != nil {
		errs = append(errs, w.program.Close())
	}
	for _, m := range []*ebpf.Map{w.events, w.self} {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	return errors.Join(errs...)
}

// call is an event as the program writes it.
type call struct {
	process uint32
	number  int
	args    [3]uint64
	comm    string
}

func parse(b []byte) (call, bool) {
	if len(b) < eventSize {
		return call{}, false
	}
	c := call{process: binary.NativeEndian.Uint32(b[4:]), number: int(binary.NativeEndian.Uint64(b[8:]))}
	for n := range c.args {
		c.args[n] = binary.NativeEndian.Uint64(b[16+8*n:])
	}
	c.comm = unix.ByteSliceToString(b[40:56])
	return c, true
}

func (c call) doing() Doing {
	switch c.number {
	case unix.SYS_SOCKET, unix.SYS_SETSOCKOPT:
		return Opens
	case unix.SYS_BPF:
		if uint32(c.args[0]) == bpfLoad {
			return Loads
		}
		return Places
	case unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE:
		return Modules
	case unix.SYS_PTRACE, unix.SYS_PROCESS_VM_WRITEV:
		return Writes
	}
	return Spaces
}

// target is the other process of a call that writes into one.
func (c call) target() int {
	switch c.number {
	case unix.SYS_PTRACE:
		return int(int32(c.args[1]))
	case unix.SYS_PROCESS_VM_WRITEV:
		return int(int32(c.args[0]))
	}
	return 0
}
