package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"waxseal/agent"
	agentdelivery "waxseal/agent/delivery"
	"waxseal/hw/tpm"
	"waxseal/hw/tpm/swtpm"
	"waxseal/images/factory"
	"waxseal/measure"
	"waxseal/measure/evidence"
	"waxseal/measure/manifest"
	"waxseal/measure/wire"
)

// parcel is what a buyer has: files, and a device on a cable.
type parcel struct {
	dir, address   string
	manifest       string // file
	secret, sign   string // text, file
	vendor, ek     string // files
	owner, ownerCA string
}

func (p parcel) path(name string) string { return filepath.Join(p.dir, name) }

// prover proves with a TPM what the doorstep check asks.
type prover struct{ *tpm.Device }

func (p prover) Activate(ctx context.Context, k agentdelivery.Key, c wire.Credential) ([]byte, error) {
	b, err := p.ActivateCredential(ctx, tpm.Key(k), c.Blob, c.Secret)
	if errors.Is(err, tpm.ErrCredential) {
		return nil, fmt.Errorf("%w: %w", wire.ErrInvalid, err)
	}
	return b, err
}

func (p prover) Certify(ctx context.Context, k agentdelivery.Key, nonce []byte) (wire.Signed, error) {
	attest, signature, err := p.Device.Certify(ctx, tpm.Key(k), nonce)
	return wire.Signed{Attest: attest, Signature: signature}, err
}

// areas reads the public areas of a TPM.
func areas(ctx context.Context, dev *tpm.Device) (a agent.Areas, err error) {
	for _, k := range []struct {
		key  tpm.Key
		area *[]byte
	}{{tpm.EK, &a.EK}, {tpm.IAK, &a.IAK}, {tpm.IDevID, &a.IDevID}, {tpm.SRK, &a.SRK}} {
		if *k.area, err = dev.Area(ctx, k.key); err != nil {
			return a, err
		}
	}
	return a, nil
}

// newParcel makes a device, packs it, and switches it on without an owner.
func newParcel(t *testing.T, serial string, changes ...func(*parcel, *agent.Config)) parcel {
	t.Helper()
	if err := swtpm.Check(); err != nil {
		t.Skip(swtpm.ErrMissing)
	}
	p := parcel{dir: t.TempDir()}
	boot := []record{{"policy/measure", "p"}, {"rootfs/squashfs/root", "r"}}
	p.pack(t, serial, boot)
	p.sign, p.vendor, p.ek = p.path("vendor/"+factory.SignFile), p.path("vendor/"+factory.CertFile), p.path("ek.pem")
	var cas []byte
	for _, name := range []string{swtpm.RootFile, swtpm.IssuerFile} {
		b, err := os.ReadFile(p.path("vendor/" + factory.EKDir + "/" + name))
		if err != nil {
			t.Fatal(err)
		}
		cas = append(cas, b...)
	}
	write(t, p.ek, cas)
	p.owner, p.ownerCA = p.path("owner"), p.path("owner/owner-ca.pem")
	bench{dir: p.dir}.waxseal(t, exitOK, "owner", "init", p.owner)
	p.address = serveParcel(t, p.path("tpm"), serial, boot, func(c *agent.Config) {
		for _, change := range changes {
			change(&p, c)
		}
	})
	return p
}

// pack takes a device through the factory.
func (p *parcel) pack(t *testing.T, serial string, boot []record) {
	t.Helper()
	values, err := referenceOf(boot)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := values.Encode()
	if err != nil {
		t.Fatal(err)
	}
	secret, err := manifest.NewSecret(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := factory.NewCA(p.path("vendor"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var file []byte
	err = ca.WithTPM(t.Context(), p.path("tpm"), serial, func(dev *tpm.Device) error {
		r, err := factory.Provision(t.Context(), dev, ca, serial)
		if err != nil {
			return err
		}
		file, err = factory.Pack(t.Context(), dev, ca, r, factory.Packing{
			Maker: "waxseal lab", Product: "qemu-amd64", Order: "PO-7", SealID: "TAPE-001", MaxResets: 3,
			Reference: ref, Embed: true, Secret: secret, Time: time.Now(),
		})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	p.manifest, p.secret = p.path("manifest"), secret.Text()
	write(t, p.manifest, file)
}

// serveParcel serves a device that has no owner.
func serveParcel(t *testing.T, state, serial string, boot []record, changes ...func(*agent.Config)) (address string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	process, err := swtpm.Start(ctx, state)
	if err != nil {
		t.Fatal(err)
	}
	dev, err := process.Open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	recorder, err := measure.NewRecorder(ctx, dev, memory{}, measure.Waxseal1.PCRs())
	if err != nil {
		t.Fatal(err)
	}
	counters, err := dev.Counters(ctx)
	if err != nil {
		t.Fatal(err)
	}
	start := evidence.StartName(counters.ResetCount, counters.RestartCount)
	for _, r := range append([]record{{start, start}, {"identity/serial", serial}}, boot...) {
		keep(t, recorder, r)
	}
	for _, one := range measure.Waxseal1.Cap(handoff) {
		if _, err := recorder.Record(ctx, one); err != nil {
			t.Fatal(err)
		}
	}
	config := unowned(t, dev, serial, recorder)
	for _, change := range changes {
		change(&config)
	}
	a, err := agent.New(config)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = a.Serve(ctx, l) }() // ends with ctx
	t.Cleanup(func() { cancel(); <-done; dev.Close(); _ = process.Stop() })
	return l.Addr().String()
}

func unowned(t *testing.T, dev *tpm.Device, serial string, recorder *measure.Recorder) agent.Config {
	t.Helper()
	c := agent.Config{
		Card:   wire.Card{Role: wire.Active, Serial: serial, Slot: "0", Maker: "lab", Part: "qemu-amd64", ChassisSerial: serial},
		Quoter: quoter{dev}, Prover: prover{dev}, Recorder: recorder, State: t.TempDir(),
		Log: slog.New(slog.DiscardHandler), Limits: agent.Limits{Stop: time.Second, DialRate: 1000, AttestRate: 1000, ProofRate: 1000},
	}
	var err error
	if c.IDevID, err = dev.Signer(t.Context(), tpm.IDevID); err != nil {
		t.Fatal(err)
	}
	iak, _, err := dev.Public(t.Context(), tpm.IAK)
	if err != nil {
		t.Fatal(err)
	}
	c.IAK = iak
	if c.Areas, err = areas(t.Context(), dev); err != nil {
		t.Fatal(err)
	}
	for index, chain := range map[uint32]*wire.Chain{tpm.NVCertIAK: &c.IAKCert, tpm.NVCertIDevID: &c.IDevIDCert} {
		var cert *x509.Certificate
		if cert, err = dev.Certificate(t.Context(), index); err != nil {
			t.Fatal(err)
		}
		*chain = wire.ChainOf(cert)
	}
	for _, index := range []uint32{tpm.NVCertEK, tpm.NVCertEK384} {
		cert, err := dev.Certificate(t.Context(), index)
		if err != nil {
			t.Fatal(err)
		}
		c.EKCerts = append(c.EKCerts, wire.ChainOf(cert)...)
	}
	return c
}

// said runs the tool, demands its exit code and returns all it said.
func (p parcel) said(t *testing.T, code int, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	if got := run(t.Context(), args, strings.NewReader(""), &out, &out); got != code {
		t.Fatalf("waxseal %s: exit code %d, want %d\n%s", strings.Join(args, " "), got, code, &out)
	}
	return out.String()
}

func TestParcelIsCheckedOnTheDoorstep(t *testing.T) {
	p := newParcel(t, "WX-0042")
	saved := p.path("check.json")
	short := []string{"delivery", "check", "--manifest", p.manifest, "--secret", p.secret, p.address}
	all := append(append([]string{}, short...), "--vendor-sign", p.sign, "--vendor-ca", p.vendor, "--ek-ca", p.ek)

	if said := p.said(t, exitError, short...); !strings.Contains(said, "NOT PROVEN") || !strings.Contains(said, "--vendor-sign") {
		t.Errorf("without the maker's keys it says\n%s", said)
	}
	said := p.said(t, exitOK, append(all, "--owner", p.owner, "--save", saved)...)
	for _, want := range []string{"ACCEPTED: this is WX-0042", "TAPE-001", "starts      1 since packing", "assurance   self"} {
		if !strings.Contains(said, want) {
			t.Errorf("it does not say %q:\n%s", want, said)
		}
	}
	if said := p.said(t, exitOK, append(all, "-o", "json")...); !strings.Contains(said, `"outcome": "accepted"`) {
		t.Errorf("as JSON it says\n%s", said)
	}
	secretFile := p.path("secret")
	write(t, secretFile, []byte(strings.ToLower(p.secret)+"\n"))
	p.said(t, exitOK, "delivery", "check", "--manifest", p.manifest, "--secret-file", secretFile, p.address, "--vendor-sign", p.sign)

	verify := []string{"delivery", "verify", saved, "--vendor-sign", p.sign, "--owner-ca", p.ownerCA}
	p.said(t, exitOK, verify...)
	p.said(t, exitOK, append(verify, "--secret", p.secret, "--vendor-ca", p.vendor, "--ek-ca", p.ek)...)
	p.said(t, exitFailed, append(verify, "--at", "2040-01-01T00:00:00Z")...) // the buyer's certificate has expired
	p.said(t, exitError, "delivery", "verify", saved, "--vendor-sign", p.sign)
	b, err := os.ReadFile(saved)
	if err != nil {
		t.Fatal(err)
	}
	write(t, saved, bytes.Replace(b, []byte(`"outcome": "accepted"`), []byte(`"outcome": "refused"`), 1))
	if said := p.said(t, exitFailed, verify...); !strings.Contains(said, "something in it was changed") {
		t.Errorf("over a changed file it says\n%s", said)
	}
	write(t, saved, b[:len(b)/2])
	p.said(t, exitError, verify...)
}

// The check works later too, for the owner alone.
func TestDeviceWithAnOwnerAnswersThatOwnerOnly(t *testing.T) {
	p := newParcel(t, "WX-0044", func(p *parcel, c *agent.Config) {
		var err error
		if c.OwnerCA, err = os.ReadFile(p.ownerCA); err != nil {
			t.Fatal(err)
		}
	})
	check := []string{"delivery", "check", "--manifest", p.manifest, "--secret", p.secret, p.address, "--vendor-sign", p.sign}
	if said := p.said(t, exitFailed, check...); !strings.Contains(said, "it has an owner already") {
		t.Errorf("to somebody else it says\n%s", said)
	}
	p.said(t, exitOK, append(check, "--owner", p.owner)...)
}

func TestDeviceThatCannotAttestIsRefused(t *testing.T) {
	p := newParcel(t, "WX-0045", func(_ *parcel, c *agent.Config) { c.Unattested = "boot incomplete" })
	said := p.said(t, exitFailed, "delivery", "check", "--manifest", p.manifest, "--secret", p.secret, p.address, "--vendor-sign", p.sign)
	if !strings.Contains(said, "UNATTESTED(boot incomplete)") {
		t.Errorf("it says\n%s", said)
	}
}

func TestDoorstepCheckSaysWhatIsMissing(t *testing.T) {
	p := newParcel(t, "WX-0043")
	check := func(args ...string) []string { return append([]string{"delivery", "check", p.address}, args...) }
	typo := strings.Replace(p.secret, p.secret[:1], map[bool]string{true: "3", false: "2"}[p.secret[0] == '2'], 1)
	for _, c := range []struct {
		code int
		want string
		args []string
	}{
		{exitUsage, "need --manifest", check("--secret", p.secret)},
		{exitUsage, "need --secret or --secret-file", check("--manifest", p.manifest)},
		{exitUsage, "mistyped", check("--manifest", p.manifest, "--secret", typo)},
		{exitUsage, "both there", check("--manifest", p.manifest, "--secret", p.secret, "--secret-file", "x")},
		{exitUsage, "--save needs --owner", check("--manifest", p.manifest, "--secret", p.secret, "--save", "x")},
		{exitUsage, "need ADDRESS", []string{"delivery", "check", "--manifest", p.manifest, "--secret", p.secret}},
		{exitError, "--manifest", check("--manifest", p.path("none"), "--secret", p.secret)},
		{exitError, "--vendor-sign", check("--manifest", p.manifest, "--secret", p.secret, "--vendor-sign", p.vendor)},
		{exitFailed, "manifest", check("--manifest", p.sign, "--secret", p.secret, "--vendor-sign", p.sign)},
	} {
		if said := p.said(t, c.code, c.args...); !strings.Contains(said, c.want) {
			t.Errorf("%q: it does not say %q:\n%s", c.args, c.want, said)
		}
	}
	nobody, err := deafAddress()
	if err != nil {
		t.Fatal(err)
	}
	if said := p.said(t, exitUnreachable, "delivery", "check", nobody, "--manifest", p.manifest, "--secret", p.secret, "--vendor-sign", p.sign); !strings.Contains(said, "UNREACHABLE") {
		t.Errorf("where nobody listens it says\n%s", said)
	}
}
