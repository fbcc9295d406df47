package hook

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe/netlink"
)

// lab is a network namespace of the test's own thread. It goes with the thread,
// and all devices in it.
type lab struct {
	t     testing.TB
	links *netlink.Conn
	file  *os.File
}

func newLab(t testing.TB) *lab {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root for a network namespace")
	}
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("needs network namespaces: %v", err)
	}
	return thisLab(t)
}

func thisLab(t testing.TB) *lab {
	t.Helper()
	c, err := netlink.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(ownNamespace)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); f.Close() })
	return &lab{t, c, f}
}

// elsewhere is another namespace, with its own connection.
func elsewhere(t testing.TB) *lab {
	t.Helper()
	made := make(chan *lab)
	go func() {
		defer close(made)
		runtime.LockOSThread() // the thread ends with the goroutine
		if unix.Unshare(unix.CLONE_NEWNET) == nil {
			made <- thisLab(t)
		}
	}()
	l, ok := <-made
	if !ok {
		t.Fatal("no second namespace")
	}
	return l
}

func (l *lab) try(kind, flags uint16, body []byte) error {
	_, err := l.links.Request(context.Background(), kind, flags, body)
	return err
}

func (l *lab) must(what string, err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatalf("%s: %v", what, err)
	}
}

func linkHeader(index uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], index)
	return b
}

func linkUp(index uint32) []byte {
	b := linkHeader(index)
	binary.NativeEndian.PutUint32(b[8:], unix.IFF_UP)
	binary.NativeEndian.PutUint32(b[12:], unix.IFF_UP)
	return b
}

const (
	infoData     = 2 // IFLA_INFO_DATA
	vethInfoPeer = 1 // VETH_INFO_PEER
)

// veth makes a pair of which both ends are up.
func (l *lab) veth(name, peer string) uint32 {
	l.t.Helper()
	l.must("veth "+name, l.tryVeth(name, peer))
	index := l.index(name)
	for _, end := range []uint32{index, l.index(peer)} {
		l.must("up", l.try(unix.RTM_NEWLINK, 0, linkUp(end)))
	}
	return index
}

func (l *lab) tryVeth(name, peer string) error {
	other := netlink.AppendString(linkHeader(0), unix.IFLA_IFNAME, peer)
	info := netlink.AppendString(nil, unix.IFLA_INFO_KIND, "veth")
	info = netlink.AppendNested(info, infoData, netlink.AppendAttr(nil, vethInfoPeer, other))
	body := netlink.AppendString(linkHeader(0), unix.IFLA_IFNAME, name)
	return l.try(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, netlink.AppendNested(body, unix.IFLA_LINKINFO, info))
}

func (l *lab) bridge(name string) uint32 {
	l.t.Helper()
	info := netlink.AppendString(nil, unix.IFLA_INFO_KIND, "bridge")
	body := netlink.AppendString(linkUp(0), unix.IFLA_IFNAME, name)
	l.must("bridge "+name, l.try(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, netlink.AppendNested(body, unix.IFLA_LINKINFO, info)))
	return l.index(name)
}

func (l *lab) master(index, bridge uint32) {
	l.t.Helper()
	l.must("bridge port", l.try(unix.RTM_NEWLINK, 0, netlink.AppendUint32(linkHeader(index), unix.IFLA_MASTER, bridge)))
}

func (l *lab) index(name string) uint32 {
	l.t.Helper()
	all, err := devices(context.Background(), l.links)
	l.must("devices", err)
	for _, d := range all {
		if d.name == name {
			return d.index
		}
	}
	l.t.Fatalf("no device %s", name)
	return 0
}

// rename gives a device another name, while it is up where the kernel allows
// that (since Linux 6.2).
func (l *lab) rename(index uint32, name string) error {
	named := netlink.AppendString(linkHeader(index), unix.IFLA_IFNAME, name)
	err := l.try(unix.RTM_NEWLINK, 0, named)
	if !errors.Is(err, unix.EBUSY) {
		return err
	}
	return errors.Join(l.up(index, 0), l.try(unix.RTM_NEWLINK, 0, named), l.up(index, unix.IFF_UP))
}

// up brings a device up, or down with 0.
func (l *lab) up(index, flags uint32) error {
	header := linkHeader(index)
	binary.NativeEndian.PutUint32(header[8:], flags)        // ifi_flags
	binary.NativeEndian.PutUint32(header[12:], unix.IFF_UP) // ifi_change
	return l.try(unix.RTM_NEWLINK, 0, header)
}

func (l *lab) remove(index uint32) error { return l.try(unix.RTM_DELLINK, 0, linkHeader(index)) }

func (l *lab) move(index uint32, to *lab) {
	l.t.Helper()
	l.must("move", l.try(unix.RTM_NEWLINK, 0, netlink.AppendUint32(linkHeader(index), unix.IFLA_NET_NS_FD, uint32(to.file.Fd()))))
}

// pair are two programs that count packets, by port, for the whole machine.
type pair struct {
	in, out *ebpf.Program
	counts  *ebpf.Map // by 2*port+side
}

func programs(t testing.TB) pair {
	t.Helper()
	_ = rlimit.RemoveMemlock()
	counts, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.PerCPUHash, KeySize: 4, ValueSize: 16, MaxEntries: 8192})
	if errors.Is(err, unix.EPERM) {
		t.Skipf("needs BPF: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { counts.Close() })
	return pair{counter(t, counts, ingress), counter(t, counts, egress), counts}
}

// Offsets in struct __sk_buff (linux/bpf.h).
const (
	skbIfindex = 40
	skbGSOSegs = 164
)

// counter adds each packet and its segments to counts[2*ifindex+side], a Tally.
func counter(t testing.TB, counts *ebpf.Map, s side) *ebpf.Program {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "wxh_" + s.String(), Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R7, asm.R1, skbGSOSegs, asm.Word),
			asm.JNE.Imm(asm.R7, 0, "segmented"),
			asm.Mov.Imm(asm.R7, 1),
			asm.LoadMem(asm.R2, asm.R1, skbIfindex, asm.Word).WithSymbol("segmented"),
			asm.LSh.Imm(asm.R2, 1),
			asm.Add.Imm(asm.R2, int32(s)),
			asm.StoreMem(asm.RFP, -4, asm.R2, asm.Word),
			asm.StoreMem(asm.RFP, -16, asm.R7, asm.DWord),
			asm.Mov.Imm(asm.R6, 1),
			asm.StoreMem(asm.RFP, -24, asm.R6, asm.DWord),
			asm.LoadMapPtr(asm.R1, counts.FD()),
			asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "first"),
			asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
			asm.Add.Imm(asm.R1, 1),
			asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord),
			asm.LoadMem(asm.R1, asm.R0, 8, asm.DWord),
			asm.Add.Reg(asm.R1, asm.R7),
			asm.StoreMem(asm.R0, 8, asm.R1, asm.DWord),
			asm.Ja.Label("out"),
			asm.LoadMapPtr(asm.R1, counts.FD()).WithSymbol("first"),
			asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4),
			asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, -24),
			asm.Mov.Imm(asm.R4, 0),
			asm.FnMapUpdateElem.Call(),
			asm.Mov.Imm(asm.R0, -1).WithSymbol("out"), // TC_ACT_UNSPEC
			asm.Return(),
		},
	})
	if err != nil {
		t.Fatalf("%s program: %v", s, err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// count is Config.Count.
func (p pair) count(port uint32) (Count, error) {
	in, err := p.seen(port, ingress)
	if err != nil {
		return Count{}, err
	}
	out, err := p.seen(port, egress)
	return Count{Received: in, Sent: out}, err
}

func (p pair) seen(port uint32, s side) (Tally, error) {
	var each []Tally
	err := p.counts.Lookup(2*port+uint32(s), &each)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return Tally{}, nil
	}
	var sum Tally
	for _, n := range each {
		sum.Packets += n.Packets
		sum.Segments += n.Segments
	}
	return sum, err
}

// sniffer is a packet socket: it also sends.
func (l *lab) packetSocket(index uint32) int {
	l.t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	l.must("packet socket", err)
	l.must("packet socket", unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: int(index)}))
	l.t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// frame is a small IPv4 frame.
var frame = append([]byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 46}, make([]byte, 42)...)

func (l *lab) send(fd, n int) {
	l.t.Helper()
	for range n {
		if _, err := unix.Write(fd, frame); err != nil && err != unix.ENOBUFS {
			l.t.Fatalf("send: %v", err)
		}
	}
}

// sink keeps what a guard says.
type sink struct {
	mu  sync.Mutex
	all []mirror.Observation
}

func (s *sink) emit(o mirror.Observation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, o)
}

func (s *sink) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = nil
}

func (s *sink) taken() []mirror.Observation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all)
}

// wrong is what was said of the ports. A machine that is busy with other tests
// may keep a guard waiting: that it says so is not what these tests are about.
func (s *sink) wrong() []mirror.Observation {
	return slices.DeleteFunc(s.taken(), func(o mirror.Observation) bool { return o.Kind == mirror.Frozen })
}

// find waits for an observation whose cause contains what.
func (s *sink) find(t testing.TB, kind mirror.Kind, what string) mirror.Observation {
	t.Helper()
	var found mirror.Observation
	eventually(t, string(kind)+" "+what, func() bool {
		for _, o := range s.taken() {
			if o.Kind == kind && !o.Gone && strings.Contains(o.Cause, what) {
				found = o
				return true
			}
		}
		return false
	}, func() any { return s.taken() })
	return found
}

const patience = 20 * time.Second

func eventually(t testing.TB, what string, done func() bool, got ...func() any) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if done() {
			return
		}
	}
	for _, f := range got {
		t.Logf("instead: %+v", f())
	}
	t.Fatalf("did not come: %s", what)
}

// open starts a guard that is closed with the test.
func (l *lab) open(c Config) *Guard {
	l.t.Helper()
	g, err := Open(c)
	l.must("open", err)
	l.t.Cleanup(func() { g.Close() })
	if errors.Is(g.refused, ebpf.ErrNotSupported) && c.Way == TCX {
		l.t.Skip("needs a kernel with TCX (6.6)")
	}
	if g.refused != nil {
		l.t.Fatalf("refused: %v", g.refused)
	}
	return g
}

// run lets a guard run up to the end of the test, or until stop is called.
func (l *lab) run(g *Guard) (*sink, func()) {
	l.t.Helper()
	s := &sink{}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx, s.emit) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			l.t.Errorf("run: %v", err)
		}
	})
	l.t.Cleanup(stop)
	return s, stop
}

// ways runs a test in both ways of attaching.
func ways(t *testing.T, test func(t *testing.T, w Way)) {
	for _, w := range []Way{TCX, Clsact} {
		t.Run(string(w), func(t *testing.T) {
			if w == TCX && errors.Is(tcxWorks(), ebpf.ErrNotSupported) {
				t.Skip("needs a kernel with TCX (6.6)")
			}
			test(t, w)
		})
	}
}
