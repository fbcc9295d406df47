package evidence_test

import (
	"crypto/x509"
	"errors"
	"testing"

	"waxseal/hw/tpm"
	"waxseal/hw/tpm/tpmtest"
	"waxseal/measure"
	"waxseal/measure/eventlog"
	"waxseal/measure/evidence"
	"waxseal/measure/evidence/evidencetest"
)

// A quote by a TPM that nobody here wrote is genuine, under the public area
// that this TPM gives for its attestation key.
func TestQuoteOfSwtpmIsVerified(t *testing.T) {
	d := tpmtest.Provisioned(t)
	now := must(d.Counters(t.Context()))(t)
	start := evidence.StartName(now.ResetCount, now.RestartCount)
	records := []measure.Record{
		must(measure.Waxseal1.Of(start, []byte(start)))(t),
		must(measure.Waxseal1.Of("kernel/k", []byte("kernel")))(t),
	}
	var events []measure.Event
	for _, rec := range append(records, measure.Waxseal1.Cap("phase/handoff/kexec")...) {
		e := measure.Event{Record: rec, Digests: rec.Digests(d.Banks())}
		ok(t, d.Extend(t.Context(), rec.PCR, e.Digests))
		events = append(events, e)
	}
	key, public, err := d.Public(t.Context(), tpm.IAK)
	ok(t, err)
	owner := must(evidencetest.NewAuthority("owner", nil))(t)
	certificate := must(owner.Certify(evidencetest.Leaf("WX-0001"), key))(t)

	for _, bank := range []measure.Alg{measure.SHA256, measure.SHA384} {
		ch := must(evidencetest.Challenge(bank, asked...))(t)
		quoted, signature, err := d.Quote(t.Context(), tpm.IAK, ch.Nonce, bank, ch.PCRs)
		ok(t, err)
		ev := evidence.Evidence{
			Nonce: ch.Nonce, Bank: bank, PCRs: must(d.ReadPCRs(t.Context(), bank, ch.PCRs))(t),
			Quoted: quoted, Signature: signature, Received: ch.Issued,
			Log:          must(eventlog.EncodeCEL(eventlog.New(d.Banks(), events)))(t),
			Certificates: evidence.Certificates{OIAK: evidencetest.PEM(certificate)},
		}
		trust := evidence.Trust{Roots: []*x509.Certificate{owner.Certificate}, Serial: "WX-0001", Now: evidencetest.Noon, Public: public}
		v := must(evidence.Verify(ev, ch, trust))(t)
		if c := v.Counters(); c.Reset != now.ResetCount || c.Restart != now.RestartCount || c.FirmwareVersion == 0 {
			t.Errorf("bank %v: counters %+v, TPM says %+v", bank, c, now)
		}
		ok(t, d.Extend(t.Context(), 15, events[0].Digests)) // behind the log's back
		ev.PCRs = must(d.ReadPCRs(t.Context(), bank, ch.PCRs))(t)
		ev.Quoted, ev.Signature, err = d.Quote(t.Context(), tpm.IAK, ch.Nonce, bank, ch.PCRs)
		ok(t, err)
		if _, err := evidence.Verify(ev, ch, trust); !errors.Is(err, evidence.ErrReplay) {
			t.Errorf("bank %v, extended without the log: %v, want: %v", bank, err, evidence.ErrReplay)
		}
		events = append(events, events[0]) // so that the next bank's log is whole
	}
}
