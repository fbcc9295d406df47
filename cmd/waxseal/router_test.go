package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"waxseal/agent"
	"waxseal/measure"
	"waxseal/measure/eat/eattest"
	"waxseal/measure/eventlog"
	"waxseal/measure/evidence"
	"waxseal/measure/evidence/evidencetest"
	"waxseal/measure/reference"
	"waxseal/measure/wire"
)

// router is the agent on loopback, over a TPM in software.
type router struct {
	address string
	serial  string
	stop    func()
}

// routerConfig says what the router is and what it has booted.
type routerConfig struct {
	serial     string
	vendor     evidencetest.Authority
	ownerCA    []byte // PEM; empty: the router has no owner
	boot       []record
	unattested string
	noTPM      bool
	state      string              // directory of the enrollment
	change     func(*agent.Config) // nil: nothing is
	tpm        *chip               // the router's TPM, unless noTPM
}

// record is one line of a boot file: the name, and the content behind it.
type record struct{ name, content string }

// parseBoot reads lines of "name content"; content is a word or a Go string.
func parseBoot(text string) ([]record, error) {
	var boot []record
	for line := range strings.Lines(text) {
		name, content, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue
		}
		content = strings.TrimSpace(content)
		if strings.HasPrefix(content, `"`) {
			var err error
			if content, err = strconv.Unquote(content); err != nil {
				return nil, fmt.Errorf("%s: %w", line, err)
			}
		}
		boot = append(boot, record{name, content})
	}
	return boot, nil
}

const handoff = measure.Handoff + "switch_root"

// referenceOf returns the reference values of a boot.
func referenceOf(boot []record) (reference.Values, error) {
	v := reference.Values{
		Format: reference.Format, Product: "qemu-amd64", Version: "1.0.0", Profile: "waxseal-1",
		Assurance: "self", Handoff: handoff,
	}
	for _, r := range boot {
		rec, err := measure.Waxseal1.Of(r.name, []byte(r.content))
		if err != nil {
			return v, err
		}
		item := reference.Item{PCR: rec.PCR, Name: rec.Name, SHA256: []reference.Hex{rec.Content[:]}}
		if strings.HasPrefix(r.name, "config/") {
			item.Text = r.content
		}
		if name, ok := strings.CutPrefix(r.name, "rootfs/"); ok {
			item.Contains = []string{"agent/" + name}
		}
		v.Items = append(v.Items, item)
	}
	return v, v.Check()
}

// chip is a TPM in software: PCRs, and the two keys of a router.
type chip struct {
	mu     sync.Mutex // guards what follows
	router *evidencetest.Router
	idevid *ecdsa.PrivateKey
}

var banks = []measure.Alg{measure.SHA256, measure.SHA384}

func (c *chip) Banks() []measure.Alg { return banks }

func (c *chip) Extend(_ context.Context, pcr measure.PCR, digests []measure.Digest) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.router.Extend(pcr, digests)
}

func (c *chip) ReadPCR(_ context.Context, pcr measure.PCR) ([]measure.Digest, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var values []measure.Digest
	for _, bank := range banks {
		values = append(values, measure.Digest{Alg: bank, Sum: c.router.PCR(bank, pcr)})
	}
	return values, nil
}

func (c *chip) ReadPCRs(_ context.Context, bank measure.Alg, pcrs []measure.PCR) (map[measure.PCR][]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	values := map[measure.PCR][]byte{}
	for _, pcr := range pcrs {
		values[pcr] = c.router.PCR(bank, pcr)
	}
	return values, nil
}

func (c *chip) Quote(_ context.Context, nonce []byte, bank measure.Alg, pcrs []measure.PCR) ([]byte, []byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	quoted := c.router.Attest(evidence.Challenge{Nonce: nonce, Bank: bank, PCRs: pcrs}).Encode()
	signature, err := evidencetest.Sign(c.router.AK, quoted)
	return quoted, signature, err
}

// SignData is that of a restricted key.
func (c *chip) SignData(_ context.Context, data []byte) ([]byte, error) {
	return eattest.Sign(c.router.AK)(data)
}

// memory is a journal that forgets.
type memory struct{}

func (memory) Begin([]measure.PCRValue) error { return nil }
func (memory) Append(measure.Event) error     { return nil }

// kept are the texts that the router shows.
type kept map[[sha256.Size]byte][]byte

func (k kept) Content(_ context.Context, sum [sha256.Size]byte) ([]byte, error) {
	b, ok := k[sum]
	if !ok {
		return nil, fmt.Errorf("%x: %w", sum, wire.ErrNotFound)
	}
	return b, nil
}

// reboot is a TPM reset (TPM 2.0 Part 1, section 12.2.4).
func (c *chip) reboot() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.router.Reset(banks...)
	c.router.Counters.Reset++
}

func newChip(serial string) (*chip, error) {
	r, err := evidencetest.New(serial, elliptic.P384())
	if err != nil {
		return nil, err
	}
	idevid, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	return &chip{router: r, idevid: idevid}, err
}

// measureBoot records a boot from its start to its hand-over.
func (c *chip) measureBoot(ctx context.Context, serial string, boot []record) (*measure.Recorder, kept, error) {
	rec, err := measure.NewRecorder(ctx, c, memory{}, measure.Waxseal1.PCRs())
	if err != nil {
		return nil, nil, err
	}
	start := evidence.StartName(c.router.Counters.Reset, c.router.Counters.Restart)
	texts := kept{}
	for _, r := range append([]record{{start, start}, {"identity/serial", serial}}, boot...) {
		one, err := measure.Waxseal1.Of(r.name, []byte(r.content))
		if err != nil {
			return nil, nil, err
		}
		if strings.HasPrefix(r.name, "config/") {
			texts[one.Content] = []byte(r.content)
		}
		if _, err := rec.Record(ctx, one); err != nil {
			return nil, nil, err
		}
	}
	for _, one := range measure.Waxseal1.Cap(handoff) {
		if _, err := rec.Record(ctx, one); err != nil {
			return nil, nil, err
		}
	}
	return rec, texts, nil
}

// newVendor returns a maker's CA.
func newVendor() (evidencetest.Authority, error) { return evidencetest.NewAuthority("vendor", nil) }

// makerCertificate is what a factory issues for a key of a router.
func makerCertificate(vendor evidencetest.Authority, serial string, key any) (wire.Chain, error) {
	cert, err := vendor.Certify(&x509.Certificate{
		Subject:   pkix.Name{CommonName: "router", SerialNumber: serial},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}, key)
	if err != nil {
		return nil, err
	}
	return wire.ChainOf(cert), nil
}

// startRouter serves the agent until it is stopped.
func startRouter(c routerConfig) (*router, error) {
	ctx, cancel := context.WithCancel(context.Background())
	config := agent.Config{
		Card:    wire.Card{Role: wire.Active, Serial: c.serial, Slot: "0", Maker: "lab", Part: "qemu-amd64", ChassisSerial: c.serial},
		OwnerCA: c.ownerCA, State: c.state, Unattested: c.unattested,
		Limits: agent.Limits{Stop: time.Second, DialRate: 1000, AttestRate: 1000},
		Log:    slog.New(slog.DiscardHandler),
	}
	if err := c.equip(ctx, &config); err != nil {
		cancel()
		return nil, err
	}
	if c.change != nil {
		c.change(&config)
	}
	a, err := agent.New(config)
	if err != nil {
		cancel()
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		cancel()
		return nil, err
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = a.Serve(ctx, l) }() // ends with ctx; the challenges say what went wrong
	return &router{l.Addr().String(), c.serial, func() { cancel(); <-done }}, nil
}

// equip gives the router a TPM, and lets it boot.
func (c routerConfig) equip(ctx context.Context, config *agent.Config) error {
	if c.noTPM {
		return nil
	}
	tpm := c.tpm
	recorder, texts, err := tpm.measureBoot(ctx, c.serial, c.boot)
	if err != nil {
		return err
	}
	config.Quoter, config.Recorder, config.Kept, config.Firmware = tpm, recorder, texts, eventlog.Log{}
	config.Tokens = tpm
	config.IAK, config.IDevID = &tpm.router.AK.PublicKey, tpm.idevid
	if config.IAKCert, err = makerCertificate(c.vendor, c.serial, tpm.router.AK.Public()); err != nil {
		return err
	}
	config.IDevIDCert, err = makerCertificate(c.vendor, c.serial, tpm.idevid.Public())
	return err
}

func TestBootFileIsRead(t *testing.T) {
	boot, err := parseBoot("a/b word\n\nc/d \"two\\nlines\"\n")
	if err != nil || len(boot) != 2 || boot[1] != (record{"c/d", "two\nlines"}) {
		t.Fatalf("got %v, %v", boot, err)
	}
}
