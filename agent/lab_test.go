package agent_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"waxseal/agent"
	"waxseal/agent/journal"
	"waxseal/hw/tpm"
	"waxseal/hw/tpm/tpmtest"
	"waxseal/measure"
	"waxseal/measure/eventlog"
	"waxseal/measure/evidence"
	"waxseal/measure/wire"
)

const serial = "WX-0001"

var (
	active = wire.Selection{Role: wire.Active}
	card   = wire.Card{Role: wire.Active, Serial: serial, Slot: "0", Maker: "QEMU", Part: "qemu-amd64", ChassisSerial: serial}
	asked  = []measure.PCR{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15}
)

// authority is a CA of the lab.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newAuthority(t testing.TB, name string) authority {
	t.Helper()
	a := authority{key: newKey(t)}
	a.cert = &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	a.cert = a.issue(t, a.cert, &a.key.PublicKey)
	return a
}

func (a authority) issue(t testing.TB, template *x509.Certificate, pub crypto.PublicKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, pub, a.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// device issues a certificate of one of a router's keys.
func (a authority) device(t testing.TB, pub crypto.PublicKey, changes ...func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: serial, SerialNumber: serial},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	for _, change := range changes {
		change(template)
	}
	return a.issue(t, template, pub)
}

// client issues a client certificate.
func (a authority) client(t testing.TB, changes ...func(*x509.Certificate)) *tls.Certificate {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: "verifier"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, change := range changes {
		change(template)
	}
	cert := a.issue(t, template, &key.PublicKey)
	return &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

func (a authority) pem() []byte { return []byte(wire.ChainOf(a.cert).String()) }

// chip is what a router needs of its TPM.
type chip interface {
	measure.Extender
	ReadPCRs(ctx context.Context, bank measure.Alg, pcrs []measure.PCR) (map[measure.PCR][]byte, error)
	Quote(ctx context.Context, nonce []byte, bank measure.Alg, pcrs []measure.PCR) (attest, signature []byte, err error)
	counters(t testing.TB) (reset, restart uint32)
	keys(t testing.TB) (iak *ecdsa.PublicKey, idevid crypto.Signer)
}

// softChip is a TPM in memory with keys of its own.
type softChip struct {
	*tpmtest.PCRs
	iak    *ecdsa.PrivateKey
	idevid *countingSigner

	latency     time.Duration
	beforeQuote func()     // called with no lock held
	quoting     sync.Mutex // held during a quote
	overlapped  atomic.Bool
	quotes      atomic.Int32
}

type countingSigner struct {
	*ecdsa.PrivateKey
	signed atomic.Int32
}

func (s *countingSigner) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	s.signed.Add(1)
	return s.PrivateKey.Sign(r, digest, opts)
}

func newSoftChip(t testing.TB) *softChip {
	return &softChip{PCRs: tpmtest.Fake(), iak: newKey(t), idevid: &countingSigner{PrivateKey: newKey(t)}}
}

func (c *softChip) counters(testing.TB) (uint32, uint32) { return 7, 0 }

func (c *softChip) keys(testing.TB) (*ecdsa.PublicKey, crypto.Signer) {
	return &c.iak.PublicKey, c.idevid
}

func (c *softChip) Quote(ctx context.Context, nonce []byte, bank measure.Alg, pcrs []measure.PCR) ([]byte, []byte, error) {
	c.quotes.Add(1)
	if !c.quoting.TryLock() {
		c.overlapped.Store(true)
		c.quoting.Lock()
	}
	defer c.quoting.Unlock()
	time.Sleep(c.latency)
	if c.beforeQuote != nil {
		c.beforeQuote()
	}
	values, err := c.ReadPCRs(ctx, bank, pcrs)
	if err != nil {
		return nil, nil, err
	}
	attest := c.attest(nonce, bank, values)
	signature, err := c.sign(attest)
	return attest, signature, err
}

func (c *softChip) attest(nonce []byte, bank measure.Alg, values map[measure.PCR][]byte) []byte {
	mask := make([]byte, 3)
	h := sha512.New384()
	for pcr := measure.PCR(0); pcr < measure.NumPCRs; pcr++ {
		if v, ok := values[pcr]; ok {
			mask[pcr/8] |= 1 << (pcr % 8)
			h.Write(v)
		}
	}
	return tpm2.Marshal(tpm2.TPMSAttest{
		Magic:           tpm2.TPMGeneratedValue,
		Type:            tpm2.TPMSTAttestQuote,
		QualifiedSigner: tpm2.TPM2BName{Buffer: append([]byte{0, 0x0c}, make([]byte, 48)...)},
		ExtraData:       tpm2.TPM2BData{Buffer: nonce},
		ClockInfo:       tpm2.TPMSClockInfo{Clock: uint64(time.Now().UnixMilli()), ResetCount: 7, Safe: true},
		FirmwareVersion: 1,
		Attested: tpm2.NewTPMUAttest(tpm2.TPMSTAttestQuote, &tpm2.TPMSQuoteInfo{
			PCRSelect: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgID(bank), PCRSelect: mask}}},
			PCRDigest: tpm2.TPM2BDigest{Buffer: h.Sum(nil)},
		}),
	})
}

// sign returns a TPMT_SIGNATURE: ECDSA, SHA-384, r, s.
func (c *softChip) sign(attest []byte) ([]byte, error) {
	digest := sha512.Sum384(attest)
	r, s, err := ecdsa.Sign(rand.Reader, c.iak, digest[:])
	if err != nil {
		return nil, err
	}
	b := []byte{0x00, 0x18, 0x00, 0x0c}
	for _, n := range []*big.Int{r, s} {
		b = binary.BigEndian.AppendUint16(b, 48)
		b = append(b, n.FillBytes(make([]byte, 48))...)
	}
	return b, nil
}

// realChip is a TPM of package hw/tpm.
type realChip struct{ *tpm.Device }

func (c realChip) Quote(ctx context.Context, nonce []byte, bank measure.Alg, pcrs []measure.PCR) ([]byte, []byte, error) {
	return c.Device.Quote(ctx, tpm.IAK, nonce, bank, pcrs)
}

func (c realChip) counters(t testing.TB) (uint32, uint32) {
	t.Helper()
	n, err := c.Device.Counters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n.ResetCount, n.RestartCount
}

func (c realChip) keys(t testing.TB) (*ecdsa.PublicKey, crypto.Signer) {
	t.Helper()
	iak, _, err := c.Public(t.Context(), tpm.IAK)
	if err != nil {
		t.Fatal(err)
	}
	idevid, err := c.Signer(t.Context(), tpm.IDevID)
	if err != nil {
		t.Fatal(err)
	}
	return iak, idevid
}

// lab is one maker, one owner, a stranger and a router.
type lab struct {
	vendor, owner, stranger authority
	chip                    chip
	recorder                *measure.Recorder
	config                  agent.Config
	addr                    string
	stop                    func() // ends the agent and waits for it
}

// newLab starts a router that has measured a boot, with an owner who has not
// enrolled it yet.
func newLab(t testing.TB, c chip, changes ...func(*agent.Config)) *lab {
	t.Helper()
	l := &lab{vendor: newAuthority(t, "maker"), owner: newAuthority(t, "owner"), stranger: newAuthority(t, "stranger"), chip: c}
	iak, idevid := c.keys(t)
	l.recorder = measured(t, c)
	l.config = agent.Config{
		Card:       card,
		Quoter:     c,
		Recorder:   l.recorder,
		IAK:        iak,
		IDevID:     idevid,
		IAKCert:    wire.ChainOf(l.vendor.device(t, iak)),
		IDevIDCert: wire.ChainOf(l.vendor.device(t, idevid.Public())),
		OwnerCA:    l.owner.pem(),
		State:      filepath.Join(t.TempDir(), "state"),
		Log:        slog.New(slog.NewTextHandler(testWriter{t}, nil)),
		Limits:     agent.Limits{DialRate: 1000, AttestRate: 1000},
	}
	for _, change := range changes {
		change(&l.config)
	}
	l.start(t)
	return l
}

// measured records a short boot.
func measured(t testing.TB, c chip) *measure.Recorder {
	t.Helper()
	j, err := journal.Open(filepath.Join(t.TempDir(), "run"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	r, err := measure.NewRecorder(t.Context(), c, j, measure.Waxseal1.PCRs())
	if err != nil {
		t.Fatal(err)
	}
	reset, restart := c.counters(t)
	start := fmt.Sprintf("phase/start/%d.%d", reset, restart)
	for _, name := range []string{start, "policy/measure", "kernel/uki/waxseal", "identity/serial"} {
		record(t, r, name)
	}
	for _, rec := range measure.Waxseal1.Cap(measure.Handoff + "switch_root") {
		if _, err := r.Record(t.Context(), rec); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func record(t testing.TB, r *measure.Recorder, name string) {
	t.Helper()
	rec, err := measure.Waxseal1.Of(name, []byte(name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Record(t.Context(), rec); err != nil {
		t.Fatal(err)
	}
}

// start starts the agent, again if it was stopped.
func (l *lab) start(t testing.TB) {
	t.Helper()
	a, err := agent.New(l.config)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Serve(ctx, listener) }()
	l.addr = listener.Addr().String()
	l.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(l.stop)
}

// dial connects with a client certificate, or without one. The router's
// certificate is not looked at; where it matters a test asks for it.
func (l *lab) dial(t testing.TB, cert *tls.Certificate) wire.Conn {
	t.Helper()
	return dial(t, l.addr, clientTLS(cert))
}

func clientTLS(cert *tls.Certificate) *tls.Config {
	c := &tls.Config{InsecureSkipVerify: true}
	if cert != nil {
		// A client that shows its certificate whatever the server names as its CAs.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	return c
}

func dial(t testing.TB, addr string, config *tls.Config) wire.Conn {
	t.Helper()
	conn, err := wire.Dial(addr, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// enroll installs the owner's certificates and returns a connection of the
// owner on which the router shows them.
func (l *lab) enroll(t testing.TB) wire.Conn {
	t.Helper()
	client := l.owner.client(t)
	if err := l.dial(t, client).Enrollz().RotateOIAK(t.Context(), l.rotation(t)); err != nil {
		t.Fatal(err)
	}
	return l.dial(t, client)
}

// rotation returns new certificates of the owner for the router's keys.
func (l *lab) rotation(t testing.TB) wire.Rotation {
	t.Helper()
	iak, idevid := l.chip.keys(t)
	return wire.Rotation{Profile: "tls", Updates: []wire.Update{{
		Select:  active,
		OIAK:    wire.ChainOf(l.owner.device(t, iak)),
		OIDevID: wire.ChainOf(l.owner.device(t, idevid.Public())),
	}}}
}

func newRequest(t testing.TB) wire.AttestRequest {
	t.Helper()
	nonce := make([]byte, 32)
	if _, err := rand.Read(nonce); err != nil {
		t.Fatal(err)
	}
	return wire.AttestRequest{Select: active, Nonce: nonce, Bank: measure.SHA384, PCRs: asked}
}

// verify holds an answer against its request as a verifier does.
func (l *lab) verify(req wire.AttestRequest, ans wire.AttestAnswer) (evidence.Verified, error) {
	return evidence.Verify(evidence.Evidence{
		Nonce: req.Nonce, Bank: req.Bank, PCRs: ans.PCRs, Quoted: ans.Quoted, Signature: ans.Signature, Log: ans.Log,
		Certificates: evidence.Certificates{OIAK: ans.OIAK, TLS: wire.ChainOf(ans.Peer...)},
		Card:         evidence.Card{Serial: ans.Card.Serial},
		Received:     time.Now(),
	}, evidence.Challenge{
		Nonce: req.Nonce, Bank: req.Bank, PCRs: req.PCRs,
		Issued: time.Now().Add(-time.Minute), Deadline: time.Now().Add(time.Minute),
	}, evidence.Trust{Roots: []*x509.Certificate{l.owner.cert}, Serial: serial, Now: time.Now()})
}

// firmwareLog extends PCR 0 as a firmware does and returns its log.
func firmwareLog(t testing.TB, c chip) eventlog.Log {
	t.Helper()
	log := eventlog.Log{Banks: c.Banks()}
	for pcr := measure.PCR(0); pcr < 8; pcr++ {
		e := eventlog.Event{PCR: pcr, Type: eventlog.EVSeparator, Data: make([]byte, 4)}
		for _, b := range c.Banks() {
			e.Digests = append(e.Digests, measure.Hash(b, e.Data))
		}
		if err := c.Extend(t.Context(), pcr, e.Digests); err != nil {
			t.Fatal(err)
		}
		log.Events = append(log.Events, e)
	}
	return log
}

// eachChip runs a test with the TPM in memory and with swtpm.
func eachChip(t *testing.T, test func(t *testing.T, c chip)) {
	t.Run("soft", func(t *testing.T) { test(t, newSoftChip(t)) })
	t.Run("swtpm", func(t *testing.T) { test(t, realChip{tpmtest.Provisioned(t)}) })
}

// testWriter sends the agent's log to the test's.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	if testing.Verbose() {
		os.Stderr.Write(b)
	}
	return len(b), nil
}
