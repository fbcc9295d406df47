package delivery_test

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"waxseal/fleet/challenge"
	"waxseal/fleet/delivery"
	"waxseal/fleet/enroll"
	"waxseal/measure"
	"waxseal/measure/devid/devidtest"
	"waxseal/measure/manifest"
	"waxseal/measure/manifest/manifesttest"
	"waxseal/measure/manifest/sealed"
	"waxseal/measure/wire"
)

// buyerOf makes an owner's directory and returns what signs and verifies.
func buyerOf(t *testing.T) (tls.Certificate, []*x509.Certificate) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "owner")
	if err := enroll.Init(dir, time.Now()); err != nil {
		t.Fatal(err)
	}
	cred := must(enroll.OpenCredentials(dir))(t)
	return cred.Client, cred.Roots
}

func TestSavedCheckIsJudgedAsAtTheDoorstep(t *testing.T) {
	m := newMaker(t)
	d := m.build(t, serial).boot(t, serial, "root")
	file, secret := m.pack(t, d)
	c := m.buyer(t, serve(t, d, d.signer), file, secret)
	r := check(t, c, delivery.Accepted)
	saved := delivery.Saved{Transcript: *r.Transcript, Outcome: r.Report.Outcome, Reasons: r.Report.Reasons}
	data := must(saved.Encode())(t)
	if again := must(delivery.Parse(data))(t); !reflect.DeepEqual(must(again.Encode())(t), data) {
		t.Error("what was read is written in other bytes")
	}
	if plain := strings.ReplaceAll(secret.Text(), "-", ""); bytes.Contains(data, []byte(plain)) || bytes.Contains(data, []byte(secret.Text())) {
		t.Error("the secret stands in the file")
	}
	client, owners := buyerOf(t)
	_, strangers := buyerOf(t)
	seal := must(challenge.Seal(data, client))(t)
	trust := c.Trust
	verify := func(data, seal []byte, owners []*x509.Certificate, trust delivery.Trust) delivery.Report {
		t.Helper()
		return must(delivery.Verify(data, seal, owners, trust, time.Now()))(t)
	}
	demand(t, verify(data, seal, owners, trust), delivery.Accepted)
	withSecret := trust
	withSecret.Secret = &secret
	demand(t, verify(data, seal, owners, withSecret), delivery.Accepted)

	other := must(manifest.NewSecret(bytes.NewReader(make([]byte, 64))))(t)
	withSecret.Secret = &other
	demand(t, verify(data, seal, owners, withSecret), delivery.Refused, delivery.CheckSecret)
	demand(t, verify(data, nil, owners, trust), delivery.Unproven)
	demand(t, verify(data, seal, nil, trust), delivery.Unproven)
	demand(t, verify(data, seal, strangers, trust), delivery.Refused, delivery.CheckFresh)
	demand(t, verify(data, []byte("{}"), owners, trust), delivery.Refused, delivery.CheckFresh)
	stranger := trust
	stranger.Maker = nil
	demand(t, verify(data, seal, owners, stranger), delivery.Unproven)

	t.Run("any flipped bit", func(t *testing.T) { testFlips(t, data, seal, owners, withoutSeal{secret, trust}) })
	t.Run("late answer", func(t *testing.T) {
		late := saved
		late.Transcript.Received = late.Transcript.Issued.Add(delivery.Timeout + time.Second)
		data := must(late.Encode())(t)
		demand(t, verify(data, must(challenge.Seal(data, client))(t), owners, trust), delivery.Refused, delivery.CheckFresh, delivery.CheckEvidence)
	})
	t.Run("refused by the buyer", func(t *testing.T) {
		refused := saved
		refused.Outcome, refused.Reasons = delivery.Refused, []string{"tape: it is torn"}
		data := must(refused.Encode())(t)
		demand(t, verify(data, must(challenge.Seal(data, client))(t), owners, trust), delivery.Refused, delivery.CheckBuyer)
	})
	t.Run("recorded answers", func(t *testing.T) {
		second := check(t, c, delivery.Accepted).Transcript
		second.Proof = r.Transcript.Proof
		data := must(delivery.Saved{Transcript: *second, Outcome: delivery.Accepted}.Encode())(t)
		demand(t, verify(data, must(challenge.Seal(data, client))(t), owners, trust), delivery.Refused,
			delivery.CheckIDevID, delivery.CheckCredential, delivery.CheckNonce, delivery.CheckCleared)
	})
}

// withoutSeal is what a third party knows who has the secret and no seal.
type withoutSeal struct {
	secret manifest.Secret
	trust  delivery.Trust
}

// testFlips flips bits all over the file. With the seal each flip is refused;
// without it none makes the check look better than the whole file does.
func testFlips(t *testing.T, data, seal []byte, owners []*x509.Certificate, w withoutSeal) {
	w.trust.Secret = &w.secret
	for at := 0; at < len(data); at += 1 + len(data)/400 {
		changed := bytes.Clone(data)
		changed[at] ^= 1 << (at % 7)
		if r, err := delivery.Verify(changed, seal, owners, w.trust, time.Now()); err == nil && r.Outcome != delivery.Refused {
			t.Errorf("bit of byte %d flipped, sealed: %s", at, r.Outcome)
		}
		if r, err := delivery.Verify(changed, nil, owners, w.trust, time.Now()); err == nil && r.Outcome == delivery.Accepted {
			t.Errorf("bit of byte %d flipped, not sealed: %s", at, r.Outcome)
		}
	}
}

// Without the seal, everything that a device or its TPM has said still counts:
// one bit of it refuses the whole.
func TestEachByteOfAnAnswerCounts(t *testing.T) {
	m := newMaker(t)
	d := m.build(t, serial).boot(t, serial, "root")
	file, secret := m.pack(t, d)
	r := check(t, m.buyer(t, serve(t, d, d.signer), file, secret), delivery.Accepted)
	trust := m.keys.Trust()
	buyer := delivery.Trust{Maker: &trust, Secret: &secret, Witness: "the test"}
	demand(t, delivery.Judge(*r.Transcript, buyer), delivery.Accepted)
	p := r.Transcript.Proof
	for name, b := range map[string][]byte{
		"quote": p.Quote.Attest, "signature": p.Quote.Signature, "log": p.Log, "SRK": p.SRK.Attest, "SRK signature": p.SRK.Signature,
		"IDevID": p.IDevID.Attest, "IDevID signature": p.IDevID.Signature, "IAK proof": p.IAKProof, "IDevID proof": p.IDevIDProof,
		"PCR 0": p.PCRs[0], "PCR 15": p.PCRs[15], "EK": r.Transcript.Identity.EK, "IAK": r.Transcript.Identity.IAK,
		"nonce": r.Transcript.Request.Nonce, "fresh": r.Transcript.Fresh[:], "inside": r.Transcript.Inside.IAK,
		"blob": r.Transcript.Request.IAK.Blob, "other blob": r.Transcript.Request.IDevID.Blob, "manifest": r.Transcript.Manifest,
	} {
		step := 1 + len(b)/64
		for i := 0; i < len(b); i += step {
			b[i] ^= 1 << (i % 8)
			if got := delivery.Judge(*r.Transcript, buyer); got.Outcome != delivery.Refused {
				t.Errorf("bit of byte %d of %s flipped: %s", i, name, got.Outcome)
			}
			b[i] ^= 1 << (i % 8)
		}
	}
	demand(t, delivery.Judge(*r.Transcript, buyer), delivery.Accepted)
}

func TestFilesThatAreNoSavedCheckAreRefused(t *testing.T) {
	golden := must(os.ReadFile("testdata/refused.json"))(t)
	must(delivery.Parse(golden))(t)
	change := func(old, new string) []byte { return bytes.Replace(golden, []byte(old), []byte(new), 1) }
	for name, data := range map[string][]byte{
		"empty":           nil,
		"other format":    change("waxseal-delivery-1", "waxseal-delivery-2"),
		"unknown key":     change(`"outcome"`, `"outcom"`),
		"doubled key":     change(`"outcome": "refused",`, `"outcome": "refused",  "outcome": "refused",`),
		"other spelling":  change(`"outcome"`, `"Outcome"`),
		"another newline": append(bytes.Clone(golden), '\n'),
		"bank of SHA-1":   change(`"sha384"`, `"sha1"`),
		"PCR 24":          change(`"pcrs": [`, `"pcrs": [24,`),
		"no nonce":        change(strings.Repeat("A", 64), strings.Repeat("A", 8)),
	} {
		if _, err := delivery.Parse(data); !errors.Is(err, delivery.ErrFile) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(must(os.ReadFile("testdata/refused.json"))(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := delivery.Parse(data)
		if err != nil {
			return
		}
		if again := must(s.Encode())(t); !bytes.Equal(again, data) {
			t.Fatal("what was read is written in other bytes")
		}
		if r := delivery.Judge(s.Transcript, delivery.Trust{}); r.Outcome == delivery.Accepted {
			t.Fatal("accepted without anybody who is trusted")
		}
	})
}

// Whatever a device answers to a good manifest, it is judged and not accepted.
func FuzzAnswer(f *testing.F) {
	s, secret, err := manifesttest.Shipment()
	if err != nil {
		f.Fatal(err)
	}
	keys := must(sealed.NewKeys(rand.Reader))(f)
	file := must(s.Seal(keys.Signers()...))(f)
	trust := keys.Trust()
	attest := devidtest.Certification(s.IAK.Public)
	f.Add(attest.Bytes(), []byte("\x00\x18\x00\x0c\x00\x01\x01\x00\x01\x01"), []byte{}, []byte("x"), []byte(s.EK.Public))
	f.Fuzz(func(t *testing.T, attest, signature, log, cert, area []byte) {
		r := delivery.Judge(delivery.Transcript{
			Manifest: file, Request: wire.ProofRequest{Nonce: make([]byte, 48), Bank: measure.SHA384, PCRs: []measure.PCR{0}},
			Identity: wire.Identity{
				EK: area, IAK: area, IDevID: area, SRK: area,
				EKCerts: wire.Chain{string(cert)}, IAKCert: wire.Chain{string(cert)}, IDevIDCert: wire.Chain{string(cert)},
			},
			Proof: &wire.Proof{
				PCRs: map[measure.PCR][]byte{0: make([]byte, 48)}, Quote: wire.Signed{Attest: attest, Signature: signature}, Log: log,
				SRK: wire.Signed{Attest: attest, Signature: signature}, IDevID: wire.Signed{Attest: attest, Signature: signature},
				IAKProof: signature, IDevIDProof: signature,
			},
		}, delivery.Trust{Maker: &trust, Secret: &secret, Witness: "the test"})
		if r.Outcome != delivery.Refused {
			t.Fatalf("outcome is %s", r.Outcome)
		}
	})
}
