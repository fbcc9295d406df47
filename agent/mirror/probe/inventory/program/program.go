// Package program lists the BPF programs and links of the kernel, what they are
// attached to, and whether a program calls a function by which packets are
// copied or diverted.
//
// It loads and attaches nothing. The kernel shows a program's instructions
// after the verifier has put addresses of functions into them; their names are
// found through the kernel's table of symbols. Where the kernel hides addresses,
// that a program's calls are unknown is said of each.
package program

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Program is a loaded program. Programs do not change.
type Program struct {
	ID      uint32
	Text    string   // "TYPE NAME TAG", as the measurement at boot spells it
	Type    string   //
	Packets bool     // programs of its type are given packets
	Copies  []string // functions it calls that copy or divert packets, or hand data to user space
	Unknown string   // why its calls are not known; empty: they are
}

// ErrGone says that a program or link has been unloaded meanwhile.
var ErrGone = errors.New("is no longer loaded")

// Commands of bpf(2), include/uapi/linux/bpf.h.
const (
	nextProgram = 11 // BPF_PROG_GET_NEXT_ID
	nextLink    = 31 // BPF_LINK_GET_NEXT_ID
)

// IDs lists the ids of the loaded programs, at most limit.
func IDs(limit int) (ids []uint32, more bool, err error) { return walk(nextProgram, limit) }

// LinkIDs lists the ids of the links, at most limit.
func LinkIDs(limit int) (ids []uint32, more bool, err error) { return walk(nextLink, limit) }

func walk(command uintptr, limit int) ([]uint32, bool, error) {
	var ids []uint32
	attr := struct{ start, next, flags uint32 }{}
	for {
		_, _, errno := unix.Syscall(unix.SYS_BPF, command, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
		switch {
		case errno == unix.ENOENT:
			return ids, false, nil
		case errno != 0:
			return nil, false, fmt.Errorf("walk of BPF ids: %w", errno)
		case len(ids) == limit:
			return ids, true, nil
		}
		ids = append(ids, attr.next)
		attr.start = attr.next
	}
}

// Read describes a program.
func Read(id uint32, symbols *Symbols) (Program, error) {
	p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	if errors.Is(err, fs.ErrNotExist) {
		return Program{}, fmt.Errorf("BPF program %d %w", id, ErrGone)
	}
	if err != nil {
		return Program{}, fmt.Errorf("BPF program %d: %w", id, err)
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return Program{}, fmt.Errorf("BPF program %d: %w", id, err)
	}
	name := info.Name
	if name == "" {
		name = "-"
	}
	found := Program{ID: id, Type: info.Type.String(), Text: fmt.Sprintf("%s %s %s", info.Type, name, info.Tag), Packets: packets(info.Type)}
	instructions, err := info.Instructions()
	if err != nil {
		found.Unknown = "the kernel does not show its instructions"
		return found, nil
	}
	var calls []int64
	for _, ins := range instructions {
		if ins.IsBuiltinCall() || ins.IsKfuncCall() {
			calls = append(calls, ins.Constant)
		}
	}
	found.Copies, found.Unknown = symbols.name(calls)
	return found, nil
}

// packets tells whether the kernel gives packets to programs of a type. The
// others see them, if at all, by reading the kernel's memory.
func packets(t ebpf.ProgramType) bool {
	switch t {
	case ebpf.Kprobe, ebpf.TracePoint, ebpf.PerfEvent, ebpf.RawTracepoint, ebpf.RawTracepointWritable, ebpf.Tracing, ebpf.LSM,
		ebpf.CGroupDevice, ebpf.CGroupSysctl, ebpf.CGroupSockopt, ebpf.CGroupSock, ebpf.CGroupSockAddr, ebpf.Syscall, ebpf.LircMode2:
		return false
	}
	return true
}

// Diverts tells whether a program copies or diverts packets by itself, or hands
// packets that the kernel gives to it to user space.
func (p Program) Diverts() bool {
	return len(p.Copies) > 0 && (p.Packets || slices.ContainsFunc(p.Copies, ofPackets))
}

// ofPackets tells whether a function hands over packets whoever calls it.
func ofPackets(name string) bool {
	return strings.HasPrefix(name, "bpf_skb_") || strings.HasPrefix(name, "bpf_xdp_")
}
