package main

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"waxseal/agent"
	"waxseal/hw/tpm"
	"waxseal/hw/tpm/tpmtest"
	"waxseal/images/factory"
	"waxseal/measure"
	"waxseal/measure/evidence"
	"waxseal/measure/wire"
)

// quoter quotes with the IAK of a TPM.
type quoter struct{ *tpm.Device }

func (q quoter) Quote(ctx context.Context, nonce []byte, bank measure.Alg, pcrs []measure.PCR) ([]byte, []byte, error) {
	return q.Device.Quote(ctx, tpm.IAK, nonce, bank, pcrs)
}

// serveTPM serves a router whose TPM has been through the factory.
func serveTPM(t *testing.T, ca *factory.CA, ownerCA []byte, boot []record) (address string) {
	t.Helper()
	const serial = "WX-0042"
	dev := tpmtest.Swtpm(t)
	receipt, err := factory.Provision(t.Context(), dev, ca, serial)
	if err != nil {
		t.Fatal(err)
	}
	c := configOf(t, dev, serial, boot)
	c.OwnerCA, c.IAKCert, c.IDevIDCert = ownerCA, wire.Chain{receipt.IAK.PEM()}, wire.Chain{receipt.IDevID.PEM()}
	return serveAgent(t, c)
}

// configOf measures a boot and returns the configuration of its agent, without
// certificates and without an owner.
func configOf(t *testing.T, dev *tpm.Device, serial string, boot []record) agent.Config {
	t.Helper()
	ctx := t.Context()
	iak, _, err := dev.Public(ctx, tpm.IAK)
	if err != nil {
		t.Fatal(err)
	}
	idevid, err := dev.Signer(ctx, tpm.IDevID)
	if err != nil {
		t.Fatal(err)
	}
	counters, err := dev.Counters(ctx)
	if err != nil {
		t.Fatal(err)
	}
	recorder, err := measure.NewRecorder(ctx, dev, memory{}, measure.Waxseal1.PCRs())
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
	return agent.Config{
		Card:   wire.Card{Role: wire.Active, Serial: serial, Slot: "0", Maker: "lab", Part: "qemu-amd64", ChassisSerial: serial},
		Quoter: quoter{dev}, Recorder: recorder, IAK: iak, IDevID: idevid,
		State: t.TempDir(), Log: slog.New(slog.DiscardHandler), Limits: agent.Limits{Stop: time.Second},
	}
}

func serveAgent(t *testing.T, c agent.Config) (address string) {
	t.Helper()
	a, err := agent.New(c)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = a.Serve(ctx, l) }() // ends with ctx
	t.Cleanup(func() { cancel(); <-done })
	return l.Addr().String()
}

func keep(t *testing.T, recorder *measure.Recorder, r record) {
	t.Helper()
	one, err := measure.Waxseal1.Of(r.name, []byte(r.content))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := recorder.Record(t.Context(), one); err != nil {
		t.Fatal(err)
	}
}

func TestRouterWithTPMIsEnrolledAndFoundGood(t *testing.T) {
	dir := t.TempDir()
	owner, evidence := filepath.Join(dir, "owner"), filepath.Join(dir, "e.json")
	l := bench{dir: dir, reference: filepath.Join(dir, "ref.json"), trust: filepath.Join(owner, "owner-ca.pem")}
	ca, err := factory.NewCA(filepath.Join(dir, "vendor"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	l.waxseal(t, exitOK, "owner", "init", owner)
	ownerCA, err := os.ReadFile(l.trust)
	if err != nil {
		t.Fatal(err)
	}
	boot := []record{{"policy/measure", "p"}, {"rootfs/squashfs/root", "r"}}
	values, err := referenceOf(boot)
	if err != nil {
		t.Fatal(err)
	}
	text, err := values.Encode()
	if err != nil {
		t.Fatal(err)
	}
	write(t, l.reference, text)
	address := serveTPM(t, ca, ownerCA, boot)
	l.waxseal(t, exitOK, "enroll", address, "--owner", owner, "--vendor-ca", filepath.Join(dir, "vendor", factory.CertFile), "--serial", "WX-0042")
	l.waxseal(t, exitOK, "attest", address, "--owner", owner, "--reference", l.reference, "--save", evidence)
	if code, said := l.verify(t, evidence); code != exitOK {
		t.Fatalf("exit code %d: %s", code, said)
	}
	write(t, l.reference, []byte(string(text[:len(text)-1])+"x"))
	if code, said := l.verify(t, evidence); code != exitError {
		t.Fatalf("with a bad reference file: exit code %d: %s", code, said)
	}
}
