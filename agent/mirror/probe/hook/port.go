package hook

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/cilium/ebpf"
)

// port is a device that is, or should be, hooked.
type port struct {
	index uint32
	name  string
	seats [2]seat // by side
	xdp   xdp     // what was last seen in front
	seen  bool    // a round has looked at it

	ledgers  [2]ledger // by direction
	uncount  error     // why the counters cannot be compared
	bypassed [2]bypass // by direction
}

// seat is our place on one side of a port.
type seat struct {
	hold  hold      // nil: none
	why   error     // why there is none
	tried time.Time // when a program was last put here again

	trouble string // what was last said to be wrong; empty: nothing
	stuck   string // what putting the program here again does not help against
	twins   twins
}

// programs are what goes where, by side.
func (g *Guard) programs() [2]*ebpf.Program {
	return [2]*ebpf.Program{ingress: g.config.Ingress, egress: g.config.Egress}
}

// wants tells whether a device is to be hooked.
func (g *Guard) wants(d device) bool {
	if len(g.config.Ports) > 0 {
		return slices.Contains(g.config.Ports, d.name)
	}
	return d.physical() && !g.conduits[d.index]
}

// resync compares the ports with the devices that are there.
func (g *Guard) resync(ctx context.Context) error {
	there, err := devices(ctx, g.requests)
	if err != nil {
		return err
	}
	for _, d := range there {
		g.noteConduit(d)
	}
	for index := range g.ports {
		if _, ok := there[index]; !ok {
			g.drop(index)
		}
	}
	var fresh []*port
	for _, d := range sortedDevices(there) {
		if p := g.meet(d); p != nil {
			fresh = append(fresh, p)
		}
	}
	g.hook(fresh)
	return nil
}

func (g *Guard) noteConduit(d device) {
	if d.kind == "dsa" && d.lower != 0 {
		g.conduits[d.lower] = true
	}
}

// meet takes note of a device, and returns it as a port if it is a new one. A
// port that gets another name keeps its hooks.
func (g *Guard) meet(d device) *port {
	if p := g.ports[d.index]; p != nil {
		if p.name != d.name && d.name != "" {
			p.name = d.name
			g.config.Changed(p.name, p.index, true)
		}
		return nil
	}
	if !g.wants(d) {
		return nil
	}
	p := &port{index: d.index, name: d.name, uncount: d.switched()}
	g.ports[d.index] = p
	g.returned(p)
	g.config.Changed(p.name, p.index, true)
	return p
}

// hook puts the programs on new ports: first all ingress sides, or a packet
// would be seen to leave by one port before its coming by another is watched.
func (g *Guard) hook(fresh []*port) {
	for _, s := range sides {
		for _, p := range fresh {
			if g.ports[p.index] == p {
				g.sit(p, s, time.Now())
			}
		}
	}
}

// sit puts a program on one side of a port.
func (g *Guard) sit(p *port, s side, now time.Time) {
	program := g.programs()[s]
	if program == nil {
		return
	}
	seat := &p.seats[s]
	seat.hold, seat.why = g.way.attach(p.index, s, program)
	if seat.why != nil {
		seat.tried = now
	}
	if errors.Is(seat.why, errNoDevice) { // it went while it was hooked
		g.drop(p.index)
	}
}

// drop forgets a port that is no longer there. A link may still hold its
// device in another namespace: releasing it takes our program from there too.
func (g *Guard) drop(index uint32) {
	p := g.ports[index]
	if p == nil {
		return
	}
	delete(g.ports, index)
	g.guardXDP(p, xdp{})
	for _, s := range []side{egress, ingress} {
		g.settled(p, s, "the port is gone")
		if h := p.seats[s].hold; h != nil {
			_ = h.release() // what is on it went with the device
		}
	}
	if g.way != nil {
		g.way.forget(index)
	}
	g.config.Changed(p.name, p.index, false)
}

func (g *Guard) sorted() []*port {
	return slices.SortedFunc(maps.Values(g.ports), func(a, b *port) int { return cmp.Compare(a.index, b.index) })
}

func sortedDevices(all map[uint32]device) []device {
	return slices.SortedFunc(maps.Values(all), func(a, b device) int { return cmp.Compare(a.index, b.index) })
}
