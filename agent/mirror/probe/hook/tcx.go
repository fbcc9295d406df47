package hook

import (
	"errors"
	"fmt"
	"math"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// tcx puts programs on ports as BPF links (kernel 6.6 and later).
type tcx struct {
	pins *pins
}

func (tcx) name() Way { return TCX }

func (tcx) forget(uint32) {}

var tcxTypes = [...]ebpf.AttachType{ingress: ebpf.AttachTCXIngress, egress: ebpf.AttachTCXEgress}

func (w tcx) attach(port uint32, s side, p *ebpf.Program) (hold, error) {
	if h := w.pins.adopt(port, s, p); h != nil {
		h.pins = w.pins
		return h, nil
	}
	l, err := link.AttachTCX(link.TCXOptions{
		Interface: int(port),
		Program:   p,
		Attach:    tcxTypes[s],
		Anchor:    link.Head(),
	})
	switch {
	case errors.Is(err, unix.ENODEV):
		return nil, errNoDevice
	case errors.Is(err, unix.EEXIST): // someone took our program's id and attached it
		return nil, fmt.Errorf("our %s program is on the port already, not by our link: %w", s, err)
	case err != nil:
		return nil, err
	}
	h, err := holdTCX(l, port, s)
	if err != nil {
		return nil, err
	}
	h.pins = w.pins
	w.pins.pin(h)
	return h, nil
}

// again must let go first: the kernel does not take the same program twice on
// one hook (kernel/bpf/mprog.c, bpf_mprog_attach).
func (w tcx) again(old hold, port uint32, s side, p *ebpf.Program) (hold, error) {
	if err := old.release(); err != nil {
		return nil, err
	}
	return w.attach(port, s, p)
}

// tcxWorks tries to attach a program to a device that cannot be. An error that
// is ebpf.ErrNotSupported says that the kernel has no TCX.
func tcxWorks() error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.SchedCLS,
		License:      "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()}, // TCX_NEXT
	})
	if err != nil {
		return err
	}
	defer p.Close()
	_, err = link.AttachTCX(link.TCXOptions{Interface: math.MaxInt32, Program: p, Attach: ebpf.AttachTCXIngress})
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// holdTCX takes over a link that is attached.
func holdTCX(l link.Link, port uint32, s side) (*tcxHold, error) {
	info, err := l.Info()
	if err != nil {
		l.Close()
		return nil, err
	}
	return &tcxHold{link: l, id: info.ID, program: info.Program, port: port, side: s}, nil
}

// tcxHold keeps the link referenced: a link that nobody holds is detached.
type tcxHold struct {
	link    link.Link
	id      link.ID
	program ebpf.ProgramID
	port    uint32
	side    side
	pins    *pins
	pinned  string // path; empty: it is not
}

func queryTCX(port uint32, s side) (*link.QueryResult, error) {
	return link.QueryPrograms(link.QueryOptions{Target: int(port), Attach: tcxTypes[s]})
}

func (h *tcxHold) look() (sight, error) {
	found, err := queryTCX(h.port, h.side)
	switch {
	case errors.Is(err, unix.ENODEV):
		return sight{}, h.where()
	case errors.Is(err, unix.ENOENT): // nothing at all is attached
		return sight{lost: "the tcx link was detached"}, nil
	case err != nil:
		return sight{}, err
	}
	var before []intruder
	for _, p := range found.Programs {
		id, _ := p.LinkID()
		switch {
		case id != h.id:
			before = append(before, intruder{uint32(p.ID), uint32(id), fmt.Sprintf("tcx program %d", p.ID)})
		case p.ID != h.program:
			return sight{lost: fmt.Sprintf("the program of the tcx link was replaced by program %d", p.ID)}, nil
		default:
			return sight{ours: true, before: before, unpinned: h.pins.keep(h)}, nil
		}
	}
	return sight{lost: "the tcx link was detached"}, nil
}

// where tells a device that is gone from one that went to another namespace: a
// link follows its device.
func (h *tcxHold) where() error {
	info, err := h.link.Info()
	if err == nil && info.TCX() != nil && info.TCX().Ifindex != 0 {
		return errMoved
	}
	return errNoDevice
}

func (h *tcxHold) release() error {
	_ = h.link.Unpin()
	_ = h.link.Detach() // also where someone else holds a reference; gone is no error
	return h.link.Close()
}

func (h *tcxHold) leave() error { return h.link.Close() }
