package tpm_test

import (
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"waxseal/hw/tpm"
	"waxseal/hw/tpm/tpmtest"
)

// The private halves were born in the TPM and stay there: it says so itself of
// what it holds, gives out public areas only, and refuses to duplicate.
func TestPrivateKeysNeverLeaveTheTPM(t *testing.T) {
	p := tpmtest.Run(t, t.TempDir())
	d := tpmtest.Open(t, p)
	raw, err := linuxudstpm.Open(p.Socket())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	handles := map[tpm.Key]tpm2.TPMHandle{tpm.EK: 0x81010001, tpm.EK384: 0x81010016, tpm.IAK: 0x81020001, tpm.IDevID: 0x81020000}
	for k, handle := range handles {
		if err := d.CreateKey(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		rsp, err := tpm2.ReadPublic{ObjectHandle: handle}.Execute(raw)
		if err != nil {
			t.Fatal(err)
		}
		pub, err := rsp.OutPublic.Contents()
		if err != nil {
			t.Fatal(err)
		}
		if a := pub.ObjectAttributes; !a.FixedTPM || !a.FixedParent || !a.SensitiveDataOrigin || a.EncryptedDuplication {
			t.Errorf("%s has attributes %+v", k, a)
		}
		copied, err := tpm2.Duplicate{
			ObjectHandle:    tpm2.AuthHandle{Handle: handle, Name: rsp.Name, Auth: tpm2.PasswordAuth(nil)},
			NewParentHandle: tpm2.NamedHandle{Handle: tpm2.TPMRHNull, Name: tpm2.HandleName(tpm2.TPMRHNull)},
			Symmetric:       tpm2.TPMTSymDef{Algorithm: tpm2.TPMAlgNull},
		}.Execute(raw)
		var refusal tpm2.TPMRC
		if !errors.As(err, &refusal) {
			t.Errorf("%s is duplicated: %+v, %v", k, copied, err)
		}
	}
}
