package config

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe/netlink"
	"waxseal/agent/mirror/probe/netns"
)

const roomForEvents = 2 << 20 // bytes of notifications that the kernel keeps for us

// space is the watch on one namespace.
type space struct {
	config   Config
	netns    netns.Namespace
	called   string // as observations name it; empty: that of the ports
	baseline bool   // what is there at first was there when the watch began
	deep     bool   // found only by looking at everything; guarded by Watch.mu
	links    linkTable
	route    *netlink.Conn // rtnetlink requests
	nft      *nftables     // nil: nftables is not loaded
	nftArea  *area
	xt       []*xtables
	wg       wireguard
	ipsec    *netlink.Conn // nil: not loaded

	ipsecArea *area

	listeners []*listener
	areas     []*area
	start     func(*listener) // set by run; nil before
	over      chan struct{}   // closed when the namespace is gone
	overran   time.Time       // when lost announcements were last told

	mu     sync.Mutex       // guards what follows
	files  []io.Closer      // all that is open
	ended  bool             // over is closed
	failed map[string]error // why a list could not be read, by its name
	full   map[string]bool  // lists of which not everything is kept
}

// openSpace listens in a namespace and reads what is there.
func openSpace(n netns.Namespace, called string, c Config) (*space, error) {
	s := &space{config: c, netns: n, called: called, baseline: true, over: make(chan struct{}), failed: map[string]error{}, full: map[string]bool{}}
	err := n.Do(s.open)
	if err == nil {
		err = s.first()
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("namespace %s: %w", n, err)
	}
	return s, nil
}

// first reads every list once. Devices and tc must be readable.
func (s *space) first() error {
	for i, a := range s.areas {
		found, _, err := a.list(context.Background())
		if err != nil && i < 2 {
			return fmt.Errorf("%s: %w", a.name, err)
		}
		a.ledger.replace(found)
		s.note(a, err)
	}
	return nil
}

// open opens everything in the calling thread's namespace. Only devices and tc
// must be there; the rest is a matter of what the kernel has.
func (s *space) open() (err error) {
	if err := s.openRoute(); err != nil {
		return err
	}
	s.nftArea = newArea("nftables", readEvery, s.readNFT)
	s.xt = newXtables()
	s.ipsecArea = newArea("ipsec", readEvery, s.readIPsec)
	s.areas = append(s.areas, s.nftArea, newArea("iptables-legacy", xtEvery, s.readXT),
		newArea("neighbours", readEvery, s.readNeighbours), newArea("wireguard", readEvery, s.readWireGuard), s.ipsecArea)
	s.wg.conn, err = netlink.Dial(unix.NETLINK_GENERIC)
	if err == nil {
		s.keep(s.wg.conn)
	}
	return err
}

// inside runs f in the namespace, whose own socket leads there.
func (s *space) inside(f func() error) error { return netns.DoBy(s.route, f) }

// addListener starts a listener, also while the watch runs.
func (s *space) addListener(l *listener) {
	s.listeners = append(s.listeners, l)
	if s.start != nil {
		s.start(l)
	}
}

// keep has a file closed with the watch.
func (s *space) keep(f io.Closer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files = append(s.files, f)
}

// end makes run return after it has told that everything is gone.
func (s *space) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.ended = true
		close(s.over)
	}
}

func (s *space) close() {
	s.end()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.files {
		f.Close()
	}
	s.files = nil
}

// event is what a notification says.
type event struct {
	area     *area     // whose list has changed; nil: all have
	findings []finding // that it shows
	process  mirror.Process
}

// listener receives the notifications of one socket.
type listener struct {
	name   string
	conn   *netlink.Conn
	digest func(netlink.Message) []event
}

// listen gives each notification to events until ctx is done.
func (l *listener) listen(ctx context.Context, events chan<- event) {
	give := func(e event) error {
		select {
		case events <- e:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for {
		err := l.conn.Receive(ctx, func(m netlink.Message) error {
			for _, e := range l.digest(m) {
				if err := give(e); err != nil {
					return err
				}
			}
			return nil
		})
		switch {
		case err == nil:
		case ctx.Err() != nil, errors.Is(err, os.ErrClosed):
			return
		default: // lost or unreadable: what it said is read from the lists
			if give(event{}) != nil {
				return
			}
		}
	}
}

// run emits what is there, then what changes, until ctx is done or the
// namespace ends.
func (s *space) run(ctx context.Context, emit func(mirror.Observation)) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer s.close()
	defer running.Wait()
	defer cancel() // before Wait
	events := make(chan event, 256)
	s.start = func(l *listener) { running.Go(func() { l.listen(ctx, events) }) }
	for _, l := range s.listeners {
		s.start(l)
	}
	for _, a := range s.areas {
		for _, f := range a.ledger.all() {
			s.tell(ctx, emit, f, s.baseline)
		}
	}
	s.watch(ctx, events, emit)
}

func (s *space) watch(ctx context.Context, events <-chan event, emit func(mirror.Observation)) {
	for {
		timer := time.NewTimer(time.Until(s.next()))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-s.over:
			timer.Stop()
			s.tellAllGone(ctx, emit)
			return
		case e := <-events:
			s.take(ctx, e, emit)
		case <-timer.C:
			s.read(ctx, emit)
		}
		timer.Stop()
	}
}

// next is when something has to be read.
func (s *space) next() time.Time {
	next := time.Now().Add(readEvery)
	for _, a := range s.areas {
		if a.due.Before(next) {
			next = a.due
		}
	}
	return next
}

// take tells what a notification shows, and has its list read.
func (s *space) take(ctx context.Context, e event, emit func(mirror.Observation)) {
	now := time.Now()
	if e.area == nil && now.Sub(s.overran) >= readEvery {
		s.overran = now
		emit(s.overrun())
	}
	for _, a := range s.areas {
		if e.area == nil || e.area == a {
			a.changed(now, e.process)
		}
	}
	for _, f := range e.findings {
		f.Process, f.seen = e.process, now
		if e.area.ledger.see(f) {
			s.tell(ctx, emit, f, false)
		}
	}
}

// read reads the lists that are due and tells the differences.
func (s *space) read(ctx context.Context, emit func(mirror.Observation)) {
	for _, a := range s.areas {
		if a.due.After(time.Now()) {
			continue
		}
		by := a.blame()
		a.asked = nil
		found, complete, err := a.list(ctx)
		if s.note(a, err); err != nil && !errors.Is(err, errNotLoaded) {
			continue // it is in the capabilities; what was known stays
		}
		s.compare(ctx, a, found, complete, by, emit)
	}
}

func (s *space) compare(ctx context.Context, a *area, found []finding, complete bool, by mirror.Process, emit func(mirror.Observation)) {
	if !complete {
		found = append(a.ledger.all(), found...)
	}
	for i := range found {
		found[i].seen = a.ended
	}
	came, went := a.ledger.replace(found)
	for _, f := range went {
		s.tellGone(emit, f)
	}
	for _, f := range came {
		f.Process = by
		s.tell(ctx, emit, f, false)
	}
	if a.ledger.full && !a.told {
		emit(s.pressure(a))
	}
	a.told = a.ledger.full
}
