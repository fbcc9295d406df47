package enroll

import (
	"context"
	"errors"
	"fmt"

	"waxseal/measure/csr"
	"waxseal/measure/devid"
	"waxseal/measure/wire"
)

// together tells whether a router whose keys its maker certifies has both in
// one TPM: the IAK, which signs nothing but what its TPM has made, certifies
// the IDevID (RFC 9683, section 2.3). False without an error is a router that
// does not answer the question; one that answers it wrongly is ErrProof.
func (c Config) together(ctx context.Context, router wire.EnrollClient, id identity) (bool, error) {
	ans, err := router.IDevIDCSR(ctx, wire.CSRRequest{Select: c.Select, Parent: wire.ParentEK, Template: wire.TemplateP384})
	for _, without := range []error{wire.ErrNoMethod, wire.ErrUnsupported, wire.ErrNotReady} {
		if errors.Is(err, without) {
			return false, nil
		}
	}
	if err != nil {
		return false, err
	}
	content, err := csr.Parse(ans.Content)
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrProof, err)
	}
	iak, err := devid.Parse(devid.IAK, content.IAK)
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrProof, err)
	}
	idevid, err := devid.Parse(devid.IDevID, content.IDevID)
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrProof, err)
	}
	if !iak.Public.Equal(id.iak) || !idevid.Public.Equal(id.idevid) {
		return false, fmt.Errorf("%w: its TPM has other keys than its maker certifies", ErrProof)
	}
	if err := idevid.CertifiedBy(iak, content.IDevIDAttest, content.IDevIDProof); err != nil {
		return false, fmt.Errorf("%w: IAK and IDevID are not in one TPM: %w", ErrProof, err)
	}
	return true, nil
}
