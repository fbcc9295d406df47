package delivery

import (
	"bytes"
	"crypto/hmac"
	"errors"
	"fmt"
	"strings"
	"time"

	"waxseal/fleet/appraise"
	"waxseal/measure"
	"waxseal/measure/evidence"
	"waxseal/measure/reference"
	"waxseal/measure/wire"
)

// judgeProof looks at what shows that the keys are in the TPM now. Where no
// proof came, nothing else can be judged.
func (j *judgement) judgeProof() bool {
	if j.t.Proof == nil {
		j.note(CheckCredential, Bad, "the device gave no proof: %s", j.t.Refusal)
		for _, name := range []Name{CheckNonce, CheckEvidence, CheckBoot, CheckResets, CheckClock, CheckCleared} {
			j.note(name, Unknown, "without a proof nothing is known of it")
		}
		return false
	}
	j.judge(CheckCredential, j.credential(), "EK, IAK and IDevID are in one TPM, which has answered now")
	return true
}

// credential tells whether both secrets were read, each by the TPM that it was
// meant for, and say that this answer is to this question.
func (j *judgement) credential() error {
	bare := *j.t.Proof
	bare.IAKProof, bare.IDevIDProof = nil, nil
	var missing []string
	for _, p := range []struct {
		what, label string
		secret, got []byte
	}{
		{"IAK", wire.ProofOfIAK, j.t.Inside.IAK, j.t.Proof.IAKProof},
		{"IDevID", wire.ProofOfIDevID, j.t.Inside.IDevID, j.t.Proof.IDevIDProof},
	} {
		want := j.t.Request.Authenticate(p.label, p.secret, bare)
		if len(p.secret) != secretSize || !hmac.Equal(want, p.got) {
			missing = append(missing, p.what)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("the device has not shown that it holds the EK together with the %s: the answer is not by that TPM, or was changed", strings.Join(missing, " and the "))
	}
	return nil
}

// judgeBoot verifies the evidence by the manifest's IAK, and judges it by the
// manifest's reference values and counters.
func (j *judgement) judgeBoot() {
	ref := j.reference()
	ch := evidence.Challenge{
		Nonce: j.t.Request.Nonce, Bank: j.t.Request.Bank, PCRs: j.t.Request.PCRs,
		Issued: j.t.Issued, Deadline: j.t.Issued.Add(Timeout), UnsafeClock: true,
	}
	if ref != nil {
		ch.Profile, _ = measure.ParseProfile(ref.Profile) // reference.Parse has checked it
	}
	v, err := evidence.Verify(j.evidence(), ch, evidence.Trust{
		Serial: j.shipment.Serial, Public: j.shipment.IAK.Public, PublicAlone: true, Now: j.t.Received,
	})
	if err != nil {
		j.refuseEvidence(err)
		return
	}
	j.note(CheckNonce, Good, "quote and certifications are for this check")
	j.note(CheckEvidence, Good, "the quote is by the IAK of the manifest, and the log explains it")
	j.judgeReference(v, ref)
	j.judgeCounters(v.Counters())
	j.judgeCleared()
}

func (j *judgement) evidence() evidence.Evidence {
	p := j.t.Proof
	return evidence.Evidence{
		Nonce: j.t.Request.Nonce, Bank: j.t.Request.Bank, PCRs: p.PCRs,
		Quoted: p.Quote.Attest, Signature: p.Quote.Signature, Log: p.Log, Received: j.t.Received,
	}
}

// refuseEvidence tells old answers from forged ones.
func (j *judgement) refuseEvidence(err error) {
	if errors.Is(err, evidence.ErrNonce) {
		j.note(CheckNonce, Bad, "the quote was made for another challenge: an answer that was recorded before, or for somebody else")
		j.note(CheckEvidence, Unknown, "not judged: it is no answer to this check")
	} else {
		j.note(CheckNonce, Unknown, "not judged: the evidence is refused")
		j.note(CheckEvidence, Bad, "%v", err)
	}
	for _, name := range []Name{CheckBoot, CheckResets, CheckClock} {
		j.note(name, Unknown, "not judged: the evidence is refused")
	}
	j.judgeCleared()
}

// reference returns the reference values of the shipment, nil if there are none.
func (j *judgement) reference() *reference.Values {
	file := j.t.Reference
	if file == nil {
		file = j.shipment.Reference
	}
	if file == nil || j.shipment.IsReference(file) != nil {
		return nil
	}
	v, err := reference.Parse(file)
	if err != nil {
		return nil
	}
	return &v
}

func (j *judgement) judgeReference(v evidence.Verified, ref *reference.Values) {
	if ref == nil {
		why := "the manifest holds no reference values, and none are at hand (--reference)"
		if j.t.Reference != nil {
			why = fmt.Sprint(j.shipment.IsReference(j.t.Reference))
		}
		j.note(CheckBoot, Unknown, "%s", why)
		return
	}
	verdict := appraise.Appraise(v, *ref, appraise.DefaultPolicy)
	j.Boot = &verdict
	if verdict.Result == appraise.Affirming {
		j.note(CheckBoot, Good, "firmware and configuration are those of %s %s, assurance %s", verdict.Product, verdict.Version, verdict.Assurance)
		return
	}
	for _, reason := range verdict.Reasons {
		j.note(CheckBoot, Bad, "%s", reason)
	}
	if len(verdict.Reasons) == 0 {
		j.note(CheckBoot, Bad, "the boot is %s", verdict.Result)
	}
}

// clockSlack is how much of its clock a TPM may lose when its power is cut: it
// saves the clock at least every 2^22 ms (TPM 2.0 Part 1, section 36.3.2).
const clockSlack = 1 << 22

func (j *judgement) judgeCounters(now evidence.Counters) {
	packed := j.shipment.Counters
	since := Since{
		Resets: int64(now.Reset) - int64(packed.Resets), Promised: int64(j.shipment.MaxResets),
		Powered: (int64(now.Clock) - int64(packed.Clock)) / 1000,
	}
	j.Since = &since
	switch {
	case since.Resets < 0:
		j.note(CheckResets, Bad, "the TPM has counted %d resets, %d at packing: it was cleared, or it is another", now.Reset, packed.Resets)
	case since.Resets == 0 && now.Restart < packed.Restarts:
		j.note(CheckResets, Bad, "the TPM has counted %d restarts, %d at packing: it was cleared, or it is another", now.Restart, packed.Restarts)
	case since.Resets > since.Promised:
		j.note(CheckResets, Bad, "the device was started %d times since packing, this time included: promised were at most %d", since.Resets, since.Promised)
	default:
		j.note(CheckResets, Good, "started %d times since packing, this time included: promised were at most %d", since.Resets, since.Promised)
	}
	back := int64(packed.Clock) - int64(now.Clock)
	switch {
	case back > clockSlack || back > 0 && now.Safe:
		j.note(CheckClock, Bad, "the TPM's clock went back by %s since packing", time.Duration(back)*time.Millisecond)
	case back > 0:
		j.note(CheckClock, Good, "the TPM's clock is %s behind that of packing, as after a power cut", time.Duration(back)*time.Millisecond)
	default:
		j.note(CheckClock, Good, "powered for %s since packing", (time.Duration(-back) * time.Millisecond).Round(time.Second))
	}
	if !now.Safe {
		j.warn("the TPM's clock is not safe, as after a power cut: it may have lost up to 70 minutes")
	}
}

// judgeCleared looks at the SRK: a TPM that was cleared makes its other keys
// again and counts resets from zero to any number, but never gets this key back.
func (j *judgement) judgeCleared() {
	srk, signed := j.shipment.SRK, j.t.Proof.SRK
	if srk == nil {
		j.note(CheckCleared, Skipped, "the manifest names no SRK")
		j.warn("the manifest names no SRK: a TPM that was cleared, and whose resets were counted up again, cannot be told from one that never was")
		return
	}
	err := j.vouched(srk.Name, signed.Attest, signed.Signature)
	switch {
	case len(signed.Attest) == 0:
		err = errors.New("the TPM has no SRK: it was cleared since packing, and its counters count nothing")
	case err != nil && !bytes.Equal(j.t.Identity.SRK, srk.Public):
		err = fmt.Errorf("the TPM has another SRK than was shipped: it was cleared since packing, and its counters count nothing (%w)", err)
	}
	j.judge(CheckCleared, err, "the TPM was not cleared since packing: it has the SRK that was shipped")
}
