package hook

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe/netlink"
)

// stranger is a program that is not ours: it lets everything pass.
func stranger(t testing.TB, kind ebpf.ProgramType, verdict int32) *ebpf.Program {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "wxh_stranger", Type: kind, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, verdict), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// guarded is a hooked port r0 whose guard runs.
type guarded struct {
	*lab
	*sink
	guard *Guard
	port  uint32
	pair  pair
	stop  func()
}

func guardedPort(t *testing.T, w Way) guarded {
	t.Helper()
	l := newLab(t)
	port := l.veth("r0", "p0")
	p := programs(t)
	g := l.open(Config{Ports: []string{"r0"}, Ingress: p.in, Egress: p.out, Way: w, Count: p.count})
	s, stop := l.run(g)
	l.warm(g)
	return guarded{l, s, g, port, p, stop}
}

// warm waits until the first rounds are over: what comes now is no baseline,
// and the counters have their reference.
func (l *lab) warm(g *Guard) {
	l.t.Helper()
	eventually(l.t, "the first rounds", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		for _, p := range g.ports {
			if !p.seen || g.config.Count != nil && p.ledgers[sent].rounds < warmUp {
				return false
			}
		}
		return len(g.ports) > 0
	})
}

// expect waits for a finding and reports how long that took.
func (g guarded) expect(kind mirror.Kind, what string, since time.Time) mirror.Observation {
	g.t.Helper()
	o := g.find(g.t, kind, what)
	g.t.Logf("%s %q after %v: %s %s", kind, o.Cause, o.Time.Sub(since).Round(time.Microsecond), o.Subject, o.Detail)
	if o.Detector != detector || o.Count == 0 || o.Subject == "" || o.Baseline {
		g.t.Errorf("observation %+v", o)
	}
	return o
}

// restored waits until the hook is said to be in its place again, and sees packets.
func (g guarded) restored() {
	g.t.Helper()
	eventually(g.t, "the trouble is over", func() bool {
		for _, o := range g.taken() {
			if o.Kind == mirror.Tamper && o.Gone {
				return true
			}
		}
		return false
	}, func() any { return g.taken() })
	before, _ := g.pair.count(g.port)
	in, out := g.packetSocket(g.index("p0")), g.packetSocket(g.port)
	eventually(g.t, "packets are seen again", func() bool {
		g.send(in, 1)
		g.send(out, 1)
		now, _ := g.pair.count(g.port)
		return now.Received.Packets >= before.Received.Packets+3 && now.Sent.Packets >= before.Sent.Packets+3
	})
}

func (g guarded) tcxHold(s side) *tcxHold {
	g.guard.mu.Lock()
	defer g.guard.mu.Unlock()
	return g.guard.ports[g.port].seats[s].hold.(*tcxHold)
}

// theirLink is our link as another process gets at it.
func (g guarded) theirLink(s side) link.Link {
	g.t.Helper()
	l, err := link.NewFromID(g.tcxHold(s).id)
	g.must("link by id", err)
	g.t.Cleanup(func() { l.Close() })
	return l
}

func TestADetachedLinkIsFoundAndPutBack(t *testing.T) {
	for _, s := range sides {
		t.Run(s.String(), func(t *testing.T) {
			g := guardedPort(t, TCX)
			began := time.Now()
			g.must("detach", g.theirLink(s).Detach())
			o := g.expect(mirror.Tamper, "detached", began)
			if (s == ingress && o.In != "r0") || (s == egress && o.Copy != "r0") || o.Subject != "hook/r0/"+s.String() {
				t.Errorf("observation %+v", o)
			}
			g.restored()
		})
	}
}

func TestAReplacedProgramOfOurLinkIsFound(t *testing.T) {
	g := guardedPort(t, TCX)
	began := time.Now()
	g.must("update", g.theirLink(egress).Update(stranger(t, ebpf.SchedCLS, -1)))
	g.expect(mirror.Tamper, "replaced", began)
	g.restored()
}

func TestALinkInFrontIsFoundWithItsProgramAndPassed(t *testing.T) {
	g := guardedPort(t, TCX)
	began := time.Now()
	theirs, err := link.AttachTCX(link.TCXOptions{Interface: int(g.port), Program: stranger(t, ebpf.SchedCLS, -1), Attach: ebpf.AttachTCXIngress, Anchor: link.Head()})
	g.must("attach", err)
	defer theirs.Close()
	o := g.expect(mirror.Tamper, "in front", began)
	if !strings.Contains(o.Detail, "wxh_stranger") {
		t.Errorf("detail %q, want the program's name", o.Detail)
	}
	g.restored()
	if n := attachedTCX(t, g.port, ingress); n != 2 {
		t.Errorf("%d programs, want theirs and ours", n)
	}
}

func TestTheSameProgramInFrontIsAnotherWatch(t *testing.T) {
	g := guardedPort(t, TCX)
	spec := programs(t) // the same instructions on another map
	theirs, err := link.AttachTCX(link.TCXOptions{Interface: int(g.port), Program: spec.in, Attach: ebpf.AttachTCXIngress, Anchor: link.Head()})
	g.must("attach", err)
	defer theirs.Close()
	time.Sleep(6 * g.guard.interval)
	if got := g.wrong(); len(got) > 0 {
		t.Errorf("observations %+v", got)
	}
}

func TestTwoWatchesDoNotFight(t *testing.T) {
	ways(t, func(t *testing.T, w Way) {
		g := guardedPort(t, w)
		p := programs(t)
		other := g.open(Config{Ports: []string{"r0"}, Ingress: p.in, Egress: p.out, Way: w})
		s, stop := g.run(other)
		time.Sleep(6 * g.guard.interval)
		stop()
		if err := other.Close(); err != nil {
			t.Errorf("close of the second: %v", err)
		}
		time.Sleep(3 * g.guard.interval)
		if got := append(g.wrong(), s.wrong()...); len(got) > 0 {
			t.Errorf("observations %+v", got)
		}
	})
}

func (g guarded) clsactHold(s side) clsactHold {
	g.guard.mu.Lock()
	defer g.guard.mu.Unlock()
	return *g.guard.ports[g.port].seats[s].hold.(*clsactHold)
}

// addBPF adds or replaces a filter that runs a stranger.
func (g guarded) addBPF(s side, handle uint32, flags uint16) {
	g.t.Helper()
	options := netlink.AppendUint32(nil, bpfFD, uint32(stranger(g.t, ebpf.SchedCLS, -1).FD()))
	options = netlink.AppendString(options, bpfName, g.clsactHold(s).clsact.mark.on(true))
	options = netlink.AppendUint32(options, bpfFlags, directAction)
	body := netlink.AppendString(tcHeader(g.port, handle, parents[s], 1<<16|everyProtocol), unix.TCA_KIND, "bpf")
	g.must("filter", g.try(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE|flags, netlink.AppendNested(body, unix.TCA_OPTIONS, options)))
}

func TestAFilterInFrontIsFoundAndPassed(t *testing.T) {
	g := guardedPort(t, Clsact)
	began := time.Now()
	g.addBPF(ingress, 0, unix.NLM_F_EXCL)
	g.expect(mirror.Tamper, "in front", began)
	g.restored()
	there, err := g.clsactHold(ingress).clsact.filters(g.port, ingress, 0)
	if err != nil || len(there) != 2 {
		t.Errorf("filters %v, %v: want ours and theirs", there, err)
	}
}

func TestAFilterThatIsReplacedInPlaceUnderOurNameIsFound(t *testing.T) {
	g := guardedPort(t, Clsact)
	began := time.Now()
	g.addBPF(egress, g.clsactHold(egress).handle, unix.NLM_F_REPLACE)
	g.expect(mirror.Tamper, "removed or replaced", began)
	g.restored()
}

func TestARemovedFilterIsFoundAndPutBack(t *testing.T) {
	g := guardedPort(t, Clsact)
	h := g.clsactHold(ingress)
	began := time.Now()
	body := netlink.AppendString(tcHeader(g.port, h.handle, parents[ingress], h.priority<<16|everyProtocol), unix.TCA_KIND, "bpf")
	g.must("remove", g.try(unix.RTM_DELTFILTER, 0, body))
	g.expect(mirror.Tamper, "removed or replaced", began)
	g.restored()
}

func TestARemovedQdiscIsFoundAndPutBack(t *testing.T) {
	g := guardedPort(t, Clsact)
	began := time.Now()
	body := netlink.AppendString(tcHeader(g.port, clsactHandle, clsactParent, 0), unix.TCA_KIND, "clsact")
	g.must("remove", g.try(unix.RTM_DELQDISC, 0, body))
	g.expect(mirror.Tamper, "qdisc was removed", began)
	g.restored()
	g.stop()
	if err := g.guard.Close(); err != nil {
		t.Error(err)
	}
	g.nothingLeft(g.port)
}

func TestATCXProgramBeforeOurFilterIsFound(t *testing.T) {
	if errors.Is(tcxWorks(), ebpf.ErrNotSupported) {
		t.Skip("needs a kernel with TCX (6.6)")
	}
	g := guardedPort(t, Clsact)
	began := time.Now()
	theirs, err := link.AttachTCX(link.TCXOptions{Interface: int(g.port), Program: stranger(t, ebpf.SchedCLS, -1), Attach: ebpf.AttachTCXEgress})
	g.must("attach", err)
	g.expect(mirror.Tamper, "in front", began)
	theirs.Close()
	g.restored()
}

func TestAForeignFilterThatHoldsTheFirstPlaceIsToldAtTheStart(t *testing.T) {
	l := newLab(t)
	r0 := l.veth("r0", "p0")
	c := newClsact(l.links)
	l.must("their qdisc", c.qdisc(r0, ingress))
	l.addU32(r0, ingress, 1)
	p := programs(t)
	g := l.open(Config{Ports: []string{"r0"}, Ingress: p.in, Egress: p.out, Way: Clsact})
	s, _ := l.run(g)
	o := s.find(t, mirror.Tamper, "in front")
	if !o.Baseline || !strings.Contains(o.Detail, "u32") {
		t.Errorf("observation %+v", o)
	}
	time.Sleep(2*retryEvery + 4*g.interval) // it is tried again once, and then not for ever
	if n := len(s.wrong()); n != 1 {
		t.Errorf("%d observations, want one: %+v", n, s.taken())
	}
}

func TestAnXDPProgramIsFoundWithItsHolder(t *testing.T) {
	g := guardedPort(t, Auto)
	began := time.Now()
	const passAll = 2 // XDP_PASS
	x, err := link.AttachXDP(link.XDPOptions{Program: stranger(t, ebpf.XDP, passAll), Interface: int(g.port), Flags: link.XDPGenericMode})
	g.must("XDP", err)
	o := g.expect(mirror.Tamper, "an XDP program", began)
	if o.Subject != "xdp/r0" || !strings.Contains(o.Detail, `generic mode`) || !strings.Contains(o.Detail, "wxh_stranger") {
		t.Errorf("observation %+v", o)
	}
	x.Close()
	eventually(t, "the end of it", func() bool {
		all := g.taken()
		return len(all) > 0 && all[len(all)-1].Gone && all[len(all)-1].Subject == "xdp/r0"
	})
}

func TestAMovedPortIsFoundAndCarriesNothingOfOurs(t *testing.T) {
	ways(t, func(t *testing.T, w Way) {
		g := guardedPort(t, w)
		there := elsewhere(t)
		began := time.Now()
		g.move(g.port, there)
		o := g.expect(mirror.Tamper, "moved to another network namespace", began)
		if inode, _ := inodeOf(fmt.Sprintf("/proc/self/fd/%d", there.file.Fd())); o.Netns != fmt.Sprintf("net:[%d]", inode) {
			t.Errorf("it went to %q, want net:[%d]", o.Netns, inode)
		}
		moved := there.index("r0")
		if there.hasClsact(moved) {
			t.Error("the qdisc went with the port")
		}
		eventually(t, "the port is not listed", func() bool { return g.guard.Capabilities()[0].State == mirror.None })
		there.move(moved, g.lab)
		eventually(t, "it is hooked when it is back", func() bool { return g.guard.Capabilities()[0].State == mirror.Full })
		eventually(t, "the finding has ended", func() bool {
			all := g.wrong()
			return len(all) > 0 && all[len(all)-1].Gone && all[len(all)-1].Subject == "netns/r0"
		}, func() any { return g.taken() })
	})
}

func TestADeletedPortIsNoTampering(t *testing.T) {
	ways(t, func(t *testing.T, w Way) {
		g := guardedPort(t, w)
		for range 20 {
			g.must("delete", g.remove(g.index("r0")))
			g.veth("r0", "p0")
			time.Sleep(time.Duration(time.Now().UnixNano()%40) * time.Millisecond)
		}
		eventually(t, "the last is hooked", func() bool { return g.guard.Capabilities()[0].State == mirror.Full })
		if got := g.wrong(); len(got) > 0 {
			t.Errorf("observations %+v", got)
		}
	})
}

func TestAFightIsToldAndIsNoBusyLoop(t *testing.T) {
	g := guardedPort(t, TCX)
	began := time.Now()
	for time.Since(began) < 2500*time.Millisecond {
		if l, err := link.NewFromID(g.tcxHold(ingress).id); err == nil {
			_ = l.Detach()
			l.Close()
		}
		time.Sleep(time.Millisecond)
	}
	told := 0
	for _, o := range g.wrong() {
		if o.Kind == mirror.Tamper && !o.Gone {
			told++
		}
	}
	if most := 2 + int(time.Since(began)/retryEvery); told == 0 || told > most {
		t.Errorf("told %d times, want once a second: at most %d", told, most)
	}
	g.restored()
}

func TestAHolderIsFoundByItsDescriptors(t *testing.T) {
	for name, c := range map[string]struct {
		fdinfo        string
		program, link uint32
		want          bool
	}{
		"program":         {"pos:\t0\nflags:\t02000002\nprog_type:\t3\nprog_id:\t17\n", 17, 0, true},
		"another program": {"prog_id:\t171\n", 17, 0, false},
		"link":            {"link_type:\ttcx\nlink_id:\t9\nprog_id:\t8\n", 17, 9, true},
		"no link":         {"link_id:\t0\nprog_id:\t8\n", 17, 0, false},
		"nonsense":        {"prog_id\nprog_id: x\n:::\n", 17, 9, false},
	} {
		if got := refersTo([]byte(c.fdinfo), c.program, c.link); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if got := process(os.Getpid()); got.PID != os.Getpid() || got.Comm == "" || got.Exe == "" {
		t.Errorf("this process is %+v", got)
	}
}
