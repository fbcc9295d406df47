package delivery_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"waxseal/fleet/delivery"
	"waxseal/hw/tpm"
	"waxseal/hw/tpm/tpmtest"
	"waxseal/images/factory"
	"waxseal/measure"
	"waxseal/measure/eventlog"
	"waxseal/measure/evidence"
	"waxseal/measure/manifest"
	"waxseal/measure/manifest/manifesttest"
	"waxseal/measure/manifest/sealed"
	"waxseal/measure/reference"
	"waxseal/measure/wire"
)

const (
	serial  = "WX-0001"
	handoff = measure.Handoff + "switch_root"
)

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// maker is who makes and packs devices.
type maker struct {
	ca     *factory.CA
	keys   sealed.Keys
	dir    string
	ekRoot []*x509.Certificate
}

func newMaker(t testing.TB) *maker {
	t.Helper()
	if _, err := exec.LookPath("swtpm"); err != nil {
		t.Skip("needs swtpm: run scripts/setup")
	}
	dir := t.TempDir()
	return &maker{
		ca: must(factory.NewCA(filepath.Join(dir, "ca"), time.Now()))(t), keys: must(sealed.NewKeys(rand.Reader))(t), dir: dir,
	}
}

// process is a TPM in software that runs.
type process interface {
	Stop() error
	Socket() string
}

// device is a router at the doorstep: its TPM, and what it has booted.
type device struct {
	dev      *tpm.Device
	process  process
	state    string
	identity wire.Identity
	signer   *tls.Certificate
	log      []byte

	mu     sync.Mutex // guards what follows
	show   func(*wire.Identity)
	answer func(wire.ProofRequest, *wire.Proof) error
	told   []wire.Proof
}

// build makes a device, and returns it switched off.
func (m *maker) build(t testing.TB, serial string) *device {
	t.Helper()
	d := &device{state: filepath.Join(t.TempDir(), "tpm")}
	err := m.ca.WithTPM(t.Context(), d.state, serial, func(dev *tpm.Device) error {
		if _, err := factory.Provision(t.Context(), dev, m.ca, serial); err != nil {
			return err
		}
		return dev.CreateKey(t.Context(), tpm.SRK)
	})
	if err != nil {
		t.Fatal(err)
	}
	if m.ekRoot == nil {
		for _, name := range []string{"swtpm-localca-rootca-cert.pem", "issuercert.pem"} {
			m.ekRoot = append(m.ekRoot, readCert(t, filepath.Join(m.ca.Dir(), factory.EKDir, name)))
		}
	}
	return d
}

// boot switches the device on and lets it measure what it boots.
func (d *device) boot(t testing.TB, serial, rootfs string) *device {
	t.Helper()
	process := tpmtest.Run(t, d.state)
	d.process, d.dev = process, tpmtest.Open(t, process)
	d.identity = wire.Identity{
		Card: wire.Card{Role: wire.Active, Serial: serial, Slot: "0", Maker: "lab", Part: "qemu-amd64", ChassisSerial: serial},
		EK:   d.area(t, tpm.EK), IAK: d.area(t, tpm.IAK), IDevID: d.area(t, tpm.IDevID), SRK: d.area(t, tpm.SRK),
		EKCerts:    wire.ChainOf(d.cert(t, tpm.NVCertEK), d.cert(t, tpm.NVCertEK384)),
		IAKCert:    wire.ChainOf(d.cert(t, tpm.NVCertIAK)),
		IDevIDCert: wire.ChainOf(d.cert(t, tpm.NVCertIDevID)),
	}
	key := must(d.dev.Signer(t.Context(), tpm.IDevID))(t)
	d.signer = &tls.Certificate{Certificate: [][]byte{d.cert(t, tpm.NVCertIDevID).Raw}, PrivateKey: key}
	d.measure(t, rootfs)
	return d
}

func (d *device) area(t testing.TB, k tpm.Key) []byte {
	t.Helper()
	return must(d.dev.Area(t.Context(), k))(t)
}

func (d *device) cert(t testing.TB, index uint32) *x509.Certificate {
	t.Helper()
	return must(d.dev.Certificate(t.Context(), index))(t)
}

func (d *device) off(t testing.TB) *device {
	t.Helper()
	if err := d.dev.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.dev.Close()
	if err := d.process.Stop(); err != nil {
		t.Fatal(err)
	}
	return d
}

// memory is a journal that forgets.
type memory struct{}

func (memory) Begin([]measure.PCRValue) error { return nil }
func (memory) Append(measure.Event) error     { return nil }

func records(t testing.TB, rootfs string) []measure.Record {
	t.Helper()
	return []measure.Record{
		must(measure.Waxseal1.Of("policy/measure", []byte("p")))(t),
		must(measure.Waxseal1.Of("rootfs/squashfs/root", []byte(rootfs)))(t),
	}
}

func (d *device) measure(t testing.TB, rootfs string) {
	t.Helper()
	rec := must(measure.NewRecorder(t.Context(), d.dev, memory{}, measure.Waxseal1.PCRs()))(t)
	c := must(d.dev.Counters(t.Context()))(t)
	start := evidence.StartName(c.ResetCount, c.RestartCount)
	all := []measure.Record{
		must(measure.Waxseal1.Of(start, []byte(start)))(t), must(measure.Waxseal1.Of("identity/serial", []byte(serial)))(t),
	}
	for _, r := range append(append(all, records(t, rootfs)...), measure.Waxseal1.Cap(handoff)...) {
		must(rec.Record(t.Context(), r))(t)
	}
	err := rec.Freeze(func(log []measure.Event) (err error) {
		d.log, err = eventlog.EncodeCEL(eventlog.New(d.dev.Banks(), log))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Identify implements wire.DeliveryServer.
func (d *device) Identify(context.Context) (wire.Identity, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	id := d.identity
	if d.show != nil {
		d.show(&id)
	}
	return id, nil
}

// Prove implements wire.DeliveryServer.
func (d *device) Prove(ctx context.Context, r wire.ProofRequest) (wire.Proof, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p, err := d.prove(ctx, r)
	if d.answer != nil {
		if cause := d.answer(r, &p); cause != nil {
			return p, cause
		}
		err = nil
	}
	if err == nil {
		d.told = append(d.told, p)
	}
	return p, err
}

func (d *device) prove(ctx context.Context, r wire.ProofRequest) (p wire.Proof, err error) {
	iak, err := d.dev.ActivateCredential(ctx, tpm.IAK, r.IAK.Blob, r.IAK.Secret)
	if err != nil {
		return p, fmt.Errorf("%w: %w", wire.ErrInvalid, err)
	}
	idevid, err := d.dev.ActivateCredential(ctx, tpm.IDevID, r.IDevID.Blob, r.IDevID.Secret)
	if err != nil {
		return p, fmt.Errorf("%w: %w", wire.ErrInvalid, err)
	}
	if p.SRK.Attest, p.SRK.Signature, err = d.dev.Certify(ctx, tpm.SRK, r.Nonce); err != nil {
		return p, err
	}
	if p.IDevID.Attest, p.IDevID.Signature, err = d.dev.Certify(ctx, tpm.IDevID, r.Nonce); err != nil {
		return p, err
	}
	if p.PCRs, err = d.dev.ReadPCRs(ctx, r.Bank, r.PCRs); err != nil {
		return p, err
	}
	if p.Quote.Attest, p.Quote.Signature, err = d.dev.Quote(ctx, tpm.IAK, r.Nonce, r.Bank, r.PCRs); err != nil {
		return p, err
	}
	p.Log = d.log
	p.IAKProof = r.Authenticate(wire.ProofOfIAK, iak, p)
	p.IDevIDProof = r.Authenticate(wire.ProofOfIDevID, idevid, wire.Proof{
		PCRs: p.PCRs, Quote: p.Quote, Log: p.Log, SRK: p.SRK, IDevID: p.IDevID,
	})
	return p, nil
}

// serve serves the device under a certificate, or another server.
func serve(t testing.TB, s wire.DeliveryServer, cert *tls.Certificate) (address string) {
	t.Helper()
	g := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*cert}})))
	wire.RegisterDelivery(g, s)
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	return l.Addr().String()
}

// pack writes the manifest of a device that is on.
func (m *maker) pack(t testing.TB, d *device, changes ...func(*manifest.Shipment)) ([]byte, manifest.Secret) {
	t.Helper()
	secret := must(manifest.NewSecret(rand.Reader))(t)
	v := reference.Values{
		Format: reference.Format, Product: "qemu-amd64", Version: "1.0.0", Profile: "waxseal-1", Assurance: "self", Handoff: handoff,
	}
	for _, r := range records(t, "root") {
		v.Items = append(v.Items, reference.Item{PCR: r.PCR, Name: r.Name, SHA256: []reference.Hex{r.Content[:]}})
	}
	c := must(d.dev.Counters(t.Context()))(t)
	ek := manifesttest.Key(d.identity.EK, measure.SHA256)
	cert := sha256.Sum256(d.cert(t, tpm.NVCertEK).Raw)
	s := manifest.Shipment{
		Format: manifest.Format, Serial: serial, Maker: "lab", Product: "qemu-amd64", Order: "PO-7", SealID: "TAPE-1",
		Packed: time.Now().UTC().Truncate(time.Second),
		EK:     manifest.EndorsementKey{Name: ek.Name, Public: ek.Public, CertificateSHA256: cert[:]},
		IAK:    manifesttest.Key(d.identity.IAK, measure.SHA384), IDevID: manifesttest.Key(d.identity.IDevID, measure.SHA384),
		SRK:        keyOf(d.identity.SRK),
		Counters:   manifest.Counters{Resets: c.ResetCount, Restarts: c.RestartCount, Clock: c.Clock},
		MaxResets:  2,
		SecretHash: manifest.HashSecret(secret, serial),
	}
	s.Reference = must(v.Encode())(t)
	sum := sha256.Sum256(s.Reference)
	s.ReferenceSHA256 = sum[:]
	second := d.cert(t, tpm.NVCertEK384)
	other, digest := manifesttest.Key(manifesttest.P384(second.PublicKey.(*ecdsa.PublicKey), manifesttest.AttributesP384), measure.SHA384), sha256.Sum256(second.Raw)
	s.EKP384 = &manifest.EndorsementKey{Name: other.Name, Public: other.Public, CertificateSHA256: digest[:]}
	for _, change := range changes {
		change(&s)
	}
	return must(s.Seal(m.keys.Signers()...))(t), secret
}

// buyer checks with everything that a buyer can know.
func (m *maker) buyer(t testing.TB, address string, file []byte, secret manifest.Secret) delivery.Config {
	t.Helper()
	trust := m.keys.Trust()
	return delivery.Config{
		Address: address, Manifest: file, Secret: secret,
		Trust: delivery.Trust{Maker: &trust, VendorCA: []*x509.Certificate{m.ca.Certificate}, EKCA: m.ekRoot},
	}
}

func readCert(t testing.TB, path string) *x509.Certificate {
	t.Helper()
	return must(evidence.ParsePEM(string(must(readFile(path))(t))))(t)
}
