package evidence

import (
	"fmt"

	"waxseal/measure"
	"waxseal/measure/structure"
)

// Constants of TPMS_ATTEST (TPM 2.0 Part 2, sections 6.2 and 6.9).
const (
	generatedValue = 0xff544347
	attestQuote    = 0x8018
	maxAttest      = 1024 // bytes; the largest quote over 24 PCRs has about 300
	maxName        = 2 + 64
)

// attest is the part of a TPMS_ATTEST of a quote that is looked at.
type attest struct {
	signer    []byte // qualified name of the key
	extraData []byte
	counters  Counters
	bank      measure.Alg
	mask      uint32 // selected PCRs, PCR 0 in the lowest bit
	pcrDigest []byte
}

// parseAttest reads a bare TPMS_ATTEST of type quote with one PCR selection
// (TPM 2.0 Part 2, sections 10.12.12 and 10.12.4).
func parseAttest(b []byte) (attest, error) {
	var a attest
	if len(b) > maxAttest {
		return a, fmt.Errorf("%w: %d bytes: at most %d", ErrAttest, len(b), maxAttest)
	}
	c := structure.Reader{Rest: b}
	if magic := c.U32(); magic != generatedValue {
		return a, fmt.Errorf("%w: magic 0x%08x: the TPM did not make this structure", ErrAttest, magic)
	}
	if typ := c.U16(); typ != attestQuote {
		return a, fmt.Errorf("%w: type 0x%04x is not a quote", ErrAttest, typ)
	}
	a.signer = c.Sized()
	a.extraData = c.Sized()
	a.counters.Clock = c.U64()
	a.counters.Reset = c.U32()
	a.counters.Restart = c.U32()
	safe := c.U8()
	a.counters.Safe = safe == 1
	a.counters.FirmwareVersion = c.U64()
	if len(a.signer) > maxName || safe > 1 {
		return a, fmt.Errorf("%w: name of %d bytes, safe = %d", ErrAttest, len(a.signer), safe)
	}
	if err := a.readSelection(&c); err != nil {
		return a, err
	}
	a.pcrDigest = c.Sized()
	if !c.Done() {
		return a, fmt.Errorf("%w: it is cut short or has %d bytes too many", ErrAttest, len(c.Rest))
	}
	return a, nil
}

// readSelection reads a TPML_PCR_SELECTION of exactly one bank with the three
// bytes of select that the PC Client profile has.
func (a *attest) readSelection(c *structure.Reader) error {
	if n := c.U32(); n != 1 {
		return fmt.Errorf("%w: %d banks instead of one", ErrSelection, n)
	}
	a.bank = measure.Alg(c.U16())
	if n := c.U8(); n != 3 {
		return fmt.Errorf("%w: a bit map of %d bytes instead of 3", ErrSelection, n)
	}
	for i, b := range c.Take(3) {
		a.mask |= uint32(b) << (8 * i)
	}
	return nil
}
