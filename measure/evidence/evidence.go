// Package evidence decides whether what a router sent is genuine: fresh,
// signed by the attestation key of the expected router, and with a log that
// explains every quoted PCR.
//
// Evidence is a claim. Only Verify makes a Verified of it, and only a Verified
// can be appraised. Verify never says whether a boot was good: that needs
// reference values, and is the work of fleet/appraise.
//
// The package is pure. It opens no file or socket and reads no clock: the time
// comes in with Challenge, Trust and Evidence. It never falls back: one PCR
// bank, one signature scheme, one encoding, or an error that says which check
// refused.
package evidence

import (
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"waxseal/measure"
	"waxseal/measure/merkle"
)

// Evidence is what a router answered, as it came. Nothing in it is trusted.
type Evidence struct {
	Nonce        []byte                 // the nonce that was sent
	Batch        *merkle.Proof          // where the nonce stands among those that one quote answers; nil: the quote is for it alone
	Bank         measure.Alg            // the PCR bank that was quoted
	PCRs         map[measure.PCR][]byte // value of each quoted PCR in Bank
	Quoted       []byte                 // TPMS_ATTEST without a size prefix (TPM 2.0 Part 2, section 10.12.12)
	Signature    []byte                 // TPMT_SIGNATURE (Part 2, section 11.3.4)
	Log          []byte                 // CEL in TLV form: the firmware's events, then the agent's
	Certificates Certificates
	Card         Card
	Received     time.Time         // when the verifier had the whole answer
	Contents     map[string][]byte // contents by the lower-case hexadecimal SHA-256 of each
}

// Certificates are the chains that came with the evidence, each certificate in
// PEM, leaf first. OIAK or IAK is needed; the other chains are checked if they
// are there.
type Certificates struct {
	OIAK   []string // attestation key, certified by the owner
	TLS    []string // what the router showed in the TLS handshake (oIDevID or IDevID)
	IAK    []string // attestation key, certified by the maker
	IDevID []string // device identity key, certified by the maker
}

// Card is what the router says about itself (attestz ControlCardVendorId).
type Card struct {
	Role          string `json:"role,omitempty"`
	Serial        string `json:"serial,omitempty"`
	Slot          string `json:"slot,omitempty"`
	Manufacturer  string `json:"manufacturer,omitempty"`
	PartNumber    string `json:"part_number,omitempty"`
	ChassisSerial string `json:"chassis_serial,omitempty"`
}

// Challenge is what was asked, and when.
type Challenge struct {
	Nonce       []byte // 16 to 64 bytes, fresh and unpredictable
	Batched     bool   // asked over the API where one quote answers many; false: the quote must be for Nonce alone
	Bank        measure.Alg
	PCRs        []measure.PCR
	Issued      time.Time
	Deadline    time.Time       // the last moment at which an answer is accepted
	Previous    *Counters       // of the last verified answer of this router; nil: none
	Profile     measure.Profile // zero value: measure.Waxseal1
	UnsafeClock bool            // accept Counters.Safe = false, which a TPM says for a while after a power cut
}

// Counters are the parts of a quote that tell time and resets
// (TPMS_CLOCK_INFO, TPM 2.0 Part 2, section 10.11.1).
type Counters struct {
	Clock           uint64 // milliseconds that the TPM was powered
	Reset           uint32 // TPM resets since its manufacture
	Restart         uint32 // TPM restarts or resumes since the last reset
	Safe            bool   // Clock was never higher than now
	FirmwareVersion uint64
}

// Trust is whom the verifier believes.
type Trust struct {
	Roots         []*x509.Certificate
	Intermediates []*x509.Certificate // the only ones that are used
	Serial        string              // expected serial number; "": any, but all certificates must agree
	Now           time.Time           // for the validity of certificates
	Public        []byte              // TPMT_PUBLIC of the enrolled attestation key; nil: the certificate alone speaks for it
	PublicAlone   bool                // Public and Serial speak for the router, as a signed manifest names them; no certificate counts, and none may come along
}

// Bounds of a nonce in bytes (attestz; TPM2B_DATA holds no more than 64 + 2).
const (
	MinNonce = 16
	MaxNonce = 64
)

// profile returns the PCR profile that the answer is read by.
func (c Challenge) profile() measure.Profile {
	if c.Profile.Name == "" {
		return measure.Waxseal1
	}
	return c.Profile
}

// Check tells whether the challenge asks for anything that can be judged.
func (c Challenge) Check() error {
	if len(c.Nonce) < MinNonce || len(c.Nonce) > MaxNonce {
		return fmt.Errorf("%w: nonce of %d bytes: need %d to %d", ErrChallenge, len(c.Nonce), MinNonce, MaxNonce)
	}
	if merkle.IsCommitment(c.Nonce) {
		return fmt.Errorf("%w: its nonce begins like the commitment of a batch", ErrChallenge)
	}
	if !c.Bank.Computable() {
		return fmt.Errorf("%w: PCR bank %v: need sha256, sha384 or sha512", ErrChallenge, c.Bank)
	}
	if len(c.PCRs) == 0 {
		return fmt.Errorf("%w: it names no PCR", ErrChallenge)
	}
	for i, pcr := range c.PCRs {
		if pcr >= measure.NumPCRs {
			return fmt.Errorf("%w: PCR %d is above 23", ErrChallenge, pcr)
		}
		if pcr == 16 || pcr == 23 {
			return fmt.Errorf("%w: PCR %d can be reset and is never evidence", ErrChallenge, pcr)
		}
		if slices.Contains(c.PCRs[:i], pcr) {
			return fmt.Errorf("%w: PCR %d is asked twice", ErrChallenge, pcr)
		}
	}
	if c.Issued.IsZero() || !c.Deadline.After(c.Issued) {
		return fmt.Errorf("%w: it has no deadline after its issue", ErrChallenge)
	}
	return nil
}

// mask returns the PCRs as a bit map, PCR 0 in the lowest bit.
func mask(pcrs []measure.PCR) uint32 {
	var m uint32
	for _, pcr := range pcrs {
		m |= 1 << pcr
	}
	return m
}
