package program

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// load loads a program of a type that calls a helper.
func load(t *testing.T, kind ebpf.ProgramType, body ...asm.Instruction) *ebpf.Program {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root for BPF programs")
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "wxs_try", Type: kind, License: "GPL", Instructions: append(body, asm.Mov.Imm(asm.R0, 0), asm.Return())})
	if err != nil {
		t.Skipf("needs BPF programs of type %v: %v", kind, err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func read(t *testing.T, p *ebpf.Program, s *Symbols) Program {
	t.Helper()
	info, err := p.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	one, err := Read(uint32(id), s)
	if err != nil {
		t.Fatal(err)
	}
	return one
}

func clone() []asm.Instruction {
	return []asm.Instruction{asm.Mov.Imm(asm.R2, 1), asm.Mov.Imm(asm.R3, 0), asm.FnCloneRedirect.Call()}
}

func TestAProgramsCallsAreFoundByName(t *testing.T) {
	symbols, err := LoadSymbols("/proc/kallsyms")
	if err != nil {
		t.Skipf("needs the addresses of functions: %v", err)
	}
	for _, c := range []struct {
		name string
		kind ebpf.ProgramType
		body []asm.Instruction
		want []string
	}{
		{"clone", ebpf.SchedCLS, clone(), []string{"bpf_clone_redirect"}},
		{"redirect", ebpf.SchedCLS, []asm.Instruction{asm.Mov.Imm(asm.R1, 1), asm.Mov.Imm(asm.R2, 0), asm.FnRedirect.Call()}, []string{"bpf_redirect"}},
		{"redirect from XDP", ebpf.XDP, []asm.Instruction{asm.Mov.Imm(asm.R1, 1), asm.Mov.Imm(asm.R2, 0), asm.FnRedirect.Call()}, []string{"bpf_xdp_redirect"}},
		{"clock", ebpf.SchedCLS, []asm.Instruction{asm.FnKtimeGetNs.Call()}, nil},
		{"nothing", ebpf.XDP, nil, nil},
	} {
		got := read(t, load(t, c.kind, c.body...), symbols)
		if !slices.Equal(got.Copies, c.want) || got.Unknown != "" || !got.Packets || !strings.HasPrefix(got.Text, c.kind.String()+" wxs_try ") {
			t.Errorf("%s: %+v, want calls %v", c.name, got, c.want)
		}
		if got.Diverts() != (c.want != nil) {
			t.Errorf("%s: diverts %v", c.name, got.Diverts())
		}
	}
}

// Without the addresses, that calls are unknown is said and nothing is guessed.
func TestHiddenAddressesAreSaid(t *testing.T) {
	hidden, err := readSymbols(strings.NewReader("0000000000000000 T __bpf_call_base\n0000000000000000 T bpf_clone_redirect\n"))
	if !errors.Is(err, errHidden) {
		t.Fatalf("error %v", err)
	}
	for _, s := range []*Symbols{nil, hidden} {
		if got := read(t, load(t, ebpf.SchedCLS, clone()...), s); got.Unknown == "" || len(got.Copies) > 0 {
			t.Errorf("told %+v", got)
		}
	}
	good, _ := readSymbols(strings.NewReader("0000000000001000 T __bpf_call_base\n0000000000002000 T bpf_clone_redirect\n0000000000002000 t bpf_redirect\t[evil]\n"))
	if found, unknown := good.name([]int64{0x1000, 0}); unknown == "" || len(found) != 1 || found[0] != "bpf_clone_redirect" {
		t.Errorf("found %v, unknown %q", found, unknown)
	}
}

func TestTheWalkIsBounded(t *testing.T) {
	load(t, ebpf.SchedCLS)
	load(t, ebpf.SchedCLS)
	ids, more, err := IDs(1)
	if err != nil || len(ids) != 1 || !more {
		t.Errorf("ids %v, more %v, %v", ids, more, err)
	}
	if _, err := Read(1<<31-1, nil); !errors.Is(err, ErrGone) {
		t.Errorf("reading a program that is not there: %v", err)
	}
	if _, err := Attachments(context.Background(), 100); err != nil {
		t.Error(err)
	}
}

func FuzzSymbols(f *testing.F) {
	f.Add("ffffffff814dccd0 T __bpf_call_base\nffffffff81eec110 T bpf_clone_redirect\n")
	f.Add("zz T __bpf_call_base\n")
	f.Add("1 T __bpf_call_base\r\n \n  \n\x00")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := readSymbols(strings.NewReader(text))
		if s == nil || err == nil && s.hidden != "" {
			t.Fatalf("symbols %v, error %v", s, err)
		}
		s.name([]int64{0, 1, 1 << 40})
	})
}

func FuzzXDP(f *testing.F) {
	f.Add([]byte{5, 0, 2, 0, 1, 0, 0, 0, 8, 0, 4, 0, 7, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(parseXDP(b)) > lastXDP-firstXDP+1 && len(b) < 32 {
			t.Error("more programs than attributes")
		}
	})
}

func BenchmarkWalk(b *testing.B) {
	if os.Getuid() != 0 {
		b.Skip("needs root for BPF programs")
	}
	for b.Loop() {
		if _, _, err := IDs(10_000); err != nil {
			b.Fatal(err)
		}
	}
}
