package evidence_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"maps"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"waxseal/measure"
	"waxseal/measure/eventlog"
	"waxseal/measure/evidence"
	"waxseal/measure/evidence/evidencetest"
)

var asked = []measure.PCR{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15}

const config = "hostname edge-1\nrouter bgp 64512\n"

// must stops the test at an error that has nothing to do with what it tests.
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// firmware lets the firmware measure: a version, text that the digest covers,
// a boot loader, separators, a kernel.
func firmware(t testing.TB, r *evidencetest.Router) {
	t.Helper()
	ok(t, r.Firmware(0, eventlog.EVSCRTMVersion, []byte("2022.11"), []byte("2022.11")))
	ok(t, r.Firmware(4, eventlog.EVEFIAction, []byte("Calling EFI Application"), []byte("Calling EFI Application")))
	ok(t, r.Separators())
	ok(t, r.Firmware(4, eventlog.EVEFIBootServicesApp, []byte("PE of the loader"), []byte("device path")))
	ok(t, r.Firmware(11, eventlog.EVIPL, []byte("kernel"), []byte(".linux")))
}

// measured lets the agent measure a boot up to its cap.
func measured(t testing.TB, r *evidencetest.Router) {
	t.Helper()
	ok(t, r.Start())
	ok(t, r.Measure("policy/measure", []byte("policy")))
	ok(t, r.Measure("bootloader/mtd/u-boot", []byte("u-boot")))
	ok(t, r.Measure("config/frr/frr.conf?c=frr1", []byte(config)))
	r.Keep([]byte(config))
	ok(t, r.Cap("phase/handoff/switch_root"))
}

// bundle is one whole exchange.
type bundle struct {
	router    *evidencetest.Router
	evidence  evidence.Evidence
	challenge evidence.Challenge
	trust     evidence.Trust
}

func booted(t testing.TB, curve elliptic.Curve) *evidencetest.Router {
	t.Helper()
	r := must(evidencetest.New("WX-0001", curve))(t)
	firmware(t, r)
	measured(t, r)
	return r
}

func ask(t testing.TB, r *evidencetest.Router, bank measure.Alg) bundle {
	t.Helper()
	ch := must(evidencetest.Challenge(bank, asked...))(t)
	b := bundle{r, must(r.Answer(ch))(t), ch, r.Trust()}
	b.evidence.PCRs = maps.Clone(b.evidence.PCRs)
	return b
}

func (b bundle) verify() (evidence.Verified, error) {
	return evidence.Verify(b.evidence, b.challenge, b.trust)
}

// attest replaces the quote by one that change has changed, signed as it is.
func (b *bundle) attest(t testing.TB, change func(*evidencetest.Attest)) {
	t.Helper()
	a := b.router.Attest(b.challenge)
	change(&a)
	b.evidence.Quoted = a.Encode()
	b.evidence.Signature = must(evidencetest.Sign(b.router.AK, b.evidence.Quoted))(t)
}

func TestGenuineEvidenceIsVerified(t *testing.T) {
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		for _, bank := range []measure.Alg{measure.SHA256, measure.SHA384} { // D-13: the scheme's hash, whatever the bank
			r := booted(t, curve)
			v, err := ask(t, r, bank).verify()
			if err != nil {
				t.Fatalf("%s, %v: %v", curve.Params().Name, bank, err)
			}
			if v.Serial() != "WX-0001" || v.Bank() != bank || v.Counters() != r.Counters || len(v.Records()) != 8 || len(v.Firmware()) != 12 {
				t.Errorf("verified: serial %s, bank %v, counters %+v, %d records, %d firmware events", v.Serial(), v.Bank(), v.Counters(), len(v.Records()), len(v.Firmware()))
			}
			if got, _ := v.Content(sha256.Sum256([]byte(config))); string(got) != config {
				t.Errorf("content = %q", got)
			}
		}
	}
}

// refusal is evidence that must be refused for one reason. The number is the
// one of the list of what a verifier must refuse.
type refusal struct {
	name  string
	spoil func(t *testing.T, b *bundle)
	want  error
}

func TestVerifyRefuses(t *testing.T) {
	router := booted(t, elliptic.P256())
	for _, tests := range [][]refusal{quoteRefusals, nonceRefusals, counterRefusals, contentRefusals} {
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				b := ask(t, router, measure.SHA256)
				test.spoil(t, &b)
				if _, err := b.verify(); !errors.Is(err, test.want) {
					t.Errorf("Verify: %v, want: %v", err, test.want)
				}
			})
		}
	}
}

func attested(change func(*evidencetest.Attest)) func(*testing.T, *bundle) {
	return func(t *testing.T, b *bundle) { b.attest(t, change) }
}

var quoteRefusals = []refusal{
	{"D-01 magic", attested(func(a *evidencetest.Attest) { a.Magic = 0xff544346 }), evidence.ErrAttest},
	{"D-02 certify instead of quote", attested(func(a *evidencetest.Attest) { a.Type = 0x8017 }), evidence.ErrAttest},
	{"D-03 no signature", func(t *testing.T, b *bundle) { b.evidence.Signature = nil }, evidence.ErrScheme},
	{"D-03 TPM_ALG_NULL", func(t *testing.T, b *bundle) { b.evidence.Signature = []byte{0, 0x10} }, evidence.ErrScheme},
	{"D-03 zero numbers", func(t *testing.T, b *bundle) {
		b.evidence.Signature = []byte{0, 0x18, 0, 0x0b, 0, 1, 0, 0, 1, 0}
	}, evidence.ErrSignature},
	{"D-03 empty numbers", func(t *testing.T, b *bundle) {
		b.evidence.Signature = []byte{0, 0x18, 0, 0x0b, 0, 0, 0, 0}
	}, evidence.ErrSignature},
	{"D-04 signed over SHA-384 by a P-256 key", func(t *testing.T, b *bundle) {
		b.evidence.Signature = must(evidencetest.SignAs(b.router.AK, measure.SHA384, b.evidence.Quoted))(t)
	}, evidence.ErrScheme},
	{"D-05 trailing byte in the quote", attested(func(a *evidencetest.Attest) { a.Trailing = []byte{0} }), evidence.ErrAttest},
	{"D-05 trailing byte in the signature", func(t *testing.T, b *bundle) {
		b.evidence.Signature = append(b.evidence.Signature, 0)
	}, evidence.ErrSignature},
	{"D-05 TPM2B_ATTEST", func(t *testing.T, b *bundle) {
		n := len(b.evidence.Quoted)
		b.evidence.Quoted = append([]byte{byte(n >> 8), byte(n)}, b.evidence.Quoted...)
	}, evidence.ErrAttest},
	{"D-05 ASN.1 signature", func(t *testing.T, b *bundle) {
		sum := sha256.Sum256(b.evidence.Quoted)
		b.evidence.Signature = must(ecdsa.SignASN1(rand.Reader, b.router.AK, sum[:]))(t)
	}, evidence.ErrScheme},
	{"D-05 number longer than the curve", func(t *testing.T, b *bundle) {
		s := b.evidence.Signature
		s = slices.Concat(s[:4], []byte{0, 33, 0}, s[6:])
		b.evidence.Signature = s
	}, evidence.ErrSignature},
	{"D-05 quote cut short", func(t *testing.T, b *bundle) {
		b.evidence.Quoted = b.evidence.Quoted[:len(b.evidence.Quoted)-1]
		b.evidence.Signature = must(evidencetest.Sign(b.router.AK, b.evidence.Quoted))(t)
	}, evidence.ErrAttest},
	{"D-05 safe is neither yes nor no", func(t *testing.T, b *bundle) {
		at := 6 + 2 + 34 + 2 + 32 + 8 + 4 + 4
		b.evidence.Quoted[at] = 2
		b.evidence.Signature = must(evidencetest.Sign(b.router.AK, b.evidence.Quoted))(t)
	}, evidence.ErrAttest},
	{"D-05 1 MiB of quote", func(t *testing.T, b *bundle) { b.evidence.Quoted = make([]byte, 1<<20) }, evidence.ErrAttest},
	{"D-06 subset", attested(func(a *evidencetest.Attest) {
		a.Selections = []evidencetest.Selection{evidencetest.Select(measure.SHA256, asked[1:]...)}
	}), evidence.ErrSelection},
	{"D-06 superset", attested(func(a *evidencetest.Attest) {
		a.Selections = []evidencetest.Selection{evidencetest.Select(measure.SHA256, append([]measure.PCR{10}, asked...)...)}
	}), evidence.ErrSelection},
	{"D-06 map of four bytes", attested(func(a *evidencetest.Attest) {
		a.Selections[0].Bits = append(a.Selections[0].Bits, 0)
	}), evidence.ErrSelection},
	{"D-07 value of a PCR that is not quoted", func(t *testing.T, b *bundle) {
		b.evidence.PCRs[10] = make([]byte, 32)
	}, evidence.ErrValues},
	{"D-07 empty value of a PCR that is not quoted", func(t *testing.T, b *bundle) { b.evidence.PCRs[10] = nil }, evidence.ErrValues},
	{"D-07 value of a PCR that does not exist", func(t *testing.T, b *bundle) { b.evidence.PCRs[200] = make([]byte, 32) }, evidence.ErrValues},
	{"D-07 one value too few", func(t *testing.T, b *bundle) { delete(b.evidence.PCRs, 15) }, evidence.ErrValues},
	{"D-07 another PCR's value", func(t *testing.T, b *bundle) {
		delete(b.evidence.PCRs, 15)
		b.evidence.PCRs[10] = make([]byte, 32)
	}, evidence.ErrValues},
	{"D-07 value changed", func(t *testing.T, b *bundle) {
		b.evidence.PCRs[12] = slices.Clone(b.evidence.PCRs[13])
	}, evidence.ErrValues},
	{"D-07 bytes moved between two values", func(t *testing.T, b *bundle) {
		v := slices.Concat(b.evidence.PCRs[12], b.evidence.PCRs[13])
		b.evidence.PCRs[12], b.evidence.PCRs[13] = v[:31], v[31:]
	}, evidence.ErrValues},
	{"D-08 empty selection", attested(func(a *evidencetest.Attest) { a.Selections = nil }), evidence.ErrSelection},
	{"D-08 selection without a PCR", attested(func(a *evidencetest.Attest) {
		a.Selections = []evidencetest.Selection{evidencetest.Select(measure.SHA256)}
	}), evidence.ErrSelection},
	{"D-09 two selections", attested(func(a *evidencetest.Attest) {
		a.Selections = append(a.Selections, evidencetest.Select(measure.SHA384, asked...))
	}), evidence.ErrSelection},
	{"D-10 quote of another bank", attested(func(a *evidencetest.Attest) { a.Selections[0].Bank = measure.SHA384 }), evidence.ErrBank},
	{"D-10 evidence of another bank", func(t *testing.T, b *bundle) { b.evidence.Bank = measure.SHA384 }, evidence.ErrBank},
	{"D-11 SHA-1 asked", func(t *testing.T, b *bundle) { b.challenge.Bank = measure.SHA1 }, evidence.ErrChallenge},
	{"D-11 SHA-1 quoted", attested(func(a *evidencetest.Attest) { a.Selections[0].Bank = measure.SHA1 }), evidence.ErrBank},
	{"D-13 digest with the bank's hash, not the scheme's", attested(func(a *evidencetest.Attest) {
		a.PCRDigest = measure.Hash(measure.SHA384, nil).Sum
	}), evidence.ErrValues},
	{"D-37 challenge without a PCR", func(t *testing.T, b *bundle) { b.challenge.PCRs = nil }, evidence.ErrChallenge},
	{"D-37 challenge with a PCR twice", func(t *testing.T, b *bundle) { b.challenge.PCRs = []measure.PCR{12, 12} }, evidence.ErrChallenge},
	{"D-37 challenge with PCR 24", func(t *testing.T, b *bundle) { b.challenge.PCRs = []measure.PCR{24} }, evidence.ErrChallenge},
	{"D-37 challenge with a resettable PCR", func(t *testing.T, b *bundle) { b.challenge.PCRs = []measure.PCR{16} }, evidence.ErrChallenge},
}

var nonceRefusals = []refusal{
	{"D-14 nonce of another challenge", func(t *testing.T, b *bundle) {
		b.challenge.Nonce = must(evidencetest.Challenge(measure.SHA256, 0))(t).Nonce
	}, evidence.ErrNonce},
	{"D-14 quote of another nonce under the asked one", attested(func(a *evidencetest.Attest) {
		a.ExtraData = []byte("another nonce of the same kind..")
	}), evidence.ErrNonce},
	{"D-14 empty nonce", attested(func(a *evidencetest.Attest) { a.ExtraData = nil }), evidence.ErrNonce},
	{"D-14 prefix of the nonce", attested(func(a *evidencetest.Attest) { a.ExtraData = a.ExtraData[:16] }), evidence.ErrNonce},
	{"D-14 padded nonce", attested(func(a *evidencetest.Attest) {
		a.ExtraData = append(slices.Clone(a.ExtraData), 0)
	}), evidence.ErrNonce},
	{"D-14 evidence names another nonce", func(t *testing.T, b *bundle) {
		b.evidence.Nonce = b.evidence.Nonce[1:]
	}, evidence.ErrNonce},
	{"D-14 challenge with an empty nonce", func(t *testing.T, b *bundle) {
		b.challenge.Nonce, b.evidence.Nonce = nil, nil
		b.attest(t, func(*evidencetest.Attest) {})
	}, evidence.ErrChallenge},
	{"D-14 challenge with a short nonce", func(t *testing.T, b *bundle) {
		b.challenge.Nonce = b.challenge.Nonce[:15]
		b.evidence.Nonce = b.challenge.Nonce
		b.attest(t, func(*evidencetest.Attest) {})
	}, evidence.ErrChallenge},
	{"D-16 after the deadline", func(t *testing.T, b *bundle) {
		b.evidence.Received = b.challenge.Deadline.Add(1)
	}, evidence.ErrLate},
	{"D-16 before the challenge", func(t *testing.T, b *bundle) {
		b.evidence.Received = b.challenge.Issued.Add(-1)
	}, evidence.ErrLate},
	{"D-16 no time of receipt", func(t *testing.T, b *bundle) { b.evidence.Received = time.Time{} }, evidence.ErrLate},
	{"D-16 challenge without a deadline", func(t *testing.T, b *bundle) { b.challenge.Deadline = time.Time{} }, evidence.ErrChallenge},
}

func since(change func(*evidence.Counters)) func(*testing.T, *bundle) {
	return func(t *testing.T, b *bundle) {
		p := b.router.Counters
		change(&p)
		b.challenge.Previous = &p
	}
}

var counterRefusals = []refusal{
	{"D-17 resetCount of the quote is not the log's", attested(func(a *evidencetest.Attest) { a.Counters.Reset++ }), evidence.ErrStart},
	{"D-17 restartCount of the quote is not the log's", attested(func(a *evidencetest.Attest) { a.Counters.Restart++ }), evidence.ErrStart},
	{"D-17 safe = 0", attested(func(a *evidencetest.Attest) { a.Counters.Safe = false }), evidence.ErrCounters},
	{"D-17 resetCount went back", since(func(c *evidence.Counters) { c.Reset++ }), evidence.ErrCounters},
	{"D-17 restartCount went back", since(func(c *evidence.Counters) { c.Restart++ }), evidence.ErrCounters},
	{"D-17 clock went back", since(func(c *evidence.Counters) { c.Clock++ }), evidence.ErrCounters},
	{"D-17 TPM firmware changed", since(func(c *evidence.Counters) { c.FirmwareVersion++ }), evidence.ErrCounters},
}

var contentRefusals = []refusal{
	{"D-33 content under another digest", func(t *testing.T, b *bundle) {
		name := strings.Repeat("00", 32)
		b.evidence.Contents = map[string][]byte{name: []byte("x")}
	}, evidence.ErrContents},
	{"D-33 content under a digest in capitals", func(t *testing.T, b *bundle) {
		spoilt := map[string][]byte{}
		for name, content := range b.evidence.Contents {
			spoilt[strings.ToUpper(name)] = content
		}
		b.evidence.Contents = spoilt
	}, evidence.ErrContents},
}

func TestCountersMayGoOn(t *testing.T) {
	router := booted(t, elliptic.P256())
	for name, change := range map[string]func(*evidence.Counters){
		"same":                      func(*evidence.Counters) {},
		"earlier in this boot":      func(c *evidence.Counters) { c.Clock -= 1000 },
		"a boot before":             func(c *evidence.Counters) { c.Reset--; c.Restart = 9 },
		"a boot before, clock back": func(c *evidence.Counters) { c.Reset--; c.Clock += 1000 },
	} {
		b := ask(t, router, measure.SHA256)
		since(change)(t, &b)
		if _, err := b.verify(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUnsafeClockIsTheCallersChoice(t *testing.T) {
	b := ask(t, booted(t, elliptic.P256()), measure.SHA256)
	b.attest(t, func(a *evidencetest.Attest) { a.Counters.Safe = false })
	b.challenge.UnsafeClock = true
	if v, err := b.verify(); err != nil || v.Counters().Safe {
		t.Errorf("safe = %v, %v", v.Counters().Safe, err)
	}
}

func TestUpdateRecordExplainsNewFirmwareOfTPM(t *testing.T) {
	r := booted(t, elliptic.P256())
	ok(t, r.Measure(evidence.FirmwareUpdateName(r.Counters.FirmwareVersion), []byte("update")))
	b := ask(t, r, measure.SHA256)
	since(func(c *evidence.Counters) { c.FirmwareVersion-- })(t, &b)
	if _, err := b.verify(); err != nil {
		t.Error(err)
	}
}

// certified is a refusal that changes certificates. Its owner can sign.
func TestVerifyRefusesCertificates(t *testing.T) {
	router := booted(t, elliptic.P256())
	stranger := must(evidencetest.NewAuthority("stranger", nil))(t)
	intermediate := must(evidencetest.NewAuthority("intermediate", &router.Owner))(t)
	weak := must(rsa.GenerateKey(rand.Reader, 1024))(t)
	p224 := must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))(t)
	other := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	leaf := func(t *testing.T, ca evidencetest.Authority, public any, change func(*x509.Certificate)) []string {
		template := evidencetest.Leaf(router.Serial)
		if change != nil {
			change(template)
		}
		return evidencetest.PEM(must(ca.Certify(template, public))(t))
	}
	oiak := func(change func(*x509.Certificate)) func(*testing.T, *bundle) {
		return func(t *testing.T, b *bundle) {
			b.evidence.Certificates.OIAK = leaf(t, router.Owner, router.AK.Public(), change)
		}
	}
	for _, test := range []refusal{
		{"D-20 quote by another key than the certified one", func(t *testing.T, b *bundle) {
			b.evidence.Signature = must(evidencetest.Sign(other, b.evidence.Quoted))(t)
		}, evidence.ErrSignature},
		{"D-20 oIAK and IAK are different keys", func(t *testing.T, b *bundle) {
			b.evidence.Certificates.IAK = leaf(t, router.Owner, other.Public(), nil)
		}, evidence.ErrKey},
		{"D-20 attestation key serves TLS", func(t *testing.T, b *bundle) {
			b.evidence.Certificates.TLS = leaf(t, router.Owner, router.AK.Public(), nil)
		}, evidence.ErrKey},
		{"no certificate of an attestation key", func(t *testing.T, b *bundle) { b.evidence.Certificates.OIAK = nil }, evidence.ErrCertificate},
		{"D-23 another serial than expected", func(t *testing.T, b *bundle) { b.trust.Serial = "WX-0002" }, evidence.ErrSerial},
		{"D-23 card reports another serial", func(t *testing.T, b *bundle) { b.evidence.Card.Serial = "WX-0002" }, evidence.ErrSerial},
		{"D-23 chassis reports another serial", func(t *testing.T, b *bundle) {
			b.evidence.Card = evidence.Card{ChassisSerial: "WX-0002"}
		}, evidence.ErrSerial},
		{"D-24 relay: quote of one router over the TLS of another", func(t *testing.T, b *bundle) {
			b.evidence.Certificates.TLS = leaf(t, router.Owner, other.Public(), func(c *x509.Certificate) { c.Subject.SerialNumber = "WX-0002" })
		}, evidence.ErrSerial},
		{"D-24 relay: TLS of the expected router, quote of another", func(t *testing.T, b *bundle) {
			b.evidence.Card = evidence.Card{}
			b.evidence.Certificates.OIAK = leaf(t, router.Owner, router.AK.Public(), func(c *x509.Certificate) { c.Subject.SerialNumber = "WX-0002" })
		}, evidence.ErrSerial},
		{"D-24 relay where no serial is expected", func(t *testing.T, b *bundle) {
			b.evidence.Card, b.trust.Serial = evidence.Card{}, ""
			b.evidence.Certificates.OIAK = leaf(t, router.Owner, router.AK.Public(), func(c *x509.Certificate) { c.Subject.SerialNumber = "WX-0002" })
		}, evidence.ErrSerial},
		{"D-23 IDevID of another serial", func(t *testing.T, b *bundle) {
			b.evidence.Certificates.IDevID = leaf(t, router.Owner, other.Public(), func(c *x509.Certificate) { c.Subject.SerialNumber = "WX-0002" })
		}, evidence.ErrSerial},
		{"D-23 IAK and IDevID with other subjects", func(t *testing.T, b *bundle) {
			b.evidence.Certificates.IAK = leaf(t, router.Owner, router.AK.Public(), nil)
			b.evidence.Certificates.IDevID = leaf(t, router.Owner, other.Public(), func(c *x509.Certificate) { c.Subject.CommonName = "another" })
		}, evidence.ErrSerial},
		{"D-23 no serial", oiak(func(c *x509.Certificate) { c.Subject.SerialNumber = "" }), evidence.ErrSerial},
		{"D-23 two serials", oiak(func(c *x509.Certificate) {
			c.Subject.ExtraNames = []pkix.AttributeTypeAndValue{
				{Type: asn1.ObjectIdentifier{2, 5, 4, 5}, Value: router.Serial}, {Type: asn1.ObjectIdentifier{2, 5, 4, 5}, Value: router.Serial}}
		}), evidence.ErrSerial},
		{"D-23 serial with a bidirectional mark", oiak(func(c *x509.Certificate) { c.Subject.SerialNumber = "WX-\u202e1000" }), evidence.ErrSerial},
		{"D-23 issuer that nobody trusts", func(t *testing.T, b *bundle) {
			b.evidence.Certificates.OIAK = leaf(t, stranger, router.AK.Public(), nil)
		}, evidence.ErrChain},
		{"D-23 issuer with a trusted name", func(t *testing.T, b *bundle) {
			impostor := must(evidencetest.NewAuthority("owner", nil))(t)
			b.evidence.Certificates.OIAK = leaf(t, impostor, router.AK.Public(), nil)
		}, evidence.ErrChain},
		{"D-23 stranger's certificate for TLS", func(t *testing.T, b *bundle) {
			b.evidence.Certificates.TLS = leaf(t, stranger, other.Public(), nil)
		}, evidence.ErrChain},
		{"D-23 wrong use: code signing", oiak(func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
		}), evidence.ErrCertificate},
		{"D-23 wrong use: certificate signing", oiak(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign }), evidence.ErrCertificate},
		{"D-23 wrong use of the TLS certificate", func(t *testing.T, b *bundle) {
			b.evidence.Certificates.TLS = leaf(t, router.Owner, other.Public(), func(c *x509.Certificate) {
				c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
			})
		}, evidence.ErrCertificate},
		{"D-23 an authority as attestation key", oiak(func(c *x509.Certificate) {
			c.IsCA, c.BasicConstraintsValid = true, true
		}), evidence.ErrCertificate},
		{"D-23 expired", oiak(func(c *x509.Certificate) { c.NotAfter = evidencetest.Noon.Add(-1 * time.Second) }), evidence.ErrExpired},
		{"D-23 not yet valid", oiak(func(c *x509.Certificate) { c.NotBefore = evidencetest.Noon.Add(time.Second) }), evidence.ErrExpired},
		{"D-23 intermediate injected by the router", func(t *testing.T, b *bundle) {
			b.evidence.Certificates.OIAK = append(leaf(t, intermediate, router.AK.Public(), nil), evidencetest.PEM(intermediate.Certificate)...)
		}, evidence.ErrChain},
		{"D-23 certificate injected beside a good one", func(t *testing.T, b *bundle) {
			b.evidence.Certificates.OIAK = append(slices.Clone(b.evidence.Certificates.OIAK), evidencetest.PEM(stranger.Certificate)...)
		}, evidence.ErrChain},
		{"no certificate behind a good one", func(t *testing.T, b *bundle) {
			b.evidence.Certificates.OIAK = append(slices.Clone(b.evidence.Certificates.OIAK), "nothing")
		}, evidence.ErrCertificate},
		{"D-23 intermediate that nobody brought", func(t *testing.T, b *bundle) {
			b.evidence.Certificates.OIAK = leaf(t, intermediate, router.AK.Public(), nil)
		}, evidence.ErrChain},
		{"D-23 RSA of 1024 bits", func(t *testing.T, b *bundle) {
			b.evidence.Certificates.TLS = leaf(t, router.Owner, weak.Public(), nil)
		}, evidence.ErrWeakKey},
		{"D-23 curve P-224", func(t *testing.T, b *bundle) {
			b.evidence.Certificates.OIAK = leaf(t, router.Owner, p224.Public(), nil)
		}, evidence.ErrWeakKey},
		{"D-23 curve P-224 for TLS", func(t *testing.T, b *bundle) {
			b.evidence.Certificates.TLS = leaf(t, router.Owner, p224.Public(), nil)
		}, evidence.ErrWeakKey},
		{"D-23 issuer with RSA of 1024 bits", func(t *testing.T, b *bundle) {
			b.evidence.Certificates.OIAK, b.trust.Roots = issuedBy(t, weak, router)
		}, evidence.ErrWeakKey},
		{"D-23 attestation key is RSA", func(t *testing.T, b *bundle) {
			b.evidence.Certificates.OIAK = leaf(t, router.Owner, must(rsa.GenerateKey(rand.Reader, 2048))(t).Public(), nil)
		}, evidence.ErrKey},
		{"D-23 unknown critical extension", oiak(func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
		}), evidence.ErrChain},
		{"chain of nine", func(t *testing.T, b *bundle) {
			b.evidence.Certificates.OIAK = slices.Repeat(b.evidence.Certificates.OIAK, 9)
		}, evidence.ErrCertificate},
		{"text after the certificate", func(t *testing.T, b *bundle) {
			b.evidence.Certificates.OIAK = []string{b.evidence.Certificates.OIAK[0] + "x"}
		}, evidence.ErrCertificate},
		{"text before the certificate", func(t *testing.T, b *bundle) {
			b.evidence.Certificates.OIAK = []string{"x\n" + b.evidence.Certificates.OIAK[0]}
		}, evidence.ErrCertificate},
		{"no PEM", func(t *testing.T, b *bundle) { b.evidence.Certificates.OIAK = []string{"nothing"} }, evidence.ErrCertificate},
		{"PEM of another type", func(t *testing.T, b *bundle) {
			b.evidence.Certificates.OIAK = []string{strings.ReplaceAll(b.evidence.Certificates.OIAK[0], "CERTIFICATE", "TRUSTED CERTIFICATE")}
		}, evidence.ErrCertificate},
		{"PEM with a header", func(t *testing.T, b *bundle) {
			b.evidence.Certificates.OIAK = []string{strings.Replace(b.evidence.Certificates.OIAK[0], "-----\n", "-----\nKey: value\n\n", 1)}
		}, evidence.ErrCertificate},
		{"certificate behind 16 KiB of nothing", func(t *testing.T, b *bundle) {
			b.evidence.Certificates.OIAK = []string{b.evidence.Certificates.OIAK[0] + strings.Repeat("\n", 16<<10)}
		}, evidence.ErrCertificate},
		{"no roots", func(t *testing.T, b *bundle) { b.trust.Roots = nil }, evidence.ErrTrust},
		{"no time", func(t *testing.T, b *bundle) { b.trust.Now = time.Time{} }, evidence.ErrTrust},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := ask(t, router, measure.SHA256)
			test.spoil(t, &b)
			if _, err := b.verify(); !errors.Is(err, test.want) {
				t.Errorf("Verify: %v, want: %v", err, test.want)
			}
		})
	}
}

func TestCertificatesThatAreAccepted(t *testing.T) {
	router := booted(t, elliptic.P256())
	intermediate := must(evidencetest.NewAuthority("intermediate", &router.Owner))(t)
	aik := func(c *x509.Certificate) {
		c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{2, 23, 133, 8, 3}}
	}
	// swtpm's own CA puts a directoryName into a critical subject alternative name.
	critical := func(c *x509.Certificate) {
		name := must(asn1.Marshal(pkix.Name{CommonName: "swtpm"}.ToRDNSequence()))(t)
		san := must(asn1.Marshal([]asn1.RawValue{{Class: 2, Tag: 4, IsCompound: true, Bytes: name}}))(t)
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: true, Value: san}}
	}
	pid := func(c *x509.Certificate) { c.Subject.SerialNumber = "PID:QEMU SN:WX-0001" }
	for name, change := range map[string]func(*x509.Certificate){"AIK use": aik, "critical SAN": critical, "PID and SN": pid} {
		b := ask(t, router, measure.SHA256)
		template := evidencetest.Leaf(router.Serial)
		change(template)
		cert := must(intermediate.Certify(template, router.AK.Public()))(t)
		b.evidence.Certificates.OIAK = evidencetest.PEM(cert, intermediate.Certificate)
		b.trust.Intermediates = []*x509.Certificate{intermediate.Certificate}
		if _, err := b.verify(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKeptChainExpires(t *testing.T) {
	router := booted(t, elliptic.P256())
	b := ask(t, router, measure.SHA256)
	verifier := evidence.NewVerifier(b.trust)
	if _, err := verifier.Verify(b.evidence, b.challenge, b.trust); err != nil {
		t.Fatal(err)
	}
	b.trust.Now = evidencetest.Noon.AddDate(2, 0, 0)
	if _, err := verifier.Verify(b.evidence, b.challenge, b.trust); !errors.Is(err, evidence.ErrExpired) {
		t.Errorf("two years later: %v, want: %v", err, evidence.ErrExpired)
	}
}

// A chain that was found good is good as long as each of its certificates.
func TestKeptChainExpiresWithItsIssuer(t *testing.T) {
	router := booted(t, elliptic.P256())
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "short"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: evidencetest.Noon.AddDate(0, 0, -1), NotAfter: evidencetest.Noon.AddDate(0, 0, 1),
	}
	issuer := evidencetest.Authority{Key: must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))(t)}
	issuer.Certificate = must(router.Owner.Certify(template, issuer.Key.Public()))(t)
	short := func(key *ecdsa.PrivateKey) []string {
		return evidencetest.PEM(must(issuer.Certify(evidencetest.Leaf(router.Serial), key.Public()))(t))
	}
	for name, put := range map[string]func(*evidence.Certificates){
		"oIAK": func(c *evidence.Certificates) { c.OIAK = short(router.AK) },
		"TLS":  func(c *evidence.Certificates) { c.TLS = short(router.Identity) },
	} {
		b := ask(t, router, measure.SHA256)
		put(&b.evidence.Certificates)
		b.trust.Intermediates = []*x509.Certificate{issuer.Certificate}
		verifier := evidence.NewVerifier(b.trust)
		must(verifier.Verify(b.evidence, b.challenge, b.trust))(t)
		for _, days := range []int{-2, 2} { // the leaf itself is valid then
			b.trust.Now = evidencetest.Noon.AddDate(0, 0, days)
			if _, err := verifier.Verify(b.evidence, b.challenge, b.trust); !errors.Is(err, evidence.ErrExpired) {
				t.Errorf("%s, %d days away: %v, want: %v", name, days, err, evidence.ErrExpired)
			}
		}
	}
}

// issuedBy returns a certificate of the router's attestation key by a root
// whose key is RSA.
func issuedBy(t *testing.T, key *rsa.PrivateKey, router *evidencetest.Router) ([]string, []*x509.Certificate) {
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "old"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: evidencetest.Noon.AddDate(-1, 0, 0), NotAfter: evidencetest.Noon.AddDate(1, 0, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	sign := func(template *x509.Certificate, public any) *x509.Certificate {
		der := must(x509.CreateCertificate(rand.Reader, template, root, public, key))(t)
		return must(x509.ParseCertificate(der))(t)
	}
	leaf := evidencetest.Leaf(router.Serial)
	leaf.SerialNumber = big.NewInt(2)
	// The TLS certificate of the bundle is by the owner, so both are roots.
	return evidencetest.PEM(sign(leaf, router.AK.Public())), []*x509.Certificate{sign(root, key.Public()), router.Owner.Certificate}
}

func TestSerialNumbersThatMisleadAreRefused(t *testing.T) {
	owner := must(evidencetest.NewAuthority("owner", nil))(t)
	for _, serial := range []string{"WX-\u202e1000", "WX\n1", strings.Repeat("9", 65), "PID:QEMU SN:", "PID:QEMU"} {
		cert := must(owner.Certify(evidencetest.Leaf(serial), owner.Key.Public()))(t)
		if got, err := evidence.SerialNumber(cert); !errors.Is(err, evidence.ErrSerial) {
			t.Errorf("%q is read as %q, %v", serial, got, err)
		}
	}
}

func TestUsesOfIdentityCertificates(t *testing.T) {
	router := booted(t, elliptic.P256())
	b := ask(t, router, measure.SHA256)
	for name, use := range map[string]func(*x509.Certificate){
		"TLS server":      func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} },
		"TLS client":      func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} },
		"device identity": func(c *x509.Certificate) { c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{2, 23, 133, 11, 1, 2}} },
	} {
		template := evidencetest.Leaf(router.Serial)
		use(template)
		b.evidence.Certificates.TLS = evidencetest.PEM(must(router.Owner.Certify(template, router.Identity.Public()))(t))
		if _, err := b.verify(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	template := evidencetest.Leaf(router.Serial)
	template.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{2, 23, 133, 8, 3}}
	b.evidence.Certificates.TLS = evidencetest.PEM(must(router.Owner.Certify(template, router.Identity.Public()))(t))
	if _, err := b.verify(); !errors.Is(err, evidence.ErrCertificate) {
		t.Errorf("attestation: %v, want: %v", err, evidence.ErrCertificate)
	}
}

func TestSplitPEM(t *testing.T) {
	c := booted(t, elliptic.P256()).Certificates
	chain := must(evidence.SplitPEM("\n" + c.OIAK[0] + "\r\n" + c.TLS[0]))(t)
	if !slices.Equal(chain, []string{c.OIAK[0], c.TLS[0]}) {
		t.Errorf("split into %q", chain)
	}
	for name, text := range map[string]string{
		"cut": c.OIAK[0][:100], "text behind": c.OIAK[0] + "x", "nine": strings.Repeat(c.OIAK[0], 9),
	} {
		if _, err := evidence.SplitPEM(text); !errors.Is(err, evidence.ErrCertificate) {
			t.Errorf("%s: %v, want: %v", name, err, evidence.ErrCertificate)
		}
	}
	if chain := must(evidence.SplitPEM(" \n"))(t); len(chain) != 0 {
		t.Errorf("nothing is split into %q", chain)
	}
}

func TestKeptLogIsHeldAgainstEachQuote(t *testing.T) {
	router := booted(t, elliptic.P256())
	b := ask(t, router, measure.SHA256)
	verifier := evidence.NewVerifier(b.trust)
	if _, err := verifier.Verify(b.evidence, b.challenge, b.trust); err != nil {
		t.Fatal(err)
	}
	log := b.evidence.Log
	ok(t, router.Measure("mirror/tc/eth0", []byte("finding")))
	b = ask(t, router, measure.SHA256)
	b.evidence.Log = log
	if _, err := verifier.Verify(b.evidence, b.challenge, b.trust); !errors.Is(err, evidence.ErrReplay) {
		t.Errorf("log without the finding: %v, want: %v", err, evidence.ErrReplay)
	}
}
