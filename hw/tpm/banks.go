package tpm

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"waxseal/measure"
)

// Banks returns the active PCR banks in ascending order of their ids, as the
// TPM named them when it was opened.
func (d *Device) Banks() []measure.Alg { return slices.Clone(d.banks) }

// readBanks asks for the active banks and starts a TPM that nobody started:
// the kernel or the firmware has done so long before on a router.
func (d *Device) readBanks(ctx context.Context) ([]measure.Alg, error) {
	return ask(ctx, d, urgent, Timeout, func(t transport.TPM) ([]measure.Alg, error) {
		sel, err := capPCRs(t)
		if is(err, tpm2.TPMRCInitialize) {
			if _, err := (tpm2.Startup{StartupType: tpm2.TPMSUClear}).Execute(t); err != nil {
				return nil, err
			}
			sel, err = capPCRs(t)
		}
		if err != nil {
			return nil, err
		}
		return activeBanks(sel)
	})
}

// capPCRs is TPM2_GetCapability(TPM_CAP_PCRS) (Part 3, section 30.2).
func capPCRs(t transport.TPM) ([]tpm2.TPMSPCRSelection, error) {
	rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapPCRs, PropertyCount: 1}.Execute(t)
	if err != nil {
		return nil, err
	}
	list, err := rsp.CapabilityData.Data.AssignedPCR()
	if err != nil {
		return nil, err
	}
	return list.PCRSelections, nil
}

// activeBanks returns the banks that have PCRs. All of them must be known,
// since an extend has to reach all, and one must be good for evidence.
func activeBanks(list []tpm2.TPMSPCRSelection) ([]measure.Alg, error) {
	var banks []measure.Alg
	strong := false
	for _, sel := range list {
		alg := measure.Alg(sel.Hash)
		pcrs := selected(sel.PCRSelect)
		switch {
		case len(pcrs) == 0:
			continue
		case alg.Size() == 0:
			return nil, fmt.Errorf("%w: bank %v is active and unknown: turn it off in the firmware's setup", ErrBanks, alg)
		case len(pcrs) < measure.NumPCRs:
			return nil, fmt.Errorf("%w: bank %v has only PCRs %v", ErrBanks, alg, pcrs)
		case slices.Contains(banks, alg):
			return nil, fmt.Errorf("%w: bank %v is named twice", ErrBanks, alg)
		}
		banks = append(banks, alg)
		strong = strong || alg.Computable()
	}
	if !strong {
		return nil, fmt.Errorf("%w: active are %v: turn on SHA-384 or SHA-256 in the firmware's setup", ErrBanks, banks)
	}
	slices.Sort(banks)
	return banks, nil
}

// selected returns the PCRs of a selection bitmap in ascending order (Part 2,
// section 10.6.1: bit n of byte m is PCR 8m+n).
func selected(bitmap []byte) []measure.PCR {
	var pcrs []measure.PCR
	for i := range 8 * min(len(bitmap), 256/8) {
		if bitmap[i/8]&(1<<(i%8)) != 0 {
			pcrs = append(pcrs, measure.PCR(i))
		}
	}
	return pcrs
}

// selection is the TPML_PCR_SELECTION of pcrs in one bank.
func selection(bank measure.Alg, pcrs []measure.PCR) tpm2.TPMLPCRSelection {
	bitmap := make([]byte, measure.NumPCRs/8)
	for _, pcr := range pcrs {
		bitmap[pcr/8] |= 1 << (pcr % 8)
	}
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{
		Hash:      tpm2.TPMIAlgHash(bank),
		PCRSelect: bitmap,
	}}}
}
