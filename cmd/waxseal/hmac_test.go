package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"waxseal/agent/enrollz"
	"waxseal/hw/tpm"
	"waxseal/hw/tpm/swtpm"
	"waxseal/hw/tpm/tpmtest"
	"waxseal/measure/wire"
)

// enroller lets a TPM prove its keys, as waxseald does.
type enroller struct{ *tpm.Device }

func (e enroller) CertifyByHMAC(ctx context.Context, c wire.HMACChallenge) (wire.HMACAnswer, error) {
	got, err := e.Device.CertifyByHMAC(ctx, tpm.Wrapped{Public: c.Public, Duplicate: c.Duplicate, Seed: c.Seed})
	if err != nil {
		err = wire.ErrInvalid
	}
	return wire.HMACAnswer{IAK: got.Public, Attest: got.Attest, Signature: got.Signature}, err
}

func (e enroller) Keys(ctx context.Context) (proof enrollz.Proof, err error) {
	cert, err := e.EKCertificate(ctx)
	if err != nil {
		return proof, err
	}
	proof.EK = cert.Raw
	if proof.IAK, err = e.Area(ctx, tpm.IAK); err != nil {
		return proof, err
	}
	if proof.IDevID, err = e.Area(ctx, tpm.IDevID); err != nil {
		return proof, err
	}
	proof.Attest, proof.Signature, err = e.Certify(ctx, tpm.IDevID, nil)
	return proof, err
}

func (e enroller) Sign(ctx context.Context, content []byte) ([]byte, error) {
	return e.SignContent(ctx, content)
}

// bareTPM is a TPM with an EK certificate of its maker, an IAK and an IDevID,
// and no certificates of these.
func bareTPM(t *testing.T, ca string) *swtpm.Process {
	t.Helper()
	if err := swtpm.Check(); err != nil {
		t.Skip(swtpm.ErrMissing)
	}
	state := t.TempDir()
	if err := swtpm.Manufacture(t.Context(), swtpm.Making{State: state, CA: ca, Name: "WX-0042"}); err != nil {
		t.Fatal(err)
	}
	p := tpmtest.Run(t, state)
	dev := tpmtest.Open(t, p)
	for _, k := range []tpm.Key{tpm.IAK, tpm.IDevID} {
		if err := dev.CreateKey(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// serveBare serves a router over that TPM that calls itself by a serial number.
func serveBare(t *testing.T, p *swtpm.Process, serial string, ownerCA []byte) (address string) {
	t.Helper()
	dev := tpmtest.Open(t, p)
	c := configOf(t, dev, serial, []record{{"policy/measure", "p"}})
	c.OwnerCA, c.Enroller = ownerCA, enroller{dev}
	return serveAgent(t, c)
}

// A router that left the factory with keys and without certificates is known by
// its EK. Two routers with one TPM, or one TPM that poses as two control cards,
// are found out (D-21, D-22).
func TestRouterWithoutCertificatesIsEnrolled(t *testing.T) {
	dir := t.TempDir()
	owner, makerDir := filepath.Join(dir, "owner"), filepath.Join(dir, "maker")
	l := bench{dir: dir}
	p := bareTPM(t, makerDir)
	l.waxseal(t, exitOK, "owner", "init", owner)
	ownerCA, err := os.ReadFile(filepath.Join(owner, "owner-ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tpmtest.Open(t, p).EKCertificate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ek, ca := filepath.Join(dir, "ek.pem"), filepath.Join(dir, "ek-ca.pem")
	write(t, ek, []byte(wire.ChainOf(cert).String()))
	write(t, ca, makerCA(t, makerDir))

	first := serveBare(t, p, "WX-0042", ownerCA)
	args := func(address, serial string) []string {
		return []string{"enroll", address, "--owner", owner, "--flow", "hmac", "--ek", ek, "--ek-ca", ca, "--serial", serial}
	}
	for range 2 {
		l.waxseal(t, exitOK, args(first, "WX-0042")...)
	}
	if said := l.waxseal(t, exitError, "attest", first, "--owner", owner, "--serial", "WX-0042"); !strings.Contains(said, "genuine") {
		t.Errorf("without a reference to judge by: %s", said)
	}

	second := serveBare(t, p, "WX-0043", ownerCA)
	fails(t, "enrolled under another serial number", args(second, "WX-0043")...)
	fails(t, "enrolled under another serial number", append(args(second, "WX-0043"), "--replace")...)

	other := bareTPM(t, makerDir) // a real TPM of the same maker, but not the known one
	third := serveBare(t, other, "WX-0042", ownerCA)
	fails(t, "does not hold the EK that is known", args(third, "WX-0042")...)
	for _, p := range []*swtpm.Process{p, other} {
		if n := tpmtest.Loaded(t, p); n != 0 {
			t.Errorf("%d objects and sessions are left in the TPM", n)
		}
	}
}

// fails runs the program, which must say why it fails.
func fails(t *testing.T, why string, args ...string) {
	t.Helper()
	var out, errs bytes.Buffer
	if code := run(t.Context(), args, strings.NewReader(""), &out, &errs); code != exitError || !strings.Contains(errs.String(), why) {
		t.Errorf("waxseal %v: exit code %d, want %d and %q\n%s%s", args, code, exitError, why, &out, &errs)
	}
}

// makerCA returns the CA certificates of the TPMs' maker.
func makerCA(t *testing.T, dir string) []byte {
	t.Helper()
	var all [][]byte
	for _, name := range []string{swtpm.IssuerFile, swtpm.RootFile} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, text)
	}
	return bytes.Join(all, nil)
}
