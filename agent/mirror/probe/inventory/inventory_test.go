package inventory

import (
	"context"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
)

// ofStranger selects what a stranger's packet sockets are told to be.
func ofStranger(p *process, gone bool) func(mirror.Observation) bool {
	return func(o mirror.Observation) bool {
		return o.Kind == mirror.Socket && o.Process.PID == p.pid && o.Gone == gone
	}
}

func TestAPacketSocketIsToldWithItsOwnerAndWhenItIsGone(t *testing.T) {
	name, inside := newSpace(t, "own")
	w := start(t, Config{})
	var p *process
	inside(func() { p = newStranger(t) })
	began := time.Now()
	p.do(order{Do: "packet", Type: unix.SOCK_RAW, Protocol: unix.ETH_P_ALL})
	o := w.await("the socket", ofStranger(p, false))
	t.Logf("told after %v: %+v", time.Since(began), o)
	if o.Netns != name || o.Cause != "packet socket" || o.In != "" || o.Harmless || o.Baseline || o.Process.Comm == "" || o.Process.Exe == "" {
		t.Errorf("told %+v", o)
	}
	p.do(order{Do: "close"})
	gone := w.await("its end", ofStranger(p, true))
	if gone.Subject != o.Subject {
		t.Errorf("%s is gone, want %s", gone.Subject, o.Subject)
	}
}

func TestWhatIsThereIsBaselineAndToldOnce(t *testing.T) {
	_, inside := newSpace(t, "base")
	var p *process
	inside(func() { p = newStranger(t) })
	p.do(order{Do: "packet", Type: unix.SOCK_DGRAM, Protocol: unix.ETH_P_IP})
	w := start(t, Config{Interval: 20 * time.Millisecond})
	o := w.await("the socket", ofStranger(p, false))
	if !o.Baseline {
		t.Errorf("told as new: %+v", o)
	}
	p.do(order{Do: "packet", Type: unix.SOCK_RAW, Protocol: unix.ETH_P_ALL})
	if second := w.await("the second", ofStranger(p, false)); second.Subject == o.Subject || second.Baseline {
		t.Errorf("after %+v came %+v", o, second)
	}
}

func TestAChangedSocketIsToldAgain(t *testing.T) {
	_, inside := newSpace(t, "change")
	w := start(t, Config{})
	var p *process
	inside(func() { p = newStranger(t) })
	p.do(order{Do: "packet", Type: unix.SOCK_RAW})
	first := w.await("a socket that only sends", ofStranger(p, false))
	if !first.Harmless {
		t.Errorf("a socket of protocol 0 is told as %+v", first)
	}
	p.do(order{Do: "bind", Protocol: unix.ETH_P_ALL, Port: "wxs0"})
	bound := w.await("the bound one", ofStranger(p, false))
	if bound.Harmless || bound.In != "wxs0" || bound.Subject != first.Subject {
		t.Errorf("bound later: %+v", bound)
	}
	p.do(order{Do: "filter", Filter: assemble(t,
		bpf.LoadAbsolute{Off: 12, Size: 2}, bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0x88cc, SkipFalse: 1}, bpf.RetConstant{Val: 65535}, bpf.RetConstant{})})
	if o := w.await("the filtered one", ofStranger(p, false)); !o.Harmless {
		t.Errorf("with a filter for LLDP: %+v", o)
	}
	p.do(order{Do: "ring"})
	if o := w.await("the ring", ofStranger(p, false)); o.Cause != "packet socket with ring (TPACKET_V3)" {
		t.Errorf("with a ring: %+v", o)
	}
	p.do(order{Do: "filter", Filter: assemble(t, bpf.RetConstant{Val: 65535})})
	if o := w.await("the open filter", ofStranger(p, false)); o.Harmless {
		t.Errorf("with a filter that accepts all: %+v", o)
	}
}

func TestAnXDPSocketIsTold(t *testing.T) {
	name, inside := newSpace(t, "xdp")
	w := start(t, Config{})
	var p *process
	inside(func() { p = newStranger(t) })
	if answer := p.try(order{Do: "xdp"}); answer != "<nil>" {
		t.Skipf("needs AF_XDP: %s", answer)
	}
	o := w.await("the socket", ofStranger(p, false))
	if o.Cause != "AF_XDP socket" || o.Netns != name {
		t.Errorf("told %+v", o)
	}
	p.do(order{Do: "close"})
	w.await("its end", ofStranger(p, true))
}

func TestAListenerIsTold(t *testing.T) {
	name, inside := newSpace(t, "listen")
	w := start(t, Config{})
	var p *process
	inside(func() { p = newStranger(t) })
	p.do(order{Do: "listen", Type: unix.SOCK_STREAM, Protocol: 4711})
	p.do(order{Do: "listen", Type: unix.SOCK_DGRAM, Protocol: 4712})
	for _, want := range []string{"tcp/127.0.0.1:4711", "udp/127.0.0.1:4712"} {
		o := w.await(want, func(o mirror.Observation) bool { return o.Kind == mirror.Listener && o.Subject == want })
		if o.Netns != name || o.Process.PID != p.pid || o.Harmless {
			t.Errorf("told %+v", o)
		}
	}
}

func TestOurOwnSocketsAreHarmlessAndAStrangersAreNot(t *testing.T) {
	if unix.Getuid() != 0 {
		t.Skip("needs root for packet sockets")
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(swap(unix.ETH_P_ALL)))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	inv, err := Open(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer inv.Close()
	p := newStranger(t)
	p.do(order{Do: "packet", Type: unix.SOCK_RAW, Protocol: unix.ETH_P_ALL})
	all, err := inv.Snapshot(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	harmless := func(pid int) bool {
		i := slices.IndexFunc(all, func(o mirror.Observation) bool {
			return o.Kind == mirror.Socket && o.Process.PID == pid && o.Netns == ""
		})
		if i < 0 {
			t.Fatalf("no socket of process %d in %d observations", pid, len(all))
		}
		return all[i].Harmless
	}
	if !harmless(unix.Getpid()) || harmless(p.pid) {
		t.Errorf("own socket harmless: %v, stranger's: %v", harmless(unix.Getpid()), harmless(p.pid))
	}
}

func TestAVanishedNamespaceTakesItsSocketsAlong(t *testing.T) {
	name, inside := newSpace(t, "gone")
	w := start(t, Config{})
	var p *process
	inside(func() { p = newStranger(t) })
	p.do(order{Do: "packet", Type: unix.SOCK_RAW, Protocol: unix.ETH_P_ALL})
	w.await("the socket", ofStranger(p, false))
	p.close()
	run(t, "ip", "netns", "del", name)
	socket, space := false, false
	w.await("the end of both", func(o mirror.Observation) bool {
		socket = socket || ofStranger(p, true)(o)
		space = space || o.Kind == mirror.Namespace && o.Netns == name && o.Gone
		return socket && space
	})
}
