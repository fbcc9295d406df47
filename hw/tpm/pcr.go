package tpm

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"waxseal/measure"
)

var _ measure.Extender = (*Device)(nil)

// Extend extends pcr in all active banks by one TPM2_PCR_Extend (Part 3,
// section 22.2). digests has one digest for each of Banks, in that order.
// After an error the PCR may or may not have been extended: read it.
func (d *Device) Extend(ctx context.Context, pcr measure.PCR, digests []measure.Digest) error {
	values, err := d.digestValues(pcr, digests)
	if err != nil {
		return fmt.Errorf("extend PCR %d: %w", pcr, err)
	}
	_, err = ask(ctx, d, urgent, Timeout, func(t transport.TPM) (struct{}, error) {
		return struct{}{}, d.authorised(t, func(auth tpm2.Session) error {
			_, err := tpm2.PCRExtend{
				PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(pcr), Auth: auth},
				Digests:   values,
			}.Execute(t)
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("extend PCR %d: %w", pcr, err)
	}
	return nil
}

// digestValues checks that every bank gets a digest: a bank left alone would
// be a blank slate for an attacker.
func (d *Device) digestValues(pcr measure.PCR, digests []measure.Digest) (tpm2.TPMLDigestValues, error) {
	var values tpm2.TPMLDigestValues
	if pcr >= measure.NumPCRs {
		return values, errors.New("need a PCR below 24")
	}
	if len(digests) != len(d.banks) {
		return values, fmt.Errorf("%d digests for the %d banks %v", len(digests), len(d.banks), d.banks)
	}
	for i, digest := range digests {
		if digest.Alg != d.banks[i] || len(digest.Sum) != digest.Alg.Size() {
			return values, fmt.Errorf("digest %d is %v with %d bytes: need %v", i, digest.Alg, len(digest.Sum), d.banks[i])
		}
		values.Digests = append(values.Digests, tpm2.TPMTHA{HashAlg: tpm2.TPMIAlgHash(digest.Alg), Digest: digest.Sum})
	}
	return values, nil
}

// ReadPCR returns the value of pcr in each of Banks, in that order.
func (d *Device) ReadPCR(ctx context.Context, pcr measure.PCR) ([]measure.Digest, error) {
	if pcr >= measure.NumPCRs {
		return nil, fmt.Errorf("read PCR %d: need a PCR below 24", pcr)
	}
	values, err := ask(ctx, d, urgent, Timeout, func(t transport.TPM) ([]measure.Digest, error) {
		var values []measure.Digest
		for _, bank := range d.banks {
			got, _, err := d.readSome(t, bank, []measure.PCR{pcr})
			if err != nil {
				return nil, err
			}
			values = append(values, measure.Digest{Alg: bank, Sum: got[pcr]})
		}
		return values, nil
	})
	if err != nil {
		return nil, fmt.Errorf("read PCR %d: %w", pcr, err)
	}
	return values, nil
}

// readAttempts bounds how often a set of PCRs is read while another process
// extends between the commands.
const readAttempts = 4

// ReadPCRs returns the values of pcrs in one bank, all of one moment: the
// TPM's update counter stood still between the commands.
func (d *Device) ReadPCRs(ctx context.Context, bank measure.Alg, pcrs []measure.PCR) (map[measure.PCR][]byte, error) {
	if err := d.checkSelection(bank, pcrs); err != nil {
		return nil, fmt.Errorf("read PCRs: %w", err)
	}
	values, err := ask(ctx, d, urgent, Timeout, func(t transport.TPM) (map[measure.PCR][]byte, error) {
		for range readAttempts {
			values, still, err := d.readAll(t, bank, pcrs)
			if err != nil || still {
				return values, err
			}
		}
		return nil, fmt.Errorf("%w: PCRs change under %d readings", ErrQuote, readAttempts)
	})
	if err != nil {
		return nil, fmt.Errorf("read PCRs of bank %v: %w", bank, err)
	}
	return values, nil
}

// checkSelection refuses what must never reach the TPM: empty and repeated
// selections, PCRs above 23 and banks that are not active or not evidence.
func (d *Device) checkSelection(bank measure.Alg, pcrs []measure.PCR) error {
	if !slices.Contains(d.banks, bank) || !bank.Computable() {
		return fmt.Errorf("%w: bank %v is not one of the active banks %v that are evidence", ErrBanks, bank, d.banks)
	}
	if len(pcrs) == 0 {
		return errors.New("no PCR is selected")
	}
	var seen [measure.NumPCRs]bool
	for _, pcr := range pcrs {
		if pcr >= measure.NumPCRs || seen[pcr] {
			return fmt.Errorf("PCR %d is above 23 or selected twice", pcr)
		}
		seen[pcr] = true
	}
	return nil
}

// readAll reads pcrs command by command, since one returns at most eight
// values. still is false when an extend came in between.
func (d *Device) readAll(t transport.TPM, bank measure.Alg, pcrs []measure.PCR) (values map[measure.PCR][]byte, still bool, err error) {
	values = map[measure.PCR][]byte{}
	left := slices.Sorted(slices.Values(pcrs))
	first, still := uint32(0), true
	for len(left) > 0 {
		got, counter, err := d.readSome(t, bank, left)
		if err != nil {
			return nil, false, err
		}
		if len(values) > 0 && counter != first {
			still = false
		}
		first = counter
		for pcr, v := range got {
			values[pcr] = v
		}
		left = slices.DeleteFunc(left, func(pcr measure.PCR) bool { return got[pcr] != nil })
	}
	return values, still, nil
}

// readSome is one TPM2_PCR_Read (Part 3, section 22.4). It returns at least
// one of pcrs and nothing else, and the update counter.
func (d *Device) readSome(t transport.TPM, bank measure.Alg, pcrs []measure.PCR) (map[measure.PCR][]byte, uint32, error) {
	rsp, err := d.pcrRead(t, tpm2.PCRRead{PCRSelectionIn: selection(bank, pcrs)})
	if err != nil {
		return nil, 0, err
	}
	sels := rsp.PCRSelectionOut.PCRSelections
	if len(sels) != 1 || measure.Alg(sels[0].Hash) != bank {
		return nil, 0, fmt.Errorf("%w: %d selections for bank %v", ErrMalformed, len(sels), bank)
	}
	got := selected(sels[0].PCRSelect)
	if len(got) == 0 || len(got) != len(rsp.PCRValues.Digests) {
		return nil, 0, fmt.Errorf("%w: %d values for PCRs %v, asked for %v", ErrMalformed, len(rsp.PCRValues.Digests), got, pcrs)
	}
	values := map[measure.PCR][]byte{}
	for i, pcr := range got {
		v := rsp.PCRValues.Digests[i].Buffer
		if !slices.Contains(pcrs, pcr) || len(v) != bank.Size() {
			return nil, 0, fmt.Errorf("%w: PCR %d with %d bytes", ErrMalformed, pcr, len(v))
		}
		values[pcr] = v
	}
	return values, rsp.PCRUpdateCounter, nil
}
