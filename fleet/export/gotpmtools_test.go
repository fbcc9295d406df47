package export_test

import (
	"bytes"
	"crypto/elliptic"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-tpm-tools/proto/attest"
	"google.golang.org/protobuf/proto"

	"waxseal/fleet/export"
	"waxseal/hw/tpm"
	"waxseal/hw/tpm/tpmtest"
	"waxseal/measure"
	"waxseal/measure/eventlog"
	"waxseal/measure/evidence"
	"waxseal/measure/evidence/evidencetest"
)

func softEvidence(t *testing.T) (*evidencetest.Router, evidence.Evidence) {
	t.Helper()
	r := must(evidencetest.New("WX-0001", elliptic.P384()))(t)
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	return r, must(r.Answer(must(evidencetest.Challenge(measure.SHA384, 12, 15))(t)))(t)
}

func decoded(t *testing.T, b []byte) *attest.Attestation {
	t.Helper()
	a := &attest.Attestation{}
	if err := proto.Unmarshal(b, a); err != nil {
		t.Fatal(err)
	}
	return a
}

func TestEverythingThatWasSignedIsExportedAsItIs(t *testing.T) {
	r, ev := softEvidence(t)
	ev.Certificates.OIAK = append(ev.Certificates.OIAK, evidencetest.PEM(r.Owner.Certificate)...)
	out, note, err := export.GoTPMTools(ev)
	if err != nil {
		t.Fatal(err)
	}
	a := decoded(t, out)
	q := a.GetQuotes()[0]
	if len(a.Quotes) != 1 || !bytes.Equal(q.Quote, ev.Quoted) || !bytes.Equal(q.RawSig, ev.Signature) || len(q.Pcrs.Pcrs) != 2 || q.Pcrs.Hash != 12 {
		t.Errorf("quotes %v", a.Quotes)
	}
	for pcr, v := range ev.PCRs {
		if !bytes.Equal(q.Pcrs.Pcrs[uint32(pcr)], v) {
			t.Errorf("PCR %d is another", pcr)
		}
	}
	if string(evidencetest.PEM(must(evidence.ParsePEM(ev.Certificates.OIAK[0]))(t))[0]) != ev.Certificates.OIAK[0] ||
		!bytes.Equal(a.IntermediateCerts[0], r.Owner.Certificate.Raw) {
		t.Error("certificates are others")
	}
	log := must(eventlog.DecodeTCG(a.EventLog))(t)
	if len(log.Ours()) != len(r.Log.Events) {
		t.Errorf("%d records of %d", len(log.Ours()), len(r.Log.Events))
	}
	if a.AkPub != nil || !strings.Contains(note, "without ak_pub") {
		t.Errorf("public area %x of a key that no TPM has, note %q", a.AkPub, note)
	}
}

// The public area is not in the evidence. It is made from the key, and the
// quote of a TPM proves it.
func TestPublicAreaIsThatOfTheTPM(t *testing.T) {
	d := tpmtest.Provisioned(t)
	r, ev := softEvidence(t)
	pub, area, err := d.Public(t.Context(), tpm.IAK)
	if err != nil {
		t.Fatal(err)
	}
	ev.Certificates.OIAK = evidencetest.PEM(must(r.Owner.Certify(evidencetest.Leaf("WX-0001"), pub))(t))
	if ev.Quoted, ev.Signature, err = d.Quote(t.Context(), tpm.IAK, ev.Nonce, measure.SHA384, []measure.PCR{12, 15}); err != nil {
		t.Fatal(err)
	}
	out, note, err := export.GoTPMTools(ev)
	if err != nil || note != "" {
		t.Fatalf("%v, note %q", err, note)
	}
	if got := decoded(t, out).AkPub; !bytes.Equal(got, area) {
		t.Errorf("public area\n%x, the TPM has\n%x", got, area)
	}
	ev.Quoted[8] ^= 1 // in the signer's name
	if out, note, err = export.GoTPMTools(ev); err != nil || note == "" || decoded(t, out).AkPub != nil {
		t.Errorf("another signer: %v, note %q", err, note)
	}
}

func TestWhatCannotBeSaidIsNotExported(t *testing.T) {
	for name, change := range map[string]func(*evidence.Evidence){
		"no certificate": func(ev *evidence.Evidence) { ev.Certificates = evidence.Certificates{} },
		"text for a certificate": func(ev *evidence.Evidence) {
			ev.Certificates.OIAK = []string{"x"}
		},
		"a log that is none": func(ev *evidence.Evidence) { ev.Log = []byte("log") },
		"SHA-1":              func(ev *evidence.Evidence) { ev.Bank = measure.SHA1 },
	} {
		_, ev := softEvidence(t)
		change(&ev)
		if out, _, err := export.GoTPMTools(ev); err == nil {
			t.Errorf("%s: %x", name, out)
		}
	}
	r, _ := softEvidence(t)
	ch := must(evidencetest.Challenge(measure.SHA384, 12, 15))(t)
	ch.Batched = true
	if _, _, err := export.GoTPMTools(must(r.AnswerBatched(ch, 1, 3))(t)); !errors.Is(err, export.ErrBatch) {
		t.Errorf("batched: %v", err)
	}
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
