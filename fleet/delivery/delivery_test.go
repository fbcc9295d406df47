package delivery_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"waxseal/fleet/delivery"
	"waxseal/hw/tpm"
	"waxseal/measure"
	"waxseal/measure/manifest"
	"waxseal/measure/manifest/manifesttest"
	"waxseal/measure/manifest/sealed"
	"waxseal/measure/wire"
)

var readFile = os.ReadFile

// check checks and demands the outcome and exactly these failed checks.
func check(t *testing.T, c delivery.Config, outcome delivery.Outcome, bad ...delivery.Name) delivery.Result {
	t.Helper()
	r := must(delivery.Check(t.Context(), c))(t)
	demand(t, r.Report, outcome, bad...)
	return r
}

func demand(t *testing.T, r delivery.Report, outcome delivery.Outcome, bad ...delivery.Name) {
	t.Helper()
	if r.Outcome != outcome || !slices.Equal(slices.Compact(r.Bad()), bad) {
		t.Errorf("outcome %s, failed %v: want %s, %v\n%s", r.Outcome, r.Bad(), outcome, bad, strings.Join(r.Reasons, "\n"))
	}
	if (r.Outcome == delivery.Accepted) != (len(r.Reasons) == 0) {
		t.Errorf("outcome %s because of %q", r.Outcome, r.Reasons)
	}
	for _, reason := range r.Reasons {
		name, _, _ := strings.Cut(reason, ":")
		if r.Outcome == delivery.Refused && !slices.Contains(bad, delivery.Name(name)) {
			t.Errorf("refused because of %q, which has not failed", reason)
		}
	}
}

func TestGenuineDeviceIsAcceptedAndEveryDifferenceIsNamed(t *testing.T) {
	m := newMaker(t)
	d := m.build(t, serial).boot(t, serial, "root")
	file, secret := m.pack(t, d)
	good := m.buyer(t, serve(t, d, d.signer), file, secret)
	r := check(t, good, delivery.Accepted)
	if s := r.Report.Since; s == nil || s.Resets != 0 || r.Report.Boot == nil || r.Report.Boot.Assurance != "self" {
		t.Errorf("report %+v", r.Report)
	}
	other := m.build(t, serial).boot(t, serial, "root") // same serial number, another TPM
	otherFile, otherSecret := m.pack(t, other, func(s *manifest.Shipment) { s.Order = "PO-8" })
	otherKeys := must(sealed.NewKeys(rand.Reader))(t)
	stranger := newMaker(t)

	t.Run("secret of another order", func(t *testing.T) {
		c := good
		c.Secret = otherSecret
		check(t, c, delivery.Refused, delivery.CheckSecret)
	})
	t.Run("manifest of another order", func(t *testing.T) {
		c := good
		c.Manifest = otherFile
		check(t, c, delivery.Refused, delivery.CheckSecret, delivery.CheckEK, delivery.CheckEKCertificate, delivery.CheckIAK,
			delivery.CheckIDevID, delivery.CheckCertificates, delivery.CheckTLS, delivery.CheckCredential)
	})
	t.Run("another TPM with a copied serial number", func(t *testing.T) {
		c := good
		c.Address = serve(t, other, other.signer)
		check(t, c, delivery.Refused, delivery.CheckEK, delivery.CheckEKCertificate, delivery.CheckIAK,
			delivery.CheckIDevID, delivery.CheckCertificates, delivery.CheckTLS, delivery.CheckCredential)
	})
	t.Run("another TPM that shows the keys of the first", func(t *testing.T) {
		other.show = func(id *wire.Identity) { *id = d.identity }
		defer func() { other.show = nil }()
		c := good
		c.Address = serve(t, other, other.signer)
		check(t, c, delivery.Refused, delivery.CheckIDevID, delivery.CheckTLS, delivery.CheckCredential)
	})
	t.Run("relay to the genuine device", func(t *testing.T) {
		c := good
		c.Address = serve(t, d, software(t))
		check(t, c, delivery.Refused, delivery.CheckTLS)
	})
	t.Run("recorded answers", func(t *testing.T) {
		c := good
		c.Address = serve(t, &recording{d.identity, d.told[0]}, software(t))
		check(t, c, delivery.Refused, delivery.CheckIDevID, delivery.CheckTLS, delivery.CheckCredential, delivery.CheckNonce, delivery.CheckCleared)
	})
	t.Run("manifest by another maker", func(t *testing.T) {
		c := good
		trust := otherKeys.Trust()
		c.Trust.Maker = &trust
		check(t, c, delivery.Refused, delivery.CheckManifest)
	})
	t.Run("manifest that nobody vouches for", func(t *testing.T) {
		c := good
		c.Trust.Maker = nil
		check(t, c, delivery.Unproven)
	})
	t.Run("no manifest", func(t *testing.T) {
		c := good
		c.Manifest = []byte("{}")
		check(t, c, delivery.Refused, delivery.CheckManifest)
	})
	t.Run("CA of another maker", func(t *testing.T) {
		c := good
		c.Trust.VendorCA = []*x509.Certificate{stranger.ca.Certificate}
		check(t, c, delivery.Refused, delivery.CheckCertificates)
	})
	t.Run("CA of another TPM maker", func(t *testing.T) {
		c := good
		c.Trust.EKCA = []*x509.Certificate{stranger.ca.Certificate}
		check(t, c, delivery.Refused, delivery.CheckEKCertificate)
	})
	t.Run("no CA at all", func(t *testing.T) {
		c := good
		c.Trust.EKCA, c.Trust.VendorCA = nil, nil
		if r := check(t, c, delivery.Accepted); len(r.Report.Warnings) < 3 {
			t.Errorf("warnings are %q", r.Report.Warnings)
		}
	})
	t.Run("no SRK at packing", func(t *testing.T) {
		c := good
		c.Manifest, c.Secret = m.pack(t, d, func(s *manifest.Shipment) { s.SRK = nil })
		if r := check(t, c, delivery.Accepted); !strings.Contains(strings.Join(r.Report.Warnings, "\n"), "names no SRK") {
			t.Errorf("warnings are %q", r.Report.Warnings)
		}
	})
	t.Run("no reference values", func(t *testing.T) {
		c := good
		c.Manifest, c.Secret = m.pack(t, d, func(s *manifest.Shipment) { s.Reference = nil })
		check(t, c, delivery.Unproven)
	})
	t.Run("other reference values", func(t *testing.T) {
		c := good
		c.Reference = []byte("{}")
		check(t, c, delivery.Unproven)
	})
	for name, test := range map[string]struct {
		change func(*manifest.Shipment)
		bad    delivery.Name
	}{
		"more resets at packing":   {func(s *manifest.Shipment) { s.Counters.Resets += 1 }, delivery.CheckResets},
		"more restarts at packing": {func(s *manifest.Shipment) { s.Counters.Restarts += 1 }, delivery.CheckResets},
		"too many resets since":    {func(s *manifest.Shipment) { s.Counters.Resets -= 1; s.MaxResets = 0 }, delivery.CheckResets},
		"clock ahead at packing":   {func(s *manifest.Shipment) { s.Counters.Clock += 1 << 23 }, delivery.CheckClock},
		"another serial number":    {func(s *manifest.Shipment) { s.Serial = "WX-0009" }, delivery.CheckSerial},
		"another SRK at packing":   {func(s *manifest.Shipment) { s.SRK = keyOf(other.identity.SRK) }, delivery.CheckCleared},
		"another EK certificate":   {func(s *manifest.Shipment) { s.EK.CertificateSHA256[0] ^= 1 }, delivery.CheckEKCertificate},
		"certificates swapped": {func(s *manifest.Shipment) {
			s.EK.CertificateSHA256, s.EKP384.CertificateSHA256 = s.EKP384.CertificateSHA256, s.EK.CertificateSHA256
		}, delivery.CheckEKCertificate},
		"no EK certificate named": {func(s *manifest.Shipment) { s.EK.CertificateSHA256 = nil }, delivery.CheckEKCertificate}, // and an --ek-ca
	} {
		t.Run(name, func(t *testing.T) {
			c := good
			c.Manifest, c.Secret = m.pack(t, d, test.change)
			want := []delivery.Name{test.bad}
			if test.bad == delivery.CheckSerial {
				want = []delivery.Name{delivery.CheckSecret, delivery.CheckSerial, delivery.CheckBoot} // the serial number is in hash and log
			}
			check(t, c, delivery.Refused, want...)
		})
	}
	t.Run("what the device shows", func(t *testing.T) { testShown(t, good, d) })
	t.Run("what the device answers", func(t *testing.T) { testAnswers(t, good, d) })
	t.Run("nobody there", func(t *testing.T) {
		l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
		l.Close()
		c := good
		c.Address = l.Addr().String()
		check(t, c, delivery.Unreachable)
	})
}

// testShown takes away or changes what the device shows, one thing at a time.
func testShown(t *testing.T, c delivery.Config, d *device) {
	defer func() { d.show = nil }()
	for name, test := range map[string]struct {
		show func(*wire.Identity)
		bad  delivery.Name
	}{
		"no EK":               {func(id *wire.Identity) { id.EK = nil }, delivery.CheckEK},
		"no IAK":              {func(id *wire.Identity) { id.IAK = nil }, delivery.CheckIAK},
		"no IDevID":           {func(id *wire.Identity) { id.IDevID = nil }, delivery.CheckIDevID},
		"IAK for IDevID":      {func(id *wire.Identity) { id.IDevID = id.IAK }, delivery.CheckIDevID},
		"no second EK's":      {func(id *wire.Identity) { id.EKCerts = id.EKCerts[:1] }, delivery.CheckEKCertificate},
		"no first EK's":       {func(id *wire.Identity) { id.EKCerts = id.EKCerts[1:] }, delivery.CheckEKCertificate},
		"no EK certificate":   {func(id *wire.Identity) { id.EKCerts = nil }, delivery.CheckEKCertificate},
		"other card serial":   {func(id *wire.Identity) { id.Card.Serial = "WX-0002" }, delivery.CheckSerial},
		"no chassis serial":   {func(id *wire.Identity) { id.Card.ChassisSerial = "" }, delivery.CheckSerial},
		"swapped certificate": {func(id *wire.Identity) { id.IAKCert, id.IDevIDCert = id.IDevIDCert, id.IAKCert }, delivery.CheckCertificates},
	} {
		d.show = test.show
		t.Run(name, func(t *testing.T) { check(t, c, delivery.Refused, test.bad) })
	}
	d.show = func(id *wire.Identity) { id.IAKCert = nil }
	check(t, c, delivery.Refused, delivery.CheckSerial, delivery.CheckCertificates)
	d.show = func(id *wire.Identity) { id.IDevIDCert = wire.Chain{pemOf("no certificate")} }
	check(t, c, delivery.Refused, delivery.CheckSerial, delivery.CheckCertificates)
}

// testAnswers changes what the device answers, one thing at a time. What the
// secrets of the credentials authenticate is made anew where a device could.
func testAnswers(t *testing.T, c delivery.Config, d *device) {
	defer func() { d.answer = nil }()
	changed := func(change func(wire.ProofRequest, *wire.Proof)) func(wire.ProofRequest, *wire.Proof) error {
		return func(r wire.ProofRequest, p *wire.Proof) error { change(r, p); return nil }
	}
	again := func(change func(*wire.Proof)) func(wire.ProofRequest, *wire.Proof) error {
		return func(r wire.ProofRequest, p *wire.Proof) error {
			change(p)
			bare := *p
			bare.IAKProof, bare.IDevIDProof = nil, nil
			iak := must(d.dev.ActivateCredential(t.Context(), tpm.IAK, r.IAK.Blob, r.IAK.Secret))(t)
			idevid := must(d.dev.ActivateCredential(t.Context(), tpm.IDevID, r.IDevID.Blob, r.IDevID.Secret))(t)
			p.IAKProof, p.IDevIDProof = r.Authenticate(wire.ProofOfIAK, iak, bare), r.Authenticate(wire.ProofOfIDevID, idevid, bare)
			return nil
		}
	}
	for name, test := range map[string]struct {
		answer func(wire.ProofRequest, *wire.Proof) error
		bad    []delivery.Name
	}{
		"nothing": {changed(func(_ wire.ProofRequest, p *wire.Proof) { *p = wire.Proof{} }),
			[]delivery.Name{delivery.CheckIDevID, delivery.CheckCredential, delivery.CheckEvidence, delivery.CheckCleared}},
		"no proof by the IAK":       {changed(func(_ wire.ProofRequest, p *wire.Proof) { p.IAKProof = nil }), []delivery.Name{delivery.CheckCredential}},
		"no proof by the IDevID":    {changed(func(_ wire.ProofRequest, p *wire.Proof) { p.IDevIDProof = nil }), []delivery.Name{delivery.CheckCredential}},
		"one proof for both":        {changed(func(_ wire.ProofRequest, p *wire.Proof) { p.IDevIDProof = p.IAKProof }), []delivery.Name{delivery.CheckCredential}},
		"a changed log":             {changed(func(_ wire.ProofRequest, p *wire.Proof) { p.Log = p.Log[:len(p.Log)-1] }), []delivery.Name{delivery.CheckCredential, delivery.CheckEvidence}},
		"a log cut by the device":   {again(func(p *wire.Proof) { p.Log = p.Log[:len(p.Log)-1] }), []delivery.Name{delivery.CheckEvidence}},
		"no word about the SRK":     {again(func(p *wire.Proof) { p.SRK = wire.Signed{} }), []delivery.Name{delivery.CheckCleared}},
		"no word about the IDevID":  {again(func(p *wire.Proof) { p.IDevID = wire.Signed{} }), []delivery.Name{delivery.CheckIDevID}},
		"an older word about SRK":   {again(func(p *wire.Proof) { p.SRK = d.told[0].SRK }), []delivery.Name{delivery.CheckCleared}},
		"the quote of another TPM":  {again(func(p *wire.Proof) { p.Quote = wire.Signed{Attest: p.IDevID.Attest, Signature: p.IDevID.Signature} }), []delivery.Name{delivery.CheckEvidence}},
		"an older quote":            {again(func(p *wire.Proof) { p.Quote = d.told[0].Quote }), []delivery.Name{delivery.CheckNonce}},
		"other PCR values":          {again(func(p *wire.Proof) { p.PCRs[0][0] ^= 1 }), []delivery.Name{delivery.CheckEvidence}},
		"words about swapped names": {again(func(p *wire.Proof) { p.SRK, p.IDevID = p.IDevID, p.SRK }), []delivery.Name{delivery.CheckIDevID, delivery.CheckCleared}},
	} {
		d.answer = test.answer
		t.Run(name, func(t *testing.T) { check(t, c, delivery.Refused, test.bad...) })
	}
	for _, err := range []error{wire.ErrNotReady, wire.ErrInvalid, wire.ErrDenied, errors.New("broken")} {
		d.answer = func(wire.ProofRequest, *wire.Proof) error { return err }
		t.Run(err.Error(), func(t *testing.T) { check(t, c, delivery.Refused, delivery.CheckIDevID, delivery.CheckCredential) })
	}
	for _, err := range []error{wire.ErrBusy, wire.ErrRetry} {
		d.answer = func(wire.ProofRequest, *wire.Proof) error { return err }
		t.Run(err.Error(), func(t *testing.T) { check(t, c, delivery.Unreachable) })
	}
}

func TestOtherBootAndExtraStartsAreRefused(t *testing.T) {
	m := newMaker(t)
	d := m.build(t, serial).boot(t, serial, "root")
	file, secret := m.pack(t, d) // two resets are promised
	for start := 1; start <= 3; start++ {
		d.off(t).boot(t, serial, "root")
		c := m.buyer(t, serve(t, d, d.signer), file, secret)
		if start < 3 {
			check(t, c, delivery.Accepted)
		} else {
			check(t, c, delivery.Refused, delivery.CheckResets)
		}
	}
	d.off(t).boot(t, serial, "another root")
	r := check(t, m.buyer(t, serve(t, d, d.signer), file, secret), delivery.Refused, delivery.CheckBoot, delivery.CheckResets)
	if text := strings.Join(r.Report.Reasons, "\n"); !strings.Contains(text, "changed rootfs/squashfs/root") || !strings.Contains(text, "4 times") {
		t.Errorf("reasons are %s", text)
	}
}

// A TPM that is cleared can make its keys again and count its resets up to what
// was promised. Its SRK is another for ever.
func TestClearedTPMIsRefusedThoughItsCountersLookGood(t *testing.T) {
	m := newMaker(t)
	d := m.build(t, serial).boot(t, serial, "root")
	file, secret := m.pack(t, d, func(s *manifest.Shipment) { s.Counters = manifest.Counters{} }) // counted up again
	clearTPM(t, d.process.Socket())
	for _, k := range []tpm.Key{tpm.EK, tpm.IAK, tpm.IDevID, tpm.SRK} {
		if err := d.dev.CreateKey(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	if n := wordAboutExternal(t, d, d.identity.SRK); n != 0 {
		t.Errorf("the TPM certifies an SRK of which it has the public area alone (%d bytes)", n)
	}
	d.off(t).boot(t, serial, "root")
	check(t, m.buyer(t, serve(t, d, d.signer), file, secret), delivery.Refused, delivery.CheckCleared)
}

// wordAboutExternal loads a public area that stood in the TPM before, and asks
// the IAK to certify it. It returns the size of what the TPM says.
func wordAboutExternal(t *testing.T, d *device, area []byte) int {
	t.Helper()
	raw := must(linuxudstpm.Open(d.process.Socket()))(t)
	defer raw.Close()
	public := must(tpm2.Unmarshal[tpm2.TPMTPublic](area))(t)
	loaded, err := tpm2.LoadExternal{InPublic: tpm2.New2B(*public), Hierarchy: tpm2.TPMRHOwner}.Execute(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { must(tpm2.FlushContext{FlushHandle: loaded.ObjectHandle}.Execute(raw))(t) }()
	const iak = 0x81020001
	signer := must(tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(iak)}.Execute(raw))(t)
	rsp, err := tpm2.Certify{
		ObjectHandle: tpm2.AuthHandle{Handle: loaded.ObjectHandle, Name: loaded.Name, Auth: tpm2.PasswordAuth(nil)},
		SignHandle:   tpm2.AuthHandle{Handle: iak, Name: signer.Name, Auth: tpm2.PasswordAuth(nil)},
		InScheme:     tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
	}.Execute(raw)
	if err != nil {
		if !errors.Is(err, tpm2.TPMRCAuthUnavailable) {
			t.Errorf("certify what was loaded from outside: %v", err)
		}
		return 0
	}
	return len(rsp.CertifyInfo.Bytes())
}

func clearTPM(t *testing.T, socket string) {
	t.Helper()
	raw := must(linuxudstpm.Open(socket))(t)
	defer raw.Close()
	_, err := tpm2.Clear{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHPlatform, Auth: tpm2.PasswordAuth(nil)}}.Execute(raw)
	if err != nil {
		t.Fatal(err)
	}
}

// recording plays back what a device has said before.
type recording struct {
	identity wire.Identity
	proof    wire.Proof
}

func (r *recording) Identify(ctx context.Context) (wire.Identity, error) { return r.identity, nil }
func (r *recording) Prove(context.Context, wire.ProofRequest) (wire.Proof, error) {
	return r.proof, nil
}

func pemOf(der string) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte(der)}))
}

func keyOf(area []byte) *manifest.Key {
	k := manifesttest.Key(area, measure.SHA256)
	return &k
}

// software is a certificate of a key that is in no TPM.
func software(t testing.TB) *tls.Certificate {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	return &tls.Certificate{Certificate: [][]byte{must(x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key))(t)}, PrivateKey: key}
}
