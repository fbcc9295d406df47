package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"waxseal/fleet/delivery"
	"waxseal/images"
	"waxseal/images/factory"
	"waxseal/images/vm"
	"waxseal/measure/evidence"
	"waxseal/measure/wire"
)

// A crate is a site whose device nobody owns yet: what was packed, and
// what the buyer has.
type crate struct {
	site
	manifest, secret string // files
}

// The order is that of a shipment: the factory records a golden boot, packs,
// and what happens on the way happens to copies.
func TestShipmentInQEMU(t *testing.T) {
	d := newDoorstep(t)
	d.golden(t)
	d.pack(t, "unit", "PO-7")
	t.Run("genuine, and what a buyer can get wrong", func(t *testing.T) { testGenuineShipment(t, d) })
	t.Run("same TPM with another bootloader", func(t *testing.T) {
		out := filepath.Join(shortTemp(t), "changed")
		if _, err := images.Tamper(t.Context(), d.clean, "bootloader", out); err != nil {
			t.Fatal(err)
		}
		r := d.check(t, d.boot(t, vm.Config{Dir: out}).Address, exitFailed, d.manifest, d.secret)
		r.demand(t, delivery.CheckBoot)
		if text := strings.Join(r.Reasons, "\n"); !strings.Contains(text, "changed bootloader/") {
			t.Errorf("the reasons do not name the bootloader:\n%s", text)
		}
	})
	t.Run("extra start", func(t *testing.T) {
		r := d.check(t, d.boot(t, vm.Config{Dir: d.clean}).Address, exitFailed, d.manifest, d.secret)
		r.demand(t, delivery.CheckResets)
	})
	t.Run("swapped TPM with the copied serial number", func(t *testing.T) {
		d.factory(t, "forger", labSerial, "other", "PO-8") // the maker's own factory gives no serial number twice
		r := d.check(t, d.boot(t, vm.Config{Dir: d.clean, Direct: true, State: d.path("other")}).Address, exitFailed, d.manifest, d.secret)
		r.demand(t, delivery.CheckEK, delivery.CheckEKCertificate, delivery.CheckIAK, delivery.CheckIDevID,
			delivery.CheckCertificates, delivery.CheckTLS, delivery.CheckCredential)
	})
}

func newDoorstep(t *testing.T) *crate {
	t.Helper()
	for _, tool := range []string{"qemu-system-x86_64", "swtpm", "mcopy", "mksquashfs"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: run scripts/setup", tool)
		}
	}
	kernel, err := images.KernelDir()
	if err != nil {
		t.Skip(err)
	}
	d := &crate{site: site{dir: shortTemp(t)}}
	d.clean = d.path("clean")
	agent, commands, err := images.BuildPrograms(t.Context(), "../..", d.path("programs"))
	if err != nil {
		t.Fatal(err)
	}
	spec := images.Spec{Board: "qemu-amd64", Kernel: kernel, Agent: agent, Userland: commands}
	if err := images.Build(t.Context(), spec, d.clean); err != nil {
		t.Fatal(err)
	}
	d.cli(t, exitOK, "owner", "init", d.path("owner"))
	d.predict(t, images.PredictOptions{Direct: true})
	d.factory(t, "vendor", labSerial, "unit", "PO-6")
	return d
}

// factory has a maker make a unit and pack it by the reference values that
// there are.
func (d *crate) factory(t *testing.T, maker, serial, unit, order string) (manifest, secret string) {
	t.Helper()
	manifest, secret = d.path("manifest-"+order), d.path("secret-"+order)
	d.cli(t, exitOK, "factory", "provision", "--tpm", d.path(unit+"/tpm"), "--ca", d.path(maker), "--serial", serial,
		"--reference", d.reference, "--order", order, "--seal-id", "TAPE-"+order, "--max-resets", "2",
		"--out", manifest, "--secret-file", secret)
	return manifest, secret
}

func (d *crate) pack(t *testing.T, unit, order string) {
	t.Helper()
	d.manifest, d.secret = d.factory(t, "vendor", labSerial, unit, order)
}

// golden records what the firmware measures, as a factory does with the first
// unit of a release, and predicts all else.
func (d *crate) golden(t *testing.T) {
	t.Helper()
	v := d.boot(t, vm.Config{Dir: d.clean})
	saved := d.path("golden.json")
	d.check(t, v.Address, exitOK, d.path("manifest-PO-6"), d.path("secret-PO-6"), "--save", saved)
	v.Stop()
	tr := d.transcript(t, saved)
	got, err := evidence.Verify(evidence.Evidence{
		Nonce: tr.Request.Nonce, Bank: tr.Request.Bank, PCRs: tr.Proof.PCRs, Quoted: tr.Proof.Quote.Attest,
		Signature: tr.Proof.Quote.Signature, Log: tr.Proof.Log, Received: tr.Received,
	}, evidence.Challenge{
		Nonce: tr.Request.Nonce, Bank: tr.Request.Bank, PCRs: tr.Request.PCRs, Issued: tr.Issued,
		Deadline: tr.Issued.Add(delivery.Timeout), UnsafeClock: true,
	}, evidence.Trust{Serial: labSerial, Public: tr.Identity.IAK, PublicAlone: true, Now: tr.Received})
	if err != nil {
		t.Fatal(err)
	}
	if err := images.Learn(d.clean, got.Firmware()); err != nil {
		t.Fatal(err)
	}
	d.predict(t, images.PredictOptions{Version: "test"})
}

func (d *crate) transcript(t *testing.T, file string) delivery.Transcript {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s, err := delivery.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return s.Transcript
}

// shown is a report as JSON.
type shown struct {
	Outcome string   `json:"outcome"`
	Reasons []string `json:"reasons"`
	Checks  []struct {
		Check delivery.Name  `json:"check"`
		State delivery.State `json:"state"`
		Text  string         `json:"text"`
	} `json:"checks"`
	Since *struct {
		Resets int `json:"resets"`
	} `json:"since_packing"`
	Boot *struct {
		Assurance string `json:"assurance"`
	} `json:"boot"`
}

// check runs the doorstep check with all that a buyer can have.
func (d *crate) check(t *testing.T, address string, code int, manifest, secret string, more ...string) shown {
	t.Helper()
	args := append([]string{
		"delivery", "check", "--manifest", manifest, "--secret-file", secret, "--vendor-sign", d.path("vendor/vendor-sign.pem"),
		"--vendor-ca", d.path("vendor/" + factory.CertFile), "--ek-ca", d.ekCA(t), "--owner", d.path("owner"), "-o", "json", address,
	}, more...)
	out := d.cli(t, code, args...)
	var r shown
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("report: %v\n%s", err, out)
	}
	return r
}

// ekCA is a file with the CA of the lab's TPM maker.
func (d *crate) ekCA(t *testing.T) string {
	t.Helper()
	var all []byte
	for _, name := range []string{"swtpm-localca-rootca-cert.pem", "issuercert.pem"} {
		b, err := os.ReadFile(d.path(filepath.Join("vendor", factory.EKDir, name)))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	path := d.path("ek-ca.pem")
	if err := os.WriteFile(path, all, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// demand demands that just these checks have failed.
func (r shown) demand(t *testing.T, names ...delivery.Name) {
	t.Helper()
	var bad []delivery.Name
	for _, c := range r.Checks {
		if c.State == delivery.Bad && !slices.Contains(bad, c.Check) {
			bad = append(bad, c.Check)
		}
	}
	if !slices.Equal(bad, names) {
		t.Errorf("failed are %v, want %v:\n%s", bad, names, strings.Join(r.Reasons, "\n"))
	}
	if want := map[bool]string{true: "accepted", false: "refused"}[len(names) == 0]; r.Outcome != want {
		t.Errorf("outcome is %s, want %s", r.Outcome, want)
	}
}

func testGenuineShipment(t *testing.T, d *crate) {
	v := d.boot(t, vm.Config{Dir: d.clean})
	saved := d.path("check.json")
	r := d.check(t, v.Address, exitOK, d.manifest, d.secret, "--save", saved)
	r.demand(t)
	if r.Since == nil || r.Since.Resets != 1 || r.Boot == nil || r.Boot.Assurance != "firmware" {
		t.Errorf("started %+v times since packing, boot %+v: want once, assurance firmware", r.Since, r.Boot)
	}
	verify := []string{"delivery", "verify", saved, "--vendor-sign", d.path("vendor/vendor-sign.pem"), "--owner-ca", d.path("owner/owner-ca.pem")}
	d.cli(t, exitOK, verify...)

	t.Run("wrong secret", func(t *testing.T) {
		d.check(t, v.Address, exitFailed, d.manifest, d.path("secret-PO-6")).demand(t, delivery.CheckSecret)
	})
	t.Run("manifest of another order", func(t *testing.T) {
		other, secret := d.factory(t, "vendor", "WX-0008", "third", "PO-9")
		d.check(t, v.Address, exitFailed, other, secret).demand(t, delivery.CheckSerial, delivery.CheckEK, delivery.CheckEKCertificate,
			delivery.CheckIAK, delivery.CheckIDevID, delivery.CheckCertificates, delivery.CheckTLS, delivery.CheckCredential)
	})
	t.Run("replayed answers", func(t *testing.T) {
		address := playBack(t, d.transcript(t, saved))
		d.check(t, address, exitFailed, d.manifest, d.secret).demand(t, delivery.CheckIDevID, delivery.CheckTLS,
			delivery.CheckCredential, delivery.CheckNonce, delivery.CheckCleared)
	})
	t.Run("flipped bit in the saved check", func(t *testing.T) {
		b, err := os.ReadFile(saved)
		if err != nil {
			t.Fatal(err)
		}
		at := bytes.Index(b, []byte(`"attest": "`)) + 40
		b[at] ^= 1
		if err := os.WriteFile(saved, b, 0o600); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if code := run(t.Context(), verify, strings.NewReader(""), &out, &out); code == exitOK {
			t.Errorf("a changed file is accepted:\n%s", &out)
		}
	})
}

// tape plays back what a device has said before.
type tape struct{ delivery.Transcript }

func (p tape) Identify(context.Context) (wire.Identity, error) { return p.Identity, nil }
func (p tape) Prove(context.Context, wire.ProofRequest) (wire.Proof, error) {
	return *p.Proof, nil
}

// playBack serves recorded answers, with a key that is in no TPM.
func playBack(t *testing.T, tr delivery.Transcript) (address string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	})))
	wire.RegisterDelivery(s, tape{tr})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve(l) }() // ends with the test
	t.Cleanup(s.Stop)
	return l.Addr().String()
}
