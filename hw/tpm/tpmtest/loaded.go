package tpmtest

import (
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"waxseal/hw/tpm/swtpm"
)

// Loaded returns how many transient objects and sessions the TPM holds (Part
// 3, TPM2_GetCapability, TPM_CAP_HANDLES): none where every call has cleaned
// up after itself.
func Loaded(t testing.TB, p *swtpm.Process) int {
	t.Helper()
	conn, err := linuxudstpm.Open(p.Socket())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	n := 0
	for _, first := range []uint32{0x80000000, 0x02000000, 0x03000000} { // transient, loaded and saved sessions
		rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: first, PropertyCount: 64}.Execute(conn)
		if err != nil {
			t.Fatal(err)
		}
		handles, err := rsp.CapabilityData.Data.Handles()
		if err != nil {
			t.Fatal(err)
		}
		n += len(handles.Handle)
	}
	return n
}
