package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"waxseal/agent"
	"waxseal/fleet/challenge"
	"waxseal/hw/tpm"
	"waxseal/images/factory"
	"waxseal/measure"
	"waxseal/measure/devid"
	"waxseal/measure/evidence"
	"waxseal/measure/evidence/evidencetest"
	"waxseal/measure/manifest"
	"waxseal/measure/wire"
)

// prey is a device that somebody wants to answer as.
type prey struct {
	keys     map[string]crypto.PublicKey // of its TPM
	secret   manifest.Secret             // of its shipment
	evidence evidence.Evidence           // that it gave once
	trust    evidence.Trust              // of who asks it
	server   *x509.Certificate           // that it shows in TLS; nil: not looked at
}

// answers lists how the device can be answered for with what is in the hoard.
func (h hoard) answers(t *testing.T, p prey) []string {
	t.Helper()
	var ways []string
	for path, data := range h.files {
		for _, text := range spellings(p.secret) {
			if bytes.Contains(bytes.ToUpper(data), []byte(text)) || bytes.Contains(data, []byte(base64.StdEncoding.EncodeToString([]byte(text)))) {
				ways = append(ways, path+" holds the secret of the shipment")
			}
		}
	}
	for where, key := range h.keys {
		for name, public := range p.keys {
			if own, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); ok && own.Equal(public) {
				ways = append(ways, where+": the key is the "+name)
			}
		}
		if own, ok := key.(*ecdsa.PrivateKey); ok && quotes(t, p, own) {
			ways = append(ways, where+": a quote that the key signs is taken for the device's")
		}
		if p.server != nil && serves(p, key) {
			ways = append(ways, where+": the key holds a TLS session as the device")
		}
	}
	return ways
}

func spellings(s manifest.Secret) []string {
	return []string{s.Text(), strings.ReplaceAll(s.Text(), "-", ""), strings.ReplaceAll(s.Text(), "-", " ")}
}

// quotes tells whether the verifier takes an answer to a new challenge that is
// the device's old one, with the new nonce, signed by the key.
func quotes(t *testing.T, p prey, key *ecdsa.PrivateKey) bool {
	t.Helper()
	ev := p.evidence
	nonce := make([]byte, len(ev.Nonce))
	rand.Read(nonce)
	ev.Quoted = bytes.Replace(ev.Quoted, ev.Nonce, nonce, 1)
	ev.Nonce = nonce
	var err error
	if ev.Signature, err = evidencetest.Sign(key, ev.Quoted); err != nil {
		t.Fatal(err)
	}
	_, err = evidence.Verify(ev, ev.Offline(), p.trust)
	return err == nil
}

// serves tells whether a TLS client believes that the key is the one of the
// certificate that the device shows.
func serves(p prey, key crypto.Signer) bool {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	cert := tls.Certificate{Certificate: [][]byte{p.server.Raw}, PrivateKey: key, SupportedSignatureAlgorithms: []tls.SignatureScheme{
		tls.ECDSAWithP384AndSHA384, tls.PSSWithSHA384,
	}}
	server := tls.Server(a, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}})
	go func() { _ = server.Handshake(); a.Close() }() // the client's result tells
	client := tls.Client(b, &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true})
	return client.Handshake() == nil
}

// A router is made, packed, checked at the door, enrolled and attested. Then
// everything that its maker and its owner have stored is stolen.
func TestNobodyAnswersAsADeviceWithAllThatIsStored(t *testing.T) {
	p := newPlant(t)
	p.out = filepath.Join(p.ca, "WX-0001.json") // manifests may lie beside the keys
	secret := secretIn(t, p.provision(t, exitOK))
	s := p.shipment(t)
	owner := p.in("owner")
	p.bench.waxseal(t, exitOK, "owner", "init", owner)
	anchor, err := os.ReadFile(filepath.Join(owner, "owner-ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	address := serveParcel(t, p.tpm, "WX-0001", shipped, func(c *agent.Config) {
		c.OwnerCA = anchor
		c.EKCerts = wire.ChainOf(p.ekCertificates(t, c.Prover.(prover).Device)...)
	})

	typed := p.in("typed")
	write(t, typed, []byte(secret.Text()+"\n"))
	p.bench.waxseal(t, exitOK, "delivery", "check", address, "--manifest", p.out, "--secret-file", typed, "--owner", owner,
		"--vendor-sign", filepath.Join(p.ca, factory.SignFile), "--vendor-ca", filepath.Join(p.ca, factory.CertFile), "--ek-ca", p.ekCA(t),
		"--save", filepath.Join(owner, "delivery.json"))
	p.bench.waxseal(t, exitOK, "enroll", address, "--owner", owner, "--vendor-ca", filepath.Join(p.ca, factory.CertFile), "--serial", "WX-0001")
	saved := filepath.Join(owner, "evidence.json")
	p.bench.waxseal(t, exitOK, "attest", address, "--owner", owner, "--reference", p.in("ref.json"), "--save", saved)

	target := preyOf(t, s, secret, saved, filepath.Join(owner, "owner-ca.pem"))
	h := collect(t, p.ca, owner)
	for _, name := range []string{factory.KeyFile, factory.SignKeyFile, "owner-ca.key", "client.key", "signkey.pem"} {
		if !h.has(name) {
			t.Errorf("no key was found in %s: this test looks in the wrong place", name)
		}
	}
	if len(h.files) < 15 {
		t.Errorf("%d files were found", len(h.files))
	}
	for _, way := range h.answers(t, target) {
		t.Error(way)
	}
	t.Run("a key of one's own, certified by the owner's CA", func(t *testing.T) { refusesAnotherKey(t, h, s, target, owner) })
	t.Run("the secret is seen where it lies", func(t *testing.T) {
		for _, text := range spellings(secret) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "order.txt"), []byte("secret: "+strings.ToLower(text)+"\n"))
			if ways := collect(t, dir).answers(t, target); len(ways) == 0 {
				t.Errorf("%s is not seen", text)
			}
		}
	})
}

// ekCertificates are what the TPM holds of its maker's.
func (p plant) ekCertificates(t *testing.T, dev *tpm.Device) []*x509.Certificate {
	t.Helper()
	var certs []*x509.Certificate
	for _, index := range []uint32{tpm.NVCertEK, tpm.NVCertEK384} {
		cert, err := dev.Certificate(t.Context(), index)
		if err != nil {
			t.Fatal(err)
		}
		certs = append(certs, cert)
	}
	return certs
}

func (p plant) ekCA(t *testing.T) string {
	t.Helper()
	var both []byte
	for _, name := range []string{"swtpm-localca-rootca-cert.pem", "issuercert.pem"} {
		b, err := os.ReadFile(filepath.Join(p.ca, factory.EKDir, name))
		if err != nil {
			t.Fatal(err)
		}
		both = append(both, b...)
	}
	write(t, p.in("ek.pem"), both)
	return p.in("ek.pem")
}

// preyOf is the device of a manifest, as its owner knows it.
func preyOf(t *testing.T, s manifest.Shipment, secret manifest.Secret, saved, root string) prey {
	t.Helper()
	p := prey{secret: secret, keys: map[string]crypto.PublicKey{}}
	for name, public := range map[string][]byte{"EK": s.EK.Public, "EK P-384": s.EKP384.Public, "SRK": s.SRK.Public} {
		k, err := manifest.ParseEK(public)
		if err != nil {
			t.Fatal(err)
		}
		p.keys[name] = k.Key
	}
	for kind, public := range map[devid.Kind][]byte{devid.IAK: s.IAK.Public, devid.IDevID: s.IDevID.Public} {
		k, err := devid.Parse(kind, public)
		if err != nil {
			t.Fatal(err)
		}
		p.keys[string(kind)] = k.Public
	}
	text, err := os.ReadFile(saved)
	if err != nil {
		t.Fatal(err)
	}
	if p.evidence, err = evidence.Parse(text); err != nil {
		t.Fatal(err)
	}
	anchor, err := os.ReadFile(root)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := evidence.ParsePEM(string(anchor))
	if err != nil {
		t.Fatal(err)
	}
	p.trust = evidence.Trust{Roots: []*x509.Certificate{cert}, Serial: s.Serial, Now: time.Now()}
	if _, err := evidence.Verify(p.evidence, p.evidence.Offline(), p.trust); err != nil {
		t.Fatalf("the device's own evidence: %v", err)
	}
	if p.server, err = evidence.ParsePEM(p.evidence.Certificates.TLS[0]); err != nil {
		t.Fatal(err)
	}
	return p
}

// refusesAnotherKey gives a new key a certificate of the stolen owner's CA. The
// certificate is good; the key is still not the one that was shipped.
func refusesAnotherKey(t *testing.T, h hoard, s manifest.Shipment, p prey, owner string) {
	t.Helper()
	var ca *ecdsa.PrivateKey
	for where, key := range h.keys {
		if strings.Contains(where, "/owner-ca.key,") {
			ca = key.(*ecdsa.PrivateKey)
		}
	}
	own, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	genuine, err := evidence.ParsePEM(p.evidence.Certificates.OIAK[0])
	if err != nil {
		t.Fatal(err)
	}
	forged, err := evidencetest.Authority{Key: ca, Certificate: p.trust.Roots[0]}.Certify(genuine, own.Public())
	if err != nil {
		t.Fatal(err)
	}
	p.evidence.Certificates = evidence.Certificates{OIAK: evidencetest.PEM(forged), TLS: p.evidence.Certificates.TLS}
	r := challenge.Result{Outcome: challenge.Genuine, Evidence: &p.evidence}
	if got := enrolledOnly(owner, r); got.Outcome != challenge.Refused || len(got.Verdict.Reasons) == 0 {
		t.Errorf("another key than the one that was enrolled is taken for the device's: %+v", got)
	}
	if got := enrolledOnly(t.TempDir(), r); got.Outcome != challenge.Genuine {
		t.Errorf("a verifier without a ledger: %+v", got)
	}
	if !quotes(t, p, own) {
		t.Error("the forged certificate is refused by itself: this test shows nothing")
	}
	p.trust.Public = s.IAK.Public
	if quotes(t, p, own) {
		t.Error("another key than the one in the manifest is taken for the device's")
	}
}

// Sabotage: a device in software, whose keys one can put on a disk.
func TestAKeyOnTheDiskIsSeen(t *testing.T) {
	router, err := evidencetest.New("WX-0001", elliptic.P384())
	if err != nil {
		t.Fatal(err)
	}
	if err := router.Start(); err != nil {
		t.Fatal(err)
	}
	secret, err := manifest.NewSecret(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := prey{secret: secret, keys: map[string]crypto.PublicKey{"IAK": router.AK.Public(), "IDevID": router.Identity.Public()}}
	p.evidence, p.trust = softEvidence(t, router)
	if p.server, err = evidence.ParsePEM(router.Certificates.TLS[0]); err != nil {
		t.Fatal(err)
	}
	stranger, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		key  *ecdsa.PrivateKey
		ways int
	}{{"stranger", stranger, 0}, {"IAK", router.AK, 2}, {"IDevID", router.Identity, 2}} {
		pkcs8, err := x509.MarshalPKCS8PrivateKey(c.key)
		if err != nil {
			t.Fatal(err)
		}
		sec1, err := x509.MarshalECPrivateKey(c.key)
		if err != nil {
			t.Fatal(err)
		}
		for form, data := range map[string][]byte{
			"PKCS #8":          pkcs8,
			"SEC 1":            sec1,
			"PEM":              pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1}),
			"PEM after text":   append([]byte("backup\n"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})...),
			"base64 in JSON":   []byte(`{"key": "` + base64.StdEncoding.EncodeToString(pkcs8) + `"}`),
			"under any folder": pkcs8,
		} {
			dir := filepath.Join(t.TempDir(), "a", ".b")
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, "x"), data)
			if ways := collect(t, filepath.Dir(filepath.Dir(dir))).answers(t, p); len(ways) != c.ways {
				t.Errorf("%s as %s: %q, want %d ways", c.name, form, ways, c.ways)
			}
		}
	}
}

func softEvidence(t *testing.T, router *evidencetest.Router) (evidence.Evidence, evidence.Trust) {
	t.Helper()
	ch, err := evidencetest.Challenge(measure.SHA384, 12, 13, 14, 15)
	if err != nil {
		t.Fatal(err)
	}
	ev, err := router.Answer(ch)
	if err != nil {
		t.Fatal(err)
	}
	trust := router.Trust()
	if _, err := evidence.Verify(ev, ch, trust); err != nil {
		t.Fatal(err)
	}
	return ev, trust
}
