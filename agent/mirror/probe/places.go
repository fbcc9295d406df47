package probe

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"waxseal/agent/mirror/probe/netlink"
)

// maxPorts and strangeWay are MAX_PORTS and STRANGE_WAY of mirror.h.
const (
	maxPorts   = 256
	strangeWay = 7
)

// place is struct port of mirror.h.
type place struct {
	Slot, Way, Bridge, Flags uint32
}

const portL3 = 1 // PORT_L3

// places are the ports of the programs.
type places struct {
	object *object
	links  *netlink.Conn

	mu     sync.Mutex
	ports  map[uint32]*known // under mu, by index of the device
	others map[uint32]string // names of devices that are no ports, as of the last refresh; under mu
	full   int               // ports for which there was no place; under mu
}

type known struct {
	name string
	place
}

// changed is hook's word that a port comes, has another name, or went.
func (p *places) changed(name string, index uint32, up bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !up {
		delete(p.ports, index)
		_ = p.object.Ports.Delete(index) // a port that is not there needs no place
		return
	}
	k := p.ports[index]
	if k == nil {
		slot, ok := p.free()
		if !ok {
			p.full++
			return
		}
		k = &known{place: place{Slot: slot, Way: slot % strangeWay}}
		p.ports[index] = k
	}
	k.name = name
	if d, err := oneLink(context.Background(), p.links, index); err == nil {
		k.describe(d)
	}
	_ = p.object.Ports.Put(index, k.place) // the map has room for maxPorts
}

func (p *places) free() (uint32, bool) {
	var used [maxPorts]bool
	for _, k := range p.ports {
		used[k.Slot] = true
	}
	for i, u := range used {
		if !u {
			return uint32(i), true
		}
	}
	return 0, false
}

// describe takes over what the programs must know of a device.
func (k *known) describe(d linkInfo) {
	k.Flags, k.Bridge = 0, 0
	if d.bare() {
		k.Flags |= portL3
	}
	if d.bridged {
		k.Bridge = d.master
	}
}

// refresh takes note of ports that joined or left a bridge, and of the names of
// other devices.
func (p *places) refresh(ctx context.Context) error {
	all, err := allLinks(ctx, p.links)
	if err != nil {
		return fmt.Errorf("devices: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.others = map[uint32]string{}
	for _, d := range all {
		k := p.ports[d.index]
		if k == nil {
			p.others[d.index] = d.name
			continue
		}
		before := k.place
		if k.describe(d); k.place != before {
			_ = p.object.Ports.Put(d.index, k.place)
		}
	}
	return nil
}

// name returns the name of a device; empty for index 0.
func (p *places) name(index uint32) string {
	if index == 0 {
		return ""
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if k := p.ports[index]; k != nil {
		return k.name
	}
	if name, ok := p.others[index]; ok {
		return name
	}
	return fmt.Sprintf("device-%d", index)
}

var errNoPlace = errors.New("port has no place in the table of ports")

func (p *places) slot(index uint32) (uint32, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if k := p.ports[index]; k != nil {
		return k.Slot, nil
	}
	return 0, errNoPlace
}

// slots returns the places of the counters by the names of the ports.
func (p *places) slots() map[string]uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	slots := map[string]uint32{}
	for _, k := range p.ports {
		slots[k.name] = k.Slot
	}
	return slots
}
