package agent_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"waxseal/agent"
	"waxseal/measure/wire"
)

// What went wrong in other agents and their servers, done to this one.

// Keylime's registrar before 7.4.0 spoke to one TLS client at a time: whoever
// connected and said nothing kept all others out.
func TestCVE2023_38200_SilentConnectionKeepsNobodyOut(t *testing.T) {
	for name, open := range map[string]func(*testing.T, *lab) net.Conn{
		"before the hello":       func(t *testing.T, l *lab) net.Conn { return silent(t, l, nil) },
		"within the hello":       func(t *testing.T, l *lab) net.Conn { return silent(t, l, []byte{22, 3, 1, 2, 0, 1}) },
		"TLS without a call":     func(t *testing.T, l *lab) net.Conn { return l.rawConn(t) },
		"TLS without a preface":  func(t *testing.T, l *lab) net.Conn { return handshaken(t, l) },
		"a call without its end": func(t *testing.T, l *lab) net.Conn { return begun(t, l) },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, newSoftChip(t), func(c *agent.Config) {
				c.Limits.Handshake, c.Limits.Call = 5*time.Minute, 5*time.Minute // it is not the time that frees the way
			})
			owner := l.enroll(t)
			var held []net.Conn
			for range 8 {
				held = append(held, open(t, l))
			}
			if _, err := owner.Attestz().Attest(t.Context(), newRequest(t)); err != nil {
				t.Errorf("over the owner's open connection: %v", err)
			}
			l.stillServes(t)
			for i, c := range held { // they are what they seem: none was closed
				_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
				if _, err := io.Copy(io.Discard, c); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("connection %d was closed, and so kept nobody out: %v", i, err)
				}
			}
		})
	}
}

func silent(t *testing.T, l *lab, first []byte) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", l.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := c.Write(first); err != nil {
		t.Fatal(err)
	}
	return c
}

func handshaken(t *testing.T, l *lab) net.Conn {
	t.Helper()
	c, err := tls.Dial("tcp", l.addr, h2(clientTLS(l.owner.client(t))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func begun(t *testing.T, l *lab) net.Conn {
	t.Helper()
	r := l.rawConn(t)
	r.headers(t, 1, wire.MethodAttest)
	r.data(t, 1, []byte{0, 0, 0, 0, 50, 1, 2, 3}, false)
	return r
}

// Keylime's registrar since 7.12.0 asked for a client certificate and did
// without if none came: anybody could list, read and delete its agents.
func TestCVE2026_1709_WithoutClientCertificateNothingIsDone(t *testing.T) {
	for name, enrolled := range map[string]bool{"enrolled": true, "owned, not enrolled yet": false} {
		t.Run(name, func(t *testing.T) {
			c := newSoftChip(t)
			l := newLab(t, c)
			if enrolled {
				l.enroll(t)
			}
			before, quotes := l.shown(t), c.quotes.Load()
			nobody := l.dial(t, nil)
			for _, method := range wire.Methods() {
				if code, err := call(t, nobody, method, nil); code != codes.Unavailable {
					t.Errorf("%s: %v: want a refused handshake", method, err)
				}
			}
			if err := nobody.Enrollz().RotateOIAK(t.Context(), l.rotation(t)); err == nil {
				t.Error("nobody has put in new certificates")
			}
			if !l.shown(t).Equal(before) || c.quotes.Load() != quotes {
				t.Error("nobody has changed the certificate or got a quote")
			}
		})
	}
}
