package agent_test

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"waxseal/hw/tpm"
	"waxseal/hw/tpm/tpmtest"
	"waxseal/measure"
	"waxseal/measure/wire"
)

// The enrollment emulator and the attest client of openconfig/attestz, built
// as they are, must accept this agent, and must refuse what is wrong with it.
func TestReferenceClientsAcceptTheAgent(t *testing.T) {
	bin := t.TempDir()
	reference(t, "", "build", bin)
	eachChip(t, func(t *testing.T, c chip) {
		l := newLab(t, c)
		dir := t.TempDir()
		ownerCert, ownerKey := l.owner.files(t, dir, "owner")
		strangerCert, strangerKey := l.stranger.files(t, dir, "stranger")
		vendorCert, _ := l.vendor.files(t, dir, "vendor")

		reference(t, "failed to get IAK cert", "enroll", bin, l.addr, strangerCert, strangerKey, vendorCert)
		reference(t, "failed to verify and parse IAK cert", "enroll", bin, l.addr, ownerCert, ownerKey, strangerCert)
		if attestz := l.dial(t, l.owner.client(t)).Attestz(); !refused(t, attestz) {
			t.Fatal("a failed enrollment has enrolled the device")
		}
		reference(t, "", "enroll", bin, l.addr, ownerCert, ownerKey, vendorCert)

		for _, bank := range []measure.Alg{measure.SHA384, measure.SHA256} {
			good, bad := expectation(t, c, bank)
			name := strings.ToUpper(bank.String())
			reference(t, "", "attest", bin, l.addr, ownerCert, ownerKey, good, name)
			reference(t, "policy failure: PCR 12", "attest", bin, l.addr, ownerCert, ownerKey, bad, name)
			reference(t, "certificate signed by unknown authority", "attest", bin, l.addr, strangerCert, strangerKey, good, name)
		}
		reference(t, "", "enroll", bin, l.addr, ownerCert, ownerKey, vendorCert)
	})
}

// The library's own HMAC flow enrolls a device that has no certificates, and
// refuses one whose EK is another than is known.
func TestReferenceLibraryEnrollsByHMACChallenge(t *testing.T) {
	bin := t.TempDir()
	reference(t, "", "build", bin)
	b := newBare(t)
	dir := t.TempDir()
	ownerCert, ownerKey := b.owner.files(t, dir, "owner")
	strangerCert, strangerKey := b.stranger.files(t, dir, "stranger")
	ek, other := filepath.Join(dir, "ek.pem"), filepath.Join(dir, "other.pem")
	writeEK(t, b.device, ek)
	writeEK(t, tpmtest.Swtpm(t), other)

	reference(t, "failed to get control card vendor ID", "enroll_hmac", bin, b.addr, strangerCert, strangerKey, ek, serial)
	reference(t, "no EK of", "enroll_hmac", bin, b.addr, ownerCert, ownerKey, ek, "WX-0002")
	reference(t, "failed to challenge the TPM", "enroll_hmac", bin, b.addr, ownerCert, ownerKey, other, serial)
	if attestz := b.dial(t, b.owner.client(t)).Attestz(); !refused(t, attestz) {
		t.Fatal("a failed enrollment has enrolled the device")
	}
	for range 2 {
		reference(t, "", "enroll_hmac", bin, b.addr, ownerCert, ownerKey, ek, serial)
	}
	good, bad := expectation(t, realChip{b.device}, measure.SHA384)
	reference(t, "", "attest", bin, b.addr, ownerCert, ownerKey, good)
	reference(t, "policy failure: PCR 12", "attest", bin, b.addr, ownerCert, ownerKey, bad)
	if n := b.loaded(); n != 0 {
		t.Errorf("%d objects and sessions are left in the TPM", n)
	}
}

func writeEK(t *testing.T, d *tpm.Device, path string) {
	t.Helper()
	ek, _, err := d.EKPublic(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(ek)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

func refused(t *testing.T, c wire.AttestClient) bool {
	t.Helper()
	_, err := c.Attest(t.Context(), newRequest(t))
	return err != nil
}

// reference runs scripts/interop/run. It must succeed, or fail with a text if
// one is named.
func reference(t *testing.T, failure string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join("..", "scripts", "interop", "run"), args...)
	out, err := cmd.CombinedOutput()
	if (err == nil) != (failure == "") || !strings.Contains(string(out), failure) {
		t.Fatalf("interop %s: %v: want failure %q\n%s", args[0], err, failure, out)
	}
}

// expectation returns the PCR values that the chip has, as the attest client
// wants them, and the same with one bit changed.
func expectation(t *testing.T, c chip, bank measure.Alg) (good, bad string) {
	t.Helper()
	values, err := c.ReadPCRs(t.Context(), bank, asked)
	if err != nil {
		t.Fatal(err)
	}
	text := func() string {
		m := map[string]string{}
		for pcr, v := range values {
			m[strconv.Itoa(int(pcr))] = hex.EncodeToString(v)
		}
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	good = text()
	values[measure.Code][0] ^= 1
	return good, text()
}

func (a authority) files(t *testing.T, dir, name string) (cert, key string) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+"-key.pem")
	for path, data := range map[string][]byte{cert: a.pem(), key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}
