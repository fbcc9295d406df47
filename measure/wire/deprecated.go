//lint:file-ignore SA1019 clients of the reference still send and read the deprecated fields

package wire

import (
	"errors"
	"fmt"

	apb "github.com/openconfig/attestz/proto/tpm_attestz"
	epb "github.com/openconfig/attestz/proto/tpm_enrollz"
)

// setOldOIAK fills field 2 of an answer, which older clients read.
func setOldOIAK(p *apb.AttestResponse, oiak string) { p.OiakCert = oiak }

// oldOIAK reads field 2 of an answer.
func oldOIAK(p *apb.AttestResponse) string { return p.GetOiakCert() }

// oiakOf reads field 7 and, where it is empty, the deprecated field 2. Two
// fields that differ are refused.
func oiakOf(p *apb.AttestResponse) (Chain, error) {
	text, old := p.GetAttestationCert().GetOiakCert(), p.GetOiakCert()
	if text == "" {
		text = old
	}
	if old != "" && old != text {
		return nil, errors.New("attestation_cert.oiak_cert and oiak_cert differ")
	}
	chain, err := ParseChain(text)
	if err != nil {
		return nil, fmt.Errorf("oiak_cert: %w", err)
	}
	return chain, nil
}

// oldUpdate returns the deprecated single fields of a rotation as an update,
// or nil where none is set.
func oldUpdate(p *epb.RotateOIakCertRequest) *epb.ControlCardCertUpdate {
	if p.GetControlCardSelection() == nil && p.GetOiakCert() == "" && p.GetOidevidCert() == "" {
		return nil
	}
	return &epb.ControlCardCertUpdate{
		ControlCardSelection: p.GetControlCardSelection(),
		OiakCert:             p.GetOiakCert(),
		OidevidCert:          p.GetOidevidCert(),
	}
}
