// Package netns finds the network namespaces of a machine and runs code inside
// of one.
//
// It keeps no namespace alive: it holds no file of one between two calls. It
// never moves a thread that goes on to do other work, and it makes, names and
// removes no namespace.
package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrGone says that a namespace that was found can no longer be entered.
var ErrGone = errors.New("network namespace is gone")

// Namespace is a network namespace that was found.
type Namespace struct {
	Inode uint64 // on nsfs; the kernel may use it again for a later one
	Name  string // in /run/netns; empty: it has none there
	path  string // a file that is the namespace, or was when it was found
}

// String is the name where there is one, else "net:[inode]" as in /proc.
func (n Namespace) String() string {
	if n.Name != "" {
		return n.Name
	}
	return fmt.Sprintf("net:[%d]", n.Inode)
}

// Current is the namespace of the calling thread, with its name if it has one.
func Current() (Namespace, error) {
	// The thread, not the process: a caller may have moved its thread alone.
	path := fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
	inode, err := inodeOfLink(path)
	if err != nil {
		return Namespace{}, fmt.Errorf("namespace of this thread: %w", err)
	}
	here := Namespace{Inode: inode, path: path}
	names := newFinder()
	names.named()
	if named, ok := names.found[inode]; ok {
		return named, nil
	}
	return here, nil
}

// Do runs f in the namespace, on a thread of its own that is thrown away
// afterwards. What f opens belongs to the namespace for as long as it is open.
// It returns an error that is ErrGone where the namespace cannot be entered.
func (n Namespace) Do(f func() error) error {
	return onThread(func() error { return n.enter(f) })
}

// DoBy runs f in the namespace that a socket belongs to, as Do does.
func DoBy(socket syscall.Conn, f func() error) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	fd := -1
	var failed error
	// It gives a file of the namespace (net/socket.c, SIOCGSKNS).
	if err := raw.Control(func(s uintptr) { fd, failed = unix.IoctlRetInt(int(s), unix.SIOCGSKNS) }); err != nil {
		return err
	}
	if failed != nil {
		return fmt.Errorf("namespace of a socket: %w", failed)
	}
	defer unix.Close(fd)
	return onThread(func() error {
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("namespace of a socket: %w", err)
		}
		return f()
	})
}

// onThread runs f on a thread that ends with it.
func onThread(f func() error) error {
	result := make(chan error, 1)
	go locked(result, f)
	return <-result
}

// locked locks its goroutine to a thread and never unlocks it: the runtime
// ends the thread with the goroutine. The first thread of a process cannot be
// ended, and /proc/PID/ns/net shows its namespace, so it is not used: while it
// is held, another goroutine gets another thread.
func locked(result chan<- error, f func() error) {
	runtime.LockOSThread()
	if unix.Gettid() != os.Getpid() {
		result <- f()
		return
	}
	done := make(chan error, 1)
	go locked(done, f)
	err := <-done
	runtime.UnlockOSThread()
	result <- err
}

func (n Namespace) enter(f func() error) error {
	// Not blocking: a stranger may have put a FIFO in the file's place.
	fd, err := unix.Open(n.path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrGone, n, err)
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil || stat.Ino != n.Inode {
		return fmt.Errorf("%w: %s: another file is at %s", ErrGone, n, n.path)
	}
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrGone, n, err)
	}
	return f()
}

// inodeOfLink reads a link of the form "net:[4026531840]" (namespaces(7)).
func inodeOfLink(path string) (uint64, error) {
	text, err := os.Readlink(path)
	if err != nil {
		return 0, err
	}
	inode, ok := parseLink(text)
	if !ok {
		return 0, fmt.Errorf("%s is no network namespace: %q", path, text)
	}
	return inode, nil
}

func parseLink(text string) (uint64, bool) {
	number, isNet := strings.CutPrefix(text, "net:[")
	number, closed := strings.CutSuffix(number, "]")
	if !isNet || !closed {
		return 0, false
	}
	inode, err := strconv.ParseUint(number, 10, 64)
	return inode, err == nil
}
