// Package hook puts a pair of BPF programs on network ports and stands guard
// over them: they stay attached and in front, also when ports come, go and are
// renamed, and what bypasses them is noticed.
//
// It judges nothing and touches nothing that is not its own: programs, filters
// and qdiscs of others stay as they are, and after Close none of ours is left.
// It never stops what it cannot watch: a port without hooks is a Capability
// with a cause, never an error.
package hook

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe/netlink"
)

// Way is how programs are put on ports.
type Way string

// The ways. Auto is TCX where the kernel has it, found out by trying.
const (
	Auto   Way = ""
	TCX    Way = "tcx"
	Clsact Way = "clsact"
)

const (
	defaultInterval = 50 * time.Millisecond
	answerWithin    = 2 * time.Second // for a request to the kernel
	roomForEvents   = 4 << 20         // bytes of notifications: about 2,000 devices that change at once
)

// Config says what is put where.
type Config struct {
	Ports   []string      // names of devices; empty: all physical ports of the namespace, also those to come. veth and other virtual devices only by name
	Ingress *ebpf.Program // of type SchedCLS; nil: nothing on this side
	Egress  *ebpf.Program
	Refused error  // why there are no programs; it becomes the cause of every capability
	Way     Way    // zero: Auto
	PinDir  string // folder of a bpffs in which TCX links are pinned, so that they outlive the process; empty: they go with it

	// Count reads what the programs have counted on a port; nil: the counters of
	// the devices are compared with nothing.
	Count func(port uint32) (Count, error)
	// Changed is called before programs are put on a port (up), once more if it
	// gets another name, and after they are gone. nil: nobody wants to know.
	Changed func(name string, port uint32, up bool)

	Interval time.Duration // of the guard; zero: 50 ms
}

// Count is what the programs have counted on one port since they were loaded.
type Count struct {
	Received, Sent Tally
}

// Guard holds the hooks.
type Guard struct {
	config   Config
	interval time.Duration
	space    *namespace
	requests *netlink.Conn
	events   *netlink.Conn

	mu       sync.Mutex
	way      way              // under mu, as all below
	refused  error            // why nothing at all can be hooked; set by Open
	ports    map[uint32]*port // by index
	conduits map[uint32]bool  // devices that carry the frames of a switch chip's ports
	away     map[string]bool  // names of ports that were moved to another namespace
	told     []mirror.Observation
	pins     *pins      // nil: none are wanted
	heart    *heartbeat // nil: there is nothing to pin it in
	dead     error      // why the heartbeat cannot be written
	last     time.Time  // the end of the last round
	missed   bool       // notifications were lost
	listed   time.Time  // when the devices were last listed because of that
	closed   bool
}

// Open hooks the ports that are there. What the kernel refuses is told by
// Capabilities; an error is a mistake of the caller.
func Open(c Config) (*Guard, error) {
	switch c.Way {
	case Auto, TCX, Clsact:
	default:
		return nil, fmt.Errorf("way %q: want %q, %q or nothing", c.Way, TCX, Clsact)
	}
	g := &Guard{config: c, interval: c.Interval, ports: map[uint32]*port{}, conduits: map[uint32]bool{}, away: map[string]bool{}}
	if g.interval <= 0 {
		g.interval = defaultInterval
	}
	if g.config.Changed == nil {
		g.config.Changed = func(string, uint32, bool) {}
	}
	if g.refused = g.open(); g.refused != nil {
		return g, nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refused = g.resync(context.Background())
	g.pins.sweep(func(port uint32) bool { return g.ports[port] != nil })
	return g, nil
}

// open prepares everything but the ports.
func (g *Guard) open() (err error) {
	if g.config.Refused != nil {
		return g.config.Refused
	}
	if g.config.Ingress == nil && g.config.Egress == nil {
		return errors.New("there is no program to hook")
	}
	_ = rlimit.RemoveMemlock() // kernels before 5.11 count maps against it; a refusal shows when one is made
	if g.space, err = thisNamespace(); err != nil {
		return err
	}
	if g.events, err = netlink.Dial(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK); err != nil {
		return err
	}
	_ = g.events.Room(roomForEvents) // less room means more resyncs
	if g.requests, err = netlink.Dial(unix.NETLINK_ROUTE); err != nil {
		return err
	}
	g.openHeart()
	g.way, err = g.chooseWay()
	return err
}

// openHeart prepares what outlives the process.
func (g *Guard) openHeart() {
	g.pins = openPins(g.config.PinDir)
	if !g.pins.usable() {
		return
	}
	if last, err := LastBeat(g.config.PinDir); err == nil {
		if o, ok := orphaned(last, monotonic()); ok {
			g.say(o)
		}
	}
	g.heart, g.dead = openHeartbeat(g.config.PinDir)
}

// Close takes everything of ours away. It is called after Run has ended.
func (g *Guard) Close() error { return g.end(hold.release, true) }

// Leave ends the guard and leaves on the ports what can outlive the process:
// pinned links, and filters.
func (g *Guard) Leave() error { return g.end(hold.leave, false) }

func (g *Guard) end(each func(hold) error, last bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil
	}
	g.closed = true
	var failed []error
	for _, s := range []side{egress, ingress} { // the other way round, packets would leave that were not seen to come
		for _, p := range g.sorted() {
			if h := p.seats[s].hold; h != nil {
				failed = append(failed, each(h))
			}
		}
	}
	for _, p := range g.sorted() {
		g.config.Changed(p.name, p.index, false)
	}
	clear(g.ports)
	failed = append(failed, g.heart.close(last))
	for _, c := range []*netlink.Conn{g.requests, g.events} {
		if c != nil {
			failed = append(failed, c.Close())
		}
	}
	if g.space != nil {
		failed = append(failed, g.space.close())
	}
	return errors.Join(failed...)
}

// chooseWay finds out by trying: the attach of a program to no device is
// refused in different words by a kernel that has TCX.
func (g *Guard) chooseWay() (way, error) {
	if g.config.Way == Clsact {
		return newClsact(g.requests), nil
	}
	err := tcxWorks()
	switch {
	case err == nil:
		return tcx{g.pins}, nil
	case g.config.Way == TCX:
		return nil, fmt.Errorf("tcx: %w", err)
	case errors.Is(err, ebpf.ErrNotSupported):
		return newClsact(g.requests), nil
	}
	return nil, fmt.Errorf("tcx: %w", err)
}
