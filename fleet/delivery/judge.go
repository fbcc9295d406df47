package delivery

import (
	"bytes"
	"crypto/x509"
	"errors"

	"waxseal/measure/evidence"
	"waxseal/measure/manifest"
	"waxseal/measure/manifest/sealed"
)

// Trust is whom the buyer believes, and what the buyer knows.
type Trust struct {
	Maker    *sealed.Trust       // the maker's signing keys; nil: not known, and nothing can be accepted
	VendorCA []*x509.Certificate // of the maker's certificates; none: the manifest alone speaks for the keys
	EKCA     []*x509.Certificate // of the TPM's maker; none: the manifest alone speaks for the EK
	Secret   *manifest.Secret    // of the shipment; nil: not at hand, as for a third party
	Witness  string              // who vouches that the challenge was drawn for this check, such as its seal; "": nobody
}

// judgement is a report in the making.
type judgement struct {
	Report
	t        Transcript
	trust    Trust
	shipment manifest.Shipment
}

// Judge says what follows from a transcript. It is the same work at the
// doorstep and over a saved file, and needs neither network nor clock.
func Judge(t Transcript, trust Trust) Report {
	j := &judgement{Report: newReport(t.Received), t: t, trust: trust}
	if !j.open() {
		return j.Report
	}
	j.judgeSecret()
	j.judgeKeys()
	if j.judgeProof() {
		j.judgeBoot()
	}
	j.blindSpots()
	j.conclude()
	return j.Report
}

// open reads the manifest. A manifest that nobody has signed, or another than
// who is trusted, is still held against the device: each reason counts.
func (j *judgement) open() bool {
	s, signed, err := Open(j.t.Manifest, j.trust.Maker)
	if err != nil {
		j.refuse(CheckManifest, "%v", err)
		return false
	}
	j.shipment = s
	j.Shipment = &Shipment{
		Serial: s.Serial, Maker: s.Maker, Product: s.Product, Order: s.Order, SealID: s.SealID, Packed: s.Packed,
	}
	switch {
	case j.trust.Maker == nil:
		j.note(CheckManifest, Unknown, "its signatures were not checked against keys that you trust (--vendor-sign): anybody can have written it")
	case signed != nil:
		j.note(CheckManifest, Bad, "%v", signed)
	default:
		j.note(CheckManifest, Good, "signed by the maker with both algorithms")
	}
	if j.t.Received.Before(s.Packed) {
		j.warn("the manifest says that the device was packed at %s, which is later than this computer's time", s.Packed.Format(timeForm))
	}
	return true
}

const timeForm = "2006-01-02 15:04 UTC"

// Open returns the shipment of a manifest and what is wrong with its
// signatures. Without keys to trust they are not looked at. err means that it
// cannot be read at all.
func Open(file []byte, maker *sealed.Trust) (s manifest.Shipment, signed, err error) {
	if maker != nil {
		s, err = manifest.Open(file, *maker)
		if err == nil {
			return s, nil, nil
		}
		if signed = err; !errors.Is(err, sealed.ErrSignature) {
			return s, signed, err
		}
	}
	s, err = manifest.Peek(file)
	return s, signed, err
}

// judgeSecret looks at what makes the challenge one for this buyer and this
// moment.
func (j *judgement) judgeSecret() {
	switch secret := j.trust.Secret; {
	case secret != nil && !j.shipment.Knows(*secret):
		j.note(CheckSecret, Bad, "it is not the one of the shipment of %s under order %s", j.shipment.Serial, j.shipment.Order)
	case secret != nil && !j.derived(*secret):
		j.note(CheckSecret, Bad, "the challenge was not made with it")
	case secret != nil:
		j.note(CheckSecret, Good, "it is the one of this shipment, and the challenge was made with it")
	case j.trust.Witness != "":
		j.note(CheckSecret, Skipped, "not at hand; %s vouches that the buyer had it", j.trust.Witness)
	default:
		j.note(CheckSecret, Unknown, "not at hand, and nobody who is trusted vouches that the buyer had it")
	}
	late := j.t.Received.Sub(j.t.Issued)
	switch {
	case late < 0 || late > Timeout:
		j.note(CheckFresh, Bad, "the answer came %s after the question: allowed are %s", late, Timeout)
	case j.trust.Witness == "":
		j.note(CheckFresh, Unknown, "nobody who is trusted vouches that the challenge was drawn for this check: the answers may be old")
	default:
		j.note(CheckFresh, Good, "%s vouches that the challenge was drawn for this check", j.trust.Witness)
	}
}

// derived tells whether the nonce comes from the secret, this manifest, and
// what was drawn.
func (j *judgement) derived(secret manifest.Secret) bool {
	digest, err := j.shipment.Digest()
	return err == nil && bytes.Equal(j.t.Request.Nonce, manifest.ChallengeNonce(secret, j.t.Fresh, digest))
}

// blindSpots says what no check of this kind can see.
func (j *judgement) blindSpots() {
	if len(j.trust.VendorCA) == 0 {
		j.warn("certificates of IAK and IDevID were not held against the maker's CA (--vendor-ca): the manifest alone speaks for the keys")
	}
	if len(j.trust.EKCA) == 0 {
		j.warn("the EK certificate was not held against the CA of the TPM's maker (--ek-ca): the manifest alone says that this is a real TPM")
	}
	if j.Boot != nil && j.Boot.Assurance == "self" {
		j.warn("assurance self: the agent has measured the boot that loaded it; a changed bootloader or firmware could have lied to it")
	}
	j.warn("no check over a cable sees a chip that was added to the board and leaves firmware and configuration as they are, " +
		"a device between CPU and TPM that was there since before packing, or a CPU or firmware whose root of trust lies: look at the tape and into the case")
}

// certificatesOf parses PEM texts that must each be one certificate.
func certificatesOf(texts []string) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for _, text := range texts {
		cert, err := evidence.ParsePEM(text)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
	return certs, nil
}
