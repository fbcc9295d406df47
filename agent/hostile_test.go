package agent_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"

	"waxseal/agent"
	"waxseal/measure/wire"
)

// stillServes asks that the router answers its owner, from another address
// than the attacker's and from the same.
func (l *lab) stillServes(t *testing.T) {
	t.Helper()
	if err := l.dialFrom(t, net.IPv4(127, 0, 0, 2)); err != nil {
		t.Fatalf("the router no longer answers: %v", err)
	}
	if _, err := l.dial(t, l.owner.client(t)).Enrollz().CardID(t.Context(), active); err != nil {
		t.Fatalf("the router no longer answers: %v", err)
	}
}

// dialFrom makes a TLS session of the owner from an address of this host.
func (l *lab) dialFrom(t *testing.T, ip net.IP) error {
	t.Helper()
	d := tls.Dialer{
		NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: ip}},
		Config:    h2(clientTLS(l.owner.client(t))),
	}
	c, err := d.DialContext(t.Context(), "tcp", l.addr)
	if err != nil {
		return err
	}
	return c.Close()
}

func h2(c *tls.Config) *tls.Config {
	c.NextProtos = []string{"h2"}
	return c
}

// attestMessage is an AttestRequest in protobuf form.
func attestMessage(nonce []byte, pcrs ...uint64) []byte {
	b := protowire.AppendTag(nil, 1, protowire.BytesType)
	b = protowire.AppendBytes(b, []byte{0x08, 0x01}) // role ACTIVE
	b = protowire.AppendTag(b, 2, protowire.BytesType)
	b = protowire.AppendBytes(b, nonce)
	b = protowire.AppendTag(b, 3, protowire.VarintType)
	b = protowire.AppendVarint(b, 3) // SHA-384
	for _, pcr := range pcrs {
		b = protowire.AppendTag(b, 4, protowire.VarintType)
		b = protowire.AppendVarint(b, pcr)
	}
	return b
}

func TestBadMessagesAreRefused(t *testing.T) {
	c := newSoftChip(t)
	l := newLab(t, c)
	conn := l.enroll(t)
	nonce := bytes.Repeat([]byte{7}, 32)
	badText := protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), []byte{0xff, 0xfe})
	for _, test := range []struct {
		name   string
		method string
		msg    []byte
		want   codes.Code
	}{
		{"good", wire.MethodAttest, attestMessage(nonce, 0, 12), codes.OK},
		{"empty", wire.MethodAttest, nil, codes.InvalidArgument},
		{"nonce of 5 MB", wire.MethodAttest, attestMessage(make([]byte, 5<<20), 12), codes.ResourceExhausted},
		{"nonce of 15 bytes", wire.MethodAttest, attestMessage(nonce[:15], 12), codes.InvalidArgument},
		{"nonce of 65 bytes", wire.MethodAttest, attestMessage(make([]byte, 65), 12), codes.InvalidArgument},
		{"no PCR", wire.MethodAttest, attestMessage(nonce), codes.InvalidArgument},
		{"PCR 24", wire.MethodAttest, attestMessage(nonce, 24), codes.InvalidArgument},
		{"PCR 4,000,000,000", wire.MethodAttest, attestMessage(nonce, 4_000_000_000), codes.InvalidArgument},
		{"PCR 256", wire.MethodAttest, attestMessage(nonce, 256), codes.InvalidArgument},
		{"PCR -1", wire.MethodAttest, attestMessage(nonce, 1<<64-1), codes.InvalidArgument},
		{"PCR twice", wire.MethodAttest, attestMessage(nonce, 12, 12), codes.InvalidArgument},
		{"10,000 PCRs", wire.MethodAttest, attestMessage(nonce, make([]uint64, 10_000)...), codes.InvalidArgument},
		{"cut", wire.MethodAttest, attestMessage(nonce, 12)[:20], codes.Internal},
		{"invalid UTF-8", wire.MethodCardID, protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), badText), codes.Internal},
		{"60,000 empty groups", wire.MethodRotateOIAK, bytes.Repeat([]byte{0x2a, 0x00}, 30_000), codes.InvalidArgument},
		{"digest of 31 bytes", wire.MethodContentGet, append([]byte{0x0a, 31}, make([]byte, 31)...), codes.InvalidArgument},
	} {
		if code, err := call(t, conn, test.method, test.msg); code != test.want {
			t.Errorf("%s: %v: want %v", test.name, err, test.want)
		}
	}
	if n := c.quotes.Load(); n != 1 {
		t.Errorf("%d quotes: want 1, of the good message", n)
	}
}

// Messages of a client's own making for every call: an answer, or a refusal of
// the message, and nothing kept. 350,000 keys are more than a request holds.
func TestNoCallTakesABigMessage(t *testing.T) {
	c := newSoftChip(t)
	l := newLab(t, c)
	conn := l.enroll(t)
	key := protowire.AppendBytes(protowire.AppendTag(nil, 3, protowire.BytesType), []byte{0x08, 0x01, 0x12, 0x00})
	for name, msg := range map[string][]byte{
		"350,000 keys of a map": bytes.Repeat(key, 350_000),
		"5 MB of one field":     attestMessage(make([]byte, 5<<20)),
		"one byte above 64 KiB": make([]byte, wire.MaxRequest+1),
	} {
		for _, method := range l.agent.Served() {
			code, err := call(t, conn, method, msg)
			if method == wire.MethodRotateAIK && code == codes.Unimplemented { // a stream, of which nothing is read
				continue
			}
			if code != codes.ResourceExhausted {
				t.Errorf("%s: %s: %v: want ResourceExhausted", name, method, err)
			}
		}
	}
	if n := c.quotes.Load(); n != 0 {
		t.Errorf("%d quotes", n)
	}
	l.stillServes(t)
}

// Bytes that come one by one, and never end.
func TestSlowRequestsEnd(t *testing.T) {
	l := newLab(t, newSoftChip(t), func(c *agent.Config) { c.Limits.Call, c.Limits.Handshake = time.Second, time.Second })
	for _, method := range []string{wire.MethodAttest, wire.MethodBatchedAttest} {
		r := l.rawConn(t)
		r.headers(t, 1, method)
		ended := make(chan string, 1)
		go func() { ended <- r.status(t) }()
		got := ""
		for message := []byte{0, 0, 0, 0xff, 0xff}; got == ""; message = []byte{0} {
			if err := r.framer.WriteData(1, false, message); err != nil {
				got = "closed"
			}
			select {
			case got = <-ended:
			case <-time.After(20 * time.Millisecond):
			}
		}
		if got == "0" {
			t.Errorf("%s: a request that never ends is answered", method)
		}
	}
	l.stillServes(t)
}

// Headers that come byte by byte belong to no call yet, so that no deadline of
// a call ends them.
func TestHeadersThatNeverEndAreCut(t *testing.T) {
	l := newLab(t, newSoftChip(t), func(c *agent.Config) { c.Limits.Silence = time.Second })
	for name, pause := range map[string]time.Duration{"half a frame": time.Hour, "byte by byte": 50 * time.Millisecond} {
		r := l.rawConn(t)
		if _, err := r.Write([]byte{0, 64, 0, byte(http2.FrameHeaders), 0, 0, 0, 0, 1}); err != nil { // 16 KiB are to follow
			t.Fatal(err)
		}
		stop := make(chan struct{})
		go func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(pause):
				}
				if _, err := r.Write([]byte{0}); err != nil {
					return
				}
			}
		}()
		closed(t, name, r.Conn)
		close(stop)
	}
	l.stillServes(t)
}

func TestBigMetadataIsRefused(t *testing.T) {
	l := newLab(t, newSoftChip(t))
	conn := l.dial(t, l.owner.client(t))
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x", strings.Repeat("a", 1<<20))
	if _, err := conn.Enrollz().CardID(ctx, active); err == nil {
		t.Error("1 MiB of metadata is accepted")
	}
	l.stillServes(t)
}

func TestRequestThatNeverComesEnds(t *testing.T) {
	l := newLab(t, newSoftChip(t), func(c *agent.Config) { c.Limits.Call = time.Second })
	r := l.rawConn(t)
	r.headers(t, 1, wire.MethodAttest)
	r.data(t, 1, []byte{0, 0, 0, 0, 50, 1, 2, 3}, false) // 3 of 50 bytes, and no more
	if got := r.status(t); got != "4" && got != "reset" {
		t.Errorf("grpc-status %s: want 4, deadline exceeded", got)
	}
	l.stillServes(t)
}

func TestCompressedRequestIsRefused(t *testing.T) {
	if encoding.GetCompressor("gzip") != nil {
		t.Error("the agent has a gzip decompressor")
	}
	l := newLab(t, newSoftChip(t))
	r := l.rawConn(t)
	r.headers(t, 1, wire.MethodAttest, "grpc-encoding", "gzip")
	bomb := bytes.Repeat([]byte{0}, 1000)
	r.data(t, 1, append([]byte{1, 0, 0, byte(len(bomb) >> 8), byte(len(bomb))}, bomb...), true)
	if got := r.status(t); got != "12" {
		t.Errorf("grpc-status %s: want 12, unimplemented", got)
	}
}

func TestPathWithoutSlashIsRefused(t *testing.T) {
	l := newLab(t, newSoftChip(t))
	r := l.rawConn(t)
	r.headers(t, 1, "Attest")
	r.data(t, 1, nil, true)
	if got := r.status(t); got == "0" {
		t.Errorf("grpc-status %s for a path without a slash", got)
	}
	l.stillServes(t)
}

func TestRapidResetIsSurvived(t *testing.T) {
	c := newSoftChip(t)
	l := newLab(t, c)
	l.enroll(t)
	r := l.rawConn(t)
	msg := attestMessage(bytes.Repeat([]byte{7}, 32), 12)
	for i := range 2000 {
		id := uint32(2*i + 1)
		if r.tryHeaders(id, wire.MethodAttest) != nil ||
			r.framer.WriteData(id, true, append([]byte{0, 0, 0, 0, byte(len(msg))}, msg...)) != nil ||
			r.framer.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
			break // the router has had enough
		}
	}
	l.stillServes(t)
}

func TestContinuationFloodIsCut(t *testing.T) {
	l := newLab(t, newSoftChip(t))
	r := l.rawConn(t)
	if err := r.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: r.block("x", "y")}); err != nil {
		t.Fatal(err)
	}
	var err error
	for range 100_000 {
		if err = r.framer.WriteContinuation(1, false, r.block("x", strings.Repeat("a", 1000))); err != nil {
			break
		}
	}
	if err == nil {
		t.Error("100 MB of header block are taken")
	}
	l.stillServes(t)
}

func TestSlowHelloIsCut(t *testing.T) {
	l := newLab(t, newSoftChip(t), func(c *agent.Config) { c.Limits.Handshake = time.Second })
	for name, first := range map[string][]byte{"nothing": nil, "half a hello": {22, 3, 1, 2, 0, 1}} {
		c, err := net.Dial("tcp", l.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write(first); err != nil {
			t.Fatal(err)
		}
		closed(t, name, c)
	}
	c, err := tls.Dial("tcp", l.addr, h2(clientTLS(l.owner.client(t)))) // a session without an HTTP/2 preface
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	closed(t, "no preface", c)
	l.stillServes(t)
}

// closed asks that the router ends the connection by itself.
func closed(t *testing.T, name string, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	_, err := io.Copy(io.Discard, c)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("%s: the connection stays open", name)
	}
}

func TestIdleConnectionsAreBounded(t *testing.T) {
	const bound = 20
	l := newLab(t, newSoftChip(t), func(c *agent.Config) {
		c.Limits.Connections, c.Limits.PerPeer = 2*bound, bound
		c.Limits.Handshake = 5 * time.Minute // it is not the time that closes them
	})
	closed := make(chan struct{}, 1000)
	opened := 0
	for range cap(closed) {
		c, err := net.Dial("tcp", l.addr)
		if err != nil {
			continue
		}
		opened++
		t.Cleanup(func() { c.Close() })
		go func() {
			_, _ = c.Read(make([]byte, 1)) // the router says nothing before the hello
			closed <- struct{}{}
		}()
	}
	late := time.After(time.Minute)
	for n := range opened - bound {
		select {
		case <-closed:
		case <-late:
			t.Fatalf("%d of %d idle connections of one address stay open: at most %d", opened-n, opened, bound)
		}
	}
	if err := l.dialFrom(t, net.IPv4(127, 0, 0, 2)); err != nil {
		t.Errorf("while one address holds all it may, another is refused: %v", err)
	}
}

func TestCancelledChallengeFreesTheQueue(t *testing.T) {
	c := newSoftChip(t)
	c.latency = 20 * time.Millisecond
	l := newLab(t, c)
	conn := l.enroll(t)
	for range 50 {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Millisecond)
		_, err := conn.Attestz().Attest(ctx, newRequest(t))
		cancel()
		if err == nil {
			t.Fatal("a cancelled challenge was answered")
		}
	}
	// Each cancelled quote runs to its end; the next challenge waits for it.
	var err error
	for range 200 {
		if _, err = conn.Attestz().Attest(t.Context(), newRequest(t)); !errors.Is(err, wire.ErrBusy) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		t.Errorf("after 50 cancelled challenges: %v", err)
	}
}
