package tpm

import (
	"encoding/binary"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"waxseal/measure"
)

// policyNV are the NV indices whose owner may replace the policy of a key:
// branch 4 below ("TPM 2.0 Keys for Device Identity and Attestation", 7.3.6).
var policyNV = map[Key]map[measure.Alg]uint32{
	IDevID: {measure.SHA256: 0x01c90010, measure.SHA384: 0x01c90011},
	IAK:    {measure.SHA256: 0x01c90018, measure.SHA384: 0x01c90019},
}

// policyNVAttributes are TPMA_NV of those indices once they are written.
const policyNVAttributes = 0x220f1008

// AuthPolicy returns the authPolicy of an IAK or IDevID whose nameAlg is alg:
// the PolicyOR of four branches of "TPM 2.0 Keys for Device Identity and
// Attestation", section 7.3.6.
func AuthPolicy(key Key, alg measure.Alg) ([]byte, error) {
	branches, err := policyBranches(key, alg)
	if err != nil {
		return nil, err
	}
	return policyOr(alg, branches...), nil
}

// policyBranches returns the four digests that AuthPolicy is the OR of.
func policyBranches(key Key, alg measure.Alg) ([][]byte, error) {
	index, ok := policyNV[key][alg]
	if !ok {
		return nil, fmt.Errorf("no policy is defined for key %s with %v", key, alg)
	}
	secret := policySecret(alg, tpm2.TPMRHEndorsement)
	return [][]byte{
		secret,
		policyCommandCode(alg, secret, tpm2.TPMCCCertify),
		policyCommandCode(alg, secret, tpm2.TPMCCActivateCredential),
		policyAuthorizeNV(alg, nvName(alg, index, secret)),
	}, nil
}

// policyNVEK is the NV index whose owner may replace the policy of an EK with
// nameAlg SHA-384 (TCG EK Credential Profile for TPM 2.0, annex B.6). None is
// there unless an owner has made it.
const policyNVEK uint32 = 0x01c07f02

// ekPolicyB is PolicyB of the same annex: PolicySecret(endorsement), or what
// stands in that index.
func ekPolicyB(alg measure.Alg) []byte {
	secret := policySecret(alg, tpm2.TPMRHEndorsement)
	return policyOr(alg, secret, policyAuthorizeNV(alg, nvName(alg, policyNVEK, secret)))
}

// extendPolicy is policyDigest' = H(policyDigest ‖ parts) (Part 1, section 19.7).
func extendPolicy(alg measure.Alg, digest []byte, parts ...[]byte) []byte {
	h := alg.New()
	h.Write(digest)
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

func zeroPolicy(alg measure.Alg) []byte { return make([]byte, alg.Size()) }

func code(cc tpm2.TPMCC) []byte { return binary.BigEndian.AppendUint32(nil, uint32(cc)) }

// policySecret is TPM2_PolicySecret with an empty policyRef (Part 3, section 23.4).
func policySecret(alg measure.Alg, entity tpm2.TPMHandle) []byte {
	name := binary.BigEndian.AppendUint32(nil, uint32(entity))
	digest := extendPolicy(alg, zeroPolicy(alg), code(tpm2.TPMCCPolicySecret), name)
	return extendPolicy(alg, digest) // the empty policyRef
}

// policyCommandCode is TPM2_PolicyCommandCode (Part 3, section 23.11).
func policyCommandCode(alg measure.Alg, digest []byte, command tpm2.TPMCC) []byte {
	return extendPolicy(alg, digest, code(tpm2.TPMCCPolicyCommandCode), code(command))
}

// policyAuthorizeNV is TPM2_PolicyAuthorizeNV (Part 3, section 23.22).
func policyAuthorizeNV(alg measure.Alg, name []byte) []byte {
	return extendPolicy(alg, zeroPolicy(alg), code(tpm2.TPMCCPolicyAuthorizeNV), name)
}

// policyOr is TPM2_PolicyOR (Part 3, section 23.6).
func policyOr(alg measure.Alg, branches ...[]byte) []byte {
	parts := append([][]byte{code(tpm2.TPMCCPolicyOR)}, branches...)
	return extendPolicy(alg, zeroPolicy(alg), parts...)
}

// nvName is the Name of the policy's NV index: nameAlg ‖ H(TPMS_NV_PUBLIC)
// (Part 1, section 16; Part 2, section 13.5). It holds a TPMT_HA.
func nvName(alg measure.Alg, index uint32, authPolicy []byte) []byte {
	public := binary.BigEndian.AppendUint32(nil, index)
	public = binary.BigEndian.AppendUint16(public, uint16(alg))
	public = binary.BigEndian.AppendUint32(public, policyNVAttributes)
	public = binary.BigEndian.AppendUint16(public, uint16(len(authPolicy)))
	public = append(public, authPolicy...)
	public = binary.BigEndian.AppendUint16(public, uint16(alg.Size()+2))
	name := binary.BigEndian.AppendUint16(nil, uint16(alg))
	return append(name, measure.Hash(alg, public).Sum...)
}
