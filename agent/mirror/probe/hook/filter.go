package hook

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"waxseal/agent/mirror/probe/netlink"
)

// filter is one tc filter (RTM_NEWTFILTER).
type filter struct {
	kind     string
	handle   uint32
	priority uint32
	protocol uint32 // network order, as in tcm_info
	chain    uint32

	// Of kind bpf.
	name    string
	program uint32
	flags   uint32
	acts    bool // it runs actions of its own
}

// info is tcm_info.
func (f filter) info() uint32 { return f.priority<<16 | f.protocol }

func (f filter) String() string {
	if f.kind == "bpf" {
		return fmt.Sprintf("tc filter of priority %d: BPF program %d %q", f.priority, f.program, f.name)
	}
	return fmt.Sprintf("tc filter of priority %d: %s", f.priority, f.kind)
}

func parseFilter(m netlink.Message) (filter, error) {
	rest, err := m.Rest(tcHeaderSize)
	if err != nil {
		return filter{}, err
	}
	info := binary.NativeEndian.Uint32(m.Body[16:])
	f := filter{handle: binary.NativeEndian.Uint32(m.Body[8:]), priority: info >> 16, protocol: info & 0xffff}
	var options []byte
	for a, err := range netlink.Attributes(rest) {
		if err != nil {
			return filter{}, err
		}
		switch a.Type {
		case unix.TCA_KIND:
			f.kind = a.String()
		case unix.TCA_CHAIN:
			f.chain = a.Uint32()
		case unix.TCA_OPTIONS:
			options = a.Data
		}
	}
	if f.kind != "bpf" { // the options of another kind need not be attributes
		return f, nil
	}
	return f, f.readBPF(options)
}

func (f *filter) readBPF(options []byte) error {
	for a, err := range netlink.Attributes(options) {
		if err != nil {
			return err
		}
		switch a.Type {
		case bpfName:
			f.name = a.String()
		case bpfID:
			f.program = a.Uint32()
		case bpfFlags:
			f.flags = a.Uint32()
		case bpfAct:
			f.acts = len(a.Data) > 0
		}
	}
	return nil
}

// qdisc is one queueing discipline (RTM_NEWQDISC).
type qdisc struct {
	port, handle uint32
	kind         string
}

func parseQdisc(m netlink.Message) (qdisc, error) {
	rest, err := m.Rest(tcHeaderSize)
	if err != nil {
		return qdisc{}, err
	}
	q := qdisc{port: binary.NativeEndian.Uint32(m.Body[4:]), handle: binary.NativeEndian.Uint32(m.Body[8:])}
	for a, err := range netlink.Attributes(rest) {
		if err != nil {
			return qdisc{}, err
		}
		if a.Type == unix.TCA_KIND {
			q.kind = a.String()
		}
	}
	return q, nil
}

// clsactHold is a filter of ours.
type clsactHold struct {
	clsact   *clsact
	port     uint32
	side     side
	program  uint32
	priority uint32
	handle   uint32
}

// add puts the filter in front: at the head of the first priority, which is
// where cls_bpf adds (net/sched/cls_bpf.c, cls_bpf_change), or in the first
// priority that is not another kind's.
func (h *clsactHold) add(p *ebpf.Program) error {
	info, err := p.Info()
	if err != nil {
		return err
	}
	id, _ := info.ID()
	h.program = uint32(id)
	there, err := h.clsact.filters(h.port, h.side, 0)
	if err != nil {
		return err
	}
	h.priority = freePriority(there)
	name := h.clsact.mark.on(h.clsact.made[h.port])
	options := netlink.AppendUint32(nil, bpfFD, uint32(p.FD()))
	options = netlink.AppendString(options, bpfName, name)
	options = netlink.AppendUint32(options, bpfFlags, directAction)
	body := tcHeader(h.port, 0, parents[h.side], h.priority<<16|everyProtocol)
	body = netlink.AppendString(body, unix.TCA_KIND, "bpf")
	body = netlink.AppendNested(body, unix.TCA_OPTIONS, options)
	if _, err := h.clsact.request(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE|unix.NLM_F_EXCL, body); err != nil {
		return fmt.Errorf("tc filter: %w", err)
	}
	return h.find(name)
}

// freePriority is the first priority that has no filter of another kind.
func freePriority(there []filter) uint32 {
	p := uint32(firstPriority)
	for slices.ContainsFunc(there, func(f filter) bool {
		return f.priority == p && (f.kind != "bpf" || f.protocol != everyProtocol)
	}) {
		p++
	}
	return p
}

// find learns the handle that the kernel gave the new filter.
func (h *clsactHold) find(name string) error {
	there, err := h.clsact.filters(h.port, h.side, h.priority)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(there, func(f filter) bool { return f.name == name && f.program == h.program })
	if i < 0 {
		return errors.New("tc filter: it is not there after it was added")
	}
	h.handle = there[i].handle
	return nil
}

func (h *clsactHold) look() (sight, error) {
	only := uint32(0)
	if h.priority == firstPriority { // nothing runs before this priority: ask for no other
		only = firstPriority
	}
	there, err := h.clsact.filters(h.port, h.side, only)
	if err != nil {
		return sight{}, err
	}
	var before []intruder
	if h.clsact.tcx {
		before = tcxInFront(h.port, h.side)
	}
	for _, f := range there {
		if h.is(f) {
			return sight{ours: true, before: before}, nil
		}
		before = append(before, intruder{program: f.program, text: f.String()})
	}
	if !h.clsact.hasQdisc(h.port) {
		return sight{lost: "the clsact qdisc was removed"}, nil
	}
	return sight{lost: "the tc filter was removed or replaced"}, nil
}

// tcxInFront are programs that run before every filter of a clsact qdisc.
func tcxInFront(port uint32, s side) []intruder {
	found, err := queryTCX(port, s)
	if err != nil {
		return nil
	}
	var before []intruder
	for _, p := range found.Programs {
		id, _ := p.LinkID()
		before = append(before, intruder{uint32(p.ID), uint32(id), fmt.Sprintf("tcx program %d", p.ID)})
	}
	return before
}

// is tells whether f is ours as we made it: a filter can be replaced in place,
// or given actions of its own.
func (h *clsactHold) is(f filter) bool {
	return f.kind == "bpf" && f.handle == h.handle && f.priority == h.priority &&
		f.program == h.program && f.flags&directAction != 0 && !f.acts
}

// release removes our filter if it is still ours, and the qdisc if we made it
// and nobody else's filter is in it.
func (h *clsactHold) release() error {
	there, err := h.clsact.filters(h.port, h.side, h.priority)
	if err != nil {
		return absent(err)
	}
	for _, f := range there {
		if h.is(f) {
			err = h.clsact.remove(h.port, h.side, f)
		}
	}
	return errors.Join(absent(err), h.clsact.dropQdisc(h.port))
}

func (h *clsactHold) leave() error { return nil }

// absent forgives that what is to be removed is not there.
func absent(err error) error {
	for _, gone := range []error{errNoDevice, unix.ENOENT, unix.EINVAL} {
		if errors.Is(err, gone) {
			return nil
		}
	}
	return err
}
