package watchtest

import (
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// xdpRing is how many descriptors each ring of the AF_XDP socket has.
const xdpRing = 64

// afXDP takes the frames of r0 into a ring of an AF_XDP socket
// (Documentation/networking/af_xdp.rst). One in two goes on to the router.
func afXDP(l *Lab) (func(), error) {
	fd, memory, err := l.openAFXDP()
	if err != nil {
		return nil, err
	}
	undo := func() { unix.Close(fd); unix.Munmap(memory) }
	sockets, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.XSKMap, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		undo()
		return nil, fmt.Errorf("xskmap: %w: %w", ErrLacking, err)
	}
	defer sockets.Close()
	if err := sockets.Put(uint32(0), uint32(fd)); err != nil {
		undo()
		return nil, fmt.Errorf("xskmap: %w", err)
	}
	program, err := load(ebpf.XDP, asm.Instructions{
		asm.FnGetPrandomU32.Call(),
		asm.And.Imm(asm.R0, 1),
		asm.JNE.Imm(asm.R0, 0, "pass"),
		asm.LoadMapPtr(asm.R1, sockets.FD()),
		asm.Mov.Imm(asm.R2, 0),
		asm.Mov.Imm(asm.R3, xdpPass),
		asm.FnRedirectMap.Call(),
		asm.Return(),
		asm.Mov.Imm(asm.R0, xdpPass).WithSymbol("pass"),
		asm.Return(),
	})
	if err != nil {
		undo()
		return nil, err
	}
	defer program.Close()
	detach, err := l.attachXDP(program)
	if err != nil {
		undo()
		return nil, err
	}
	return func() { detach(); undo() }, nil
}

func (l *Lab) openAFXDP() (fd int, memory []byte, err error) {
	index, err := l.Router.Index(R0)
	if err != nil {
		return 0, nil, err
	}
	memory, err = unix.Mmap(-1, 0, xdpRing*4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return 0, nil, err
	}
	err = l.Router.Do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return fmt.Errorf("AF_XDP: %w: %w", ErrLacking, err)
		}
		area := unix.XDPUmemReg{Addr: uint64(uintptr(unsafe.Pointer(&memory[0]))), Len: uint64(len(memory)), Size: 4096}
		_, _, failed := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_XDP, unix.XDP_UMEM_REG,
			uintptr(unsafe.Pointer(&area)), 24, 0) // without the field that is new in 6.8
		if failed != 0 {
			return fmt.Errorf("umem: %w", failed)
		}
		for _, option := range []int{unix.XDP_UMEM_FILL_RING, unix.XDP_UMEM_COMPLETION_RING, unix.XDP_RX_RING} {
			if err := unix.SetsockoptInt(fd, unix.SOL_XDP, option, xdpRing); err != nil {
				return fmt.Errorf("ring of AF_XDP: %w", err)
			}
		}
		return unix.Bind(fd, &unix.SockaddrXDP{Flags: unix.XDP_COPY, Ifindex: uint32(index)})
	})
	if err != nil {
		unix.Munmap(memory)
		if fd > 0 {
			unix.Close(fd)
		}
		return 0, nil, fmt.Errorf("AF_XDP on %s: %w", R0, err)
	}
	return fd, memory, nil
}
