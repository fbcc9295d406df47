package restconf

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
)

// serve serves h over connections with small buffers, so that a client that
// does not read is felt by the server.
func serve(t *testing.T, h http.Handler) (addr string) {
	t.Helper()
	small := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, 4096) // the kernel has its own least
		})
	}}
	l, err := small.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	go func() { _ = s.Serve(l) }() // ends with Close
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

// slowReader asks for the whole log, and reads no more than the first byte.
func slowReader(t *testing.T, addr string) (net.Conn, *bufio.Reader) {
	t.Helper()
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096)
		})
	}}
	c, err := d.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	const input = `{"ietf-tpm-remote-attestation:input":{"log-type":"netequip_boot"}}`
	fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", opLog, yangData, len(input), input)
	r := bufio.NewReaderSize(c, 16)
	if _, err := r.Peek(1); err != nil {
		t.Fatal(err)
	}
	return c, r
}

// eventually waits for what another goroutine will do.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for !ok() {
		if ctx.Err() != nil {
			t.Fatal(what)
		}
		time.Sleep(time.Millisecond)
	}
}

// A reader as slow as one with 56 kbit/s holds nothing that others need, and
// gets the log as it was when it asked.
func TestSlowReaderBlocksNobodyAndGetsOneState(t *testing.T) {
	d := &desk{}
	d.record(5000)
	h := newHandler(d)
	addr := serve(t, h)
	_, r := slowReader(t, addr)
	d.record(10)
	wants(t, "another reader", selected(t, h, `{"last-index-number":"5000"}`), 5001, 5010)
	if w := post(h, opChallenge, good); w.Code != http.StatusOK {
		t.Errorf("challenge: status %d: %s", w.Code, w.Body)
	}
	if len(h.readers) != 1 {
		t.Fatal("the slow reader has its answer already: it was not slow")
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(b, &doc); err != nil || strings.Count(string(b), `"event-number"`) != 5000 {
		t.Errorf("the slow reader got %d entries, %v: want the 5000 that there were", strings.Count(string(b), `"event-number"`), err)
	}
}

// A reader that takes nothing is given up, and never takes its part for the whole.
func TestReaderThatTakesNothingIsGivenUp(t *testing.T) {
	d := &desk{}
	d.record(5000)
	h := newHandler(d, func(c *Config) { c.Stall = 100 * time.Millisecond })
	_, r := slowReader(t, serve(t, h))
	eventually(t, "the reader that takes nothing keeps its slot", func() bool { return len(h.readers) == 0 })
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return // cut in the header
	}
	if b, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("%d bytes pass for the whole log", len(b))
	}
}

func TestReadersAreBounded(t *testing.T) {
	d := &desk{}
	d.record(5000)
	h := newHandler(d)
	addr := serve(t, h)
	for range maxReaders {
		slowReader(t, addr)
	}
	w := post(h, opLog, `{"ietf-tpm-remote-attestation:input":{"log-type":"bios"}}`)
	if w.Code != http.StatusConflict || w.Header().Get("Retry-After") == "" {
		t.Errorf("reader %d: status %d: %s", maxReaders+1, w.Code, w.Body)
	}
}
