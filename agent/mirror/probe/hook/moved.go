package hook

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror/probe/netlink"
	"waxseal/agent/mirror/probe/netns"
)

// mostNamespaces bounds the search for where a port went, and how many that are
// away are remembered.
const mostNamespaces = 256

// gone forgets a port. One that was moved to another namespace still carries
// traffic, out of our sight. space is what our namespace calls the other one.
func (g *Guard) gone(index uint32, moved bool, space int32) {
	p := g.ports[index]
	g.drop(index)
	if p == nil || !moved {
		return
	}
	if len(g.away) < mostNamespaces {
		g.away[p.name] = true
	}
	o := p.tamper("netns/", "the port was moved to another network namespace", "")
	if space >= 0 {
		o.Netns = g.destination(space)
		o.Target = o.Netns
	}
	g.say(o)
}

// returned ends the finding that a port is in another namespace.
func (g *Guard) returned(p *port) {
	if !g.away[p.name] {
		return
	}
	delete(g.away, p.name)
	o := p.tamper("netns/", "the port is back", "")
	o.Gone, o.Baseline = true, false
	g.say(o)
}

// destination is the namespace that ours calls id, as in mirror.Observation;
// empty: it cannot be reached. The kernel tells only the number, which each
// namespace gives to its peers by itself (RTM_GETNSID).
func (g *Guard) destination(id int32) string {
	found, err := netns.Find(netns.Everything, mostNamespaces)
	if err != nil {
		return ""
	}
	for _, n := range found.Namespaces {
		if n.Inode != g.space.inode && g.calls(n, id) {
			return n.String()
		}
	}
	return ""
}

func (g *Guard) calls(n netns.Namespace, id int32) (same bool) {
	_ = n.Do(func() error {
		f, err := os.Open(ownNamespace)
		if err != nil {
			return err
		}
		defer f.Close()
		got, err := g.numberOf(uint32(f.Fd()))
		same = err == nil && got == id
		return err
	})
	return same
}

// numberOf asks what our namespace calls another one (struct rtgenmsg of one
// byte, padded).
func (g *Guard) numberOf(fd uint32) (int32, error) {
	ctx, cancel := context.WithTimeout(context.Background(), answerWithin)
	defer cancel()
	answers, err := g.requests.Request(ctx, unix.RTM_GETNSID, 0, netlink.AppendUint32(make([]byte, 4), unix.NETNSA_FD, fd))
	if err != nil {
		return 0, err
	}
	for _, m := range answers {
		if id, err := parseNumber(m); err == nil {
			return id, nil
		}
	}
	return 0, fmt.Errorf("%w: no number of a namespace", netlink.ErrMalformed)
}

func parseNumber(m netlink.Message) (int32, error) {
	rest, err := m.Rest(4)
	if err != nil {
		return 0, err
	}
	for a, err := range netlink.Attributes(rest) {
		if err != nil {
			return 0, err
		}
		if a.Type == unix.NETNSA_NSID && len(a.Data) == 4 {
			return int32(binary.NativeEndian.Uint32(a.Data)), nil
		}
	}
	return 0, fmt.Errorf("%w: no number of a namespace", netlink.ErrMalformed)
}
