package watchtest

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
)

var attacksByNetfilter = []Attack{
	{Name: "NFLOG group and its listener", Want: Want{Kinds: []mirror.Kind{mirror.Socket, mirror.Rule}, Cause: "(?i)log", Severity: mirror.Notice},
		Start: both(nflog, nft(`table inet wx { chain c { type filter hook forward priority 0; log group 71; }
}`))},
	{Name: "NFQUEUE and its listener", Want: Want{Kinds: []mirror.Kind{mirror.Socket, mirror.Rule}, Cause: "(?i)queue", Severity: mirror.Info},
		Start: both(nfqueue, where(nft(`table inet wx { chain c { type filter hook forward priority 0; queue num 71 bypass; }
}`)))},
}

// Messages of nfnetlink_log and nfnetlink_queue (linux/netfilter/nfnetlink*.h).
const (
	nflogConfig   = unix.NFNL_SUBSYS_ULOG<<8 | 1  // NFULNL_MSG_CONFIG
	nfqueueConfig = unix.NFNL_SUBSYS_QUEUE<<8 | 2 // NFQNL_MSG_CONFIG
	configCommand = 1                             // NFULA_CFG_CMD, NFQA_CFG_CMD
	group         = 71
)

// nflog binds to log group 71.
func nflog(l *Lab) (func(), error) {
	return configured(l, nflogConfig, attribute(configCommand, []byte{1})) // NFULNL_CFG_CMD_BIND
}

// nfqueue binds to queue 71 and never answers: the rule's bypass is for when
// nobody listens, so that what is queued is held back as an implant would that
// fell asleep.
func nfqueue(l *Lab) (func(), error) {
	return configured(l, nfqueueConfig, attribute(configCommand, []byte{1, 0, 0, unix.AF_INET}))
}

// configured opens a netfilter socket, sends one configuration for group 71,
// and keeps the socket open.
func configured(l *Lab, kind uint16, payload []byte) (func(), error) {
	var fd int
	err := l.Router.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		return
	})
	if err != nil {
		return nil, fmt.Errorf("netfilter socket: %w", err)
	}
	message := binary.NativeEndian.AppendUint32(nil, uint32(20+len(payload)))
	message = binary.NativeEndian.AppendUint16(message, kind)
	message = binary.NativeEndian.AppendUint16(message, unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	message = append(message, 0, 0, 0, 1, 0, 0, 0, 0) // sequence, port
	message = append(message, unix.AF_UNSPEC, 0)      // nfgenmsg
	message = binary.BigEndian.AppendUint16(message, group)
	message = append(message, payload...)
	if err := ask(fd, message); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("listen to group %d: %w", group, err)
	}
	return func() { unix.Close(fd) }, nil
}

func ask(fd int, message []byte) error {
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}); err != nil {
		return err
	}
	if err := unix.Sendto(fd, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return err
	}
	if n >= 20 && binary.NativeEndian.Uint16(answer[4:]) == unix.NLMSG_ERROR {
		if code := int32(binary.NativeEndian.Uint32(answer[16:])); code != 0 {
			return unix.Errno(-code)
		}
	}
	return nil
}

// attribute is a netlink attribute, padded.
func attribute(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}
