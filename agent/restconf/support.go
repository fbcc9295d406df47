package restconf

import "waxseal/measure"

// nameTPM is the name of the device's TPM.
const nameTPM = "tpm0"

// Names of the attestation certificates. Both are of the same key, the IAK:
// the maker's says which device it is, the owner's that it was enrolled. A
// challenge is answered under the owner's.
const (
	nameIAK  = "iak"
	nameOIAK = "oiak"
)

// support is the container rats-support-structures.
type support struct {
	TPMs struct {
		TPM []tpmEntry `json:"tpm,omitempty"`
	} `json:"tpms"`
	Algorithms struct {
		Signing []string `json:"tpm20-asymmetric-signing,omitempty"`
		Hash    []string `json:"tpm20-hash,omitempty"`
	} `json:"attester-supported-algos"`
}

type tpmEntry struct {
	Name         string    `json:"name"`
	Hardware     *bool     `json:"hardware-based,omitempty"`
	Version      string    `json:"firmware-version,omitempty"`
	Banks        []pcrBank `json:"tpm20-pcr-bank,omitempty"`
	Status       string    `json:"status,omitempty"`
	Certificates struct {
		Certificate []certificate `json:"certificate,omitempty"`
	} `json:"certificates,omitzero"`
}

type pcrBank struct {
	Alg  string   `json:"tpm20-hash-algo"`
	PCRs []uint16 `json:"pcr-index"`
}

type certificate struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// support says what can be asked of this device. A device without a TPM has
// none in its list.
func (h *Handler) support() support {
	var s support
	banks := h.config.Desk.Banks()
	if len(banks) == 0 {
		return s
	}
	s.Algorithms.Signing = []string{tcgAlgs + ":TPM_ALG_ECDSA"}
	hardware := true // as far as this device can tell: the kernel shows it as a TPM
	t := tpmEntry{Name: nameTPM, Hardware: &hardware, Version: tcgAlgs + ":tpm20", Status: "operational"}
	if h.config.Desk.Probe() != "" {
		t.Status = "non-operational"
	}
	for _, alg := range banks {
		if !alg.Computable() {
			continue // a bank of SHA-1 or SM3 is never quoted
		}
		s.Algorithms.Hash = append(s.Algorithms.Hash, algIdentity[alg])
		t.Banks = append(t.Banks, pcrBank{algIdentity[alg], allPCRs()})
	}
	if len(h.config.IAK) > 0 {
		t.Certificates.Certificate = append(t.Certificates.Certificate, certificate{nameIAK, "initial-attestation-certificate"})
	}
	if len(h.config.OIAK()) > 0 {
		t.Certificates.Certificate = append(t.Certificates.Certificate, certificate{nameOIAK, "local-attestation-certificate"})
	}
	s.TPMs.TPM = []tpmEntry{t}
	return s
}

func allPCRs() []uint16 {
	var pcrs []uint16
	for pcr := range uint16(measure.NumPCRs) {
		pcrs = append(pcrs, pcr)
	}
	return pcrs
}

// only returns the nodes that a content parameter wants (RFC 8040, section
// 4.8.1). The keys of lists are always there.
func (s support) only(c content) support {
	if c == all || len(s.TPMs.TPM) == 0 {
		return s
	}
	t := s.TPMs.TPM[0]
	if c == nonconfig {
		s = support{}
		t = tpmEntry{Name: t.Name, Hardware: t.Hardware, Status: t.Status}
	} else {
		t.Hardware, t.Status = nil, ""
	}
	s.TPMs.TPM = []tpmEntry{t}
	return s
}
