package program

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"waxseal/agent/mirror/probe/netlink"
)

// Link holds a program at its place (bpf(2), BPF_LINK_CREATE).
type Link struct {
	ID, Program uint32
	Place       string // "tcx", "raw tracepoint net_dev_queue"
}

// ReadLink describes a link.
func ReadLink(id uint32) (Link, error) {
	l, err := link.NewFromID(link.ID(id))
	if errors.Is(err, fs.ErrNotExist) {
		return Link{}, fmt.Errorf("BPF link %d %w", id, ErrGone)
	}
	if err != nil {
		return Link{}, fmt.Errorf("BPF link %d: %w", id, err)
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return Link{}, fmt.Errorf("BPF link %d: %w", id, err)
	}
	return Link{ID: id, Program: uint32(info.Program), Place: place(info)}, nil
}

// The links whose place has a name. The device of a TCX or XDP link is a number
// in a namespace that the link does not tell: see Attachments.
func place(info *link.Info) string {
	switch {
	case info.TCX() != nil:
		return "tcx"
	case info.XDP() != nil:
		return "xdp"
	case info.Netkit() != nil:
		return "netkit"
	case info.RawTracepoint() != nil:
		return "raw tracepoint " + info.RawTracepoint().Name
	case info.Cgroup() != nil:
		return fmt.Sprintf("cgroup %d", info.Cgroup().CgroupId)
	case info.NetNs() != nil:
		return fmt.Sprintf("network namespace net:[%d]", info.NetNs().NetnsInode)
	case info.Netfilter() != nil:
		return fmt.Sprintf("netfilter hook %d of family %d", info.Netfilter().Hook, info.Netfilter().ProtocolFamily)
	case info.PerfEvent() != nil && info.PerfEvent().Kprobe() != nil:
		return "kprobe " + info.PerfEvent().Kprobe().Function
	case info.Tracing() != nil:
		return fmt.Sprintf("function %d of BTF object %d", info.Tracing().TargetBtfId, info.Tracing().TargetObjectId)
	}
	return fmt.Sprintf("link of type %d", info.Type)
}

// Attachment is a program at a device.
type Attachment struct {
	Program uint32
	Port    string
	Place   string // "tcx ingress", "tcx egress", "xdp"
}

// Attachments lists the programs at the devices of the calling thread's
// namespace: XDP as the link tells, and TCX. Filters of tc are not among them.
func Attachments(ctx context.Context, limit int) ([]Attachment, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var found []Attachment
	devices := map[int]string{}
	err = conn.Dump(ctx, unix.RTM_GETLINK, make([]byte, unix.SizeofIfInfomsg), func(m netlink.Message) error {
		if m.Type != unix.RTM_NEWLINK || len(devices) >= limit {
			return nil
		}
		index, name, xdp, err := parseLink(m)
		if err != nil {
			return err
		}
		devices[index] = name
		for _, id := range xdp {
			found = append(found, Attachment{id, name, "xdp"})
		}
		return nil
	})
	if err != nil && !errors.Is(err, netlink.ErrChanged) {
		return nil, err
	}
	for index, name := range devices {
		found = append(found, tcx(index, name)...)
	}
	return found, nil
}

// tcx asks for the programs of a device. A kernel before 6.6 has none, and a
// device may be gone.
func tcx(index int, name string) []Attachment {
	var found []Attachment
	for place, attach := range map[string]ebpf.AttachType{"tcx ingress": ebpf.AttachTCXIngress, "tcx egress": ebpf.AttachTCXEgress} {
		result, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: attach})
		if err != nil {
			continue
		}
		for _, p := range result.Programs {
			found = append(found, Attachment{uint32(p.ID), name, place})
		}
	}
	return found
}

// Attributes of IFLA_XDP, include/uapi/linux/if_link.h.
const (
	firstXDP = 4 // IFLA_XDP_PROG_ID
	lastXDP  = 7 // IFLA_XDP_HW_PROG_ID
)

// parseLink reads the index and name of a device, and the XDP programs at it.
func parseLink(m netlink.Message) (index int, name string, xdp []uint32, err error) {
	rest, err := m.Rest(unix.SizeofIfInfomsg)
	if err != nil {
		return 0, "", nil, err
	}
	index = int(int32(binary.NativeEndian.Uint32(m.Body[4:])))
	for a, err := range netlink.Attributes(rest) {
		if err != nil {
			return 0, "", nil, err
		}
		switch a.Type {
		case unix.IFLA_IFNAME:
			name = a.String()
		case unix.IFLA_XDP:
			xdp = parseXDP(a.Data)
		}
	}
	return index, name, xdp, nil
}

func parseXDP(data []byte) []uint32 {
	var found []uint32
	seen := map[uint32]bool{0: true}
	for a, err := range netlink.Attributes(data) {
		if err != nil {
			return found
		}
		if id := a.Uint32(); a.Type >= firstXDP && a.Type <= lastXDP && !seen[id] {
			seen[id] = true
			found = append(found, id)
		}
	}
	return found
}
