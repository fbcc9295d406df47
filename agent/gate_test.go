package agent

import (
	"crypto"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"
)

func TestPeerIsAnAddressOrAnIPv6Network(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.7:1000":              "192.0.2.7/32",
		"[::ffff:192.0.2.7]:1000":     "192.0.2.7/32",
		"[2001:db8:1:2:3:4:5:6]:1000": "2001:db8:1:2::/64",
		"[2001:db8:1:2:ffff::1]:9":    "2001:db8:1:2::/64",
		"[fe80::1%eth0]:1000":         "fe80::/64",
	} {
		tcp := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr))
		if got := peerOf(tcp).String(); got != want {
			t.Errorf("peer of %s is %s: want %s", addr, got, want)
		}
	}
	if got := peerOf(&net.UnixAddr{Name: "x"}); got != (netip.Prefix{}) {
		t.Errorf("peer of a unix socket is %s", got)
	}
}

func TestMeterAllowsItsRate(t *testing.T) {
	m := newMeter(2)
	now := time.Unix(1e9, 0)
	a, b := netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("192.0.2.2/32")
	count := func(peer netip.Prefix) int {
		n := 0
		for m.allow(peer, now) {
			n++
		}
		return n
	}
	if n := count(a); n != 8 {
		t.Errorf("burst of %d: want 8, four seconds' worth", n)
	}
	if n := count(b); n != 8 {
		t.Errorf("another peer's burst of %d: want 8", n)
	}
	now = now.Add(3 * time.Second)
	if n := count(a); n != 6 {
		t.Errorf("%d in three seconds: want 6", n)
	}
	now = now.Add(-time.Hour) // the clock was set back
	if n := count(a); n != 0 {
		t.Errorf("%d after the clock went back: want 0", n)
	}
}

func TestMeterForgetsOnlyTheIdle(t *testing.T) {
	m := newMeter(1)
	now := time.Unix(1e9, 0)
	peer := func(i int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32)
	}
	for i := range maxPeers {
		m.allow(peer(i), now)
	}
	if m.allow(peer(maxPeers), now) {
		t.Error("one peer more than are remembered is allowed")
	}
	now = now.Add(time.Minute)
	if !m.allow(peer(maxPeers), now) || len(m.buckets) != 1 {
		t.Errorf("%d peers are remembered a minute later: want 1", len(m.buckets))
	}
}

type slowSigner struct {
	crypto.Signer
	entered, leave chan struct{}
}

func (s slowSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	s.entered <- struct{}{}
	<-s.leave
	return nil, nil
}

func TestHandshakesHaveAShareOfTheTPM(t *testing.T) {
	slow := slowSigner{entered: make(chan struct{}), leave: make(chan struct{})}
	s := &share{Signer: slow, slots: make(chan struct{}, 2), wait: 10 * time.Millisecond}
	ended := make(chan error, 2)
	for range 2 {
		go func() { _, err := s.Sign(nil, nil, nil); ended <- err }()
		<-slow.entered
	}
	if _, err := s.Sign(nil, nil, nil); !errors.Is(err, errShare) {
		t.Errorf("third signature: %v: want errShare", err)
	}
	close(slow.leave)
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
