package probe

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// BenchmarkPrograms runs the programs on one packet in the kernel
// (BPF_PROG_TEST_RUN), by turns with a program that does nothing and with one
// that puts a random key into an LRU table, as a program would that kept every
// flow. Metrics are the median nanoseconds a run ("-ns") and the least, median and
// greatest ratio to the empty program in the same turn ("-x").
//
//	go test ./agent/mirror/probe -run '^$' -bench Programs -benchtime 20x
func BenchmarkPrograms(b *testing.B) {
	o := loaded(b, "full")
	const loopback = 1 // the device of a test run, in every namespace
	if err := o.Ports.Put(uint32(loopback), place{}); err != nil {
		b.Fatal(err)
	}
	empty := bare(b, asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()})
	update := lruUpdate(b)
	const no, all = 1<<16 - 1, 0 // masks of sampling
	cases := []struct {
		name    string
		program *ebpf.Program
		mask    uint32
		came    uint32 // the device that the packet came in by
	}{
		{"empty", empty, no, 0},
		{"lru", update, no, 0},
		{"in-unsampled", o.Ingress, no, loopback},
		{"out-unsampled", o.Egress, no, loopback},
		{"in-sampled", o.Ingress, all, loopback},
		{"out-sampled", o.Egress, all, loopback}, // after it, so that as many have come
		{"out-searched", o.Egress, all, 0},
	}
	took := map[string][]float64{}
	for range b.N {
		for _, c := range cases {
			if err := o.set(settings{Seed: 71, Key: [8]uint32{1, 2, 3, 4, 5, 6, 7, 8}, Mask: c.mask, Flags: flagFIB}); err != nil {
				b.Fatal(err)
			}
			took[c.name] = append(took[c.name], runs(b, c.program, c.came))
		}
	}
	for _, c := range cases {
		var ratios []float64
		for i, ns := range took[c.name] {
			ratios = append(ratios, ns/took["empty"][i])
		}
		slices.Sort(ratios)
		slices.Sort(took[c.name])
		b.ReportMetric(took[c.name][len(ratios)/2], c.name+"-ns")
		b.ReportMetric(ratios[0], c.name+"-min-x")
		b.ReportMetric(ratios[len(ratios)/2], c.name+"-x")
		b.ReportMetric(ratios[len(ratios)-1], c.name+"-max-x")
	}
}

// runs returns the nanoseconds of one run, of many.
func runs(b *testing.B, program *ebpf.Program, came uint32) float64 {
	b.Helper()
	const times = 20_000
	skb := make([]byte, 192) // struct __sk_buff (linux/bpf.h)
	skb[36] = byte(came)     // ingress_ifindex
	begin := time.Now()
	if _, err := program.Run(&ebpf.RunOptions{Data: benchPacket(), Context: skb, Repeat: times}); err != nil {
		b.Fatal(fmt.Errorf("test run: %w", err))
	}
	return float64(time.Since(begin).Nanoseconds()) / times
}

// benchPacket is a UDP packet of 512 bytes without another one in it.
func benchPacket() []byte {
	p := append(make([]byte, 12), 8, 0)
	p = append(p, 0x45, 0, 1, 242, 0x71, 0x71, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1, 127, 0, 0, 2)
	p = append(p, 0x9c, 0x40, 0, 9, 1, 222, 0, 0)
	for len(p) < 512 {
		p = append(p, byte(len(p)*37))
	}
	return p
}

func bare(b *testing.B, code asm.Instructions) *ebpf.Program {
	b.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: code})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { p.Close() })
	return p
}

// lruUpdate is what the table of signatures would cost if it were an LRU.
func lruUpdate(b *testing.B) *ebpf.Program {
	b.Helper()
	table, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.LRUHash, KeySize: 8, ValueSize: 40, MaxEntries: 65536})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { table.Close() })
	code := asm.Instructions{asm.FnGetPrandomU32.Call(), asm.StoreMem(asm.RFP, -8, asm.R0, asm.DWord), asm.Mov.Imm(asm.R1, 0)}
	for at := int16(-48); at < -8; at += 8 {
		code = append(code, asm.StoreMem(asm.RFP, at, asm.R1, asm.DWord))
	}
	code = append(code,
		asm.LoadMapPtr(asm.R1, table.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -8),
		asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, -48),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnMapUpdateElem.Call(),
		asm.Mov.Imm(asm.R0, -1), asm.Return())
	return bare(b, code)
}
