package tpm

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"waxseal/measure"
)

// quoted returns the TPMS_ATTEST of a quote over PCR 0 of the SHA-384 bank
// (Part 2, section 10.12.12).
func quoted(magic uint32, typ uint16, nonce []byte, pcrs byte) []byte {
	be := binary.BigEndian
	b := be.AppendUint16(be.AppendUint32(nil, magic), typ)
	b = be.AppendUint16(b, 0) // signer
	b = append(be.AppendUint16(b, uint16(len(nonce))), nonce...)
	b = append(b, make([]byte, 8+4+4)...) // clock, resetCount, restartCount
	b = append(b, 1)                      // safe
	b = append(b, make([]byte, 8)...)     // firmwareVersion
	b = be.AppendUint16(be.AppendUint32(b, 1), uint16(measure.SHA384))
	b = append(b, 3, pcrs, 0, 0)
	return append(be.AppendUint16(b, 48), make([]byte, 48)...)
}

// tpm2-tss before 4.1 (Fapi_VerifyQuote) read a quote into its structure and
// never looked whether the magic number in it is the one of a TPM.
func TestCVE2024_29040_ParsedQuoteThatNoTPMGeneratedIsRefused(t *testing.T) {
	nonce := slices.Repeat([]byte{7}, 32)
	sel := selection(measure.SHA384, []measure.PCR{0})
	const quote = uint16(tpm2.TPMSTAttestQuote)
	if err := checkQuoted(quoted(0xff544347, quote, nonce, 1), nonce, sel); err != nil {
		t.Fatalf("a good quote: %v", err)
	}
	for name, b := range map[string][]byte{
		"magic 0":                    quoted(0, quote, nonce, 1),
		"magic in the other order":   quoted(0x474354ff, quote, nonce, 1),
		"magic with a flipped bit":   quoted(0xff544346, quote, nonce, 1),
		"certify, read as a quote":   quoted(0xff544347, uint16(tpm2.TPMSTAttestCertify), nonce, 1),
		"another nonce":              quoted(0xff544347, quote, nonce[1:], 1),
		"another PCR":                quoted(0xff544347, quote, nonce, 2),
		"a PCR beside the asked one": quoted(0xff544347, quote, nonce, 3),
		"no PCR":                     quoted(0xff544347, quote, nonce, 0),
	} {
		if err := checkQuoted(b, nonce, sel); !errors.Is(err, ErrQuote) {
			t.Errorf("%s: %v, want: %v", name, err, ErrQuote)
		}
	}
}
