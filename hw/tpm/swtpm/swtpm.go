// Package swtpm runs the software TPM of that name as a child process, for
// the lab's factory and for tests. A router never runs it.
//
// It never leaves a process behind: Stop ends exactly the child it started,
// and the child dies with the process that started it.
package swtpm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"waxseal/hw/tpm"
)

// ErrMissing means that swtpm or swtpm_setup is not installed.
var ErrMissing = errors.New("needs swtpm: run scripts/setup")

// startTimeout is how long Start waits for the socket, stopGrace how long
// Stop waits after SIGTERM.
const (
	startTimeout = 10 * time.Second
	stopGrace    = 2 * time.Second
)

// maxSocketPath is the room in sun_path without its final zero (man 7 unix).
const maxSocketPath = 107

// Process is a running swtpm over one state directory.
type Process struct {
	socket string
	dir    string // holds the socket: its path must stay below 108 bytes
	cmd    *exec.Cmd
	exited chan struct{} // closed when the child is reaped
}

// Check returns ErrMissing unless the programs are there.
func Check() error {
	for _, name := range []string{"swtpm", "swtpm_setup", "swtpm_localca"} {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("%w (%w)", ErrMissing, err)
		}
	}
	return nil
}

// Start runs a TPM over the state directory, which Manufacture has filled, as
// if the machine had just been switched on.
func Start(ctx context.Context, state string) (*Process, error) {
	if err := Check(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "wx")
	if err != nil {
		return nil, err
	}
	if n := len(filepath.Join(dir, "s")); n > maxSocketPath {
		return nil, errors.Join(fmt.Errorf("swtpm socket path of %d bytes: set TMPDIR to a shorter one", n), os.RemoveAll(dir))
	}
	p := &Process{socket: filepath.Join(dir, "s"), dir: dir, exited: make(chan struct{})}
	p.cmd = exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+state,
		"--server", "type=unixio,path="+p.socket,
		"--flags", "not-need-init,startup-clear",
		"--log", "file="+filepath.Join(dir, "log"))
	// No pipes: a leaked child that held one would hang its parent. It dies with us instead.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start swtpm: %w", err), os.RemoveAll(dir))
	}
	go func() {
		_ = p.cmd.Wait() // its exit status says nothing that the log does not
		close(p.exited)
	}()
	if err := p.wait(ctx); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

// wait returns when the socket takes connections.
func (p *Process) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		c, err := (&net.Dialer{}).DialContext(ctx, "unix", p.socket)
		if err == nil {
			return c.Close()
		}
		select {
		case <-p.exited:
			log, _ := os.ReadFile(filepath.Join(p.dir, "log")) // no log is no more to say
			return fmt.Errorf("swtpm ended at once: %s", log)
		case <-ctx.Done():
			return fmt.Errorf("swtpm socket %s: %w", p.socket, ctx.Err())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// Open opens the TPM. Several devices may be open at a time.
func (p *Process) Open(ctx context.Context) (*tpm.Device, error) {
	return tpm.OpenSocket(ctx, p.socket)
}

// Socket is the path of the Unix socket that takes raw TPM commands.
func (p *Process) Socket() string { return p.socket }

// PID is the child's process id, for tests that stop or kill it.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Stop ends the child and removes the socket. The state directory stays. An
// orderly end needs tpm.Device.Shutdown before.
func (p *Process) Stop() error {
	defer os.RemoveAll(p.dir)
	// A child that is gone already is no error; one that a test has stopped must go on to die.
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.cmd.Process.Signal(syscall.SIGCONT)
	select {
	case <-p.exited:
		return nil
	case <-time.After(stopGrace):
	}
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill swtpm %d: %w", p.PID(), err)
	}
	<-p.exited
	return nil
}
