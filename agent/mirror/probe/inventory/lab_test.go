package inventory

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe/netns"
)

// A stranger is another process that opens sockets when it is told to: this
// test's own are the watch's own.

const strangerVariable = "WAXSEAL_INVENTORY_STRANGER"

func TestMain(m *testing.M) {
	if os.Getenv(strangerVariable) != "" {
		stranger()
		return
	}
	os.Exit(m.Run())
}

// order is what a stranger is told to do.
type order struct {
	Do       string // "packet", "filter", "bind", "ring", "promisc", "listen", "xdp", "close"
	Socket   int    // which one: the first is 0
	Type     int
	Protocol uint16
	Port     string // a device, or for listen an address
	Filter   []bpf.RawInstruction
}

func stranger() {
	var fds []int
	orders := json.NewDecoder(os.Stdin)
	for {
		var o order
		if orders.Decode(&o) != nil {
			return
		}
		fd, err := obey(o, fds)
		if fd >= 0 {
			fds = append(fds, fd)
		}
		fmt.Printf("%v\n", err)
	}
}

func obey(o order, fds []int) (int, error) {
	index := 0
	if o.Port != "" && o.Do != "listen" && o.Do != "load" {
		var err error
		if index, err = indexOf(o.Port); err != nil {
			return -1, err
		}
	}
	switch o.Do {
	case "packet":
		return unix.Socket(unix.AF_PACKET, o.Type, int(swap(o.Protocol)))
	case "xdp":
		return unix.Socket(unix.AF_XDP, unix.SOCK_RAW, 0)
	case "bind":
		return -1, unix.Bind(fds[o.Socket], &unix.SockaddrLinklayer{Protocol: swap(o.Protocol), Ifindex: index})
	case "filter":
		prog := make([]unix.SockFilter, len(o.Filter))
		for i, f := range o.Filter {
			prog[i] = unix.SockFilter{Code: f.Op, Jt: f.Jt, Jf: f.Jf, K: f.K}
		}
		return -1, unix.SetsockoptSockFprog(fds[o.Socket], unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]})
	case "ring":
		if err := unix.SetsockoptInt(fds[o.Socket], unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3); err != nil {
			return -1, err
		}
		return -1, unix.SetsockoptTpacketReq3(fds[o.Socket], unix.SOL_PACKET, unix.PACKET_RX_RING, &unix.TpacketReq3{Block_size: 1 << 16, Block_nr: 4, Frame_size: 2048, Frame_nr: 128})
	case "promisc":
		return -1, unix.SetsockoptPacketMreq(fds[o.Socket], unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_PROMISC})
	case "listen":
		fd, err := unix.Socket(unix.AF_INET, o.Type, 0)
		if err != nil {
			return -1, err
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(o.Protocol), Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			return fd, err
		}
		if o.Type == unix.SOCK_STREAM {
			err = unix.Listen(fd, 1)
		}
		return fd, err
	case "write": // into process Socket; it fails, since nothing is there
		value := byte(1)
		local := []unix.Iovec{{Base: &value}}
		local[0].SetLen(1)
		_, _ = unix.ProcessVMWritev(o.Socket, local, []unix.RemoteIovec{{Base: 16, Len: 1}}, 0)
		return -1, nil
	case "load": // a BPF program that the filter of a socket keeps, and nobody holds
		p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: o.Port, Type: ebpf.SocketFilter, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
		if err != nil {
			return -1, err
		}
		defer p.Close()
		return -1, unix.SetsockoptInt(fds[o.Socket], unix.SOL_SOCKET, unix.SO_ATTACH_BPF, p.FD())
	case "close":
		return -1, unix.Close(fds[o.Socket])
	}
	return -1, fmt.Errorf("unknown order %q", o.Do)
}

func swap(v uint16) uint16 { return v<<8 | v>>8 }

func indexOf(name string) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req)
	return int(req.Uint32()), err
}

// process is a stranger that runs.
type process struct {
	t     *testing.T
	pid   int
	in    *json.Encoder
	out   *bufio.Reader
	close func()
}

// newStranger starts one in the namespace of the calling thread. It ends with
// the test.
func newStranger(t *testing.T) *process {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^$")
	cmd.Env = append(os.Environ(), strangerVariable+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	closed := false
	end := func() {
		if !closed {
			closed = true
			in.Close()
			_, _ = io.Copy(io.Discard, out)
			_ = cmd.Wait()
		}
	}
	t.Cleanup(end)
	return &process{t, cmd.Process.Pid, json.NewEncoder(in), bufio.NewReader(out), end}
}

func (p *process) try(o order) string {
	p.t.Helper()
	if err := p.in.Encode(o); err != nil {
		p.t.Fatal(err)
	}
	answer, err := p.out.ReadString('\n')
	if err != nil {
		p.t.Fatalf("the stranger ended: %v", err)
	}
	return strings.TrimSpace(answer)
}

func (p *process) do(o order) {
	p.t.Helper()
	if answer := p.try(o); answer != "<nil>" {
		p.t.Fatalf("%+v: %s", o, answer)
	}
}

// newSpace makes a namespace with a device "wxs0" whose other end is in it too.
// inside runs a function on a thread that is in it.
func newSpace(t *testing.T, suffix string) (name string, inside func(func())) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	name = fmt.Sprintf("wxs%d-%s", os.Getpid(), suffix)
	for _, args := range []string{"netns add " + name, "-n " + name + " link add wxs0 type veth peer name wxs1",
		"-n " + name + " link set wxs0 up", "-n " + name + " link set wxs1 up", "-n " + name + " link set lo up"} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", args, err, out)
		}
		if strings.HasPrefix(args, "netns") {
			t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
		}
	}
	found, err := netns.Find(netns.Names, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range found.Namespaces {
		if n.Name == name {
			return name, func(f func()) {
				if err := n.Do(func() error { f(); return nil }); err != nil {
					t.Error(err)
				}
			}
		}
	}
	t.Fatalf("namespace %s is not found", name)
	return "", nil
}

// watcher collects what an Inventory tells.
type watcher struct {
	t    *testing.T
	tell chan mirror.Observation
	all  []mirror.Observation
	inv  *Inventory
}

// start watches until the test ends.
func start(t *testing.T, config Config) *watcher {
	t.Helper()
	inv, err := Open(config)
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{t: t, tell: make(chan mirror.Observation, 1<<16), inv: inv}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := inv.Run(ctx, func(o mirror.Observation) { w.tell <- o }); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		if err := inv.Close(); err != nil {
			t.Error(err)
		}
	})
	w.await("our own namespace", func(o mirror.Observation) bool { return o.Kind == mirror.Namespace && o.Netns == "" })
	return w
}

// await waits for an observation; it may have come already, after the last one awaited.
func (w *watcher) await(what string, is func(mirror.Observation) bool) mirror.Observation {
	w.t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case o := <-w.tell:
			w.all = append(w.all, o)
			if is(o) {
				return o
			}
		case <-deadline:
			w.t.Fatalf("%s was not told; last of %d observations: %+v", what, len(w.all), w.all[max(0, len(w.all)-5):])
		}
	}
}

func assemble(t testing.TB, program ...bpf.Instruction) []bpf.RawInstruction {
	t.Helper()
	raw, err := bpf.Assemble(program)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}
