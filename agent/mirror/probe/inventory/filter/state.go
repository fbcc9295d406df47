package filter

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/net/bpf"
)

// value is what a register holds: something of the packet, by name, plus a
// number. Without a name it is the number alone.
type value struct {
	name string
	k    uint32
}

// state is what is known on a path: registers, and what the tests passed so far
// say about the packet.
type state struct {
	at      int
	a, x    value
	scratch [16]value
	unknown int // to give each unknown its own name

	bytes map[uint32]byte   // of the packet, by offset
	equal map[string]uint32 // of values that are not plain loads
	most  map[string]uint32 // upper bounds
	not   map[string][]uint32
	etype int // Ethernet type; -1: not known
}

const (
	etherAll  = 0x0003 // ETH_P_ALL
	etherType = 12     // its offset in a frame
	typeName  = "protocol"
	maxName   = 128
)

func begin(protocol uint16, layout Layout) *state {
	s := &state{bytes: map[uint32]byte{}, equal: map[string]uint32{}, most: map[string]uint32{}, not: map[string][]uint32{}, etype: -1}
	if protocol != etherAll {
		s.etype = int(protocol)
		s.equal[typeName] = uint32(protocol)
		if layout == Ethernet {
			s.bytes[etherType], s.bytes[etherType+1] = byte(protocol>>8), byte(protocol)
		}
	}
	return s
}

func (s *state) copy() *state {
	c := *s
	c.bytes, c.equal, c.most = maps.Clone(s.bytes), maps.Clone(s.equal), maps.Clone(s.most)
	c.not = make(map[string][]uint32, len(s.not))
	for k, v := range s.not {
		c.not[k] = slices.Clone(v)
	}
	return &c
}

// String names the bytes that are known of a packet on this path.
func (s *state) String() string {
	var known []string
	for _, at := range slices.Sorted(maps.Keys(s.bytes)) {
		known = append(known, fmt.Sprintf("[%d]=0x%02x", at, s.bytes[at]))
	}
	for _, name := range slices.Sorted(maps.Keys(s.equal)) {
		if !strings.Contains(name, "?") {
			known = append(known, fmt.Sprintf("%s=0x%x", name, s.equal[name]))
		}
	}
	switch {
	case len(known) == 0:
		return "packets of any protocol"
	case len(known) > 12:
		known = append(known[:12], "…")
	}
	return "packets with " + strings.Join(known, " ")
}

// fresh is a value of which nothing is known.
func (s *state) fresh() value {
	s.unknown++
	return value{name: fmt.Sprintf("?%d", s.unknown)}
}

func (s *state) named(format string, args ...any) value {
	name := fmt.Sprintf(format, args...)
	if len(name) > maxName {
		return s.fresh()
	}
	return value{name: name}
}

// compute does one instruction that is neither jump nor return. It tells
// whether the program ends there (with "reject").
func (s *state) compute(ins bpf.Instruction) bool {
	switch ins := ins.(type) {
	case bpf.LoadConstant:
		s.set(ins.Dst, value{k: ins.Val})
	case bpf.LoadScratch:
		s.set(ins.Dst, s.scratch[ins.N&15])
	case bpf.StoreScratch:
		s.scratch[ins.N&15] = s.get(ins.Src)
	case bpf.TAX:
		s.x = s.a
	case bpf.TXA:
		s.a = s.x
	case bpf.LoadAbsolute:
		s.a = s.load(ins.Size, value{k: ins.Off})
	case bpf.LoadIndirect:
		s.a = s.load(ins.Size, value{s.x.name, s.x.k + ins.Off})
	case bpf.LoadMemShift:
		s.x = s.named("((b%d&0xf)<<0x2)", ins.Off)
	case bpf.LoadExtension:
		s.a = s.fresh()
		if ins.Num == bpf.ExtProto {
			s.a = value{name: typeName}
		}
	case bpf.ALUOpConstant:
		return s.alu(ins.Op, value{k: ins.Val})
	case bpf.ALUOpX:
		return s.alu(ins.Op, s.x)
	case bpf.NegateA:
		s.a = s.fresh()
	default:
		s.a, s.x = s.fresh(), s.fresh()
	}
	return false
}

func (s *state) get(r bpf.Register) value {
	if r == bpf.RegX {
		return s.x
	}
	return s.a
}

func (s *state) set(r bpf.Register, v value) {
	if r == bpf.RegX {
		s.x = v
	} else {
		s.a = v
	}
}

// load names a load. Offsets from 0xffe00000 on are relative to other headers
// (SKF_NET_OFF, SKF_LL_OFF in linux/filter.h) and are not understood.
func (s *state) load(size int, at value) value {
	letter := map[int]string{1: "b", 2: "h", 4: "w"}[size]
	if at.name != "" {
		return s.named("%s[%s+%d]", letter, at.name, at.k)
	}
	if letter == "" || at.k >= 1<<31 {
		return s.fresh()
	}
	return value{name: fmt.Sprintf("%s%d", letter, at.k)}
}

func (s *state) alu(op bpf.ALUOp, v value) bool {
	a := s.a
	switch {
	case a.name == "" && v.name == "":
		k, ok := arithmetic(op, a.k, v.k)
		s.a = value{k: k}
		return !ok
	case op == bpf.ALUOpAdd && (a.name == "" || v.name == ""):
		s.a = value{a.name + v.name, a.k + v.k}
	case op == bpf.ALUOpSub && v.name == "":
		s.a = value{a.name, a.k - v.k}
	case a.k != 0 || v.name != "":
		s.a = s.fresh()
	case op == bpf.ALUOpAnd:
		s.a = s.named("(%s&%#x)", a.name, v.k)
	case op == bpf.ALUOpMul && v.k == 4:
		s.a = s.named("(%s<<0x2)", a.name)
	case op == bpf.ALUOpShiftLeft:
		s.a = s.named("(%s<<%#x)", a.name, v.k)
	case op == bpf.ALUOpShiftRight:
		s.a = s.named("(%s>>%#x)", a.name, v.k)
	default:
		s.a = s.fresh()
	}
	return false
}

// arithmetic is what the kernel computes; division by zero ends the program.
func arithmetic(op bpf.ALUOp, a, k uint32) (uint32, bool) {
	switch op {
	case bpf.ALUOpAdd:
		return a + k, true
	case bpf.ALUOpSub:
		return a - k, true
	case bpf.ALUOpMul:
		return a * k, true
	case bpf.ALUOpOr:
		return a | k, true
	case bpf.ALUOpAnd:
		return a & k, true
	case bpf.ALUOpXor:
		return a ^ k, true
	case bpf.ALUOpShiftLeft:
		return a << (k & 31), true
	case bpf.ALUOpShiftRight:
		return a >> (k & 31), true
	case bpf.ALUOpDiv:
		if k != 0 {
			return a / k, true
		}
	case bpf.ALUOpMod:
		if k != 0 {
			return a % k, true
		}
	}
	return 0, false
}
