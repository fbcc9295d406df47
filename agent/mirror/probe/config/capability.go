package config

import (
	"cmp"
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

func (s *space) capabilities() []mirror.Capability {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]mirror.Capability{
		{Name: "link-notifications", State: mirror.Full, How: "netlink"},
		{Name: "tc-notifications", State: mirror.Full, How: "netlink"},
	}, s.covered...)
}
