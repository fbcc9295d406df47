package hook

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"waxseal/agent/mirror/probe/netlink"
)

// Of linux/pkt_sched.h and linux/pkt_cls.h.
const (
	clsactHandle  = 0xffff0000 // TC_H_MAKE(TC_H_CLSACT, 0)
	clsactParent  = 0xfffffff1 // TC_H_CLSACT, the same as TC_H_INGRESS
	firstPriority = 1
	directAction  = 1 // TCA_BPF_FLAG_ACT_DIRECT

	bpfAct   = 1  // TCA_BPF_ACT
	bpfFD    = 6  // TCA_BPF_FD
	bpfName  = 7  // TCA_BPF_NAME
	bpfFlags = 8  // TCA_BPF_FLAGS
	bpfID    = 11 // TCA_BPF_ID
)

// everyProtocol is htons(ETH_P_ALL).
var everyProtocol = uint32(binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL}))

var parents = [...]uint32{ingress: 0xfffffff2, egress: 0xfffffff3} // TC_H_CLSACT with TC_H_MIN_INGRESS, TC_H_MIN_EGRESS

// clsact puts programs on ports as direct-action filters of the clsact qdisc
// (kernel 4.5 and later).
type clsact struct {
	conn *netlink.Conn
	mark mark            // the name of our filters
	made map[uint32]bool // ports whose qdisc is ours
	tcx  bool            // this kernel also has TCX, which runs before
}

func newClsact(c *netlink.Conn) *clsact {
	return &clsact{conn: c, mark: ownMark(), made: map[uint32]bool{}, tcx: tcxWorks() == nil}
}

func (c *clsact) name() Way { return Clsact }

func (c *clsact) forget(port uint32) { delete(c.made, port) }

func (c *clsact) attach(port uint32, s side, p *ebpf.Program) (hold, error) {
	if err := c.qdisc(port, s); err != nil {
		return nil, err
	}
	stale, err := c.leftovers(port, s)
	if err != nil {
		return nil, err
	}
	h := &clsactHold{clsact: c, port: port, side: s}
	if err := h.add(p); err != nil {
		return nil, errors.Join(err, c.dropQdisc(port))
	}
	for _, f := range stale { // ours is in place: no packet passes unseen between them
		if err := c.remove(port, s, f); err != nil {
			return nil, errors.Join(fmt.Errorf("filter that an earlier watch left: %w", err), h.release())
		}
	}
	return h, nil
}

// again adds a new filter in front before the old one goes, so that no packet
// passes unseen.
func (c *clsact) again(old hold, port uint32, s side, p *ebpf.Program) (hold, error) {
	fresh, err := c.attach(port, s, p)
	if err != nil {
		return nil, err
	}
	was, is := old.(*clsactHold), fresh.(*clsactHold)
	if was.priority == is.priority && was.handle == is.handle { // the old one was gone, its number is the new one's
		return fresh, nil
	}
	return fresh, old.release()
}

// qdisc makes the clsact qdisc unless there is one. An ingress qdisc can be in
// its place; that takes filters for egress too, and runs them at ingress
// (net/sched/sch_ingress.c, ingress_tcf_block).
func (c *clsact) qdisc(port uint32, s side) error {
	body := netlink.AppendString(tcHeader(port, clsactHandle, clsactParent, 0), unix.TCA_KIND, "clsact")
	_, err := c.request(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL, body)
	switch {
	case errors.Is(err, unix.EEXIST) && s == ingress:
		return nil
	case errors.Is(err, unix.EEXIST):
		return c.isClsact(port)
	case err != nil:
		return fmt.Errorf("clsact qdisc: %w", err)
	}
	c.made[port] = true
	return nil
}

// isClsact is an error unless the qdisc in the place of clsact is one. Asked for
// one qdisc, the kernel tells it to all who listen to tc instead of to us.
func (c *clsact) isClsact(port uint32) error {
	ctx, cancel := context.WithTimeout(context.Background(), answerWithin)
	defer cancel()
	found := ""
	err := c.conn.Dump(ctx, unix.RTM_GETQDISC, tcHeader(port, 0, 0, 0), func(m netlink.Message) error {
		q, err := parseQdisc(m)
		if q.port == port && q.handle == clsactHandle {
			found = q.kind
		}
		return err
	})
	switch {
	case err != nil && !errors.Is(err, netlink.ErrChanged):
		return fmt.Errorf("qdiscs: %w", err)
	case found != "clsact":
		delete(c.made, port)
		return fmt.Errorf("the port has a qdisc %q of someone else, which has no egress side", found)
	}
	return nil
}

// hasQdisc tells whether the place of the clsact qdisc is taken. Asked for the
// filters of a qdisc that is not there, the kernel lists none.
func (c *clsact) hasQdisc(port uint32) bool {
	_, err := c.request(unix.RTM_GETQDISC, 0, tcHeader(port, clsactHandle, 0, 0))
	return err == nil
}

// dropQdisc removes the qdisc if it is ours and empty. Between the look and the
// removal someone may add a filter, which then goes too: the kernel offers no
// removal of an empty qdisc only.
func (c *clsact) dropQdisc(port uint32) error {
	if !c.made[port] {
		return nil
	}
	for _, s := range sides {
		there, err := c.filters(port, s, 0)
		if err != nil || len(there) > 0 {
			return absent(err)
		}
	}
	delete(c.made, port)
	body := netlink.AppendString(tcHeader(port, clsactHandle, clsactParent, 0), unix.TCA_KIND, "clsact")
	_, err := c.request(unix.RTM_DELQDISC, 0, body)
	return absent(err)
}

// leftovers are filters of a watch that was killed. If it had made the qdisc,
// that is ours now.
func (c *clsact) leftovers(port uint32, s side) ([]filter, error) {
	all, err := c.filters(port, s, 0)
	if err != nil {
		return nil, err
	}
	var stale []filter
	for _, f := range all {
		if m, ours := parseMark(f.name); ours && !m.alive() {
			stale = append(stale, f)
			c.made[port] = c.made[port] || m.qdisc
		}
	}
	return stale, nil
}

// filters lists what is on one side of a port, in the order in which the kernel
// runs it. priority 0 is all.
func (c *clsact) filters(port uint32, s side, priority uint32) ([]filter, error) {
	ctx, cancel := context.WithTimeout(context.Background(), answerWithin)
	defer cancel()
	var all []filter
	body := tcHeader(port, 0, parents[s], priority<<16)
	err := c.conn.Dump(ctx, unix.RTM_GETTFILTER, body, func(m netlink.Message) error {
		f, err := parseFilter(m)
		if err == nil && f.handle != 0 && f.chain == 0 { // other chains are reached through filters of this one
			all = append(all, f)
		}
		return err
	})
	if errors.Is(err, netlink.ErrChanged) {
		err = nil // the next look tells more
	}
	return all, deviceError(err)
}

func (c *clsact) remove(port uint32, s side, f filter) error {
	body := netlink.AppendString(tcHeader(port, f.handle, parents[s], f.info()), unix.TCA_KIND, f.kind)
	_, err := c.request(unix.RTM_DELTFILTER, 0, body)
	return err
}

func (c *clsact) request(kind, flags uint16, body []byte) ([]netlink.Message, error) {
	ctx, cancel := context.WithTimeout(context.Background(), answerWithin)
	defer cancel()
	answers, err := c.conn.Request(ctx, kind, flags, body)
	return answers, deviceError(err)
}

func deviceError(err error) error {
	if errors.Is(err, unix.ENODEV) {
		return errNoDevice
	}
	return err
}

const tcHeaderSize = 20

// tcHeader is struct tcmsg of linux/rtnetlink.h.
func tcHeader(port, handle, parent, info uint32) []byte {
	b := make([]byte, 4, 64)
	b = binary.NativeEndian.AppendUint32(b, port)
	b = binary.NativeEndian.AppendUint32(b, handle)
	b = binary.NativeEndian.AppendUint32(b, parent)
	return binary.NativeEndian.AppendUint32(b, info)
}
