package agent_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// rawConn is an HTTP/2 connection of the owner, by the frame.
type rawConn struct {
	net.Conn
	framer *http2.Framer
}

func (l *lab) rawConn(t *testing.T) rawConn {
	t.Helper()
	return l.rawConnTo(t, l.addr)
}

func (l *lab) rawConnTo(t *testing.T, addr string) rawConn {
	t.Helper()
	c, err := tls.Dial("tcp", addr, h2(clientTLS(l.owner.client(t))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	r := rawConn{c, http2.NewFramer(c, c)}
	r.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := r.framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r rawConn) block(pairs ...string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for i := 0; i+1 < len(pairs); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1], Sensitive: true})
	}
	return b.Bytes()
}

func (r rawConn) tryHeaders(id uint32, path string, more ...string) error {
	fields := append([]string{":method", "POST", ":scheme", "https", ":path", path, ":authority", "router", "content-type", "application/grpc", "te", "trailers"}, more...)
	return r.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: r.block(fields...), EndHeaders: true})
}

func (r rawConn) headers(t *testing.T, id uint32, path string, more ...string) {
	t.Helper()
	if err := r.tryHeaders(id, path, more...); err != nil {
		t.Fatal(err)
	}
}

func (r rawConn) data(t *testing.T, id uint32, b []byte, end bool) {
	t.Helper()
	if err := r.framer.WriteData(id, end, b); err != nil {
		t.Fatal(err)
	}
}

// status reads frames until the grpc-status of the call, "reset" or "closed".
func (r rawConn) status(t *testing.T) string {
	t.Helper()
	_ = r.SetReadDeadline(time.Now().Add(20 * time.Second))
	for {
		f, err := r.framer.ReadFrame()
		if err != nil {
			return fmt.Sprintf("closed (%v)", err)
		}
		switch f := f.(type) {
		case *http2.RSTStreamFrame:
			return "reset"
		case *http2.MetaHeadersFrame:
			for _, h := range f.Fields {
				if h.Name == "grpc-status" {
					return h.Value
				}
			}
		}
	}
}
