package vm

import (
	"bytes"
	"context"
	"net"
	"testing"
	"time"
)

// wires returns the hosts around a router that the test plays, and the router's
// ends of their cables.
func wires(t *testing.T) (*Neighbours, []*net.UnixConn) {
	t.Helper()
	dir := t.TempDir()
	v := &VM{}
	var ends []*net.UnixConn
	for port := 1; port <= len(hosts); port++ {
		cable, err := newCable(dir, port)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(cable.close)
		end, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: cable.router, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { end.Close() })
		v.Cables, ends = append(v.Cables, cable), append(ends, end)
	}
	n, err := NewNeighbours(v)
	if err != nil {
		t.Fatal(err)
	}
	return n, ends
}

// next returns the next frame that comes to the router.
func next(t *testing.T, end *net.UnixConn) []byte {
	t.Helper()
	frame := make([]byte, 2048)
	if err := end.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	size, err := end.Read(frame)
	if err != nil {
		t.Fatal(err)
	}
	return frame[:size]
}

func (n *Neighbours) answer(t *testing.T, end *net.UnixConn, host int, frame []byte) {
	t.Helper()
	if _, err := end.WriteToUnix(frame, &net.UnixAddr{Name: n.cables[host].own, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
}

func TestNeighboursTellWhoGotWhat(t *testing.T) {
	n, ends := wires(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx, 1000) }()
	if request := next(t, ends[client]); !bytes.Equal(request, arpRequest()) {
		t.Fatalf("the client begins with %x, want a request for its router", request)
	}
	reply := append(bytes.Clone(hosts[client].mac), portMAC(1)...)
	n.answer(t, ends[client], client, append(append(reply, arpAnswers...), make([]byte, 20)...))
	sent := next(t, ends[client])
	for !bytes.Contains(sent, marker) { // what it asked before it had the answer
		sent = next(t, ends[client])
	}
	n.answer(t, ends[server], server, sent)
	wrapped := append(make([]byte, 50), sent...) // a tunnel's header in front
	n.answer(t, ends[collector], collector, wrapped)
	n.answer(t, ends[collector], collector, wrapped)
	n.answer(t, ends[collector], collector, []byte("what the router says of its own"))
	want := Traffic{Delivered: 1, Copied: 2}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		got := n.Traffic()
		if got.Sent > 0 && got.Delivered == want.Delivered && got.Copied == want.Copied {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("traffic is %v, want some sent, %d delivered, %d copied", got, want.Delivered, want.Copied)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

func TestHostsAnswerForTheirOwnAddressAlone(t *testing.T) {
	ask := func(ip []byte) []byte {
		frame := append(bytes.Repeat([]byte{0xff}, 6), portMAC(2)...)
		frame = append(append(append(frame, arpAsks...), portMAC(2)...), 10, 66, 2, 1)
		return append(append(frame, make([]byte, 6)...), ip...)
	}
	answer := arpAnswer(ask(hosts[server].ip), server)
	if !isARPAnswer(answer) || !bytes.Equal(answer[22:28], hosts[server].mac) || !bytes.Equal(answer[38:42], []byte{10, 66, 2, 1}) {
		t.Errorf("answer is %x", answer)
	}
	for name, frame := range map[string][]byte{
		"another address": ask(hosts[collector].ip), "an answer": answer,
		"a cut frame": ask(hosts[server].ip)[:41], "nothing": nil,
	} {
		if got := arpAnswer(frame, server); got != nil {
			t.Errorf("%s was answered with %x", name, got)
		}
	}
}

// A receiver's sum over a header with its checksum is zero (RFC 1071).
func TestPacketsHaveAValidHeader(t *testing.T) {
	for _, n := range []uint64{0, 1, 255, 65535, 65536, 1 << 40} {
		p := packet(n)
		if sum := checksum(p[14:34]); sum != 0 {
			t.Errorf("packet %d: header sums up to %x", n, sum)
		}
	}
}

func TestCablesNeedNeighbours(t *testing.T) {
	if _, err := NewNeighbours(&VM{}); err == nil {
		t.Error("a router without ports has neighbours")
	}
}
