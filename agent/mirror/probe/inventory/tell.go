package inventory

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe/inventory/socket"
)

// tell turns what a namespace holds into observations.
func (r *round) tell(f *found) {
	if err := f.fails[programList]; err != nil {
		r.fail("devices of "+f.String(), err)
	}
	r.list(f, packetList, func(add func(mirror.Observation, uint64)) {
		for _, p := range f.packets {
			add(describePacket(p, f.at(p.Index)), uint64(p.Inode))
		}
	})
	r.list(f, xdpList, func(add func(mirror.Observation, uint64)) {
		for _, x := range f.xdp {
			add(describeXDP(x, f.at(x.Index)), uint64(x.Inode))
		}
	})
	if r.slow {
		r.list(f, queueList, func(add func(mirror.Observation, uint64)) {
			for _, q := range f.queues {
				add(describeQueue(q.Queue), q.inode)
			}
		})
		r.list(f, endpointList, func(add func(mirror.Observation, uint64)) {
			for _, e := range f.endpoints {
				add(describeEndpoint(e), e.Inode)
			}
		})
	}
}

// list makes the observations of one list of one namespace. A list that could
// not be read says nothing about what is there; one that is too long says what
// it has.
func (r *round) list(f *found, name string, each func(add func(mirror.Observation, uint64))) {
	if err := f.fails[name]; err != nil && !errors.Is(err, socket.ErrTooMany) {
		r.fail(name+" of "+f.String(), err)
		return
	} else if err != nil {
		r.fail(name+" of "+f.String(), fmt.Errorf("%w: %d", err, r.config.Limit))
	}
	scope := f.scope(name)
	r.seen[scope] = []mirror.Observation{}
	each(func(o mirror.Observation, inode uint64) {
		o.Netns = f.name()
		r.owners.claim(&o, r.owners.sockets[inode])
		r.seen[scope] = append(r.seen[scope], o)
	})
}

func (r *round) fail(what string, err error) {
	r.failures = append(r.failures, fmt.Errorf("%s: %w", what, err))
}

// tellPrograms tells BPF programs and links that are not our own.
func (r *round) tellPrograms() {
	spaces := r.spaces.all()
	list := []mirror.Observation{}
	for _, id := range slices.Sorted(maps.Keys(r.bpf.known)) {
		if r.ours(id) {
			continue
		}
		o := r.bpf.describe(r.bpf.known[id], spaces)
		r.hold(&o, r.owners.held.Programs[id])
		if by := r.bpf.loaders[id]; o.Process.PID == 0 && by.PID != 0 {
			o.Process, o.Detail = by, join(o.Detail, "held by no process, probably loaded by this one")
		}
		list = append(list, o)
	}
	for _, id := range slices.Sorted(maps.Keys(r.bpf.links)) {
		if r.ours(r.bpf.links[id].Program) {
			continue
		}
		o := describeLink(r.bpf.links[id])
		r.hold(&o, r.owners.held.Links[id])
		list = append(list, o)
	}
	r.seen[programList] = list
	if r.bpf.more {
		r.fail("BPF programs", fmt.Errorf("%w: %d", socket.ErrTooMany, r.bpf.limit))
	}
}

// tellXDP tells the sockets of AF_XDP that the walk of descriptors has found,
// where the kernel does not list them. It does not show what they are bound to;
// a socket belongs to the namespace that its process is in, mostly.
func (r *round) tellXDP() {
	list := []mirror.Observation{}
	for _, inode := range slices.Sorted(maps.Keys(r.owners.held.XDP)) {
		pids := r.owners.held.XDP[inode]
		o := mirror.Observation{Kind: mirror.Socket, Detector: "/proc", Subject: fmt.Sprintf("xdp/inode/%d", inode), Cause: "AF_XDP socket",
			Detail: "its device and queue are not known"}
		for _, k := range r.spaces.all() {
			if slices.Contains(r.owners.held.Inside[k.Inode], pids[0]) {
				o.Netns = k.name()
			}
		}
		r.owners.claim(&o, r.owners.name(pids))
		list = append(list, o)
	}
	r.seen[xdpList] = list
}

// ours tells whether a program is the watch's own.
func (i *Inventory) ours(program uint32) bool {
	return i.config.Ours(program) || i.calls != nil && i.calls.Owns(program)
}

// credit notes who has probably loaded the programs that were just seen for the
// first time: often such a process ends right after.
func (i *Inventory) credit() {
	if by := i.loader(); by.PID != 0 {
		for _, id := range i.bpf.fresh {
			i.bpf.loaders[id] = by
		}
	}
	i.bpf.fresh = nil
	i.loading = [2]map[int]mirror.Process{{}, i.loading[0]}
}

// hold writes the process that has a program or link open. What is only pinned
// or attached has none.
func (r *round) hold(o *mirror.Observation, pids []int) {
	if len(pids) > 0 {
		o.Process = r.owners.process(pids[0])
	}
}

// nameSpaces notes for each namespace the first process that was seen in it, or
// that holds a descriptor of it. Which others come and go is not told.
func (r *round) nameSpaces() {
	for _, k := range r.spaces.all() {
		if k.home || k.by.PID != 0 {
			continue
		}
		pids := slices.Concat(r.owners.held.Inside[k.Inode], r.owners.held.Namespaces[k.Inode])
		if len(pids) > 0 {
			k.by = r.owners.process(pids[0])
		}
	}
}

// tellSpaces tells the namespaces themselves.
func (r *round) tellSpaces() {
	list := []mirror.Observation{}
	for _, k := range r.spaces.all() {
		o := mirror.Observation{
			Kind: mirror.Namespace, Detector: "/proc", Subject: fmt.Sprintf("netns/%d", k.Inode), Cause: "network namespace", Netns: k.name(),
			Detail: k.String(), Harmless: k.home, Process: k.by,
		}
		list = append(list, o)
	}
	r.seen[spaceList] = list
}
