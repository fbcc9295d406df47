// Package probe sees copies of packets. Two BPF programs on every port count
// what comes in and what leaves, by fingerprint: a packet may leave, plain or
// inside any other packet, as often as it came in.
//
// It judges nothing, and it never drops, changes or redirects a packet.
package probe

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/bits"
	"sync"
	"time"

	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe/hook"
	"waxseal/agent/mirror/probe/netlink"
)

// Mode is how much of the traffic's work is done.
type Mode string

// The modes.
const (
	Full Mode = "full" // both directions
	Lite Mode = "lite" // egress only: copies are compared with each other, not with what came
	Duty Mode = "duty" // as full, a tenth of the time
)

// Config says what is probed.
type Config struct {
	Ports  []string // names of devices, as hook.Config has them
	Mode   Mode     // zero: Full
	Sample uint32   // one packet in Sample is looked at, a power of two up to 65,536; 0: as many as the load allows
	PinDir string   // as hook.Config has it
	Way    hook.Way
}

// Periods of the probe's own work.
const (
	tuneEvery  = 100 * time.Millisecond
	dutyPeriod = 10 // of these to one period of mode duty, of which the first is on
	linksEvery = 2  // of these between looks at the devices
	sumEvery   = 10 // of these between looks at sums
)

// Probe is the pair of programs on the ports.
type Probe struct {
	config Config
	object *object // nil: refused
	guard  *hook.Guard
	places *places
	wall   func(uint64) time.Time
	events *ringbuf.Reader

	mu       sync.Mutex
	settings settings // under mu
}

// Open loads the programs and puts them on the ports. A kernel that refuses them
// is a capability that is not there; an error is a mistake of the caller.
func Open(c Config) (*Probe, error) {
	switch c.Mode {
	case "":
		c.Mode = Full
	case Full, Lite, Duty:
	default:
		return nil, fmt.Errorf("mode %q is not one of full, lite, duty", c.Mode)
	}
	if c.Sample > leastRate || bits.OnesCount32(c.Sample) > 1 {
		return nil, fmt.Errorf("sampling 1/%d: need a power of two up to %d", c.Sample, leastRate)
	}
	p := &Probe{config: c}
	refused := p.load()
	h := hook.Config{Ports: c.Ports, Way: c.Way, PinDir: c.PinDir, Refused: refused}
	if refused == nil {
		h.Ingress, h.Egress, h.Count, h.Changed = p.object.Ingress, p.object.Egress, p.count, p.places.changed
	}
	var err error
	if p.guard, err = hook.Open(h); err != nil {
		return nil, errors.Join(err, p.unload())
	}
	if refused == nil {
		_ = p.places.refresh(context.Background()) // once more in Run
	}
	return p, nil
}

// load brings programs and maps into the kernel.
func (p *Probe) load() (err error) {
	var random [40]byte
	rand.Read(random[:])
	p.settings = secret(random)
	p.settings.Flags = flagFIB
	if p.config.Mode == Lite {
		p.settings.Flags |= flagLite
	}
	if p.config.Sample > 0 {
		p.settings.Mask = p.config.Sample - 1
	}
	if p.wall, err = clock(); err != nil {
		return err
	}
	if p.object, err = load(); err != nil {
		return err
	}
	fail := func(err error) error {
		return errors.Join(err, p.unload())
	}
	if err := p.object.set(p.settings); err != nil {
		return fail(err)
	}
	links, err := netlink.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return fail(err)
	}
	p.places = &places{object: p.object, links: links, ports: map[uint32]*known{}}
	if p.events, err = ringbuf.NewReader(p.object.Events); err != nil {
		return fail(fmt.Errorf("ring of events: %w", err))
	}
	return nil
}

func (p *Probe) unload() error {
	var errs []error
	if p.events != nil {
		errs = append(errs, p.events.Close())
	}
	if p.places != nil {
		errs = append(errs, p.places.links.Close())
	}
	if p.object != nil {
		errs = append(errs, p.object.close())
	}
	p.object, p.places, p.events = nil, nil, nil
	return errors.Join(errs...)
}

// count is hook's look at our counters.
func (p *Probe) count(port uint32) (hook.Count, error) {
	slot, err := p.places.slot(port)
	if err != nil {
		return hook.Count{}, err
	}
	c, err := p.object.counts(slot)
	return hook.Count{
		Received: hook.Tally{Packets: c.RxPackets, Segments: c.RxSegments},
		Sent:     hook.Tally{Packets: c.TxPackets, Segments: c.TxSegments},
	}, err
}

// Capabilities says which ports are hooked, and how packets are looked at.
func (p *Probe) Capabilities() []mirror.Capability {
	list := p.guard.Capabilities()
	if p.object == nil {
		return list
	}
	packets := mirror.Capability{Name: "packets", State: mirror.Full, How: string(p.config.Mode) + ", object " + p.object.name}
	switch {
	case p.config.Mode == Lite:
		packets.State, packets.Why = mirror.Partial, "mode lite compares copies with each other only: one that leaves alone is not seen"
	case p.config.Mode == Duty:
		packets.State, packets.Why = mirror.Partial, "mode duty looks a tenth of the time"
	case p.object.name == "small":
		packets.State, packets.Why = mirror.Partial, "this kernel has no bpf_loop: an inner packet is looked for in the first 128 bytes only"
	}
	sampling := mirror.Capability{Name: "sampling", State: mirror.Full, How: "auto"}
	if p.config.Sample > 0 {
		sampling.How = fmt.Sprintf("1/%d", p.config.Sample)
	}
	list = append(list, packets, sampling)
	p.places.mu.Lock()
	defer p.places.mu.Unlock()
	if p.places.full > 0 {
		list = append(list, mirror.Capability{Name: "ports", State: mirror.Partial, Why: fmt.Sprintf("%d ports beyond %d have no counters", p.places.full, maxPorts)})
	}
	return list
}

// Owns tells whether a BPF program is one of ours, by its id in the kernel.
func (p *Probe) Owns(program uint32) bool {
	if p.object == nil {
		return false
	}
	return p.object.owns(program)
}

// Run emits what the programs report, and what the guard sees, until ctx is done.
func (p *Probe) Run(ctx context.Context, emit func(mirror.Observation)) error {
	if p.object == nil {
		return p.guard.Run(ctx, emit)
	}
	var running sync.WaitGroup
	defer running.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	running.Go(func() { p.read(emit) })
	running.Go(func() { p.tend(ctx, emit) })
	defer context.AfterFunc(ctx, func() { p.events.Close() })() // a deadline does not wake a reader
	err := p.guard.Run(ctx, emit)
	cancel()
	return err
}

// read turns events into observations until the ring is closed.
func (p *Probe) read(emit func(mirror.Observation)) {
	var record ringbuf.Record
	for {
		if err := p.events.ReadInto(&record); err != nil {
			return
		}
		e, err := decode(record.RawSample)
		var o mirror.Observation
		if err == nil {
			o, err = e.observation(p.places.name, p.wall)
		}
		if err != nil { // the programs of this object write no such event
			o = mirror.Observation{
				Kind: mirror.Overrun, Time: time.Now(), Detector: "ring", Subject: "ring/unreadable", Count: 1,
				Cause: "an event of the BPF programs cannot be read", Detail: err.Error(),
			}
		}
		emit(o)
	}
}

// Close takes the programs from the ports and unloads them.
func (p *Probe) Close() error { return errors.Join(p.guard.Close(), p.unload()) }
