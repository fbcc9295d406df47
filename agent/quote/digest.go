package quote

import (
	"bytes"
	"encoding/binary"
	"maps"
	"slices"

	"waxseal/measure"
)

// covers tells whether a TPMS_ATTEST of a quote is over exactly these values.
// Its last field is the pcrDigest, a TPM2B over the concatenated values in
// ascending order, under the hash of the signing scheme (TPM 2.0 Part 2,
// section 10.12.1, and Part 3, TPM2_Quote). This is a check of the agent's own
// reading, for values that change under it; a verifier parses the whole.
func covers(attest []byte, values map[measure.PCR][]byte) bool {
	var all []byte
	for _, pcr := range slices.Sorted(maps.Keys(values)) {
		all = append(all, values[pcr]...)
	}
	for _, alg := range []measure.Alg{measure.SHA384, measure.SHA256, measure.SHA512} {
		sum := measure.Hash(alg, all).Sum
		field := append(binary.BigEndian.AppendUint16(nil, uint16(len(sum))), sum...)
		if bytes.HasSuffix(attest, field) {
			return true
		}
	}
	return false
}
