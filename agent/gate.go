package agent

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// gate bounds connections, in all and from one peer, before any byte of theirs
// is read. Those above a bound are closed at once. All listeners of an agent
// share one.
type gate struct {
	limits Limits
	rate   *meter

	mu   sync.Mutex // guards what follows
	open map[netip.Prefix]int
	all  int
}

func newGate(limits Limits) *gate {
	return &gate{limits: limits, rate: newMeter(limits.DialRate), open: map[netip.Prefix]int{}}
}

// before returns l with the gate before it.
func (g *gate) before(l net.Listener) net.Listener { return gated{l, g} }

type gated struct {
	net.Listener
	*gate
}

// Accept implements net.Listener.
func (g gated) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		peer := peerOf(c.RemoteAddr())
		if !g.enter(peer) {
			c.Close()
			continue
		}
		return &counted{Conn: c, leave: sync.OnceFunc(func() { g.exit(peer) })}, nil
	}
}

func (g *gate) enter(peer netip.Prefix) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.all >= g.limits.Connections || g.open[peer] >= g.limits.PerPeer {
		return false
	}
	if !g.rate.allow(peer, time.Now()) {
		return false
	}
	g.all++
	g.open[peer]++
	return true
}

func (g *gate) exit(peer netip.Prefix) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all--
	if g.open[peer]--; g.open[peer] == 0 {
		delete(g.open, peer)
	}
}

type counted struct {
	net.Conn
	leave func()
}

func (c *counted) Close() error {
	c.leave()
	return c.Conn.Close()
}

// peerOf returns what counts as one peer: an IPv4 address, or the /64 of an
// IPv6 address, which one host can have all of. Other networks are one peer.
func peerOf(addr net.Addr) netip.Prefix {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	prefix, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return prefix
}

// meter bounds the rate of each peer: a bucket that holds four seconds' worth.
// A peer whose bucket is full again is forgotten.
type meter struct {
	rate float64 // per second

	mu      sync.Mutex // guards buckets
	buckets map[netip.Prefix]bucket
}

type bucket struct {
	left float64
	at   time.Time
}

// maxPeers bounds the peers that a meter remembers. If there are more at once,
// those who come last are refused.
const maxPeers = 4096

func newMeter(rate float64) *meter {
	return &meter{rate: rate, buckets: map[netip.Prefix]bucket{}}
}

func (m *meter) allow(peer netip.Prefix, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, known := m.buckets[peer]
	if !known {
		if len(m.buckets) >= maxPeers {
			m.forget(now)
		}
		if len(m.buckets) >= maxPeers {
			return false
		}
		b = bucket{m.full(), now}
	}
	b = m.refill(b, now)
	ok := b.left >= 1
	if ok {
		b.left--
	}
	m.buckets[peer] = b
	return ok
}

func (m *meter) full() float64 { return max(1, 4*m.rate) }

func (m *meter) refill(b bucket, now time.Time) bucket {
	gained := max(0, now.Sub(b.at).Seconds()) * m.rate
	return bucket{min(m.full(), b.left+gained), now}
}

func (m *meter) forget(now time.Time) {
	for peer, b := range m.buckets {
		if m.refill(b, now).left >= m.full() {
			delete(m.buckets, peer)
		}
	}
}
