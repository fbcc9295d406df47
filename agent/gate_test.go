package agent

import (
	"crypto"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
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

// slowSigner takes its time, and notes when it begins and ends.
type slowSigner struct {
	crypto.Signer
	mu    sync.Mutex // guards times
	times []time.Time
}

func (s *slowSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	begin := time.Now()
	time.Sleep(100 * time.Millisecond)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.times = append(s.times, begin, time.Now())
	return nil, nil
}

func TestHandshakesLeaveRoomForOthers(t *testing.T) {
	for quoting, want := range map[bool]struct {
		room time.Duration
		late int
	}{
		false: {50 * time.Millisecond, 3},  // signatures begin at 0, 150, … 600 ms
		true:  {200 * time.Millisecond, 5}, // at 0, 300 and 600 ms
	} {
		testRoom(t, quoting, want.room, want.late)
	}
}

func testRoom(t *testing.T, quoting bool, want time.Duration, wantLate int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		slow := &slowSigner{}
		s := &share{Signer: slow, quoting: func() bool { return quoting }, turn: make(chan struct{}, 1), wait: 700 * time.Millisecond}
		late := 0
		var mu sync.Mutex
		var handshakes sync.WaitGroup
		for range 8 {
			handshakes.Go(func() {
				_, err := s.Sign(nil, nil, nil)
				mu.Lock()
				defer mu.Unlock()
				if errors.Is(err, errShare) {
					late++
				} else if err != nil {
					t.Error(err)
				}
			})
		}
		handshakes.Wait()
		if late != wantLate {
			t.Errorf("quoting is %v: %d of 8 handshakes waited too long: want %d", quoting, late, wantLate)
		}
		for i := 2; i < len(slow.times); i += 2 {
			if room := slow.times[i].Sub(slow.times[i-1]); room != want {
				t.Errorf("quoting is %v: handshake %d begins %v after the one before has ended: want %v", quoting, i/2, room, want)
			}
		}
		time.Sleep(time.Second) // the last pause
	})
}
