package inventory

import (
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"waxseal/agent/mirror"
)

// cloner loads a program that calls bpf_clone_redirect.
func cloner(t *testing.T) (p *ebpf.Program, id uint32) {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "wxs_clone", Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R2, 1), asm.Mov.Imm(asm.R3, 0), asm.FnCloneRedirect.Call(), asm.Mov.Imm(asm.R0, -1), asm.Return()}})
	if err != nil {
		t.Skipf("needs BPF programs: %v", err)
	}
	t.Cleanup(func() { p.Close() })
	info, err := p.Info()
	if err != nil {
		t.Fatal(err)
	}
	n, _ := info.ID()
	return p, uint32(n)
}

func TestAProgramIsToldWithItsCallsItsPortAndItsEnd(t *testing.T) {
	name, inside := newSpace(t, "prog")
	w := start(t, Config{})
	p, id := cloner(t)
	mine := func(o mirror.Observation) bool { return o.Subject == subjectOf(id) && !o.Gone }
	first := w.await("the program", mine)
	if first.Cause != "BPF program calls bpf_clone_redirect" || first.Harmless || first.Baseline || first.In != "" {
		t.Errorf("told %+v", first)
	}
	var attached link.Link
	var failed error
	inside(func() {
		index, err := indexOf("wxs0")
		if err != nil {
			t.Error(err)
			return
		}
		attached, failed = link.AttachTCX(link.TCXOptions{Interface: index, Program: p, Attach: ebpf.AttachTCXIngress})
	})
	if failed != nil {
		t.Skipf("needs TCX: %v", failed)
	}
	o := w.await("its place", func(o mirror.Observation) bool { return mine(o) && o.In != "" })
	if o.In != "wxs0" || o.Netns != name {
		t.Errorf("attached: %+v", o)
	}
	t.Logf("%s", o.Detail)
	attached.Close()
	p.Close()
	w.await("its end", func(o mirror.Observation) bool { return o.Subject == subjectOf(id) && o.Gone })
}

func TestOurOwnProgramsAreNotTold(t *testing.T) {
	_, ours := cloner(t)
	w := start(t, Config{Ours: func(id uint32) bool { return id == ours }})
	_, other := cloner(t)
	w.await("the other program", func(o mirror.Observation) bool { return o.Subject == subjectOf(other) })
	for _, o := range w.all {
		if o.Subject == subjectOf(ours) {
			t.Errorf("told our own: %+v", o)
		}
	}
}
