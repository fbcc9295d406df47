package syscalls

import (
	"fmt"

	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// rule selects calls of one system call by one of its arguments.
type rule struct {
	number   int
	argument int     // 0 to 2
	bits     uint32  // the argument has one of these; or
	values   []int32 // it is one of these; both empty: every call
	pointer  bool    // the argument points to what is compared (clone3)
}

// Commands of bpf(2) that load or attach, include/uapi/linux/bpf.h.
const (
	bpfLoad        = 5  // BPF_PROG_LOAD
	bpfAttach      = 8  // BPF_PROG_ATTACH
	bpfTracepoint  = 17 // BPF_RAW_TRACEPOINT_OPEN
	bpfLink        = 28 // BPF_LINK_CREATE
	bpfLinkUpdate  = 29 // BPF_LINK_UPDATE
	solXDP         = 283
	solPacket      = 263
	writeText      = 4      // PTRACE_POKETEXT
	writeData      = 5      // PTRACE_POKEDATA
	writeUser      = 6      // PTRACE_POKEUSR
	setRegisters   = 13     // PTRACE_SETREGS
	ptraceAttach   = 16     // PTRACE_ATTACH
	setRegisterSet = 0x4205 // PTRACE_SETREGSET
	ptraceSeize    = 0x4206 // PTRACE_SEIZE
)

// rules are what is told, by the numbers of the architecture that this program
// was built for. Calls by a 32-bit or x32 program have other numbers: they are
// seen by the looks alone.
var rules = []rule{
	{number: unix.SYS_SOCKET, argument: 0, values: []int32{unix.AF_PACKET, unix.AF_XDP}},
	{number: unix.SYS_SETSOCKOPT, argument: 1, values: []int32{solPacket, solXDP}},
	{number: unix.SYS_SETSOCKOPT, argument: 2, values: []int32{unix.SO_ATTACH_FILTER, unix.SO_ATTACH_BPF}},
	{number: unix.SYS_BPF, argument: 0, values: []int32{bpfLoad, bpfAttach, bpfTracepoint, bpfLink, bpfLinkUpdate}},
	{number: unix.SYS_UNSHARE, argument: 0, bits: unix.CLONE_NEWNET},
	{number: unix.SYS_CLONE, argument: 0, bits: unix.CLONE_NEWNET},
	{number: unix.SYS_CLONE3, argument: 0, bits: unix.CLONE_NEWNET, pointer: true},
	{number: unix.SYS_SETNS},
	{number: unix.SYS_INIT_MODULE},
	{number: unix.SYS_FINIT_MODULE},
	{number: unix.SYS_PTRACE, argument: 0, values: []int32{writeText, writeData, writeUser, setRegisters, ptraceAttach, setRegisterSet, ptraceSeize}},
	{number: unix.SYS_PROCESS_VM_WRITEV},
}

// The event on the program's stack: process, thread, number, padding, three
// arguments, name.
const (
	eventSize = 56
	onStack   = -eventSize
	atThread  = onStack // bpf_get_current_pid_tgid: thread in the lower half
	atNumber  = onStack + 8
	atArgs    = onStack + 16
	atComm    = onStack + 40
	atRead    = onStack - 8 // scratch
)

// instructions are the program at raw tracepoint sys_enter, whose context is the
// registers of the caller and the number of the call (include/trace/events/syscalls.h).
// Calls that no rule names cost two loads and one comparison per rule. events
// and self are descriptors of its maps.
func instructions(events, self int, registers [3]int16) asm.Instructions {
	code := asm.Instructions{
		asm.LoadMem(asm.R7, asm.R1, 8, asm.DWord),
		asm.LoadMem(asm.R6, asm.R1, 0, asm.DWord),
	}
	numbers := map[int]bool{}
	for _, r := range rules {
		if !numbers[r.number] {
			numbers[r.number] = true
			code = append(code, asm.JEq.Imm(asm.R7, int32(r.number), "read"))
		}
	}
	code = append(code, asm.Ja.Label("out"))
	code = append(code, readArguments(registers)...)
	for n, r := range rules {
		code = append(code, r.test(n)...)
	}
	code = append(code, tell(events, self)...)
	return append(code, asm.Mov.Imm(asm.R0, 0).WithSymbol("out"), asm.Return())
}

func readArguments(registers [3]int16) asm.Instructions {
	code := asm.Instructions{
		asm.Mov.Imm(asm.R0, 0).WithSymbol("read"),
		asm.StoreMem(asm.RFP, atNumber, asm.R7, asm.DWord),
	}
	for n, offset := range registers {
		code = append(code,
			asm.Mov.Reg(asm.R1, asm.RFP), asm.Add.Imm(asm.R1, int32(atArgs+8*n)),
			asm.Mov.Imm(asm.R2, 8),
			asm.Mov.Reg(asm.R3, asm.R6), asm.Add.Imm(asm.R3, int32(offset)),
			asm.FnProbeReadKernel.Call(),
		)
	}
	return code
}

// test goes to "tell" if the rule holds.
func (r rule) test(n int) asm.Instructions {
	next := "out"
	if n+1 < len(rules) {
		next = fmt.Sprintf("rule%d", n+1)
	}
	code := asm.Instructions{
		asm.Mov.Imm(asm.R0, 0).WithSymbol(fmt.Sprintf("rule%d", n)),
		asm.JNE.Imm(asm.R7, int32(r.number), next),
	}
	if r.pointer {
		code = append(code,
			asm.Mov.Imm(asm.R9, 0), asm.StoreMem(asm.RFP, atRead, asm.R9, asm.DWord),
			asm.Mov.Reg(asm.R1, asm.RFP), asm.Add.Imm(asm.R1, atRead), asm.Mov.Imm(asm.R2, 8),
			asm.LoadMem(asm.R3, asm.RFP, int16(atArgs+8*r.argument), asm.DWord),
			asm.FnProbeReadUser.Call(),
			asm.LoadMem(asm.R8, asm.RFP, atRead, asm.Word),
		)
	} else {
		code = append(code, asm.LoadMem(asm.R8, asm.RFP, int16(atArgs+8*r.argument), asm.Word))
	}
	switch {
	case r.bits != 0:
		code = append(code, asm.JSet.Imm(asm.R8, int32(r.bits), "tell"))
	case len(r.values) == 0:
		return append(code, asm.Ja.Label("tell"))
	}
	for _, v := range r.values {
		code = append(code, asm.JEq.Imm(asm.R8, v, "tell"))
	}
	return append(code, asm.Ja.Label(next))
}

// tell copies the event out, unless the caller is the watch itself.
func tell(events, self int) asm.Instructions {
	return asm.Instructions{
		asm.FnGetCurrentPidTgid.Call().WithSymbol("tell"),
		asm.StoreMem(asm.RFP, atThread, asm.R0, asm.DWord),
		asm.Mov.Reg(asm.R8, asm.R0), asm.RSh.Imm(asm.R8, 32),
		asm.Mov.Imm(asm.R9, 0), asm.StoreMem(asm.RFP, atRead, asm.R9, asm.DWord),
		asm.LoadMapPtr(asm.R1, self),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, atRead),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.Word),
		asm.JEq.Reg(asm.R1, asm.R8, "out"),
		asm.Mov.Reg(asm.R1, asm.RFP), asm.Add.Imm(asm.R1, atComm), asm.Mov.Imm(asm.R2, 16),
		asm.FnGetCurrentComm.Call(),
		asm.LoadMapPtr(asm.R1, events),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, onStack), asm.Mov.Imm(asm.R3, eventSize), asm.Mov.Imm(asm.R4, 0),
		asm.FnRingbufOutput.Call(),
	}
}
