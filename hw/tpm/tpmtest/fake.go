package tpmtest

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"waxseal/measure"
)

// PCRs is a bank of PCRs in memory: the parts of tpm.Device that a recorder
// and a log need, by the rules of TPM 2.0 Part 1, section 17.
type PCRs struct {
	banks []measure.Alg

	mu     sync.Mutex // guards what follows
	values map[measure.PCR][]measure.Digest
	fail   error // what the next Extend answers, after it took effect or not
	late   bool  // the failing Extend took effect
}

var _ measure.Extender = (*PCRs)(nil)

// Fake returns PCRs as they are after power-on. Without banks it has SHA-256
// and SHA-384.
func Fake(banks ...measure.Alg) *PCRs {
	if len(banks) == 0 {
		banks = []measure.Alg{measure.SHA256, measure.SHA384}
	}
	p := &PCRs{banks: slices.Sorted(slices.Values(banks))}
	p.Reset()
	return p
}

// Reset is a reboot: PCR 17 to 22 are all ones, the others zero (PC Client
// Platform TPM Profile, section 4.6).
func (p *PCRs) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.values = map[measure.PCR][]measure.Digest{}
	for pcr := measure.PCR(0); pcr < measure.NumPCRs; pcr++ {
		for _, bank := range p.banks {
			sum := make([]byte, bank.Size())
			if pcr >= 17 && pcr <= 22 {
				for i := range sum {
					sum[i] = 0xff
				}
			}
			p.values[pcr] = append(p.values[pcr], measure.Digest{Alg: bank, Sum: sum})
		}
	}
}

// FailExtend makes the next Extend return err. It takes effect all the same
// if late is true: the answer was lost on its way.
func (p *PCRs) FailExtend(err error, late bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail, p.late = err, late
}

// Banks implements measure.Extender.
func (p *PCRs) Banks() []measure.Alg { return slices.Clone(p.banks) }

// Extend implements measure.Extender.
func (p *PCRs) Extend(ctx context.Context, pcr measure.PCR, digests []measure.Digest) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	next, err := p.extended(pcr, digests)
	if err != nil {
		return fmt.Errorf("extend PCR %d: %w", pcr, err)
	}
	fail := p.fail
	p.fail = nil
	if fail == nil || p.late {
		p.values[pcr] = next
	}
	return fail
}

func (p *PCRs) extended(pcr measure.PCR, digests []measure.Digest) ([]measure.Digest, error) {
	if pcr >= measure.NumPCRs || len(digests) != len(p.banks) {
		return nil, fmt.Errorf("%d digests for banks %v", len(digests), p.banks)
	}
	var next []measure.Digest
	for i, old := range p.values[pcr] {
		if digests[i].Alg != old.Alg || len(digests[i].Sum) != old.Alg.Size() {
			return nil, fmt.Errorf("digest %d is %v with %d bytes: need %v", i, digests[i].Alg, len(digests[i].Sum), old.Alg)
		}
		d, err := measure.Extend(old, digests[i])
		if err != nil {
			return nil, err
		}
		next = append(next, d)
	}
	return next, nil
}

// ReadPCR implements measure.Extender.
func (p *PCRs) ReadPCR(ctx context.Context, pcr measure.PCR) ([]measure.Digest, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if pcr >= measure.NumPCRs {
		return nil, fmt.Errorf("read PCR %d: need a PCR below 24", pcr)
	}
	return slices.Clone(p.values[pcr]), nil
}

// ReadPCRs is tpm.Device.ReadPCRs.
func (p *PCRs) ReadPCRs(ctx context.Context, bank measure.Alg, pcrs []measure.PCR) (map[measure.PCR][]byte, error) {
	i := slices.Index(p.banks, bank)
	if i < 0 || len(pcrs) == 0 {
		return nil, fmt.Errorf("read PCRs %v of bank %v: active are %v", pcrs, bank, p.banks)
	}
	values := map[measure.PCR][]byte{}
	for _, pcr := range pcrs {
		v, err := p.ReadPCR(ctx, pcr)
		if err != nil {
			return nil, err
		}
		if values[pcr] != nil {
			return nil, fmt.Errorf("read PCRs: PCR %d is selected twice", pcr)
		}
		values[pcr] = slices.Clone(v[i].Sum)
	}
	return values, nil
}
