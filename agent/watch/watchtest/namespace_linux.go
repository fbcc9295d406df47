package watchtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// namespaceDir is where iproute2 keeps named namespaces (ip-netns(8)).
const namespaceDir = "/run/netns"

// Namespace is a network namespace that the lab made, or the one it runs in.
type Namespace struct {
	Name string // as in /run/netns; empty: the one that this process runs in
	file *os.File
}

// Here is the namespace that this process runs in.
func Here() *Namespace { return &Namespace{} }

// makeNamespace makes a namespace under name.
func makeNamespace(name string) (*Namespace, error) {
	if err := run(exec.Command("ip", "netns", "add", name)); err != nil {
		return nil, err
	}
	file, err := os.Open(filepath.Join(namespaceDir, name))
	if err != nil {
		return nil, errors.Join(err, run(exec.Command("ip", "netns", "del", name)))
	}
	return &Namespace{Name: name, file: file}, nil
}

// remove takes the name away. The kernel ends the namespace when its last
// process and socket are gone.
func (n *Namespace) remove() error {
	if n.file == nil {
		return nil
	}
	n.file.Close()
	return run(exec.Command("ip", "netns", "del", n.Name))
}

// Do calls f on a thread of the namespace. Sockets that f opens stay in the
// namespace whoever uses them; goroutines that f starts are not in it.
func (n *Namespace) Do(f func() error) error {
	if n.file == nil {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter namespace %s: %w", n.Name, err)
			return
		}
		done <- f()
	}()
	return <-done
}

// Run runs a command in the namespace.
func (n *Namespace) Run(name string, args ...string) error {
	return n.Do(func() error { return run(exec.Command(name, args...)) })
}

// Lines runs commands in the namespace, one a line, each without shell or quotes.
func (n *Namespace) Lines(lines string) error {
	for line := range strings.Lines(lines) {
		if words := strings.Fields(line); len(words) > 0 {
			if err := n.Run(words[0], words[1:]...); err != nil {
				return err
			}
		}
	}
	return nil
}

// Feed runs a command in the namespace with text on its standard input.
func (n *Namespace) Feed(text, name string, args ...string) error {
	return n.Do(func() error {
		cmd := exec.Command(name, args...)
		cmd.Stdin = strings.NewReader(text)
		return run(cmd)
	})
}

// Start starts cmd in the namespace.
func (n *Namespace) Start(cmd *exec.Cmd) error { return n.Do(cmd.Start) }

// Set writes a value below /proc/sys/net, which shows the namespace of the
// thread that opens it.
func (n *Namespace) Set(key, value string) error {
	return n.Do(func() error {
		path := filepath.Join("/proc/sys/net", strings.ReplaceAll(key, ".", "/"))
		return os.WriteFile(path, []byte(value), 0)
	})
}

// Index is the number of a device of the namespace.
func (n *Namespace) Index(device string) (int, error) {
	var index int
	err := n.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		req, err := unix.NewIfreq(device)
		if err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req); err != nil {
			return fmt.Errorf("device %s: %w", device, err)
		}
		index = int(req.Uint32())
		return nil
	})
	return index, err
}

func run(cmd *exec.Cmd) error {
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
