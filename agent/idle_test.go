package agent_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"testing"

	"golang.org/x/net/http2"

	"waxseal/agent"
)

// idle opens connections of the owner on which nothing is asked, and returns
// what the agent keeps for each, in bytes. Of the client nothing stays but the
// socket.
func idle(t testing.TB, l *lab, connections int) (each int) {
	t.Helper()
	config := h2(clientTLS(l.owner.client(t)))
	before := memory()
	for range connections {
		socket, err := idleConnection(l.addr, config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { socket.Close() })
	}
	return (memory() - before) / connections
}

// idleConnection sets a connection up as far as HTTP/2 does, and returns its
// bare socket.
func idleConnection(addr string, config *tls.Config) (*os.File, error) {
	tcp, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	defer tcp.Close() // the socket stays open through its copy
	socket, err := tcp.(*net.TCPConn).File()
	if err != nil {
		return nil, err
	}
	conn := tls.Client(tcp, config)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	framer := http2.NewFramer(conn, conn)
	if err := framer.WriteSettings(); err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	if _, err := framer.ReadFrame(); err != nil { // the router's settings: it is served
		return nil, errors.Join(fmt.Errorf("no settings: %w", err), socket.Close())
	}
	return socket, nil
}

// memory returns the bytes of heap and stacks in use.
func memory() int {
	runtime.GC()
	runtime.GC() // what the first has finalized
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapInuse + m.StackInuse)
}

// crowdedLimits let one address have a thousand connections and more.
func crowdedLimits(c *agent.Config) {
	c.Limits.Connections, c.Limits.PerPeer, c.Limits.DialRate = 1100, 1100, 10_000
}

func TestThousandIdleConnectionsCostLittle(t *testing.T) {
	l := newLab(t, newSoftChip(t), crowdedLimits)
	conn := l.enroll(t)
	each := idle(t, l, 1000)
	t.Logf("%d bytes for each of 1,000 idle connections", each)
	if each > 100<<10 {
		t.Errorf("each of 1,000 idle connections keeps %d bytes: at most 100 KiB", each)
	}
	if _, err := conn.Attestz().Attest(t.Context(), newRequest(t)); err != nil {
		t.Errorf("beside 1,000 idle connections: %v", err)
	}
	l.stillServes(t)
}

func BenchmarkIdle(b *testing.B) {
	l := newLab(b, newSoftChip(b), crowdedLimits)
	for range b.N {
		b.ReportMetric(float64(idle(b, l, 1000))/1024, "KiB/connection")
	}
}
