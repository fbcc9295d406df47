package hook

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
)

// frozenAfter is how long a guard may be silent.
const frozenAfter = time.Second

// Beat is the last sign of life of a guard. It is in a pinned map, so that
// whoever survives it can tell since when nobody guards.
type Beat struct {
	At     uint64 // CLOCK_MONOTONIC, in nanoseconds
	Rounds uint64 // that this guard has done
	PID    uint64
}

// heartbeat is an array map with one Beat.
type heartbeat struct {
	beats  *ebpf.Map
	rounds uint64
}

func heartbeatPath(dir string) string { return filepath.Join(dir, "heartbeat") }

// LastBeat reads the sign of life of the guard that pins in dir.
func LastBeat(dir string) (Beat, error) {
	m, err := ebpf.LoadPinnedMap(heartbeatPath(dir), &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return Beat{}, fmt.Errorf("heartbeat: %w", err)
	}
	defer m.Close()
	var b Beat
	if err := m.Lookup(uint32(0), &b); err != nil {
		return Beat{}, fmt.Errorf("heartbeat: %w", err)
	}
	return b, nil
}

// openHeartbeat goes on with the map of an earlier guard, or makes one.
func openHeartbeat(dir string) (*heartbeat, error) {
	path := heartbeatPath(dir)
	spec := &ebpf.MapSpec{Name: filepath.Base(path), Type: ebpf.Array, KeySize: 4, ValueSize: 24, MaxEntries: 1, Pinning: ebpf.PinByName}
	m, err := ebpf.NewMapWithOptions(spec, ebpf.MapOptions{PinPath: dir})
	if errors.Is(err, ebpf.ErrMapIncompatible) {
		_ = os.Remove(path)
		m, err = ebpf.NewMapWithOptions(spec, ebpf.MapOptions{PinPath: dir})
	}
	if err != nil {
		return nil, fmt.Errorf("heartbeat: %w", err)
	}
	return &heartbeat{beats: m}, nil
}

func (h *heartbeat) beat() error {
	if h == nil {
		return nil
	}
	h.rounds++
	return h.beats.Put(uint32(0), Beat{At: monotonic(), Rounds: h.rounds, PID: uint64(os.Getpid())})
}

func (h *heartbeat) close(remove bool) error {
	if h == nil {
		return nil
	}
	if remove {
		_ = h.beats.Unpin()
	}
	return h.beats.Close()
}

func monotonic() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return uint64(ts.Nano())
}

// orphaned tells how long nobody guarded what an earlier process left.
func orphaned(last Beat, now uint64) (mirror.Observation, bool) {
	silent := time.Duration(now - last.At)
	if last.At == 0 || now < last.At || silent <= frozenAfter {
		return mirror.Observation{}, false
	}
	o := frozen(time.Now(), silent, fmt.Sprintf("nobody guarded the hooks for %v", silent.Round(time.Millisecond)))
	o.Detail = fmt.Sprintf("the last guard was process %d", last.PID)
	return o, true
}

// silence tells that the guard itself did not run, or had to wait.
func silence(last, began, ended time.Time, interval time.Duration) (mirror.Observation, bool) {
	if gap := began.Sub(last) - interval; !last.IsZero() && gap > frozenAfter {
		return frozen(began, gap, fmt.Sprintf("the guard did not run for %v", gap.Round(time.Millisecond))), true
	}
	if took := ended.Sub(began); took > frozenAfter {
		return frozen(ended, took, fmt.Sprintf("the kernel kept the guard waiting for %v", took.Round(time.Millisecond))), true
	}
	return mirror.Observation{}, false
}

func frozen(now time.Time, silent time.Duration, cause string) mirror.Observation {
	return mirror.Observation{
		Kind: mirror.Frozen, Time: now, First: now.Add(-silent), Detector: detector,
		Subject: "guard", Cause: cause, Count: 1,
	}
}
