package wire

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
)

// Conn is a connection to one device; it dials when first used, and again
// after it was lost. No proxy of the environment is used.
type Conn struct{ *grpc.ClientConn }

// Dial returns a connection to target ("host:port"). config says whom to
// trust and which client certificate to show; TLS below 1.3 is never spoken.
// Each call needs a context with a deadline.
func Dial(target string, config *tls.Config) (Conn, error) {
	if config == nil {
		return Conn{}, errors.New("dial without a TLS configuration")
	}
	c := config.Clone()
	c.MinVersion = tls.VersionTLS13
	conn, err := grpc.NewClient("passthrough:///"+target,
		grpc.WithTransportCredentials(credentials.NewTLS(c)),
		grpc.WithMaxHeaderListSize(16<<10),
		grpc.WithDisableServiceConfig(),
		grpc.WithNoProxy(),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxRequest)),
	)
	if err != nil {
		return Conn{}, fmt.Errorf("dial %s: %w", target, err)
	}
	return Conn{conn}, nil
}

// Attestz returns the client of attestz.
func (c Conn) Attestz() AttestClient { return NewAttestz(c.ClientConn) }

// Enrollz returns the client of enrollz.
func (c Conn) Enrollz() EnrollClient { return NewEnrollz(c.ClientConn) }

// Contents returns the client of waxseal.v1.Contents.
func (c Conn) Contents() ContentClient { return NewContents(c.ClientConn) }

// Challenge returns the client of waxseal.v1.Challenge.
func (c Conn) Challenge() BatchClient { return NewChallenge(c.ClientConn) }

// certificatesOf returns the certificates that the peer of a call showed.
func certificatesOf(p *peer.Peer) []*x509.Certificate {
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return nil
	}
	return info.State.PeerCertificates
}
