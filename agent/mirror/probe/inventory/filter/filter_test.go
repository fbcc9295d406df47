package filter

import (
	"encoding/binary"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/bpf"
)

// compile lets tcpdump compile a filter for Ethernet.
func compile(t testing.TB, expression string) []bpf.RawInstruction {
	t.Helper()
	out, err := exec.Command("tcpdump", "-y", "EN10MB", "-ddd", expression).Output()
	if err != nil {
		t.Skipf("needs tcpdump: %v", err)
	}
	var program []bpf.RawInstruction
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n")[1:] {
		var op, jt, jf, k uint32
		if _, err := fmt.Sscan(line, &op, &jt, &jf, &k); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		program = append(program, bpf.RawInstruction{Op: uint16(op), Jt: uint8(jt), Jf: uint8(jf), K: k})
	}
	return program
}

func TestFiltersOfALinksOwnProtocolsAreHarmless(t *testing.T) {
	for _, expression := range []string{
		"arp", "ether proto 0x88cc", "ether proto 0x888e", "stp",
		"udp port 67 or udp port 68", "udp dst port 68", "ip6 and udp port 546", "udp port 3785",
		"ip proto 89", "vrrp", "igmp", "ip6 and icmp6 and ip6[40] == 135", "ip6 proto 89",
		"ether dst 01:80:c2:00:00:02",
		"(ether proto 0x88cc and (ether dst 01:80:c2:00:00:0e or ether dst 01:80:c2:00:00:03 or ether dst 01:80:c2:00:00:00)) or ether dst 01:e0:52:cc:cc:cc or ether dst 01:00:0c:cc:cc:cc or ether dst 01:00:81:00:01:00 or ether dst 00:e0:2b:00:00:00",
		"arp or ether proto 0x88cc or ip proto 112",
	} {
		if v := Judge(compile(t, expression), etherAll, Ethernet); !v.Harmless {
			t.Errorf("%s: takes %s", expression, v.Takes)
		}
	}
}

func TestFiltersThatLetTransitThroughAreNot(t *testing.T) {
	for _, expression := range []string{
		"tcp port 80", "ip", "ip6", "vlan", "mpls", "icmp", "udp port 53", "net 10.0.0.0/8", "greater 1000", "not arp",
		"arp or tcp port 443", "udp port 68 or udp port 5353", "ip proto 89 or ip proto 47", "ether[0] & 1 = 0",
		"not (udp port 67 or udp port 68)", "ether src 01:80:c2:00:00:0e", "ether dst 02:00:00:00:00:01",
		"pppoes", "ether proto 0x8864", "udp portrange 60-70", "udp port 67 or tcp port 67",
		// Back doors: one packet in many millions, of ordinary protocols.
		"tcp[4:4] = 0xdeadbeef and tcp[8:4] = 0x12345678", "icmp[8:4] = 0x4c494e55", "udp[8:4] = 0x7f454c46 and ip[4:2] = 0x1234",
		"ether[12:2] - 1 = 0x87cb or ip[6] = 7",
	} {
		v := Judge(compile(t, expression), etherAll, Ethernet)
		if v.Harmless {
			t.Errorf("%s: taken for harmless: %s", expression, v.Takes)
		}
	}
	if v := Judge(nil, etherAll, Ethernet); v.Harmless {
		t.Error("no filter is taken for harmless")
	}
}

// What DHCP clients and routing daemons attach, written down by hand after what
// they attach: see packet(7), RFC 2131, ISO 10589.
func TestFiltersOfDaemonsAreHarmless(t *testing.T) {
	head := func(offset uint32) []bpf.Instruction { // UDP, no fragment, to port 68; as busybox and ISC do
		return []bpf.Instruction{
			bpf.LoadAbsolute{Off: offset + 9, Size: 1}, bpf.JumpIf{Cond: bpf.JumpEqual, Val: 17, SkipFalse: 6},
			bpf.LoadAbsolute{Off: offset + 6, Size: 2}, bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x1fff, SkipTrue: 4},
			bpf.LoadMemShift{Off: offset}, bpf.LoadIndirect{Off: offset + 2, Size: 2},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: 68, SkipFalse: 1}, bpf.RetConstant{Val: 0xffff}, bpf.RetConstant{},
		}
	}
	framed := append([]bpf.Instruction{bpf.LoadAbsolute{Off: 12, Size: 2}, bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0x800, SkipFalse: 8}}, head(14)...)
	isis := []bpf.Instruction{
		bpf.LoadAbsolute{Off: 0, Size: 2}, bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0xfefe, SkipFalse: 3},
		bpf.LoadAbsolute{Off: 3, Size: 1}, bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0x83, SkipFalse: 1}, bpf.RetConstant{Val: 0x40000}, bpf.RetConstant{},
	}
	// The header's length from scratch memory, as dhcpcd has it.
	scratch := []bpf.Instruction{
		bpf.LoadAbsolute{Off: 12, Size: 2}, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0x800, SkipTrue: 13},
		bpf.LoadConstant{Dst: bpf.RegX, Val: 14}, bpf.LoadIndirect{Off: 0, Size: 1}, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 15},
		bpf.ALUOpConstant{Op: bpf.ALUOpMul, Val: 4}, bpf.StoreScratch{Src: bpf.RegA, N: 3}, bpf.LoadIndirect{Off: 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 17, SkipTrue: 6}, bpf.LoadScratch{Dst: bpf.RegA, N: 3}, bpf.ALUOpX{Op: bpf.ALUOpAdd},
		bpf.TAX{}, bpf.LoadIndirect{Off: 2, Size: 2}, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 68, SkipTrue: 1}, bpf.RetConstant{Val: 1500}, bpf.RetConstant{},
	}
	for _, c := range []struct {
		name     string
		program  []bpf.Instruction
		protocol uint16
		layout   Layout
	}{
		{"DHCP on frames", framed, etherAll, Ethernet},
		{"DHCP on packets", head(0), 0x0800, Network},
		{"DHCP by scratch memory", scratch, etherAll, Ethernet},
		{"IS-IS", isis, etherAll, Network},
		{"nothing", []bpf.Instruction{bpf.RetConstant{}}, etherAll, Ethernet},
		{"LLDP by metadata", []bpf.Instruction{bpf.LoadExtension{Num: bpf.ExtProto}, bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0x88cc, SkipFalse: 1}, bpf.RetConstant{Val: 1}, bpf.RetConstant{}}, etherAll, Network},
	} {
		if v := Judge(assemble(t, c.program), c.protocol, c.layout); !v.Harmless {
			t.Errorf("%s: takes %s", c.name, v.Takes)
		}
	}
}

func TestALayoutThatDoesNotFitIsNotBelieved(t *testing.T) {
	arp := compile(t, "arp") // on a tunnel, offset 12 is the sender's address
	if v := Judge(arp, etherAll, Network); v.Harmless {
		t.Error("a filter for frames is taken for harmless where packets have no frame")
	}
	if v := Judge(arp, 0x0800, Ethernet); !v.Harmless {
		t.Errorf("no packet is both IPv4 and ARP, but it takes %s", v.Takes)
	}
}

func TestWhatIsNotUnderstoodIsNotHarmless(t *testing.T) {
	tests := map[string][]bpf.RawInstruction{
		"unknown instruction": {{Op: 0xffff}},
		"no end":              assemble(t, []bpf.Instruction{bpf.LoadConstant{Val: 1}}),
		"jump beyond the end": {{Op: 0x05, K: 0xffffffff}},
		"returns what it has": assemble(t, []bpf.Instruction{bpf.LoadAbsolute{Off: 12, Size: 2}, bpf.RetA{}}),
	}
	many := []bpf.Instruction{} // 2^40 paths
	for range 40 {
		many = append(many, bpf.LoadAbsolute{Off: 1, Size: 1}, bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 1, SkipTrue: 0})
	}
	tests["too many paths"] = assemble(t, append(many, bpf.RetConstant{}))
	for name, program := range tests {
		if v := Judge(program, etherAll, Ethernet); v.Harmless {
			t.Errorf("%s: taken for harmless", name)
		}
	}
}

func assemble(t testing.TB, program []bpf.Instruction) []bpf.RawInstruction {
	t.Helper()
	raw, err := bpf.Assemble(program)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// FuzzJudge holds the judgement against the interpreter of x/net: whatever a
// harmless filter accepts is no ordinary TCP, UDP or ICMP packet.
func FuzzJudge(f *testing.F) {
	for _, expression := range []string{"arp", "udp dst port 68", "ether proto 0x88cc or stp", "ip proto 89"} {
		f.Add(encode(compile(f, expression)))
	}
	frames := transitFrames()
	f.Fuzz(func(t *testing.T, raw []byte) {
		program := decode(raw)
		v := Judge(program, etherAll, Ethernet)
		if !v.Harmless {
			return
		}
		var instructions []bpf.Instruction
		for _, r := range program {
			instructions = append(instructions, r.Disassemble())
		}
		vm, err := bpf.NewVM(instructions)
		if err != nil {
			return
		}
		for name, frame := range frames {
			if n, err := vm.Run(frame); err == nil && n != 0 {
				t.Errorf("harmless (%s), but accepts %s", v.Takes, name)
			}
		}
	})
}

// transitFrames are frames of customers.
func transitFrames() map[string][]byte {
	frames := map[string][]byte{}
	for _, protocol := range []byte{1, 6, 17, 47, 50, 132} {
		for _, port := range []uint16{0, 53, 80, 443, 4789} {
			b := make([]byte, 14+20+40)
			copy(b, []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 60, 0x12, 0x34, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 1, 1})
			binary.BigEndian.PutUint16(b[34:], 40000)
			binary.BigEndian.PutUint16(b[36:], port)
			frames["IPv4 "+strconv.Itoa(int(protocol))+"/"+strconv.Itoa(int(port))] = b
			six := make([]byte, 14+40+40)
			copy(six, []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 40, protocol, 64, 0x20, 1, 0xd, 0xb8})
			binary.BigEndian.PutUint16(six[56:], port)
			frames["IPv6 "+strconv.Itoa(int(protocol))+"/"+strconv.Itoa(int(port))] = six
		}
	}
	return frames
}

func encode(program []bpf.RawInstruction) []byte {
	var raw []byte
	for _, r := range program {
		raw = binary.LittleEndian.AppendUint32(append(binary.LittleEndian.AppendUint16(raw, r.Op), r.Jt, r.Jf), r.K)
	}
	return raw
}

func decode(raw []byte) []bpf.RawInstruction {
	var program []bpf.RawInstruction
	for ; len(raw) >= 8; raw = raw[8:] {
		program = append(program, bpf.RawInstruction{Op: binary.LittleEndian.Uint16(raw), Jt: raw[2], Jf: raw[3], K: binary.LittleEndian.Uint32(raw[4:])})
	}
	return program
}

func BenchmarkJudge(b *testing.B) {
	for name, expression := range map[string]string{"lldp": "ether proto 0x88cc", "dhcp": "udp port 67 or udp port 68", "web": "tcp port 80"} {
		program := compile(b, expression)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				Judge(program, etherAll, Ethernet)
			}
		})
	}
}
