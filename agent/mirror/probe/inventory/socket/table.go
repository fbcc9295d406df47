package socket

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// tables is where the kernel writes the lists of the calling thread's network
// namespace (proc(5)).
const tables = "/proc/thread-self/net/"

// read gives the lines of a table after its heading, fields apart, until each
// says that it has enough. A table that the kernel does not have is ErrUnsupported.
func read(name string, heading int, each func(fields []string) (more bool, err error)) error {
	f, err := os.Open(tables + name)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", name, ErrUnsupported)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := lines(f, heading, each); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// maxLine bounds a line of these tables; the longest is some 200 bytes.
const maxLine = 4096

func lines(r io.Reader, heading int, each func([]string) (bool, error)) error {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, maxLine), maxLine)
	for n := 0; s.Scan(); n++ {
		fields := strings.Fields(s.Text())
		if n < heading || len(fields) == 0 {
			continue
		}
		more, err := each(fields)
		if err != nil {
			return fmt.Errorf("line %d: %w", n+1, err)
		}
		if !more {
			return nil
		}
	}
	return s.Err()
}

// PacketTable lists the packet sockets by /proc/net/packet, which tells neither
// rings, nor fan-out, nor filters.
func PacketTable(limit int) ([]Packet, error) {
	var found []Packet
	err := read("packet", 1, func(fields []string) (bool, error) {
		if len(found) >= limit {
			return false, ErrTooMany
		}
		p, err := packetLine(fields)
		found = append(found, p)
		return true, err
	})
	return found, err
}

// packetLine reads "sk RefCnt Type Proto Iface R Rmem User Inode"
// (net/packet/af_packet.c, packet_seq_show).
func packetLine(fields []string) (Packet, error) {
	if len(fields) < 9 {
		return Packet{}, fmt.Errorf("%d fields, want 9", len(fields))
	}
	kind, err1 := strconv.ParseUint(fields[2], 10, 8)
	protocol, err2 := strconv.ParseUint(fields[3], 16, 16)
	index, err3 := strconv.ParseInt(fields[4], 10, 32)
	inode, err4 := strconv.ParseUint(fields[8], 10, 32)
	return Packet{Type: uint8(kind), Protocol: uint16(protocol), Index: int(index), Inode: uint32(inode),
		Running: fields[5] == "1", Partial: true}, errors.Join(err1, err2, err3, err4)
}

// Endpoint is a socket that waits for connections or datagrams, or takes
// packets of an IP protocol.
type Endpoint struct {
	Protocol string // "tcp", "udp", "udplite", "sctp", "raw"
	Local    netip.AddrPort
	Remote   netip.AddrPort // of a datagram socket that is connected
	Inode    uint64
}

// States of sockets in these tables (include/net/tcp_states.h).
const (
	listening = "0A" // TCP_LISTEN
	unbound   = "07" // TCP_CLOSE: a datagram socket that is not connected
)

// Endpoints lists what listens, at most limit. For raw sockets the port is the
// IP protocol.
func Endpoints(limit int) ([]Endpoint, error) {
	var found []Endpoint
	for _, t := range []struct{ table, protocol, state string }{
		{"tcp", "tcp", listening}, {"tcp6", "tcp", listening},
		{"udp", "udp", ""}, {"udp6", "udp", ""},
		{"udplite", "udplite", ""}, {"udplite6", "udplite", ""},
		{"raw", "raw", ""}, {"raw6", "raw", ""},
	} {
		err := read(t.table, 1, func(fields []string) (bool, error) {
			e, state, err := endpointLine(t.protocol, fields)
			if err != nil {
				return false, err
			}
			if t.state != "" && state != t.state {
				return false, nil // listeners come first (net/ipv4/tcp_ipv4.c, tcp_seq_start)
			}
			if len(found) >= limit {
				return false, ErrTooMany
			}
			if state == listening || state == unbound {
				found = append(found, e)
			}
			return true, nil
		})
		if err != nil && !errors.Is(err, ErrUnsupported) {
			return found, err
		}
	}
	associations, err := sctp(limit - len(found))
	return append(found, associations...), err
}

// endpointLine reads "sl local rem st tx:rx tr:when retrnsmt uid timeout inode …"
// (net/ipv4/tcp_ipv4.c, get_tcp4_sock and its like for the others).
func endpointLine(protocol string, fields []string) (Endpoint, string, error) {
	if len(fields) < 10 {
		return Endpoint{}, "", fmt.Errorf("%d fields, want 10", len(fields))
	}
	local, err1 := address(fields[1])
	remote, err2 := address(fields[2])
	inode, err3 := strconv.ParseUint(fields[9], 10, 64)
	return Endpoint{Protocol: protocol, Local: local, Remote: remote, Inode: inode}, fields[3], errors.Join(err1, err2, err3)
}

// sctp reads /proc/net/sctp/eps: "ENDPT SOCK STY SST HBKT LPORT UID INODE LADDRS".
func sctp(limit int) ([]Endpoint, error) {
	var found []Endpoint
	err := read("sctp/eps", 1, func(fields []string) (bool, error) {
		if len(found) >= limit {
			return false, ErrTooMany
		}
		if len(fields) < 8 {
			return false, fmt.Errorf("%d fields, want 8", len(fields))
		}
		port, err1 := strconv.ParseUint(fields[5], 10, 16)
		inode, err2 := strconv.ParseUint(fields[7], 10, 64)
		at := netip.IPv6Unspecified()
		if len(fields) > 8 {
			if a, err := netip.ParseAddr(strings.TrimPrefix(fields[8], "*")); err == nil {
				at = a
			}
		}
		found = append(found, Endpoint{Protocol: "sctp", Local: netip.AddrPortFrom(at, uint16(port)), Inode: inode})
		return true, errors.Join(err1, err2)
	})
	if errors.Is(err, ErrUnsupported) {
		return nil, nil
	}
	return found, err
}
