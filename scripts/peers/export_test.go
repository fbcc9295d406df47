package peers

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"slices"
	"testing"

	pbattest "github.com/google/go-tpm-tools/proto/attest"
	"github.com/google/go-tpm-tools/server"
	"google.golang.org/protobuf/proto"

	"waxseal/fleet/export"
	"waxseal/hw/tpm"
	"waxseal/hw/tpm/tpmtest"
	"waxseal/measure"
	"waxseal/measure/eventlog"
	"waxseal/measure/evidence"
	"waxseal/measure/evidence/evidencetest"
)

// exported is evidence as go-tpm-tools reads it.
func exported(t testing.TB, ev evidence.Evidence) *pbattest.Attestation {
	t.Helper()
	out, _, err := export.GoTPMTools(ev)
	ok(t, err)
	a := &pbattest.Attestation{}
	ok(t, proto.Unmarshal(out, a))
	return a
}

func byRoot(a answer) server.VerifyOpts {
	return server.VerifyOpts{
		Nonce: a.challenge.Nonce, TrustedRootCerts: []*x509.Certificate{a.router.Owner.Certificate},
		AllowEmptySBVar: true, AllowEFIAppBeforeCallingEvent: true,
	}
}

// The verifier of go-tpm-tools accepts what is exported: a real firmware's log
// and ours after it, by the certificate of the owner.
func TestGoTPMToolsAcceptsTheExport(t *testing.T) {
	for _, s := range sizes {
		a := newAnswer(t, s)
		// Its certificate check uses the clock of the machine.
		leaf := evidencetest.Leaf("WX-0001")
		leaf.NotAfter = leaf.NotAfter.AddDate(10, 0, 0)
		a.evidence.Certificates.OIAK = evidencetest.PEM(must(a.router.Owner.Certify(leaf, a.router.AK.Public()))(t))
		attestation := exported(t, a.evidence)
		state, err := server.VerifyAttestation(attestation, byRoot(a))
		if err != nil {
			t.Fatalf("%s: %v", s.curve.Params().Name, err)
		}
		if n := len(state.GetRawEvents()); n < length/2 {
			t.Errorf("%s: %d events of %d", s.curve.Params().Name, n, length)
		}
		wrong := byRoot(a)
		wrong.Nonce = bytes.Repeat([]byte{1}, 32)
		if _, err := server.VerifyAttestation(attestation, wrong); err == nil {
			t.Error("accepted for another nonce")
		}
		other := newAnswer(t, s)
		if _, err := server.VerifyAttestation(attestation, byRoot(answer{router: other.router, challenge: a.challenge})); err == nil {
			t.Error("accepted by another owner")
		}
	}
}

// realEvidence is the answer of a swtpm that has measured a short boot.
func realEvidence(t *testing.T) (evidence.Evidence, *ecdsa.PublicKey) {
	t.Helper()
	d := tpmtest.Provisioned(t)
	var events []measure.Event
	for _, name := range []string{"kernel/uki/waxseal", "rootfs/squashfs/root", "config/uci/network"} {
		rec := must(measure.Waxseal1.Of(name, []byte(name)))(t)
		e := measure.Event{Record: rec, Digests: rec.Digests(d.Banks())}
		ok(t, d.Extend(t.Context(), rec.PCR, e.Digests))
		events = append(events, e)
	}
	ch := must(evidencetest.Challenge(measure.SHA384, 0, 7, 12, 13, 14, 15))(t)
	ev := evidence.Evidence{Nonce: ch.Nonce, Bank: ch.Bank}
	ev.PCRs = must(d.ReadPCRs(t.Context(), ch.Bank, ch.PCRs))(t)
	ev.Log = must(eventlog.EncodeCEL(eventlog.New(d.Banks(), events)))(t)
	var err error
	ev.Quoted, ev.Signature, err = d.Quote(t.Context(), tpm.IAK, ch.Nonce, ch.Bank, ch.PCRs)
	ok(t, err)
	pub, _, err := d.Public(t.Context(), tpm.IAK)
	ok(t, err)
	owner := must(evidencetest.NewAuthority("owner", nil))(t)
	ev.Certificates.OIAK = evidencetest.PEM(must(owner.Certify(evidencetest.Leaf("WX-0001"), pub))(t))
	return ev, pub
}

// By the public area, which is derived: the TPM's own IAK, and every flipped
// bit of quote, signature and values is refused.
func TestGoTPMToolsKnowsTheKeyOfATPM(t *testing.T) {
	ev, pub := realEvidence(t)
	a := exported(t, ev)
	opts := server.VerifyOpts{Nonce: ev.Nonce, TrustedAKs: []crypto.PublicKey{pub}}
	if _, err := server.VerifyAttestation(a, opts); err != nil {
		t.Fatal(err)
	}
	q := a.Quotes[0]
	parts := map[string][]byte{"quote": q.Quote, "signature": q.RawSig}
	for pcr, v := range q.Pcrs.Pcrs {
		parts["PCR "+string(rune('A'+pcr))] = v
	}
	for name, part := range parts {
		for i := range part {
			for bit := range 8 {
				part[i] ^= 1 << bit
				if _, err := server.VerifyAttestation(a, opts); err == nil {
					t.Errorf("%s: accepted with bit %d of byte %d flipped", name, bit, i)
				}
				part[i] ^= 1 << bit
			}
		}
	}
	// A log without one of a PCR's events is refused. One without any event of a
	// PCR is not: that verifier does not ask what explains a PCR.
	log := must(eventlog.DecodeTCG(a.EventLog))(t)
	for i, e := range log.Events {
		left := log
		left.Events = slices.Delete(slices.Clone(log.Events), i, i+1)
		alone := !slices.ContainsFunc(left.Events, func(o eventlog.Event) bool { return o.Extends() && o.PCR == e.PCR })
		a.EventLog = must(eventlog.EncodeTCG(left))(t)
		if _, err := server.VerifyAttestation(a, opts); e.Extends() && (err == nil) != alone {
			t.Errorf("without event %d, the only one of its PCR %v: %v", i, alone, err)
		}
	}
}
