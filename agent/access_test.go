package agent_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"waxseal/agent"
	"waxseal/measure/wire"
)

// bytesCodec sends messages that are encoded already, so that a test can send
// what no generated type would.
type bytesCodec struct{}

func (bytesCodec) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (bytesCodec) Unmarshal(data []byte, v any) error { *v.(*[]byte) = data; return nil }
func (bytesCodec) Name() string                       { return "proto" }

// call sends one raw message to a method and returns the status code. The
// stream of RotateAIKCert is answered like a single call.
func call(t testing.TB, conn wire.Conn, method string, msg []byte) (codes.Code, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var resp []byte
	err := conn.Invoke(ctx, method, &msg, &resp, grpc.ForceCodec(bytesCodec{}))
	return status.Code(err), err
}

// What a server that knows and allows the call may say to an empty message. A
// device that watches nothing has no findings to follow.
var heard = map[codes.Code]bool{codes.OK: true, codes.InvalidArgument: true, codes.Unimplemented: true, codes.NotFound: true}

// The list of calls is the server's own, so that none can be forgotten below.
func TestAllCallsAreNamed(t *testing.T) {
	served, named := newLab(t, newSoftChip(t)).agent.Served(), wire.Methods()
	slices.Sort(served)
	slices.Sort(named)
	if !slices.Equal(served, named) {
		t.Errorf("served are %v, named %v", served, named)
	}
}

// refused returns the client certificates that the router must not take, and
// none at all.
func (l *lab) refused(t testing.TB) map[string]*tls.Certificate {
	t.Helper()
	expired := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	}
	early := func(c *x509.Certificate) { c.NotBefore = time.Now().Add(30 * time.Minute) }
	usage := func(u ...x509.ExtKeyUsage) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtKeyUsage = u }
	}
	otherKey := l.owner.client(t)
	otherKey.PrivateKey = newKey(t)
	return map[string]*tls.Certificate{
		"none":                 nil,
		"foreign":              l.stranger.client(t),
		"maker's":              l.vendor.client(t),
		"expired":              l.owner.client(t, expired),
		"not yet valid":        l.owner.client(t, early),
		"router's, no usage":   l.owner.client(t, usage()),
		"server's":             l.owner.client(t, usage(x509.ExtKeyUsageServerAuth)),
		"any usage":            l.owner.client(t, usage(x509.ExtKeyUsageAny)),
		"CA's":                 l.owner.client(t, isCA),
		"owner's, another key": otherKey,
	}
}

// D-42: any call without a client certificate, with a foreign one, an expired
// one, or one of the owner's that is not a client's.
func TestEveryCallNeedsTheOwnersClientCertificate(t *testing.T) {
	c := newSoftChip(t)
	l := newLab(t, c)
	l.enroll(t)
	quotes := c.quotes.Load()
	for name, cert := range l.refused(t) {
		conn := l.dial(t, cert)
		for _, method := range l.agent.Served() {
			if code, err := call(t, conn, method, nil); code != codes.Unavailable {
				t.Errorf("certificate %s: %s: %v: want a refused handshake", name, method, err)
			}
		}
	}
	if n := c.quotes.Load() - quotes; n != 0 {
		t.Errorf("strangers got %d quotes", n)
	}
	conn := l.dial(t, l.owner.client(t))
	for _, method := range l.agent.Served() {
		if code, err := call(t, conn, method, nil); !heard[code] {
			t.Errorf("owner's client: %s: %v", method, err)
		}
	}
}

func TestWithoutOwnerOnlyTheIdentityIsTold(t *testing.T) {
	l := newLab(t, newSoftChip(t), func(c *agent.Config) { c.OwnerCA = nil })
	told := map[string]bool{
		wire.MethodGetIAKCert: true, wire.MethodCardID: true, wire.MethodChallenge: true,
		wire.MethodGetIDevIDCSR: true, wire.MethodContentStatus: true,
		wire.MethodIdentify: true, wire.MethodProve: true,
	}
	for name, cert := range map[string]*tls.Certificate{"none": nil, "of somebody": l.stranger.client(t)} {
		conn := l.dial(t, cert)
		for _, method := range append(l.agent.Served(), "/waxseal.v1.Contents/Other") {
			code, err := call(t, conn, method, nil)
			if told[method] && !heard[code] {
				t.Errorf("certificate %s: %s: %v: want an answer", name, method, err)
			}
			if !told[method] && code != codes.PermissionDenied {
				t.Errorf("certificate %s: %s: %v: want PermissionDenied", name, method, err)
			}
		}
		if _, err := conn.Enrollz().IAKCert(t.Context(), active); err != nil {
			t.Error(err)
		}
		if s, err := conn.Contents().Status(t.Context()); err != nil || s.Owned || s.Enrolled {
			t.Errorf("status %+v, %v", s, err)
		}
	}
}

// A stranger who enrolls a device that has no owner must not become its owner.
func TestStrangerCannotEnrollDeviceWithoutOwner(t *testing.T) {
	l := newLab(t, newSoftChip(t), func(c *agent.Config) { c.OwnerCA = nil })
	err := l.dial(t, l.owner.client(t)).Enrollz().RotateOIAK(t.Context(), l.rotation(t))
	if !contains(err, "owner-ca.pem") {
		t.Errorf("RotateOIAK: %v: want a refusal that names owner-ca.pem", err)
	}
}

func TestOlderTLSIsRefused(t *testing.T) {
	l := newLab(t, newSoftChip(t))
	config := clientTLS(l.owner.client(t))
	config.MaxVersion = tls.VersionTLS12
	config.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", l.addr, config)
	if err == nil {
		conn.Close()
		t.Error("TLS 1.2 is spoken")
	}
}
