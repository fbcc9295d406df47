package module

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Events tells when modules come and go (kobject_uevent, lib/kobject_uevent.c).
type Events struct{ file *os.File }

const (
	kernelGroup = 1 // the kernel's own events; udev repeats them to group 2
	maxEvent    = 8 << 10
)

// Listen begins to listen.
func Listen() (*Events, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("kernel events: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: kernelGroup}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("kernel events: %w", err)
	}
	return &Events{os.NewFile(uintptr(fd), "uevent")}, nil
}

// Close ends a waiting Next.
func (e *Events) Close() error { return e.file.Close() }

// Next waits until a module comes or goes. After lost events it returns too.
func (e *Events) Next() error {
	raw, err := e.file.SyscallConn()
	if err != nil {
		return err
	}
	buffer := make([]byte, maxEvent)
	for {
		var n int
		var from unix.Sockaddr
		var failed error
		if err := raw.Read(func(fd uintptr) bool {
			n, from, failed = unix.Recvfrom(int(fd), buffer, unix.MSG_DONTWAIT)
			return failed != unix.EAGAIN && failed != unix.EINTR
		}); err != nil {
			return err
		}
		if errors.Is(failed, unix.ENOBUFS) {
			return nil
		}
		if failed != nil {
			return failed
		}
		if kernel, ok := from.(*unix.SockaddrNetlink); ok && kernel.Pid == 0 && aboutModule(buffer[:n]) {
			return nil
		}
	}
}

// aboutModule reads the head of an event, "add@/module/NAME" and a zero byte.
func aboutModule(event []byte) bool {
	head, _, _ := bytes.Cut(event, []byte{0})
	action, path, _ := bytes.Cut(head, []byte("@"))
	return (string(action) == "add" || string(action) == "remove") && bytes.HasPrefix(path, []byte("/module/"))
}
