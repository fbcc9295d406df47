package config

import (
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe/netlink"
)

func TestAMirroringFilterIsNamedAndItsEndToo(t *testing.T) {
	l := newLab(t)
	s := l.watch()
	l.do("tc qdisc add dev r0 clsact; tc filter add dev r0 ingress protocol all u32 match u32 0 0 action mirred egress mirror dev r2")
	o := s.begins("tc mirred mirror")
	if o.Kind != mirror.Rule || o.In != "r0" || o.Target != "r2" || o.Copy != "r2" || o.Netns != "" || o.Harmless {
		t.Errorf("observation %+v", o)
	}
	if o.Process.PID == 0 || o.Process.Comm != "" && o.Process.Comm != "tc" {
		t.Errorf("process %+v, want that of tc", o.Process)
	}
	l.do("tc filter del dev r0 ingress")
	s.ends(o)
}

func TestAMirrorIsFoundWhereverAFilterCanHang(t *testing.T) {
	l := newLab(t)
	s := l.watch()
	l.do("tc qdisc add dev r0 clsact; tc qdisc add dev r1 ingress; tc qdisc add dev p2 root handle 1: htb; tc class add dev p2 parent 1: classid 1:1 htb rate 1gbit")
	for name, c := range map[string]struct{ add, in, cause string }{
		"ingress":    {"dev r0 ingress pref 10 protocol ip u32 match u32 0 0 action mirred egress mirror dev r2", "r0", "tc mirred mirror"},
		"egress":     {"dev r0 egress pref 11 protocol ip u32 match ip dst 10.77.0.9 action mirred egress redirect dev r1", "r0", "tc mirred redirect"},
		"to ingress": {"dev r0 ingress pref 12 protocol all u32 match u32 0 0 action mirred ingress mirror dev r1", "r0", "tc mirred mirror"},
		"old qdisc":  {"dev r1 ingress pref 14 protocol all u32 match u32 0 0 action mirred egress mirror dev r2", "r1", "tc mirred mirror"},
		"classful":   {"dev p2 parent 1: pref 15 protocol all u32 match u32 0 0 action mirred egress mirror dev r1", "p2", "tc mirred mirror"},
		"class":      {"dev p2 parent 1:1 pref 16 protocol all u32 match u32 0 0 action mirred egress mirror dev r1", "p2", "tc mirred mirror"},
		"chain":      {"dev r0 ingress chain 42 pref 17 protocol all u32 match u32 0 0 action mirred egress mirror dev r1", "r0", "tc mirred mirror"},
	} {
		l.do("tc filter add %s", c.add)
		pref := c.add[indexOf(c.add, "pref ")+5:][:2]
		o := s.wait(name, func(o mirror.Observation) bool {
			return o.Cause == c.cause && o.In == c.in && containsText(o.Detail, "pref "+pref+" ")
		})
		if o.Copy == "" || o.Target == "" {
			t.Errorf("%s: no target in %+v", name, o)
		}
	}
}

func TestASharedBlockIsToldOfEachDeviceThatUsesIt(t *testing.T) {
	l := newLab(t)
	s := l.watch()
	l.do("tc qdisc add dev r0 ingress_block 22 ingress; tc qdisc add dev r1 ingress_block 22 ingress")
	l.do("tc filter add block 22 protocol all u32 match u32 0 0 action mirred egress mirror dev r2")
	for _, port := range []string{"r0", "r1"} {
		s.wait(port, func(o mirror.Observation) bool {
			return o.Cause == "tc mirred mirror" && o.In == port && o.Copy == "r2"
		})
	}
}

func TestAFilterThatWasThereIsBaseline(t *testing.T) {
	l := newLab(t)
	l.do("tc qdisc add dev r0 clsact; tc filter add dev r0 egress protocol all u32 match u32 0 0 action mirred egress mirror dev r2")
	s := l.watch()
	o := s.wait("the filter", func(o mirror.Observation) bool { return o.Cause == "tc mirred mirror" })
	if !o.Baseline {
		t.Errorf("not baseline: %+v", o)
	}
}

func TestFiltersThatNeitherCopyNorDivertAreNotTold(t *testing.T) {
	l := newLab(t)
	s := l.watch()
	l.do("tc qdisc add dev r0 clsact; tc filter add dev r0 ingress protocol all u32 match u32 0 0 flowid 1:1; tc filter add dev r0 egress protocol all u32 match u32 0 0 flowid 1:1")
	s.settle(l)
	for _, o := range s.all() {
		if o.Kind == mirror.Rule && o.Subject != "qdisc/r0/clsact" {
			t.Errorf("emitted %+v", o)
		}
	}
}

func TestARuleOfAMomentIsTold(t *testing.T) {
	l := newLab(t)
	l.do("tc qdisc add dev r0 clsact")
	s := l.watch()
	l.feed("tc -batch -", "filter add dev r0 ingress pref 5 protocol all u32 match u32 0 0 action mirred egress mirror dev r2\nfilter del dev r0 ingress pref 5\n")
	s.ends(s.begins("tc mirred mirror"))
}

// onIngress puts a BPF program on r0 as a filter with our name.
func (l *lab) onIngress(w *Watch, instructions asm.Instructions) {
	l.t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: instructions})
	if err != nil {
		l.t.Skipf("needs BPF: %v", err)
	}
	l.t.Cleanup(func() { p.Close() })
	s := w.all()[0]
	device := int32(0)
	for _, d := range s.links.all() {
		if d.name == "r0" {
			device = d.index
		}
	}
	body := words(0, uint32(device), 0, hookIngress, 7<<16|0x0300)
	body = netlink.AppendString(body, unix.TCA_KIND, "bpf")
	const fd, name, flags = 6, bpfName, 8 // TCA_BPF_FD, TCA_BPF_NAME, TCA_BPF_FLAGS: direct action
	options := netlink.AppendUint32(nil, fd, uint32(p.FD()))
	options = netlink.AppendUint32(netlink.AppendString(options, name, "waxseal/1/2"), flags, 1)
	body = netlink.AppendNested(body, unix.TCA_OPTIONS, options)
	if _, err := s.route.Request(l.t.Context(), unix.RTM_NEWTFILTER, unix.NLM_F_CREATE|unix.NLM_F_EXCL, body); err != nil {
		l.t.Skipf("needs BPF filters: %v", err)
	}
}

func TestABPFFilterIsJudgedByWhatItCallsNotByItsName(t *testing.T) {
	for name, c := range map[string]struct {
		program  asm.Instructions
		harmless bool
	}{
		"clones": {asm.Instructions{
			asm.Mov.Imm(asm.R2, 1), asm.Mov.Imm(asm.R3, 0), asm.FnCloneRedirect.Call(), asm.Mov.Imm(asm.R0, -1), asm.Return(),
		}, false},
		"only looks": {asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()}, true},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.do("tc qdisc add dev r0 clsact")
			s := l.watch()
			l.onIngress(s.watch, c.program)
			o := s.begins("tc bpf program")
			if o.In != "r0" || o.Harmless != c.harmless && !strings.Contains(o.Detail, "of unknown calls") {
				t.Errorf("observation %+v", o)
			}
			l.do("tc filter del dev r0 ingress")
			s.ends(o)
		})
	}
}

func TestAnActionByItselfIsKnownAndItsChangeIsSeen(t *testing.T) {
	l := newLab(t)
	s := l.watch()
	l.do("tc actions add action mirred egress mirror dev r1 index 7")
	if o := s.begins("tc mirred mirror"); !o.Harmless {
		t.Errorf("an action that no filter runs copies nothing: %+v", o)
	}
	l.do("tc qdisc add dev r0 clsact; tc filter add dev r0 ingress protocol all u32 match u32 0 0 action mirred index 7")
	s.wait("the filter", func(o mirror.Observation) bool { return o.In == "r0" && o.Copy == "r1" && !o.Harmless })
	l.do("tc actions replace action mirred egress mirror dev r2 index 7")
	s.wait("its new target", func(o mirror.Observation) bool { return o.In == "r0" && o.Copy == "r2" && !o.Harmless })
}

func TestRedirectionToAnIFBComesBack(t *testing.T) {
	l := newLab(t)
	l.needs("ifb", "ip link add ifb7 type ifb")
	s := l.watch()
	l.do("ip link set ifb7 up; tc qdisc add dev r0 clsact; tc filter add dev r0 ingress protocol all u32 match u32 0 0 action mirred egress redirect dev ifb7")
	if o := s.begins("tc mirred redirect"); !o.Harmless {
		t.Errorf("shaping by way of an ifb is told as a diversion: %+v", o)
	}
	l.do("tc qdisc add dev ifb7 clsact; tc filter add dev ifb7 egress protocol all u32 match u32 0 0 action mirred egress mirror dev r2")
	s.wait("the mirror behind it", func(o mirror.Observation) bool { return o.In == "ifb7" && o.Copy == "r2" && !o.Harmless })
}
