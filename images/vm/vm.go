// Package vm runs an image of package images as a virtual router: QEMU with a
// software TPM, started and ended by the process that asked for it.
//
// It always emulates (-accel tcg): a /dev/kvm that exists need not be able to
// run a guest.
package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"waxseal/images"
)

// Ports of the agent inside the guest: openconfig attestz, and RFC 9684 over
// RESTCONF.
const (
	AgentPort    = 9339
	RESTCONFPort = 8443
)

// Config says which router to run.
type Config struct {
	Dir       string    // folder that images.Build wrote
	Disk      string    // disk to boot; empty: the one in Dir. The guest writes to it
	State     string    // the unit's own folder: the TPM's state in tpm/, the firmware's variables in vars.fd
	NoTPM     bool      // a board without a TPM
	Direct    bool      // start kernel and initramfs without firmware
	Serial    string    // the unit's serial number in DMI; empty: WX-0001
	Forward   int       // port on 127.0.0.1 that leads to the agent; 0: a free one
	RESTCONF  int       // port on 127.0.0.1 that leads to the agent's RESTCONF; 0: none does
	MemoryMiB int       // 0: 384
	Console   io.Writer // gets what the guest writes to its serial port; nil: dropped
	Ports     int       // ports beside the management port, each with a cable to this process
	Args      []string  // further arguments for QEMU
}

// VM is a router that runs.
type VM struct {
	Address string   // host:port that leads to the agent
	Cables  []*Cable // to the router's ports eth1, eth2, …

	qemu    *exec.Cmd
	swtpm   *exec.Cmd // nil without a TPM
	sockets string    // folder of the sockets, removed at the end
	keys    io.WriteCloser
	console *console
	done    chan struct{} // closed when QEMU has ended
	err     error         // how QEMU ended; set before done is closed
	once    sync.Once     // guards the clean-up
}

// Firmware files of Debian's package ovmf.
const (
	ovmfCode = "/usr/share/OVMF/OVMF_CODE_4M.fd"
	ovmfVars = "/usr/share/OVMF/OVMF_VARS_4M.fd"
)

// Start starts a router. It returns when QEMU runs, not when the router is up.
// The router ends with ctx, or by Stop.
func Start(ctx context.Context, c Config) (*VM, error) {
	c = c.withDefaults()
	sockets, err := os.MkdirTemp("", "waxseal-vm-")
	if err != nil {
		return nil, err
	}
	v := &VM{sockets: sockets, console: &console{to: c.Console}, done: make(chan struct{})}
	if err := v.start(ctx, c); err != nil {
		v.cleanUp()
		return nil, err
	}
	return v, nil
}

func (c Config) withDefaults() Config {
	if c.Disk == "" {
		c.Disk = filepath.Join(c.Dir, images.DiskFile)
	}
	if c.Serial == "" {
		c.Serial = "WX-0001"
	}
	if c.MemoryMiB == 0 {
		c.MemoryMiB = 384
	}
	return c
}

func (v *VM) start(ctx context.Context, c Config) error {
	if c.Forward == 0 {
		port, err := freePort()
		if err != nil {
			return err
		}
		c.Forward = port
	}
	v.Address = fmt.Sprintf("127.0.0.1:%d", c.Forward)
	for i := range c.Ports {
		cable, err := newCable(v.sockets, i+1)
		if err != nil {
			return err
		}
		v.Cables = append(v.Cables, cable)
	}
	argv, err := c.argv(v.control())
	if err != nil {
		return err
	}
	for _, cable := range v.Cables {
		argv = append(argv, cable.argv()...)
	}
	if !c.NoTPM {
		if err := v.startTPM(ctx, filepath.Join(c.State, "tpm")); err != nil {
			return err
		}
	}
	v.qemu = exec.CommandContext(ctx, argv[0], argv[1:]...)
	v.qemu.Stdout, v.qemu.Stderr = v.console, v.console
	if v.keys, err = v.qemu.StdinPipe(); err != nil {
		return err
	}
	v.qemu.Cancel = func() error { return v.qemu.Process.Signal(os.Interrupt) }
	v.qemu.WaitDelay = 5 * time.Second
	v.qemu.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // no orphan of a test that is killed
	if err := v.qemu.Start(); err != nil {
		return fmt.Errorf("start QEMU: %w; run scripts/setup", err)
	}
	go func() {
		v.err = v.qemu.Wait()
		close(v.done)
	}()
	return nil
}

// argv returns QEMU's command line; control is the TPM's socket.
func (c Config) argv(control string) ([]string, error) {
	network := fmt.Sprintf("user,id=n0,hostfwd=tcp:127.0.0.1:%d-:%d", c.Forward, AgentPort)
	if c.RESTCONF != 0 {
		network += fmt.Sprintf(",hostfwd=tcp:127.0.0.1:%d-:%d", c.RESTCONF, RESTCONFPort)
	}
	argv := []string{
		"qemu-system-x86_64", "-accel", "tcg", "-machine", "q35,smm=off", "-m", fmt.Sprint(c.MemoryMiB),
		"-nodefaults", "-nographic", "-no-reboot", "-serial", "stdio",
		"-smbios", "type=1,manufacturer=waxseal,product=qemu-amd64,serial=" + c.Serial,
		"-drive", "if=none,id=disk,format=raw,file=" + c.Disk,
		"-device", "virtio-blk-pci,drive=disk,bootindex=1",
		"-netdev", network,
		"-device", "virtio-net-pci,netdev=n0,romfile=",
		"-device", "virtio-rng-pci",
	}
	if !c.NoTPM {
		argv = append(argv, "-chardev", "socket,id=tpm,path="+control,
			"-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-tis,tpmdev=tpm0")
	}
	if c.Direct {
		cmdline, err := os.ReadFile(filepath.Join(c.Dir, images.CmdlineFile))
		if err != nil {
			return nil, err
		}
		argv = append(argv, "-kernel", filepath.Join(c.Dir, images.KernelFile),
			"-initrd", filepath.Join(c.Dir, images.InitramfsFile), "-append", string(cmdline))
		return append(argv, c.Args...), nil
	}
	vars := filepath.Join(c.State, "vars.fd")
	if err := ensureVars(vars); err != nil {
		return nil, err
	}
	argv = append(argv, "-drive", "if=pflash,format=raw,readonly=on,file="+ovmfCode,
		"-drive", "if=pflash,format=raw,file="+vars)
	return append(argv, c.Args...), nil
}

// ensureVars gives a new unit the firmware's factory variables.
func ensureVars(path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	data, err := os.ReadFile(ovmfVars)
	if err != nil {
		return fmt.Errorf("firmware: %w; run scripts/setup", err)
	}
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path) // a cut file would be used for ever
}

func (v *VM) control() string { return filepath.Join(v.sockets, "tpm") }

// startTPM runs a swtpm on the state folder. It ends when QEMU hangs up.
func (v *VM) startTPM(ctx context.Context, state string) error {
	if _, err := os.Stat(state); err != nil {
		return fmt.Errorf("TPM state: %w; make it with waxseal-image factory", err)
	}
	v.swtpm = exec.CommandContext(ctx, "swtpm", "socket", "--tpm2", "--tpmstate", "dir="+state,
		"--ctrl", "type=unixio,path="+v.control())
	v.swtpm.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := v.swtpm.Start(); err != nil {
		return fmt.Errorf("start swtpm: %w; run scripts/setup", err)
	}
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(v.control()); err == nil {
			return nil
		}
	}
	return errors.New("swtpm made no control socket within 5 s")
}

// Done is closed when the router has ended.
func (v *VM) Done() <-chan struct{} { return v.done }

// Err returns how the router ended: nil if it powered off by itself. It is
// called after Done is closed.
func (v *VM) Err() error {
	if v.err == nil {
		return nil
	}
	return fmt.Errorf("QEMU: %w: %s", v.err, lastLine(v.console.String()))
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// Stop ends the router as a power cut would, and waits until its processes are gone.
func (v *VM) Stop() {
	v.qemu.Process.Signal(os.Interrupt)
	select {
	case <-v.done:
	case <-time.After(5 * time.Second):
		v.qemu.Process.Kill()
		<-v.done
	}
	v.cleanUp()
}

func (v *VM) cleanUp() {
	v.once.Do(func() {
		if v.swtpm != nil && v.swtpm.Process != nil {
			ended := make(chan struct{})
			go func() { v.swtpm.Wait(); close(ended) }()
			select {
			case <-ended: // by itself, after QEMU hung up
			case <-time.After(2 * time.Second):
				v.swtpm.Process.Kill()
				<-ended
			}
		}
		for _, cable := range v.Cables {
			cable.close()
		}
		os.RemoveAll(v.sockets)
	})
}

// Type types a line at the router's serial console.
func (v *VM) Type(line string) error {
	if _, err := io.WriteString(v.keys, line+"\n"); err != nil {
		return fmt.Errorf("the router's console takes no more: %w", err)
	}
	return nil
}

// WaitFor waits until the console has shown text.
func (v *VM) WaitFor(ctx context.Context, text string) error {
	for {
		if strings.Contains(v.console.String(), text) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("console never showed %q: %w:\n%s", text, ctx.Err(), v.console.String())
		case <-v.done:
			return fmt.Errorf("the router ended before its console showed %q:\n%s", text, v.console.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Output returns what the console has shown, up to its limit.
func (v *VM) Output() string { return v.console.String() }

// console keeps the first MiB of the guest's output.
type console struct {
	to io.Writer

	mu   sync.Mutex // guards kept
	kept []byte
}

const maxConsole = 1 << 20

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept = append(c.kept, p[:min(len(p), maxConsole-len(c.kept))]...)
	if c.to != nil {
		c.to.Write(p)
	}
	return len(p), nil
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.kept)
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
