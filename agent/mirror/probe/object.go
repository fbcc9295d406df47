package probe

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/rlimit"
)

// object holds the programs and maps in the kernel.
type object struct {
	name    string        // "full", or "small" for a kernel without bpf_loop
	Ingress *ebpf.Program `ebpf:"waxseal_in"`
	Egress  *ebpf.Program `ebpf:"waxseal_out"`
	Conf    *ebpf.Map     `ebpf:"conf"`
	Ports   *ebpf.Map     `ebpf:"ports"`
	Counts  *ebpf.Map     `ebpf:"cnts"`
	Sights  *ebpf.Map     `ebpf:"sigs"`
	Origins *ebpf.Map     `ebpf:"origins"`
	Events  *ebpf.Map     `ebpf:"events"`
	// Macs, Limits, Frames and Budgets are the programs' own.
}

// load loads the programs that this kernel can run: by what it has, whatever
// its version is.
func load() (*object, error) {
	_ = rlimit.RemoveMemlock() // kernels before 5.11 count maps against it; a refusal shows below
	name, spec := "full", loadFull
	if err := features.HaveProgramHelper(ebpf.SchedCLS, asm.FnLoop); err != nil {
		if !errors.Is(err, ebpf.ErrNotSupported) {
			return nil, fmt.Errorf("BPF is refused: %w", err)
		}
		name, spec = "small", loadSmall
	}
	return loadObject(name, spec)
}

func loadObject(name string, spec func() (*ebpf.CollectionSpec, error)) (*object, error) {
	s, err := spec()
	if err != nil {
		return nil, fmt.Errorf("BPF object %s: %w", name, err)
	}
	o := &object{name: name}
	if err := s.LoadAndAssign(o, nil); err != nil {
		return nil, fmt.Errorf("BPF object %s: %w", name, err)
	}
	return o, nil
}

// close unloads everything.
func (o *object) close() error {
	var errs []error
	for _, p := range []*ebpf.Program{o.Ingress, o.Egress} {
		errs = append(errs, p.Close())
	}
	for _, m := range []*ebpf.Map{o.Conf, o.Ports, o.Counts, o.Sights, o.Origins, o.Events} {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}

// owns tells whether a program in the kernel is one of these, by its id.
func (o *object) owns(program uint32) bool {
	for _, p := range []*ebpf.Program{o.Ingress, o.Egress} {
		info, err := p.Info()
		if err != nil {
			continue
		}
		if id, ok := info.ID(); ok && uint32(id) == program {
			return true
		}
	}
	return false
}

// settings are struct config of mirror.h.
type settings struct {
	Seed  uint64
	Key   [8]uint32
	Mask  uint32
	Flags uint32
}

// Flags of settings (mirror.h).
const (
	flagOff  = 1
	flagLite = 2
	flagFIB  = 4
)

// secret makes settings whose fingerprints nobody outside can foresee.
func secret(random [40]byte) settings {
	s := settings{Seed: binary.LittleEndian.Uint64(random[:])}
	for i := range s.Key {
		s.Key[i] = binary.LittleEndian.Uint32(random[8+4*i:])
	}
	return s
}

func (o *object) set(s settings) error {
	if err := o.Conf.Put(uint32(0), s); err != nil {
		return fmt.Errorf("settings of the BPF programs: %w", err)
	}
	return nil
}

// count is struct counts of mirror.h.
type count struct {
	RxPackets, RxSegments, RxBytes uint64
	TxPackets, TxSegments, TxBytes uint64
	Forwarded                      uint64
	Originated, OriginatedBytes    uint64
	Sampled                        uint64
	Scanned, Unscanned             uint64
	Pressed                        uint64
	Lost                           uint64
}

// counts of a port, of all CPUs together.
func (o *object) counts(slot uint32) (count, error) {
	var each []count
	if err := o.Counts.Lookup(slot, &each); err != nil {
		return count{}, fmt.Errorf("counters: %w", err)
	}
	var sum count
	for _, c := range each {
		sum.RxPackets += c.RxPackets
		sum.RxSegments += c.RxSegments
		sum.RxBytes += c.RxBytes
		sum.TxPackets += c.TxPackets
		sum.TxSegments += c.TxSegments
		sum.TxBytes += c.TxBytes
		sum.Forwarded += c.Forwarded
		sum.Originated += c.Originated
		sum.OriginatedBytes += c.OriginatedBytes
		sum.Sampled += c.Sampled
		sum.Scanned += c.Scanned
		sum.Unscanned += c.Unscanned
		sum.Pressed += c.Pressed
		sum.Lost += c.Lost
	}
	return sum, nil
}
