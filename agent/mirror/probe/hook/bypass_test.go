package hook

import (
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
)

// bypassSocket is a packet socket whose packets skip the qdisc and our hook.
func (l *lab) bypassSocket(index uint32) int {
	l.t.Helper()
	fd := l.packetSocket(index)
	l.must("PACKET_QDISC_BYPASS", unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1))
	return fd
}

func TestASenderThatBypassesTheHookIsFound(t *testing.T) {
	ways(t, func(t *testing.T, w Way) {
		g := guardedPort(t, w)
		fd := g.bypassSocket(g.port)
		began := time.Now()
		g.send(fd, 30)
		o := g.expect(mirror.Bypass, "sent packets", began)
		if o.Copy != "r0" || o.Out != "r0" || o.Subject != "counters/r0/sent" || o.Count < 20 || o.Count > 31 {
			t.Errorf("observation %+v", o)
		}
	})
}

func TestASlowBypassAddsUp(t *testing.T) {
	g := guardedPort(t, Auto)
	fd := g.bypassSocket(g.port)
	began := time.Now()
	for range 40 {
		g.send(fd, 1)
		time.Sleep(30 * time.Millisecond)
	}
	g.expect(mirror.Bypass, "sent packets", began)
}

func TestWhatXDPTakesIsFound(t *testing.T) {
	const drop = 1 // XDP_DROP
	for name, flags := range map[string]link.XDPAttachFlags{"generic": link.XDPGenericMode, "driver": link.XDPDriverMode} {
		t.Run(name, func(t *testing.T) {
			g := guardedPort(t, Auto)
			x, err := link.AttachXDP(link.XDPOptions{Program: stranger(t, ebpf.XDP, drop), Interface: int(g.port), Flags: flags})
			g.must("XDP", err)
			defer x.Close()
			began := time.Now()
			g.send(g.packetSocket(g.index("p0")), 50)
			o := g.expect(mirror.Bypass, "received packets", began)
			if o.In != "r0" || o.Subject != "counters/r0/received" {
				t.Errorf("observation %+v", o)
			}
		})
	}
}

func TestWhatXDPSendsToAnotherPortIsFound(t *testing.T) {
	l := newLab(t)
	r0, r1 := l.veth("r0", "p0"), l.veth("r1", "p1")
	p := programs(t)
	g := l.open(Config{Ports: []string{"r0", "r1"}, Ingress: p.in, Egress: p.out, Count: p.count})
	s, _ := l.run(g)
	l.warm(g)
	redirect, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "wxh_redirect", Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R1, int32(r1)), asm.Mov.Imm(asm.R2, 0), asm.FnRedirect.Call(), asm.Return()},
	})
	l.must("program", err)
	defer redirect.Close()
	x, err := link.AttachXDP(link.XDPOptions{Program: redirect, Interface: int(r0), Flags: link.XDPGenericMode})
	l.must("XDP", err)
	defer x.Close()
	l.send(l.packetSocket(l.index("p0")), 50)
	if o := s.find(t, mirror.Bypass, "sent packets"); o.Copy != "r1" {
		t.Errorf("observation %+v", o)
	}
}
