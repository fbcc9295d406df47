package config

import (
	"maps"
	"slices"

	"waxseal/agent/mirror/probe/netns"
)

// look opens namespaces that are new and, if it looked at everything, ends
// those that are gone: a namespace that nothing but our own sockets keeps is
// let go. It returns the new ones, and whether one in which a process was has
// none now, so that it may be gone.
func (w *Watch) look(depth netns.Depth, baseline bool) (opened []*space, missed bool) {
	if w.config.Alone {
		return nil, false
	}
	found, err := netns.Find(depth, 16*w.config.MaxNamespaces)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lost = err; err != nil {
		return nil, false
	}
	there := map[uint64]netns.Namespace{}
	for _, n := range found.Namespaces {
		there[n.Inode] = n
	}
	if depth == netns.Everything {
		w.forget(there)
	} else {
		missed = w.misses(there)
	}
	return w.meet(there, found.Left, depth, baseline), missed
}

func (w *Watch) forget(there map[uint64]netns.Namespace) {
	for inode, s := range w.spaces {
		if _, ok := there[inode]; !ok && inode != w.home {
			s.end()
			delete(w.spaces, inode)
		}
	}
}

// misses tells whether there is nobody in a namespace any more. It is looked
// for once; if it stays, only looking at everything finds it.
func (w *Watch) misses(there map[uint64]netns.Namespace) (missed bool) {
	for inode, s := range w.spaces {
		if _, ok := there[inode]; !ok && !s.deep && inode != w.home {
			s.deep, missed = true, true
		}
	}
	return missed
}

func (w *Watch) meet(there map[uint64]netns.Namespace, left int, depth netns.Depth, baseline bool) (opened []*space) {
	for _, inode := range slices.Sorted(maps.Keys(there)) {
		if s := w.spaces[inode]; s != nil {
			s.deep = s.deep && depth == netns.Everything
			continue
		}
		if len(w.spaces) >= w.config.MaxNamespaces {
			left++
			continue
		}
		n := there[inode]
		s, err := openSpace(n, n.String(), w.config)
		if err != nil {
			continue // it went while we looked; if it did not, it is met again
		}
		s.baseline, s.deep = baseline, depth == netns.Everything
		w.spaces[inode] = s
		opened = append(opened, s)
	}
	w.left = left
	return opened
}
