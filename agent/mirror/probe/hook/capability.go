package hook

import (
	"errors"
	"fmt"

	"waxseal/agent/mirror"
)

// Capabilities says which ports are hooked, how, and why others are not.
func (g *Guard) Capabilities() []mirror.Capability {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []mirror.Capability
	named := map[string]bool{}
	for _, p := range g.sorted() {
		named[p.name] = true
		all = append(all, p.capability(g.way), g.countersOf(p))
	}
	for _, name := range g.config.Ports {
		if !named[name] {
			all = append(all, mirror.Capability{Name: "hooks/" + name, State: mirror.None, Why: g.absence()})
		}
	}
	if len(all) == 0 {
		all = append(all, mirror.Capability{Name: "hooks", State: mirror.None, Why: g.absence()})
	}
	all = append(all, g.guarding())
	if g.config.PinDir != "" {
		all = append(all, g.surviving())
	}
	return all
}

// surviving says whether the hooks and the heartbeat outlive the process.
func (g *Guard) surviving() mirror.Capability {
	c := mirror.Capability{Name: "pins", State: mirror.Full, How: "bpffs"}
	switch {
	case g.refused != nil:
		c.State, c.Why = mirror.None, g.refused.Error()
	case g.pins.why != nil:
		c.State, c.Why = mirror.None, g.pins.why.Error()
	case g.dead != nil:
		c.State, c.Why = mirror.Partial, g.dead.Error()
	}
	return c
}

// countersOf says whether the port's own counters are compared with ours.
func (g *Guard) countersOf(p *port) mirror.Capability {
	c := mirror.Capability{Name: "counters/" + p.name, State: mirror.Full, How: "netlink"}
	switch {
	case g.config.Count == nil:
		c.State, c.Why = mirror.None, "nothing counts packets at the hooks"
	case p.uncount != nil:
		c.State, c.Why = mirror.None, p.uncount.Error()
	}
	if c.State == mirror.None {
		c.How = ""
	}
	return c
}

// guarding says whether someone looks for what comes in front.
func (g *Guard) guarding() mirror.Capability {
	if g.refused != nil {
		return mirror.Capability{Name: "xdp-guard", State: mirror.None, Why: g.refused.Error()}
	}
	return mirror.Capability{Name: "xdp-guard", State: mirror.Full, How: fmt.Sprintf("netlink every %v", g.interval)}
}

// absence says why a port has no hooks.
func (g *Guard) absence() string {
	if g.refused != nil {
		return g.refused.Error()
	}
	return "there is no such port; it is hooked when it appears"
}

// capability says how far the port is watched.
func (p *port) capability(w way) mirror.Capability {
	c := mirror.Capability{Name: "hooks/" + p.name, State: mirror.Full, How: string(w.name())}
	var why error
	held := 0
	for _, s := range sides {
		if p.seats[s].hold != nil {
			held++
		} else if p.seats[s].why != nil {
			why = errors.Join(why, fmt.Errorf("%s: %w", s, p.seats[s].why))
		}
	}
	switch {
	case held == len(sides):
	case held > 0:
		c.State = mirror.Partial
	default:
		c.State, c.How = mirror.None, ""
	}
	if why != nil {
		c.Why = why.Error()
	} else if held == 1 {
		c.Why = "one side only"
	}
	return c
}
