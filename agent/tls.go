package agent

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"sync"
	"time"

	"waxseal/agent/enrollz"
	"waxseal/measure/wire"
)

// ticketLife is how long sessions resume under one ticket key.
const ticketLife = 24 * time.Hour

// parseAnchors returns the owner's trust anchors, none for empty text.
func parseAnchors(pem []byte) ([]*x509.Certificate, error) {
	if len(pem) == 0 {
		return nil, nil
	}
	chain, err := wire.ParseChain(string(pem))
	if err != nil {
		return nil, err
	}
	certs, err := chain.Certificates()
	if err != nil {
		return nil, err
	}
	if len(certs) == 0 {
		return nil, errors.New("no certificate in it")
	}
	for _, c := range certs {
		if !c.IsCA {
			return nil, fmt.Errorf("%s is not a CA certificate", c.Subject)
		}
	}
	return certs, nil
}

// pool returns the anchors as crypto/tls wants them: nil for none.
func pool(anchors []*x509.Certificate) *x509.CertPool {
	if len(anchors) == 0 {
		return nil
	}
	p := x509.NewCertPool()
	for _, c := range anchors {
		p.AddCert(c)
	}
	return p
}

// identity is the server's side of TLS: which certificate is shown, and which
// clients are heard.
type identity struct {
	anchors  *x509.CertPool // nil: clients need no certificate
	now      func() time.Time
	current  func() enrollz.Enrollment
	signer   crypto.Signer                   // the IDevID; nil: the device has no key of its own
	selfSign func() (tls.Certificate, error) // makes what is shown where nobody has certified the key

	mu     sync.Mutex      // guards what follows
	own    tls.Certificate // shown while no owner has installed one; zero: not made yet
	config *tls.Config
	shown  wire.Chain // the certificate that config was made for
	made   time.Time
}

// newIdentity takes the maker's certificate of the IDevID. Without one the
// IDevID signs its own: nobody can take that for an identity, but who has
// learnt elsewhere which key is in which TPM knows who is at the other end.
func newIdentity(c Config, anchors *x509.CertPool, current func() enrollz.Enrollment, quoting func() bool) (*identity, error) {
	id := &identity{anchors: anchors, now: c.Now, current: current}
	if c.IDevID == nil {
		id.selfSign = func() (tls.Certificate, error) { return ephemeral(c) }
		return id, nil
	}
	id.signer = &share{Signer: c.IDevID, quoting: quoting, turn: make(chan struct{}, 1), wait: c.Limits.Handshake}
	id.selfSign = func() (tls.Certificate, error) { return selfSigned(c, "waxseal, certified by nobody", id.signer) }
	if len(c.IDevIDCert) == 0 {
		return id, nil
	}
	var err error
	if id.own, err = certificate(c.IDevIDCert, id.signer); err != nil {
		return nil, fmt.Errorf("IDevID certificate: %w", err)
	}
	return id, nil
}

// tlsConfig returns the configuration that asks for the current one at each
// handshake, so that a rotation counts from the next handshake on. protocols
// are those that a client may choose from (ALPN).
func (id *identity) tlsConfig(protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: protocols,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			current, err := id.now13()
			if err != nil {
				return nil, err
			}
			c := current.Clone() // has the same ticket keys
			c.NextProtos = protocols
			return c, nil
		},
	}
}

// now13 returns the configuration of the certificate in use. It is made anew,
// with a new ticket key, when the certificate has changed and once a day: a
// session that began under an older certificate does not resume.
func (id *identity) now13() (*tls.Config, error) {
	id.mu.Lock()
	defer id.mu.Unlock()
	chain := id.current().OIDevID
	age := id.now().Sub(id.made)
	if id.config != nil && slices.Equal(chain, id.shown) && age >= 0 && age < ticketLife {
		return id.config, nil
	}
	config, err := id.make(chain)
	if err != nil {
		return nil, err
	}
	id.config, id.shown, id.made = config, chain, id.now()
	return config, nil
}

func (id *identity) make(chain wire.Chain) (*tls.Config, error) {
	cert, err := id.certificate(chain)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{cert},
		Time:         id.now,
	}
	if id.anchors != nil {
		c.ClientAuth = tls.RequireAndVerifyClientCert
		c.ClientCAs = id.anchors
		c.VerifyConnection = checkClient
	}
	var key [32]byte
	if _, err := rand.Read(key[:]); err != nil {
		return nil, err
	}
	c.SetSessionTicketKeys([][32]byte{key})
	return c, nil
}

// certificate returns the owner's certificate, or the device's own. One that
// the TPM has to sign is made when it is first needed, so that a slow TPM does
// not hold up the start.
func (id *identity) certificate(chain wire.Chain) (tls.Certificate, error) {
	if len(chain) > 0 && id.signer != nil {
		cert, err := certificate(chain, id.signer)
		if err != nil {
			return cert, fmt.Errorf("oIDevID certificate: %w", err)
		}
		return cert, nil
	}
	if len(id.own.Certificate) == 0 {
		own, err := id.selfSign()
		if err != nil {
			return own, fmt.Errorf("certificate of its own: %w", err)
		}
		id.own = own
	}
	return id.own, nil
}

// checkClient asks that a client's certificate says that it is one. The
// owner's CA also signs the certificates of routers, often without any usage,
// and one router must not pass for the owner at another.
func checkClient(cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("no client certificate")
	}
	leaf := cs.PeerCertificates[0]
	if leaf.IsCA || !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth) {
		return fmt.Errorf("certificate of %s is not a client's: need extended key usage clientAuth", leaf.Subject)
	}
	return nil
}

// certificate returns the TLS certificate of a chain whose leaf is of key.
func certificate(chain wire.Chain, key crypto.Signer) (tls.Certificate, error) {
	certs, err := chain.Certificates()
	if err != nil {
		return tls.Certificate{}, err
	}
	pub, ok := key.Public().(*ecdsa.PublicKey)
	if !ok || !pub.Equal(certs[0].PublicKey) {
		return tls.Certificate{}, errors.New("its public key is not the TPM's IDevID")
	}
	cert := tls.Certificate{PrivateKey: key, Leaf: certs[0]}
	for _, c := range certs {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert, nil
}

// ephemeral returns a self-signed certificate of a key in memory, for a device
// that has no key of its own. Nobody can take it for an identity.
func ephemeral(c Config) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	return selfSigned(c, "waxseal without an identity", key)
}

func selfSigned(c Config, name string, key crypto.Signer) (tls.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    c.Now().Add(-24 * time.Hour),
		NotAfter:     c.Now().AddDate(10, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// share is the part of the TPM that handshakes may use: a TLS 1.3 server signs
// before it knows the client, so strangers could take all of the chip. One
// handshake signs at a time. The next does not begin for half as long as that
// took, so that a quote, which is several commands, gets in between; and for
// twice as long while quotes are asked for.
type share struct {
	crypto.Signer
	quoting func() bool   // whether anybody waits for a quote
	turn    chan struct{} // full while a handshake signs, and in the pause after it
	wait    time.Duration // for the turn
}

var errShare = errors.New("too many handshakes wait for the TPM")

// Sign implements crypto.Signer.
func (s *share) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	full := time.NewTimer(s.wait)
	defer full.Stop()
	select {
	case s.turn <- struct{}{}:
	case <-full.C:
		return nil, errShare
	}
	begin := time.Now()
	defer func() { time.AfterFunc(s.pause(time.Since(begin)), func() { <-s.turn }) }()
	return s.Signer.Sign(random, digest, opts)
}

func (s *share) pause(took time.Duration) time.Duration {
	if s.quoting() {
		return 2 * took
	}
	return took / 2
}
