package inventory

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe/inventory/socket"
	"waxseal/agent/mirror/probe/netns"
)

// space is a network namespace that is looked into.
type space struct {
	netns.Namespace
	home    bool // the one of the watched ports
	depth   netns.Depth
	by      mirror.Process // the first that was seen in it, or has it open; zero: none was
	since   time.Time
	devices map[int]socket.Device // by index; forgotten every second
}

// name is what observations call it.
func (s *space) name() string {
	if s.home {
		return ""
	}
	return s.String()
}

// scope names what is of this namespace in the ledger. The inode stays the same
// when the namespace gets a name.
func (s *space) scope(what string) string { return fmt.Sprintf("%s/%d", what, s.Inode) }

// within runs f inside. The thread that calls is in the home namespace already
// if direct.
func (s *space) within(direct bool, f func() error) error {
	if s.home && direct {
		return f()
	}
	return s.Do(f)
}

// spaces are the namespaces that are known.
type spaces struct {
	limit   int
	home    netns.Namespace
	direct  bool // this process's threads are in the home namespace
	known   map[uint64]*space
	left    int // beyond the limit
	looked  map[netns.Depth]time.Time
	visited time.Time     // when others than the home were last looked into
	took    time.Duration // that
	suspect bool          // one could not be entered: it is gone, or the way to it is
}

// How often namespaces are looked for, by how far. It takes about 0.05, 1 and
// 10 ms.
var lookFor = map[netns.Depth]time.Duration{
	netns.Names:      100 * time.Millisecond,
	netns.Processes:  time.Second,
	netns.Everything: 10 * time.Second,
}

func newSpaces(limit int) (*spaces, error) {
	home, err := netns.Current()
	if err != nil {
		return nil, err
	}
	s := &spaces{limit: limit, home: home, known: map[uint64]*space{}, looked: map[netns.Depth]time.Time{}}
	s.direct = processIn(home.Inode)
	s.keep([]netns.Namespace{home}, netns.Names, time.Time{})
	return s, nil
}

// look finds what came and went, as far as is due. eager looks at processes at
// once, since one has just made or entered a namespace. It returns those that
// are gone.
func (s *spaces) look(now time.Time, eager bool) (gone []*space, err error) {
	depth := netns.Depth(-1)
	for d, every := range lookFor {
		if d > depth && now.Sub(s.looked[d]) >= every {
			depth = d
		}
	}
	if (eager || s.suspect) && depth < netns.Processes {
		depth = netns.Processes
	}
	if depth < 0 {
		return nil, nil
	}
	found, err := netns.Find(depth, s.limit)
	if err != nil {
		return nil, fmt.Errorf("network namespaces: %w", err)
	}
	for d := netns.Names; d <= depth; d++ {
		s.looked[d] = now
	}
	s.left, s.suspect = found.Left, false
	return s.keep(found.Namespaces, depth, now), nil
}

// keep takes what was found at a depth: what was known from that depth and is
// not among it is gone. One that has only lost its name is looked for among the
// processes first. The home namespace is never gone.
func (s *spaces) keep(found []netns.Namespace, depth netns.Depth, now time.Time) (gone []*space) {
	present := map[uint64]bool{s.home.Inode: true}
	for _, n := range found {
		present[n.Inode] = true
		k := s.known[n.Inode]
		if k == nil {
			k = &space{home: n.Inode == s.home.Inode, since: now, depth: depth}
			s.known[n.Inode] = k
		}
		k.depth = min(k.depth, depth)
		if n.Name != "" || depth >= netns.Processes || k.Inode == 0 {
			k.Namespace = n // also a new way to it
		}
	}
	for inode, k := range s.known {
		switch {
		case present[inode] || k.depth > depth:
		case depth == netns.Names:
			k.depth, s.suspect = netns.Processes, true
		default:
			gone = append(gone, k)
			delete(s.known, inode)
		}
	}
	return gone
}

// all lists them by inode, the home first.
func (s *spaces) all() []*space {
	list := []*space{s.known[s.home.Inode]}
	for _, inode := range slices.Sorted(maps.Keys(s.known)) {
		if inode != s.home.Inode {
			list = append(list, s.known[inode])
		}
	}
	return list
}

// visit runs f inside of a namespace. One that is gone meanwhile is no error
// but not seen either.
func (s *spaces) visit(k *space, f func() error) (seen bool, err error) {
	err = k.within(s.direct, f)
	if errors.Is(err, netns.ErrGone) {
		s.suspect = true
		return false, nil
	}
	return err == nil, err
}

// processIn tells whether the process as a whole is in a namespace, not just
// the thread that calls.
func processIn(inode uint64) bool {
	link, err := os.Readlink("/proc/self/ns/net")
	return err == nil && link == fmt.Sprintf("net:[%d]", inode)
}
