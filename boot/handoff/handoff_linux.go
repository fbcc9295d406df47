// Package handoff gives the machine from the agent's initramfs to the router's
// own userland, and lets the agent live on beside it.
//
// The resident agent is started before the root changes, from a sealed copy
// of the program in memory, so that it needs no file of either root. It never
// decides whether the hand-over takes place: a router whose agent cannot be
// started is handed over all the same.
package handoff

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"time"

	"github.com/u-root/u-root/pkg/mount"
	"golang.org/x/sys/unix"
)

// Descriptors that a resident program inherits (after standard input, output
// and error).
const (
	rootFD = 3 // the new root directory
	pipeFD = 4 // read end of the pipe that process 1 closes by its exec
)

// Resident is a program that waits for the hand-over; nil is none.
type Resident struct {
	pipe *os.File // write end; close-on-exec, so that SwitchRoot's exec closes it
}

// StartResident starts the running program again, with args, as a process that
// is to survive the change of root. newRoot is where the new root is mounted.
func StartResident(newRoot string, args ...string) (*Resident, error) {
	self, err := sealedSelf()
	if err != nil {
		return nil, fmt.Errorf("resident agent: %w", err)
	}
	defer self.Close()
	root, err := os.Open(newRoot)
	if err != nil {
		return nil, fmt.Errorf("resident agent: new root: %w", err)
	}
	defer root.Close()
	r, w, err := os.Pipe() // both ends close on exec; the child gets a copy of r
	if err != nil {
		return nil, fmt.Errorf("resident agent: %w", err)
	}
	defer r.Close()
	cmd := exec.Command(fmt.Sprintf("/proc/self/fd/%d", self.Fd()), args...)
	cmd.Args[0] = "waxseald"
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{root, r}
	if err := cmd.Start(); err != nil {
		w.Close()
		return nil, fmt.Errorf("resident agent: %w", err)
	}
	return &Resident{w}, nil
}

// sealedSelf returns the running program in a memory file that nobody can
// change any more (memfd_create(2), fcntl(2) F_ADD_SEALS).
func sealedSelf() (*os.File, error) {
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	defer exe.Close()
	fd, err := unix.MemfdCreate("waxseald", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("memfd: %w", err)
	}
	copied := os.NewFile(uintptr(fd), "waxseald")
	defer copied.Close()
	if _, err := io.Copy(copied, exe); err != nil {
		return nil, err
	}
	seals := unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(copied.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	// Out of the way of the numbers that the child's descriptors get.
	high, err := unix.FcntlInt(copied.Fd(), unix.F_DUPFD_CLOEXEC, 64)
	if err != nil {
		return nil, fmt.Errorf("memfd: %w", err)
	}
	return os.NewFile(uintptr(high), "waxseald"), nil
}

// SwitchRoot makes newRoot the root, moves /dev, /proc, /sys and /run into it
// and replaces the calling process, which must be process 1, by init. It
// returns only with an error. The resident program sees it when init is
// executed, not before: until then its end of the pipe must not be collected.
func (r *Resident) SwitchRoot(newRoot, init string) error {
	defer runtime.KeepAlive(r)
	return mount.SwitchRoot(newRoot, init)
}

// ErrNoHandoff means that process 1 never changed the root.
var ErrNoHandoff = errors.New("process 1 did not hand over")

// Follow waits in the resident program until process 1 has changed the root,
// at most for limit, and enters the new root. The initramfs that the program
// came from is empty by then.
func Follow(limit time.Duration) error {
	root, pipe := os.NewFile(rootFD, "new root"), os.NewFile(pipeFD, "hand-over")
	defer root.Close()
	defer pipe.Close()
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, pipe)
		ended <- err
	}()
	select {
	case err := <-ended:
		if err != nil {
			return fmt.Errorf("wait for the hand-over: %w", err)
		}
	case <-time.After(limit):
		return ErrNoHandoff
	}
	if err := root.Chdir(); err != nil {
		return fmt.Errorf("enter the new root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("enter the new root: %w", err)
	}
	return os.Chdir("/")
}
