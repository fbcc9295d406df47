package hook

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// namespace is the network namespace whose ports are hooked. The kernel looks a
// port's number up in the namespace of the thread that asks.
type namespace struct {
	file  *os.File
	inode uint64
}

const ownNamespace = "/proc/thread-self/ns/net"

func thisNamespace() (*namespace, error) {
	f, err := os.Open(ownNamespace)
	if err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	inode, err := inodeOf(ownNamespace)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	return &namespace{f, inode}, nil
}

// enter brings the calling goroutine into the namespace. The thread of a
// goroutine that had to be moved is given to nobody else: it ends with it.
func (n *namespace) enter() (leave func(), err error) {
	runtime.LockOSThread()
	inode, err := inodeOf(ownNamespace)
	if err == nil && inode == n.inode {
		return runtime.UnlockOSThread, nil
	}
	if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("enter the network namespace of the ports: %w", err)
	}
	return func() {}, nil
}

func (n *namespace) close() error { return n.file.Close() }

func inodeOf(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, err
	}
	return st.Ino, nil
}
