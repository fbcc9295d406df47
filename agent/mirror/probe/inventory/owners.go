package inventory

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe/inventory/holder"
)

// owners knows who holds sockets, and asks /proc again for those it does not
// know.
type owners struct {
	root    string // where proc(5) is
	xdp     bool   // ask each socket whether it is one of AF_XDP
	self    int    // our own process
	sockets map[uint64]owner
	held    *holder.Held // of the last walk
	walked  time.Time
	took    time.Duration          // of the last walk
	names   map[int]mirror.Process // of processes, since the last walk
}

// owner is who holds one thing.
type owner struct {
	pids    []int
	process mirror.Process // the first
	others  string
	looked  int // how often it was looked for in vain
}

const (
	walkWithin = 500 * time.Millisecond
	walkShare  = 20 // a walk is not repeated before this many times its own duration has passed
	walkEvery  = time.Second
	maxLooks   = 3 // at once for an owner: a socket is listed a moment before its process has it
)

// find makes sure that the owners of these sockets are as known as they can be.
// all says that there are no other sockets: the rest is forgotten, and a walk is
// repeated where the last one is old. force asks for one in any case.
func (o *owners) find(ctx context.Context, now time.Time, inodes []uint64, all, force bool) {
	missing := slices.ContainsFunc(inodes, func(inode uint64) bool {
		w, known := o.sockets[inode]
		return !known || len(w.pids) == 0 && w.looked < maxLooks
	})
	due := all && now.Sub(o.walked) >= walkEvery && now.Sub(o.walked) >= walkShare*o.took
	if !missing && !due && !force {
		return
	}
	wanted := make(map[uint64]bool, len(inodes))
	for _, inode := range inodes {
		wanted[inode] = true
	}
	ctx, cancel := context.WithTimeout(ctx, walkWithin)
	defer cancel()
	start := time.Now()
	o.held = holder.Walk(ctx, o.root, holder.Want{Sockets: wanted, Deep: missing || o.held.ByThread > 0, XDP: o.xdp})
	o.took, o.walked = time.Since(start), now
	o.names = map[int]mirror.Process{}
	if all {
		maps.DeleteFunc(o.sockets, func(inode uint64, _ owner) bool { return !wanted[inode] })
	}
	for inode := range wanted {
		w := o.name(o.held.Sockets[inode])
		w.looked = o.sockets[inode].looked + 1
		o.sockets[inode] = w
	}
}

// name describes the processes that hold a thing.
func (o *owners) name(pids []int) owner {
	if len(pids) == 0 {
		return owner{}
	}
	named := owner{pids: pids, process: o.process(pids[0])}
	var others []string
	for _, pid := range pids[1:] {
		p := o.process(pid)
		others = append(others, fmt.Sprintf("%s (%d)", p.Comm, p.PID))
	}
	named.others = strings.Join(others, ", ")
	return named
}

// own tells whether our process holds a thing, and nobody else.
func (o *owners) own(w owner) bool { return len(w.pids) == 1 && w.pids[0] == o.self && !o.held.Cut }

// claim writes the owner into an observation, and that the thing is our own.
func (o *owners) claim(seen *mirror.Observation, w owner) {
	seen.Process = w.process
	if w.others != "" {
		seen.Detail = join(seen.Detail, "also held by "+w.others)
	}
	if o.own(w) {
		seen.Harmless, seen.Detail = true, join("waxseald itself", seen.Detail)
	}
}

func join(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), "; ")
}

// process names a process, once after each walk.
func (o *owners) process(pid int) mirror.Process {
	p, known := o.names[pid]
	if !known {
		p = holder.Process(o.root, pid)
		o.names[pid] = p
	}
	return p
}
