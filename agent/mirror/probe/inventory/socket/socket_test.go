package socket

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror/probe/netlink"
)

// rawPacket opens a packet socket and tells its inode.
func rawPacket(t *testing.T) uint32 {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0x0300)
	if err != nil {
		t.Skipf("needs root for packet sockets: %v", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		t.Fatal(err)
	}
	return uint32(stat.Ino)
}

// Both lists must tell the same of a socket, as far as the table tells at all.
func TestBothListsOfPacketSocketsAgree(t *testing.T) {
	inode := rawPacket(t)
	byDiag, err := Packets(context.Background(), 4096)
	if err != nil {
		t.Skipf("needs packet_diag: %v", err)
	}
	byTable, err := PacketTable(4096)
	if err != nil {
		t.Fatal(err)
	}
	of := func(list []Packet) Packet {
		i := slices.IndexFunc(list, func(p Packet) bool { return p.Inode == inode })
		if i < 0 {
			t.Fatalf("socket %d is not in %+v", inode, list)
		}
		return list[i]
	}
	a, b := of(byDiag), of(byTable)
	if a.Type != b.Type || a.Protocol != b.Protocol || a.Index != b.Index || a.Protocol != unix.ETH_P_ALL || a.Partial || !b.Partial {
		t.Errorf("packet_diag %+v, table %+v", a, b)
	}
	if _, err := Packets(context.Background(), 0); !errors.Is(err, ErrTooMany) {
		t.Errorf("beyond the limit: %v", err)
	}
}

func TestTablesAreRead(t *testing.T) {
	fields := strings.Fields
	p, err := packetLine(fields("0000000000000000 3      3    0003   2     1 0      0      31337"))
	if err != nil || p.Protocol != 3 || p.Index != 2 || p.Inode != 31337 || !p.Running {
		t.Errorf("packet: %+v, %v", p, err)
	}
	e, state, err := endpointLine("tcp", fields("0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4711 1 0 100"))
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 && (err != nil || e.Local.String() != "127.0.0.1:8080" || state != listening || e.Inode != 4711) {
		t.Errorf("tcp: %+v %s, %v", e, state, err)
	}
	q, err := logLine(fields("5 4242 0 2 65535 100 1"))
	if err != nil || q != (Queue{true, 5, 4242, 2, 65535}) {
		t.Errorf("log: %+v, %v", q, err)
	}
	q, err = queueLine(fields("7 -4095 0 2 128 0 0 0 1"))
	if err != nil || q.Port != 0xfffff001 || q.Range != 128 {
		t.Errorf("queue: %+v, %v", q, err)
	}
	for _, short := range []string{"", "a b", "0: x y 0A a b c d e 5"} {
		if _, _, err := endpointLine("tcp", fields(short)); err == nil {
			t.Errorf("%q is read", short)
		}
	}
}

func TestATableThatIsNotThereIsSaid(t *testing.T) {
	if err := read("no-such-table", 0, nil); !errors.Is(err, ErrUnsupported) {
		t.Errorf("error %v", err)
	}
	if err := lines(strings.NewReader(strings.Repeat("x", 2*maxLine)), 0, func([]string) (bool, error) { return true, nil }); err == nil {
		t.Error("a line without end is read")
	}
}

func attr(kind uint16, data ...byte) []byte { return netlink.AppendAttr(nil, kind, data) }

func packetBody(attributes ...[]byte) []byte {
	body := append([]byte{unix.AF_PACKET, unix.SOCK_RAW, 3, 0, 0x34, 0x12, 0, 0}, make([]byte, 8)...)
	return append(body, slices.Concat(attributes...)...)
}

func TestBrokenAnswersAreRefused(t *testing.T) {
	for name, body := range map[string][]byte{
		"nothing": nil, "another family": append([]byte{unix.AF_INET}, make([]byte, 15)...),
		"short info": packetBody(attr(attrInfo, 1, 2, 3)), "short ring": packetBody(attr(attrRX, make([]byte, 27)...)),
		"half a filter": packetBody(attr(attrFilter, make([]byte, 12)...)), "short fan-out": packetBody(attr(attrFanout, 1)),
		"half a group": packetBody(attr(attrGroups, make([]byte, 43)...)), "filter too long": packetBody(attr(attrFilter, make([]byte, 8*(maxFilter+1))...)),
		"attribute beyond the end": packetBody([]byte{200, 0, 0, 0}),
	} {
		if _, err := parsePacket(body); !errors.Is(err, netlink.ErrMalformed) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func FuzzPacket(f *testing.F) {
	f.Add(packetBody(attr(attrInfo, make([]byte, 24)...), attr(attrFilter, 6, 0, 0, 0, 0xff, 0xff, 0, 0), attr(attrRX, make([]byte, 28)...)))
	f.Add(packetBody(attr(attrGroups, make([]byte, 44)...), attr(attrFanout, 1, 0, 0, 0)))
	f.Add(packetBody()[:15])
	f.Fuzz(func(t *testing.T, body []byte) {
		if p, err := parsePacket(body); err == nil && len(p.Filter) > maxFilter {
			t.Errorf("a filter of %d instructions", len(p.Filter))
		}
		_, _ = parseXDP(body)
	})
}

func FuzzTables(f *testing.F) {
	f.Add("0000000000000000 3      3    0003   2     1 0      0      31337\n")
	f.Add("0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4711 1\n")
	f.Add("0: 00000000000000000000000001000000:0016 0:0 0A a b c d 4711\n5 4242 0 2 65535 100 1\n")
	f.Fuzz(func(t *testing.T, text string) {
		_ = lines(strings.NewReader(text), 0, func(fields []string) (bool, error) {
			_, _ = packetLine(fields)
			if e, _, err := endpointLine("udp", fields); err == nil && !e.Local.IsValid() {
				t.Errorf("%q has no address", text)
			}
			_, _ = logLine(fields)
			_, _ = queueLine(fields)
			return true, nil
		})
	})
}

func BenchmarkPackets(b *testing.B) {
	if os.Getuid() != 0 {
		b.Skip("needs root for packet sockets")
	}
	for b.Loop() {
		if _, err := Packets(context.Background(), 4096); err != nil {
			b.Skip(err)
		}
	}
}
