package inventory

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe/inventory/holder"
	"waxseal/agent/mirror/probe/inventory/syscalls"
)

// How events of system calls are used. What a call begins takes a moment to be
// finished; and no flood of calls makes rounds follow each other without pause.
const (
	alarmDelay  = 20 * time.Millisecond
	alarmsKept  = 64
	alarmRest   = 10 * time.Millisecond
	writeAgain  = time.Minute // the same write into another process is told again
	writesKnown = 1024
)

// listen gives the events of system calls until ctx is done. When nobody keeps
// up, it rests and lets the kernel drop what does not fit.
func (i *Inventory) listen(ctx context.Context, events chan<- syscalls.Event) {
	stop := context.AfterFunc(ctx, func() { i.calls.Close() })
	defer stop()
	for {
		e, err := i.calls.Read()
		if errors.Is(err, os.ErrClosed) || ctx.Err() != nil {
			return
		}
		if err != nil {
			time.Sleep(alarmRest)
			continue
		}
		select {
		case events <- e:
		default:
			i.dropped.Add(1)
			time.Sleep(alarmRest)
		}
	}
}

// heard makes the next round come soon and look at what the call can have changed.
func (w *watching) heard(e syscalls.Event, now time.Time) {
	soon := now.Add(alarmDelay)
	switch e.Doing {
	case syscalls.Opens:
		w.opened = true
	case syscalls.Loads:
		w.load(e)
	case syscalls.Places:
		w.placed = true
	case syscalls.Spaces:
		w.entered = true
	case syscalls.Modules:
		w.slowly = time.Time{}
	case syscalls.Writes:
		w.write(e, now)
		return
	}
	if soon.Before(w.next) {
		w.next = soon
	}
}

// load remembers who loads programs, up to the round after the next: the kernel
// lists a program when it has verified it.
func (w *watching) load(e syscalls.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.loading[0]) < alarmsKept {
		w.loading[0][e.Process] = w.caller(e)
	}
}

// loader is the only process that can have loaded a program that this round
// lists for the first time; zero if there are several. The caller holds mu.
func (i *Inventory) loader() mirror.Process {
	only := mirror.Process{}
	for _, loads := range i.loading {
		for pid, p := range loads {
			if only.PID != 0 && only.PID != pid {
				return mirror.Process{}
			}
			only = p
		}
	}
	return only
}

// caller names the process of an event. It may have ended already, then its
// name is what the event says.
func (w *watching) caller(e syscalls.Event) mirror.Process {
	if e.Process == 0 {
		return mirror.Process{}
	}
	p := holder.Process(w.owners.root, e.Process)
	if p.Comm == "" {
		p.Comm = holder.Printable(e.Comm, 16)
	}
	return p
}

// write tells that a process takes hold of another: that is how a running
// daemon is changed without a file. It begins with the attempt, so it is told
// even if the kernel refuses.
func (w *watching) write(e syscalls.Event, now time.Time) {
	if e.Process == 0 || e.Target == 0 || e.Target == e.Process {
		return
	}
	key := [2]int{e.Process, e.Target}
	if now.Sub(w.writes[key]) < writeAgain {
		return
	}
	if len(w.writes) >= writesKnown {
		clear(w.writes)
	}
	w.writes[key] = now
	target := holder.Process(w.owners.root, e.Target)
	w.emit(mirror.Observation{
		Kind: mirror.Debug, Time: now, Detector: "sys_enter", Process: w.caller(e),
		Subject: fmt.Sprintf("debug/%d/%d", e.Process, e.Target), Cause: "a process writes into another, or debugs it",
		Target: fmt.Sprintf("%s (%d)", target.Comm, target.PID), Detail: target.Exe,
	})
}

// lost tells that events were not read in time.
func (w *watching) lost(now time.Time) {
	if n := w.dropped.Swap(0); n > 0 {
		w.emit(mirror.Observation{Kind: mirror.Overrun, Time: now, Detector: "sys_enter", Subject: "inventory/syscalls", Cause: "events of system calls were not read in time", Count: n})
	}
}
