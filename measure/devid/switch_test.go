package devid_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"waxseal/measure/csr"
	"waxseal/measure/devid"
)

// The reference library carries the answers of a switch of another maker, with
// a hardware TPM: what is demanded here, that TPM fulfils.
func TestAnswersOfASwitchOfAnotherMakerAreAccepted(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/openconfig/attestz").Output()
	dir := filepath.Join(strings.TrimSpace(string(out)), "service", "biz", "hmac_challenge_test_data")
	if _, serr := os.Stat(dir); err != nil || serr != nil {
		t.Skip("the source of github.com/openconfig/attestz is not in the module cache")
	}
	read := func(name string) []byte { return must(os.ReadFile(filepath.Join(dir, name)))(t) }
	request := read("csrResponse-csr_contents")
	content := must(csr.Parse(request))(t)
	iak, idevid := parse(t, devid.IAK, content.IAK), parse(t, devid.IDevID, content.IDevID)
	if content.Serial == "" || string(iak.Name) == string(idevid.Name) {
		t.Errorf("serial %q", content.Serial)
	}
	sensitive := read("sensitive") // TPMT_SENSITIVE, the key at its end
	secret := sensitive[len(sensitive)-32:]
	if err := iak.CertifiedByHMAC(secret, read("challengeResp-iak_certify_info")[2:], read("challengeResp-iak_certify_info_signature")); err != nil {
		t.Error(err)
	}
	if err := idevid.CertifiedBy(iak, content.IDevIDAttest, content.IDevIDProof); err != nil {
		t.Error(err)
	}
	if err := idevid.Signed(request, read("csrResponse-idevid_signature_csr")); err != nil {
		t.Error(err)
	}
}
