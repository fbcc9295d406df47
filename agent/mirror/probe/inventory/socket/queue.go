package socket

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror/probe/netlink"
)

// Queue is a process's end of nfnetlink_log or nfnetlink_queue: it takes the
// packets that rules send to its number.
type Queue struct {
	Logs   bool   // it takes copies (NFLOG); otherwise the packets themselves (NFQUEUE)
	Number uint16 // of the group or queue
	Port   uint32 // netlink port of the process's socket, mostly its process id
	Copies uint8  // 0 nothing, 1 what is known about a packet, 2 also the packet
	Range  uint32 // how many bytes of a packet
}

// Queues lists the listeners of NFLOG and NFQUEUE, at most limit. A kernel
// without them has none.
func Queues(limit int) ([]Queue, error) {
	var found []Queue
	for _, t := range []struct {
		table string
		parse func([]string) (Queue, error)
	}{{"netfilter/nfnetlink_log", logLine}, {"netfilter/nfnetlink_queue", queueLine}} {
		err := read(t.table, 0, func(fields []string) (bool, error) {
			if len(found) >= limit {
				return false, ErrTooMany
			}
			q, err := t.parse(fields)
			found = append(found, q)
			return true, err
		})
		if err != nil && !errors.Is(err, ErrUnsupported) {
			return found, err
		}
	}
	return found, nil
}

// logLine reads "group portid qlen copy_mode copy_range flush references"
// (net/netfilter/nfnetlink_log.c, seq_show).
func logLine(fields []string) (Queue, error) { return queue(fields, 7, true) }

// queueLine reads "number portid total copy_mode copy_range dropped user_dropped
// last 1" (net/netfilter/nfnetlink_queue.c, seq_show).
func queueLine(fields []string) (Queue, error) { return queue(fields, 8, false) }

func queue(fields []string, want int, logs bool) (Queue, error) {
	if len(fields) < want {
		return Queue{}, fmt.Errorf("%d fields, want %d", len(fields), want)
	}
	number, err1 := strconv.ParseUint(fields[0], 10, 16)
	port, err2 := strconv.ParseInt(fields[1], 10, 64) // printed with a sign by some kernels
	copies, err3 := strconv.ParseUint(fields[3], 10, 8)
	size, err4 := strconv.ParseUint(fields[4], 10, 32)
	return Queue{Logs: logs, Number: uint16(number), Port: uint32(port), Copies: uint8(copies), Range: uint32(size)},
		errors.Join(err1, err2, err3, err4)
}

// XDP is a socket of AF_XDP: an XDP program hands frames of one queue of a
// device to it.
type XDP struct {
	Inode uint32
	Index int // of the device; 0: not bound
	Queue uint32
}

// struct xdp_diag_req and xdp_diag_msg, include/uapi/linux/xdp_diag.h.
const (
	xdpHeader   = 16
	xdpShowInfo = 1
	xdpAttrInfo = 1 // struct xdp_diag_info: device, queue
)

// XDPs lists the sockets of AF_XDP, at most limit.
func XDPs(ctx context.Context, limit int) ([]XDP, error) {
	request := make([]byte, 20)
	request[0] = unix.AF_XDP
	binary.NativeEndian.PutUint32(request[8:], xdpShowInfo)
	binary.NativeEndian.PutUint64(request[12:], ^uint64(0)) // INET_DIAG_NOCOOKIE
	return diag(ctx, request, limit, parseXDP)
}

func parseXDP(body []byte) (XDP, error) {
	if len(body) < xdpHeader || body[0] != unix.AF_XDP {
		return XDP{}, fmt.Errorf("%w: %d bytes are no XDP socket", netlink.ErrMalformed, len(body))
	}
	x := XDP{Inode: binary.NativeEndian.Uint32(body[4:])}
	for a, err := range netlink.Attributes(body[xdpHeader:]) {
		if err != nil {
			return XDP{}, err
		}
		if a.Type == xdpAttrInfo {
			if len(a.Data) < 8 {
				return XDP{}, short(a)
			}
			x.Index = int(int32(binary.NativeEndian.Uint32(a.Data)))
			x.Queue = binary.NativeEndian.Uint32(a.Data[4:])
		}
	}
	return x, nil
}
