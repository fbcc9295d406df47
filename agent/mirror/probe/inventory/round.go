package inventory

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe/inventory/socket"
)

// round is one look at everything that is due.
type round struct {
	*Inventory
	ctx  context.Context
	now  time.Time
	slow bool // also at what takes no copies

	attach bool // devices are asked for the programs at them

	seen     map[string][]mirror.Observation // by scope; a scope that could not be read is absent
	gone     []*space                        // namespaces that are gone: all of their scopes are
	failures []error
	found    []*found // what the namespaces hold, until the owners are known
}

// found is what one namespace holds.
type found struct {
	*space
	packets   []socket.Packet
	xdp       []socket.XDP
	queues    []queue
	endpoints []socket.Endpoint
	fails     map[string]error // by list
}

// queue is a listener with the inode of its netlink socket.
type queue struct {
	socket.Queue
	inode uint64
}

// The lists, as scopes are called.
const (
	packetList   = "packet"
	xdpList      = "xdp"
	queueList    = "queue"
	endpointList = "listener"
	programList  = "program"
	spaceList    = "netns"
)

// scopes lists what was read, in an order that does not change.
func (r *round) scopes() []string { return slices.Sorted(maps.Keys(r.seen)) }

// due is what a round looks at besides what takes copies.
type due struct {
	slow   bool // what takes none: listeners, modules, owners
	spaces bool // namespaces of processes, even if that was a moment ago
	ports  bool // programs at devices, even if that was a moment ago
	away   bool // other namespaces than our own, even if that was a moment ago
}

// round looks. The caller holds mu.
func (i *Inventory) round(ctx context.Context, now time.Time, due due) (*round, error) {
	ctx, cancel := context.WithTimeout(ctx, roundWithin)
	defer cancel()
	r := &round{Inventory: i, ctx: ctx, now: now, slow: due.slow, seen: map[string][]mirror.Observation{}}
	gone, err := i.spaces.look(now, due.spaces)
	if err != nil {
		return nil, err
	}
	r.gone = gone
	for _, k := range gone {
		delete(i.bpf.ports, k.Inode)
	}
	came, err := i.bpf.look(due.slow)
	if err != nil {
		r.fail("BPF programs", err)
	}
	i.credit()
	r.attach = i.bpf.due(now, came || due.ports)
	r.visitAll(due.away || due.slow || due.ports)
	r.own(came || due.spaces || due.away && !r.xdp)
	r.nameSpaces()
	r.tellPrograms()
	for _, f := range r.found {
		r.tell(f)
	}
	r.tellSpaces()
	if !r.xdp {
		r.tellXDP()
	}
	if due.slow {
		r.tellModules()
	}
	return r, ctx.Err()
}

// awayShare bounds what looking into other namespaces takes: one part in that
// many of the time. There can be hundreds.
const awayShare = 20

// visitAll visits our own namespace, and the others where that is due.
func (r *round) visitAll(away bool) {
	all := r.spaces.all()
	r.visit(all[0])
	if !away && r.now.Sub(r.spaces.visited) < awayShare*r.spaces.took {
		return
	}
	start := time.Now()
	for _, k := range all[1:] {
		r.visit(k)
	}
	r.spaces.visited, r.spaces.took = r.now, time.Since(start)
}

// visit reads the lists of one namespace.
func (r *round) visit(k *space) {
	f := &found{space: k, fails: map[string]error{}}
	if r.slow {
		k.devices = nil // names may have changed
	}
	seen, err := r.spaces.visit(k, func() error { r.read(f); return nil })
	if err != nil {
		r.fail(k.String(), err)
	}
	if seen {
		r.found = append(r.found, f)
	}
}

// read does the reading, on a thread that is in the namespace.
func (r *round) read(f *found) {
	if r.packets {
		f.packets, f.fails[packetList] = socket.Packets(r.ctx, r.config.Limit)
	} else {
		f.packets, f.fails[packetList] = socket.PacketTable(r.config.Limit)
	}
	if r.xdp {
		f.xdp, f.fails[xdpList] = socket.XDPs(r.ctx, r.config.Limit)
	}
	if r.slow {
		f.endpoints, f.fails[endpointList] = socket.Endpoints(r.config.Limit)
		f.readQueues(r.config.Limit)
	}
	if r.attach {
		f.fails[programList] = r.bpf.attachments(r.ctx, f.Inode)
	}
	for _, p := range f.packets {
		f.device(r.ctx, p.Index)
	}
	for _, x := range f.xdp {
		f.device(r.ctx, x.Index)
	}
}

func (f *found) readQueues(limit int) {
	queues, err := socket.Queues(limit)
	f.fails[queueList] = err
	for _, q := range queues {
		inode, _ := socket.InodeOfNetlink(netfilter, q.Port) // 0: the owner is not known
		f.queues = append(f.queues, queue{q, inode})
	}
}

const netfilter = 12 // NETLINK_NETFILTER

// device makes the name of a device known. One that is gone has its number for
// a name.
func (s *space) device(ctx context.Context, index int) {
	if _, known := s.devices[index]; known || index == 0 {
		return
	}
	d, err := socket.DeviceAt(ctx, index)
	if err != nil {
		d = socket.Device{Name: fmt.Sprintf("device %d", index)}
	}
	if s.devices == nil {
		s.devices = map[int]socket.Device{}
	}
	s.devices[index] = d
}

func (s *space) at(index int) *socket.Device {
	if d, known := s.devices[index]; known {
		return &d
	}
	return nil
}

// own finds the owners of all sockets of the round.
func (r *round) own(force bool) {
	var inodes []uint64
	for _, f := range r.found {
		for _, p := range f.packets {
			inodes = append(inodes, uint64(p.Inode))
		}
		for _, x := range f.xdp {
			inodes = append(inodes, uint64(x.Inode))
		}
		for _, q := range f.queues {
			inodes = append(inodes, q.inode)
		}
		for _, e := range f.endpoints {
			inodes = append(inodes, e.Inode)
		}
	}
	inodes = slices.DeleteFunc(inodes, func(inode uint64) bool { return inode == 0 }) // the kernel's own
	r.owners.find(r.ctx, r.now, inodes, r.slow, force)
}
