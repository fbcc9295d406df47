package tpm_test

import (
	"testing"

	"github.com/google/go-tpm/tpm2"

	"waxseal/hw/tpm"
	"waxseal/hw/tpm/tpmtest"
)

// The policy that is computed here is the one that the TPM enforces.
func TestKeysAreCertifiedUnderTheirPolicyAlone(t *testing.T) {
	p := tpmtest.Run(t, t.TempDir())
	d := tpmtest.Open(t, p)
	for _, k := range []tpm.Key{tpm.IAK, tpm.IDevID} {
		if err := d.CreateKey(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		if err := tpm.CertifyForTest(t.Context(), d, k, tpm2.TPMCCCertify); err != nil {
			t.Errorf("%s: %v", k, err)
		}
		if err := tpm.CertifyForTest(t.Context(), d, k, tpm2.TPMCCActivateCredential); err == nil {
			t.Errorf("%s is certified under the policy for another command", k)
		}
		if n := tpmtest.Loaded(t, p); n != 0 {
			t.Errorf("%s: %d objects and sessions are left in the TPM", k, n)
		}
	}
}
