package kernel

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

func TestModulesAreSortedNames(t *testing.T) {
	got, err := parseModules("virtio_net 65536 0 - Live 0x0000000000000000\nfat 90112 1 vfat, Live 0x0000000000000000\n")
	if want := []string{"fat", "virtio_net"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("modules %q, %v; want %q", got, err, want)
	}
	if _, err := parseModules("fat\n"); err == nil {
		t.Error("a line without its fields was taken for a module")
	}
	if _, err := Modules(); err != nil {
		t.Errorf("this kernel's modules: %v", err)
	}
}

func TestLoadedProgramIsListedUntilItIsGone(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "waxseal_test", Type: ebpf.SocketFilter, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	listed := func() bool {
		programs, err := Programs()
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(programs, func(line string) bool { return strings.Contains(line, " waxseal_test ") })
	}
	if !listed() {
		t.Error("a loaded program is not listed")
	}
	p.Close()
	if listed() {
		t.Error("a program that is gone is still listed")
	}
}
