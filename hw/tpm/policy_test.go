package tpm

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"waxseal/measure"
)

// Branch 4 of the policy in SHA-384, as published in "TPM 2.0 Keys for Device
// Identity and Attestation", section 7.3.6.
func TestBranchOfReplaceablePolicyIsThePublishedOne(t *testing.T) {
	for key, prefix := range map[Key]string{IDevID: "0275fc2a", IAK: "471a7ab7"} {
		secret := policySecret(measure.SHA384, tpm2.TPMRHEndorsement)
		got := policyAuthorizeNV(measure.SHA384, nvName(measure.SHA384, policyNV[key][measure.SHA384], secret))
		if !strings.HasPrefix(hex.EncodeToString(got), prefix) {
			t.Errorf("branch 4 of %s is %x, want %s…", key, got, prefix)
		}
	}
}

// The EK template of the TCG has branch 1 in SHA-256 written out.
func TestPolicySecretIsThatOfTheEKTemplate(t *testing.T) {
	got := policySecret(measure.SHA256, tpm2.TPMRHEndorsement)
	if want := tpm2.RSAEKTemplate.AuthPolicy.Buffer; hex.EncodeToString(got) != hex.EncodeToString(want) {
		t.Errorf("got %x, want %x", got, want)
	}
}
