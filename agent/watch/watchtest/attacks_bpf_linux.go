package watchtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
)

// Verdicts of programs on tc and XDP hooks (linux/bpf.h, linux/pkt_cls.h).
const (
	tcxNext     = -1 // TC_ACT_UNSPEC on cls_bpf
	xdpPass     = 2
	broadcast   = 1 << 3 // BPF_F_BROADCAST of bpf_redirect_map
	notTheInput = 1 << 4 // BPF_F_EXCLUDE_INGRESS
)

var attacksByBPF = []Attack{
	{Name: "bpf_clone_redirect from TCX, behind us", Want: copies("bpf|clone|program"), Start: cloner(ebpf.AttachTCXIngress, R0, link.Tail())},
	{Name: "bpf_clone_redirect from TCX, before us", Want: copies("bpf|clone|program|before|front"), Start: cloner(ebpf.AttachTCXIngress, R0, link.Head())},
	{Name: "bpf_clone_redirect from TCX at egress", Want: copies("bpf|clone|program"), Start: cloner(ebpf.AttachTCXEgress, R1, link.Tail())},
	{Name: "bpf_clone_redirect from cls_bpf", Want: copies("bpf|clone|program"), Start: classifier},
	{Name: "XDP broadcast to ports", Want: Want{Kinds: []mirror.Kind{mirror.Tamper, mirror.Bypass, mirror.Program}, Cause: "(?i)xdp", Severity: mirror.Alarm}, Start: xdpBroadcast},
	{Name: "XDP in front of us that lets everything pass", Want: Want{Kinds: []mirror.Kind{mirror.Tamper, mirror.Program}, Cause: "(?i)xdp", Severity: mirror.Notice}, Start: xdpInFront},
	{Name: "AF_XDP socket", Want: Want{Kinds: []mirror.Kind{mirror.Socket, mirror.Program, mirror.Tamper}, Cause: "(?i)xdp", Severity: mirror.Alarm}, Start: afXDP},
}

// load loads a program that this process may attach.
func load(kind ebpf.ProgramType, instructions asm.Instructions) (*ebpf.Program, error) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "wxattack", Type: kind, License: "GPL", Instructions: instructions})
	if err != nil {
		return nil, fmt.Errorf("load a program: %w", err)
	}
	return p, nil
}

// returns says the same of every packet.
func returns(verdict int32) asm.Instructions {
	return asm.Instructions{asm.Mov.Imm(asm.R0, verdict), asm.Return()}
}

// cloneTo sends a clone of each packet out by the device of that number.
func cloneTo(index int) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Imm(asm.R2, int32(index)),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnCloneRedirect.Call(),
		asm.Mov.Imm(asm.R0, tcxNext),
		asm.Return(),
	}
}

func (l *Lab) cloneProgram() (*ebpf.Program, error) {
	index, err := l.Router.Index(R2)
	if err != nil {
		return nil, err
	}
	return load(ebpf.SchedCLS, cloneTo(index))
}

func cloner(at ebpf.AttachType, port string, anchor link.Anchor) Start {
	return func(l *Lab) (func(), error) {
		program, err := l.cloneProgram()
		if err != nil {
			return nil, err
		}
		defer program.Close()
		index, err := l.Router.Index(port)
		if err != nil {
			return nil, err
		}
		var hook link.Link
		err = l.Router.Do(func() (err error) {
			hook, err = link.AttachTCX(link.TCXOptions{Interface: index, Program: program, Attach: at, Anchor: anchor})
			return
		})
		if errors.Is(err, ebpf.ErrNotSupported) {
			return nil, fmt.Errorf("TCX: %w", ErrLacking)
		}
		if err != nil {
			return nil, fmt.Errorf("attach a cloner: %w", err)
		}
		return func() { hook.Close() }, nil
	}
}

// pin makes a program findable for tc, which is another process.
func (l *Lab) pin(program *ebpf.Program) (path string, undo func(), err error) {
	dir, err := os.MkdirTemp("", l.prefix)
	if err != nil {
		return "", nil, err
	}
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		return "", nil, errors.Join(fmt.Errorf("bpf file system: %w", err), os.Remove(dir))
	}
	undo = func() { unix.Unmount(dir, unix.MNT_DETACH); os.Remove(dir) }
	path = filepath.Join(dir, "program")
	if err := program.Pin(path); err != nil {
		undo()
		return "", nil, err
	}
	return path, undo, nil
}

func classifier(l *Lab) (func(), error) {
	program, err := l.cloneProgram()
	if err != nil {
		return nil, err
	}
	defer program.Close()
	path, undo, err := l.pin(program)
	if err != nil {
		return nil, err
	}
	defer undo()
	return script(`tc qdisc add dev r0 clsact
		tc filter add dev r0 ingress bpf direct-action object-pinned ` + path)(l)
}

// attachXDP puts a program in front of r0, in the kernel's generic mode.
func (l *Lab) attachXDP(program *ebpf.Program) (func(), error) {
	index, err := l.Router.Index(R0)
	if err != nil {
		return nil, err
	}
	var hook link.Link
	err = l.Router.Do(func() (err error) {
		hook, err = link.AttachXDP(link.XDPOptions{Interface: index, Program: program, Flags: link.XDPGenericMode})
		return
	})
	if err != nil {
		return nil, fmt.Errorf("attach XDP: %w", err)
	}
	return func() { hook.Close() }, nil
}

func xdpInFront(l *Lab) (func(), error) {
	program, err := load(ebpf.XDP, returns(xdpPass))
	if err != nil {
		return nil, err
	}
	defer program.Close()
	return l.attachXDP(program)
}

// xdpBroadcast sends each frame of r0 out by r1, to the server's MAC address,
// and by r2: the original never comes to the router's stack.
func xdpBroadcast(l *Lab) (func(), error) {
	ports, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.DevMap, KeySize: 4, ValueSize: 4, MaxEntries: 2})
	if err != nil {
		return nil, fmt.Errorf("devmap: %w", err)
	}
	defer ports.Close()
	for i, port := range []string{R1, R2} {
		index, err := l.Router.Index(port)
		if err != nil {
			return nil, err
		}
		err = l.Router.Do(func() error { return ports.Put(uint32(i), uint32(index)) })
		if err != nil {
			return nil, fmt.Errorf("devmap: %w", err)
		}
	}
	program, err := load(ebpf.XDP, asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, 0, asm.Word), // data
		asm.LoadMem(asm.R3, asm.R1, 4, asm.Word), // data_end
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, macLength),
		asm.JGT.Reg(asm.R4, asm.R3, "pass"),
		asm.StoreImm(asm.R2, 0, 0x7102, asm.Half), // 02:71:00:00:01:02, eth0 of the server
		asm.StoreImm(asm.R2, 2, 0, asm.Half),
		asm.StoreImm(asm.R2, 4, 0x0201, asm.Half),
		asm.LoadMapPtr(asm.R1, ports.FD()),
		asm.Mov.Imm(asm.R2, 0),
		asm.Mov.Imm(asm.R3, broadcast|notTheInput),
		asm.FnRedirectMap.Call(),
		asm.Return(),
		asm.Mov.Imm(asm.R0, xdpPass).WithSymbol("pass"),
		asm.Return(),
	})
	if err != nil {
		return nil, err
	}
	defer program.Close()
	return l.attachXDP(program)
}
