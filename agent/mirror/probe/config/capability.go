package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"waxseal/agent/mirror"
)

// Capabilities implements watch.Source.
func (w *Watch) Capabilities() []mirror.Capability {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := []mirror.Capability{w.namespaces()}
	if home := w.spaces[w.home]; home != nil {
		all = append(all, home.capabilities()...)
	}
	slices.SortFunc(all, func(a, b mirror.Capability) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

func (w *Watch) namespaces() mirror.Capability {
	c := mirror.Capability{Name: "namespaces", State: mirror.Full, How: fmt.Sprintf("poll %v", lookEvery)}
	switch {
	case w.config.Alone:
		c.State, c.How, c.Why = mirror.Partial, "", "only the namespace of the ports is watched, as asked"
	case w.lost != nil:
		c.State, c.Why = mirror.Partial, w.lost.Error()
	case w.left > 0:
		c.State, c.Why = mirror.Partial, fmt.Sprintf("%d namespaces are watched, %d are not", len(w.spaces), w.left)
	}
	return c
}

// announced are the lists whose changes the kernel announces; the others are
// only read again and again.
var announced = map[string]string{"devices": "link-notifications", "tc": "tc-notifications", "nftables": "nft-notifications",
	"rules": "rule-notifications", "routes": "route-notifications", "ipsec": "ipsec-notifications"}

// capabilities says how each list of the namespace is watched.
func (s *space) capabilities() (all []mirror.Capability) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.areas {
		c := mirror.Capability{Name: a.name, State: mirror.Full, How: fmt.Sprintf("poll %v", a.every)}
		if name, ok := announced[a.name]; ok {
			c.Name, c.How = name, "netlink"
		}
		switch err := s.failed[a.name]; {
		case errors.Is(err, errNotLoaded):
			c.How, c.Why = fmt.Sprintf("poll %v", a.every), "the kernel has not loaded it; as soon as it has, it is watched"
		case err != nil:
			c.State, c.How, c.Why = mirror.None, "", err.Error()
		case s.full[a.name]:
			c.State, c.Why = mirror.Partial, fmt.Sprintf("only %d entries are kept", maxFindings)
		}
		all = append(all, c)
	}
	return append(all, blind()...)
}

// blind is what cannot be looked at from here.
func blind() []mirror.Capability {
	all := []mirror.Capability{
		{Name: "team-mode", State: mirror.None, Why: "whether a team device sends every frame on all ports is not in rtnetlink; the device itself is told"},
		{Name: "switch-mirrors", State: mirror.None, Why: "mirrors in Open vSwitch or in a switch chip that no tc filter stands for are not in the kernel's lists"},
	}
	if loaded("ebtables") {
		// Asking for one of its tables makes or loads it.
		all = append(all, mirror.Capability{Name: "ebtables-legacy", State: mirror.None, Why: "its tables cannot be read without making them"})
	}
	return all
}

// note keeps how the reading of a list went.
func (s *space) note(a *area, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed[a.name], s.full[a.name] = err, a.ledger.full
}
