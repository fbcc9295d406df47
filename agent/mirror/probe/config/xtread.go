package config

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
)

// iptables without nftables announces nothing, so its tables are read often.
const xtEvery = 100 * time.Millisecond

// From include/uapi/linux/netfilter_ipv4/ip_tables.h; those of IPv6 are the same.
const (
	xtGetInfo    = 64 // IPT_SO_GET_INFO
	xtGetEntries = 65 // IPT_SO_GET_ENTRIES
	xtTableName  = 32 // XT_TABLE_MAXNAMELEN
	sizeofInfo   = 84 // struct ipt_getinfo: name, valid_hooks, hook_entry[5], underflow[5], num_entries, size
	sizeofGet    = 40 // struct ipt_get_entries: name, size, and padding up to the first entry
	maxTable     = 64 << 20
)

// xtables reads the tables of one family.
type xtables struct {
	layout layout
	names  string // file that lists the tables in use
	level  int
	domain int

	socket *os.File
	list   *os.File
}

func newXtables() []*xtables {
	return []*xtables{
		{layout: layout4, names: "ip_tables_names", level: unix.SOL_IP, domain: unix.AF_INET},
		{layout: layout6, names: "ip6_tables_names", level: unix.SOL_IPV6, domain: unix.AF_INET6},
	}
}

// readXT lists what the tables of both families do that copies or diverts.
func (s *space) readXT(ctx context.Context) (all []finding, err error) {
	there := 0
	for _, x := range s.xt {
		found, err := s.readFamily(x)
		if errors.Is(err, errNotLoaded) {
			continue
		}
		there++
		if err != nil {
			return nil, fmt.Errorf("iptables of %s: %w", x.layout.family, err)
		}
		all = append(all, found...)
	}
	for i := range all {
		all[i].Kind, all[i].Detector = mirror.Rule, "iptables"
	}
	if there == 0 {
		return nil, errNotLoaded
	}
	return all, nil
}

func (s *space) readFamily(x *xtables) (all []finding, err error) {
	if err := s.openFamily(x); err != nil {
		return nil, err
	}
	if _, err := x.list.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	// Only tables that are in use: asking for another one would load it.
	names, err := io.ReadAll(io.LimitReader(x.list, 1<<12))
	if err != nil {
		return nil, err
	}
	for name := range strings.FieldsSeq(string(names)) {
		entries, err := x.table(name)
		if errors.Is(err, unix.ENOENT) {
			continue // it went
		}
		if err != nil {
			return nil, fmt.Errorf("table %s: %w", name, err)
		}
		all = append(all, tableFindings(entries, x.layout, name)...)
	}
	return all, nil
}

// openFamily opens what belongs to the namespace once the kernel has it.
func (s *space) openFamily(x *xtables) error {
	if x.list != nil {
		return nil
	}
	// The list is there in every namespace as soon as the family is loaded.
	if _, err := os.Stat("/proc/net/" + x.names); err != nil {
		return errNotLoaded
	}
	return s.inside(func() error {
		list, err := os.Open("/proc/thread-self/net/" + x.names)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(x.domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			list.Close()
			return err
		}
		x.socket, x.list = os.NewFile(uintptr(fd), "iptables"), list
		s.keep(x.socket)
		s.keep(x.list)
		return nil
	})
}

// table reads one table. It may change between the question for its size and
// the one for its rules (EAGAIN).
func (x *xtables) table(name string) ([]xtEntry, error) {
	if len(name) >= xtTableName {
		return nil, fmt.Errorf("%w: name %q", errTable, name)
	}
	for range readAttempts {
		info := make([]byte, sizeofInfo)
		copy(info, name)
		if err := x.get(xtGetInfo, info); err != nil {
			return nil, err
		}
		h, size := parseInfo(info)
		if size > maxTable {
			return nil, fmt.Errorf("%w: %d bytes", errTable, size)
		}
		table := make([]byte, sizeofGet+size)
		copy(table, name)
		binary.NativeEndian.PutUint32(table[xtTableName:], size)
		err := x.get(xtGetEntries, table)
		if errors.Is(err, unix.EAGAIN) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return parseTable(table[sizeofGet:], x.layout, h)
	}
	return nil, fmt.Errorf("it changed %d times while it was read", readAttempts)
}

// parseInfo reads struct ipt_getinfo.
func parseInfo(b []byte) (h hooks, size uint32) {
	word := func(i int) uint32 { return binary.NativeEndian.Uint32(b[xtTableName+4*i:]) }
	h.valid = word(0)
	for i := range xtHooks {
		h.begin[i], h.end[i] = word(1+i), word(1+xtHooks+i)
	}
	return h, word(2 + 2*xtHooks)
}

// get is getsockopt(2) into a buffer of the caller's.
func (x *xtables) get(option int, b []byte) error {
	raw, err := x.socket.SyscallConn()
	if err != nil {
		return err
	}
	size := uint32(len(b))
	var errno unix.Errno
	err = raw.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall6(unix.SYS_GETSOCKOPT, fd, uintptr(x.level), uintptr(option),
			uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&size)), 0)
	})
	if err != nil {
		return err
	}
	if errno != 0 {
		return errno
	}
	return nil
}
