package agent_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"waxseal/agent"
	"waxseal/measure"
)

// answersRESTCONF asks that the router still answers by RESTCONF and by gRPC.
func (l *lab) answersRESTCONF(t *testing.T) {
	t.Helper()
	if err := l.getBy(l.owner.client(t), dataSupport); err != nil {
		t.Fatalf("RESTCONF no longer answers: %v", err)
	}
	l.stillServes(t)
}

// session is a TLS session of the owner with HTTP/1.1.
func (l *lab) session(t *testing.T) net.Conn {
	t.Helper()
	c, err := tls.Dial("tcp", l.web, clientTLS(l.owner.client(t)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestSlowRequestsOfRESTCONFAreCut(t *testing.T) {
	l := newLab(t, newSoftChip(t), func(c *agent.Config) { c.Limits.Handshake, c.Limits.Call = time.Second, time.Second })
	path := "/restconf/operations/" + charra + ":" + opChallenge
	for name, first := range map[string]string{
		"no header":      "",
		"half a header":  "GET " + dataSupport + " HTTP/1.1\r\nHost: x\r\nX:",
		"half a body":    "POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Type: " + yangData + "\r\nContent-Length: 50\r\n\r\n{",
		"half a chunk":   "POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Type: " + yangData + "\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{",
		"refused header": "POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{",
	} {
		c := l.session(t)
		if _, err := io.WriteString(c, first); err != nil {
			t.Fatal(err)
		}
		closed(t, name, c)
	}
	c, err := net.Dial("tcp", l.web) // no hello
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	closed(t, "no hello", c)
	l.answersRESTCONF(t)
}

// Requests that HTTP itself forbids: two lengths, a length and chunks, no host.
func TestAmbiguousRequestsAreRefused(t *testing.T) {
	l := newLab(t, newSoftChip(t))
	start := "POST /restconf/operations/" + charra + ":" + opChallenge + " HTTP/1.1\r\n"
	for name, head := range map[string]string{
		"two lengths":       "Host: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n",
		"negative length":   "Host: x\r\nContent-Length: -1\r\n",
		"no host":           "Content-Length: 0\r\n",
		"two hosts":         "Host: x\r\nHost: y\r\nContent-Length: 0\r\n",
		"unknown coding":    "Host: x\r\nTransfer-Encoding: gzip\r\n",
		"name with a blank": "Host: x\r\nContent-Length : 5\r\n",
	} {
		c := l.session(t)
		if _, err := io.WriteString(c, start+head+"\r\n"); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		b := make([]byte, 13)
		if _, err := io.ReadFull(c, b); err != nil || (string(b) != "HTTP/1.1 400 " && string(b) != "HTTP/1.1 501 ") {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	l.answersRESTCONF(t)
}

// post calls a remote procedure of RFC 9684, by the frame.
func (r rawConn) post(id uint32, operation, body string) error {
	head := r.block(":method", "POST", ":scheme", "https", ":authority", "router",
		":path", "/restconf/operations/"+charra+":"+operation, "content-type", yangData)
	err := r.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: head, EndHeaders: true})
	if err != nil {
		return err
	}
	return r.framer.WriteData(id, true, []byte(body))
}

// answer reads frames until the end of an answer, without opening the window,
// and tells how many bytes came and whether they were all.
func (r rawConn) answer(t *testing.T) (n int, whole bool) {
	t.Helper()
	_ = r.SetReadDeadline(time.Now().Add(20 * time.Second))
	for {
		f, err := r.framer.ReadFrame()
		if err != nil {
			t.Fatalf("after %d bytes: %v", n, err)
		}
		switch f := f.(type) {
		case *http2.DataFrame:
			if n += len(f.Data()); f.StreamEnded() {
				return n, true
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return n, false
		}
	}
}

func TestRapidResetOfRESTCONFIsSurvived(t *testing.T) {
	chip := newSoftChip(t)
	l := newLab(t, chip)
	l.enroll(t)
	r := l.rawConnTo(t, l.web)
	body := challengeText(bytes.Repeat([]byte{7}, 32), 12)
	if err := r.post(1, opChallenge, body); err != nil {
		t.Fatal(err)
	}
	if n, whole := r.answer(t); n == 0 || !whole {
		t.Fatal("a good challenge is not answered")
	}
	for i := range 2000 {
		id := uint32(2*i + 3)
		if r.post(id, opChallenge, body) != nil || r.framer.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
			break // the router has had enough
		}
	}
	l.answersRESTCONF(t)
	if chip.overlapped.Load() {
		t.Error("two quotes at once")
	}
}

func TestContinuationFloodOfRESTCONFIsCut(t *testing.T) {
	l := newLab(t, newSoftChip(t))
	r := l.rawConnTo(t, l.web)
	err := r.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: r.block("x", "y")})
	for i := 0; i < 100_000 && err == nil; i++ {
		err = r.framer.WriteContinuation(1, false, r.block("x", strings.Repeat("a", 1000)))
	}
	if err == nil {
		t.Error("100 MB of header block are taken")
	}
	l.answersRESTCONF(t)
}

// A reader over HTTP/2 that opens its window no further is given up.
func TestHTTP2ReaderThatTakesNothingIsGivenUp(t *testing.T) {
	l := newLab(t, newSoftChip(t), func(c *agent.Config) { c.Limits.Call = time.Second })
	for i := range 500 { // more than the first window, 64 KiB
		record(t, l.recorder, fmt.Sprintf("mirror/tc/eth%d", i))
	}
	r := l.rawConnTo(t, l.web)
	if err := r.post(1, opLog, logText("netequip_boot", "")); err != nil {
		t.Fatal(err)
	}
	if n, whole := r.answer(t); n == 0 || whole {
		t.Errorf("%d bytes, whole %v: want the first window, and then the end", n, whole)
	}
	l.answersRESTCONF(t)
}

// Both ports share the bounds of one peer.
func TestConnectionsOfBothPortsAreCountedTogether(t *testing.T) {
	const bound = 10
	l := newLab(t, newSoftChip(t), func(c *agent.Config) {
		c.Limits.PerPeer, c.Limits.Handshake = bound, 5*time.Minute
	})
	for range bound {
		c, err := net.Dial("tcp", l.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	}
	for range 100 { // the router accepts each port's connections by itself
		c, err := net.Dial("tcp", l.web)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		_, err = c.Read(make([]byte, 1))
		c.Close()
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() {
			return // closed at once
		}
	}
	t.Errorf("an address with %d connections to gRPC may open more to RESTCONF", bound)
}

// A challenge that its client gives up must not keep others from the TPM.
func TestCancelledRESTCONFChallengeFreesTheQueue(t *testing.T) {
	chip := newSoftChip(t)
	chip.latency = 50 * time.Millisecond
	l := newLab(t, chip)
	conn := l.enroll(t)
	text := challengeText(nonce32(t), 12)
	for range 10 {
		c := l.session(t)
		fmt.Fprintf(c, "POST /restconf/operations/%s:%s HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s",
			charra, opChallenge, yangData, len(text), text)
		c.Close()
	}
	if _, err := conn.Attestz().Attest(t.Context(), newRequest(t)); err != nil {
		t.Errorf("after 10 cancelled challenges: %v", err)
	}
	if chip.overlapped.Load() {
		t.Error("two quotes at once")
	}
}

// RESTCONF and gRPC wait in one queue.
func TestRESTCONFSharesTheQueueOfTheTPM(t *testing.T) {
	chip := newSoftChip(t)
	chip.latency = 20 * time.Millisecond
	l := newLab(t, chip)
	conn := l.enroll(t)
	c := l.ofOwner(t)
	done := make(chan error)
	go func() {
		var err error
		for range 20 {
			if _, e := conn.Attestz().Attest(t.Context(), newRequest(t)); e != nil {
				err = e
			}
		}
		done <- err
	}()
	for range 5 {
		if a := c.post(t, opChallenge, challengeText(nonce32(t), 12)); a.status != 200 {
			t.Errorf("status %d: %s", a.status, a.body)
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if chip.overlapped.Load() {
		t.Error("two quotes at once")
	}
}

func TestFailureInsideRESTCONFStaysInside(t *testing.T) {
	for name, fail := range map[string]func() error{
		"error": func() error { return errors.New("read /dev/tpm0: input/output error") },
		"panic": func() error { panic("/dev/tpm0 is gone") },
	} {
		l := newLab(t, failingChip{newSoftChip(t), fail})
		l.enroll(t)
		c := l.ofOwner(t)
		for range 2 {
			a := c.post(t, opChallenge, challengeText(nonce32(t), measure.PCR(12)))
			if a.status != 500 || !strings.Contains(string(a.body), "internal error") || strings.Contains(string(a.body), "/dev") {
				t.Errorf("%s: curl ended with %d, status %d: %s", name, a.exit, a.status, a.body)
			}
		}
		record(t, l.recorder, "mirror/tc/eth0") // is not locked for ever
		l.answersRESTCONF(t)
	}
}

func TestRESTCONFEndsWithTheAgent(t *testing.T) {
	l := newLab(t, newSoftChip(t), func(c *agent.Config) { c.Limits.Stop = time.Second })
	c := l.session(t) // idle
	l.stop()
	closed(t, "idle session", c)
	if _, err := net.Dial("tcp", l.web); err == nil {
		t.Error("the port still answers")
	}
}
