// Package inventory watches what takes copies of packets or could begin to:
// sockets, listeners, BPF programs, kernel modules and network namespaces, with
// the processes that hold them.
//
// Where the kernel notifies, it is woken; everything else is looked at ten times
// a second. It tells a thing once, again when it changes, and when it is gone.
// It judges nothing but what a thing can take: a packet socket that provably
// gets no traffic in transit is told as harmless. It attaches nothing to a port
// and takes nothing away, and it keeps no namespace alive.
package inventory

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe/inventory/holder"
	"waxseal/agent/mirror/probe/inventory/module"
	"waxseal/agent/mirror/probe/inventory/program"
	"waxseal/agent/mirror/probe/inventory/socket"
	"waxseal/agent/mirror/probe/inventory/syscalls"
)

// Config says how to watch. The zero value is good.
type Config struct {
	Interval time.Duration // between looks at what takes copies; 0: 100 ms
	Limit    int           // things remembered of one kind, and namespaces looked into; 0: 4,096 and 256
	// Ours tells whether a BPF program is one of the watch's own, which are not
	// reported. nil: none is.
	Ours func(program uint32) bool
}

// What a Config leaves open.
const (
	defaultInterval = 100 * time.Millisecond
	defaultLimit    = 4096
	maxSpaces       = 256
	slowInterval    = time.Second     // between looks at what takes no copies
	roundWithin     = 5 * time.Second // bounds one round, whatever it reads
)

// Inventory is a watch that is open.
type Inventory struct {
	config Config
	caps   []mirror.Capability
	calls  *syscalls.Watch // nil: the kernel does not tell system calls
	events *module.Events  // nil: the kernel does not tell its events

	dropped atomic.Uint64 // events of system calls that nobody read in time

	mu      sync.Mutex // one round at a time
	spaces  *spaces    // under mu, as what follows
	owners  owners
	packets bool // packet_diag is there
	xdp     bool // xdp_diag is there
	bpf     programs
	hidden  map[string]bool           // modules that were missing in one view at the last look
	loading [2]map[int]mirror.Process // who has loaded BPF programs since the last round, and since the one before
}

// Open finds out what this kernel lets be seen. It must be called in the
// network namespace of the watched ports.
func Open(config Config) (*Inventory, error) {
	if config.Interval == 0 {
		config.Interval = defaultInterval
	}
	if config.Limit == 0 {
		config.Limit = defaultLimit
	}
	if config.Ours == nil {
		config.Ours = func(uint32) bool { return false }
	}
	spaces, err := newSpaces(min(config.Limit, maxSpaces))
	if err != nil {
		return nil, fmt.Errorf("inventory: %w", err)
	}
	i := &Inventory{
		config: config, spaces: spaces,
		owners:  owners{root: "/proc", self: os.Getpid(), sockets: map[uint64]owner{}, held: &holder.Held{}, names: map[int]mirror.Process{}},
		loading: [2]map[int]mirror.Process{{}, {}},
		bpf: programs{limit: min(config.Limit, maxPrograms), known: map[uint32]program.Program{}, links: map[uint32]program.Link{},
			ports: map[uint64][]program.Attachment{}, loaders: map[uint32]mirror.Process{}},
	}
	i.probe()
	i.hook()
	i.listenToKernel()
	return i, nil
}

// probe tries each list once.
func (i *Inventory) probe() {
	ctx, cancel := context.WithTimeout(context.Background(), roundWithin)
	defer cancel()
	var packets, xdp error
	_, err := i.spaces.visit(i.spaces.all()[0], func() error {
		_, packets = socket.Packets(ctx, i.config.Limit)
		_, xdp = socket.XDPs(ctx, i.config.Limit)
		return nil
	})
	packets, xdp = errors.Join(err, packets), errors.Join(err, xdp)
	often := "every " + i.config.Interval.String()
	i.owners.xdp = errors.Is(xdp, socket.ErrUnsupported)
	every := often + ", in other namespaces at most 1/20 of the time"
	i.packets, i.xdp = !errors.Is(packets, socket.ErrUnsupported), !errors.Is(xdp, socket.ErrUnsupported)
	i.caps = []mirror.Capability{
		capability("packet-sockets", "packet_diag "+every, packets, mirror.Partial, "/proc/net/packet "+every),
		capability("xdp-sockets", "xdp_diag "+every, xdp, mirror.Partial, "descriptors in /proc every second and at system calls, without device"),
		{Name: "packet-logs", State: mirror.Full, How: "/proc/net/netfilter every " + slowInterval.String()},
		{Name: "listeners", State: mirror.Full, How: "/proc/net every " + slowInterval.String()},
		i.probePrograms(often),
		{Name: "namespace-inventory", State: mirror.Full, How: "names " + often + ", processes every second, files and mounts every 10s"},
	}
}

// probePrograms reads the symbols and tries the walk of ids.
func (i *Inventory) probePrograms(every string) mirror.Capability {
	var hidden error
	i.bpf.symbols, hidden = program.LoadSymbols("/proc/kallsyms")
	if _, _, err := program.IDs(i.bpf.limit); err != nil {
		return mirror.Capability{Name: "bpf-programs", State: mirror.None, Why: err.Error()}
	}
	return capability("bpf-programs", "walk of ids "+every, hidden, mirror.Partial, "walk of ids "+every+", calls not known")
}

// capability is full cover, or what is left of it where the list failed.
func capability(name, how string, err error, left mirror.Cover, instead string) mirror.Capability {
	if err == nil || errors.Is(err, socket.ErrTooMany) {
		return mirror.Capability{Name: name, State: mirror.Full, How: how}
	}
	return mirror.Capability{Name: name, State: left, How: instead, Why: err.Error()}
}

// Capabilities says what can be seen on this kernel.
func (i *Inventory) Capabilities() []mirror.Capability { return slices.Clone(i.caps) }

// hook attaches to system calls where the kernel lets it.
func (i *Inventory) hook() {
	calls, err := syscalls.Open()
	if err != nil {
		i.caps = append(i.caps, mirror.Capability{Name: "syscalls", State: mirror.None, Why: err.Error()})
		return
	}
	i.calls = calls
	i.caps = append(i.caps, mirror.Capability{Name: "syscalls", State: mirror.Full, How: "raw tracepoint sys_enter"})
}

// listenToKernel waits for the kernel's events about modules.
func (i *Inventory) listenToKernel() {
	c := mirror.Capability{Name: "modules", State: mirror.Full, How: "kernel events, /proc/modules and /sys/module every " + slowInterval.String()}
	var err error
	if i.events, err = module.Listen(); err != nil {
		c.State, c.How, c.Why = mirror.Partial, "/proc/modules and /sys/module every "+slowInterval.String(), err.Error()
	}
	i.caps = append(i.caps, c)
}

// Close takes away what is hooked.
func (i *Inventory) Close() error {
	var errs []error
	if i.calls != nil {
		errs = append(errs, i.calls.Close())
	}
	if i.events != nil {
		if err := i.events.Close(); !errors.Is(err, os.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Snapshot is all that there is now, by kind and subject, marked as baseline.
// It tells nothing to Run.
func (i *Inventory) Snapshot(ctx context.Context) ([]mirror.Observation, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	r, err := i.round(ctx, time.Now(), due{slow: true, spaces: true, ports: true})
	if err != nil {
		return nil, err
	}
	var all []mirror.Observation
	for _, scope := range r.scopes() {
		for _, o := range r.seen[scope] {
			o.Time, o.Baseline = r.now, true
			all = append(all, o)
		}
	}
	return all, errors.Join(r.failures...)
}
