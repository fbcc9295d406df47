package tpm_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"waxseal/hw/tpm"
	"waxseal/hw/tpm/tpmtest"
)

const testIndex = 0x01c9_0100

func TestNVKeepsWhatIsLongerThanACommand(t *testing.T) {
	d := tpmtest.Swtpm(t)
	for _, size := range []int{1, 1023, 1024, 1025, 2000} {
		data := make([]byte, size)
		rand.Read(data)
		if err := d.NVDefine(t.Context(), testIndex, size); err != nil {
			t.Fatal(err)
		}
		if _, err := d.NVRead(t.Context(), testIndex); !errors.Is(err, tpm.ErrNoNV) {
			t.Errorf("%d bytes, never written: %v", size, err)
		}
		if err := d.NVWrite(t.Context(), testIndex, data); err != nil {
			t.Fatal(err)
		}
		got, err := d.NVRead(t.Context(), testIndex)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, data) {
			t.Errorf("%d bytes: read other bytes than were written", size)
		}
	}
}

func TestNVRefusesWhatDoesNotFit(t *testing.T) {
	d := tpmtest.Swtpm(t)
	if _, err := d.NVRead(t.Context(), testIndex); !errors.Is(err, tpm.ErrNoNV) {
		t.Errorf("read of nothing: %v", err)
	}
	if err := d.NVWrite(t.Context(), testIndex, []byte{1}); !errors.Is(err, tpm.ErrNoNV) {
		t.Errorf("write into nothing: %v", err)
	}
	if err := d.NVDefine(t.Context(), testIndex, 0); err == nil {
		t.Error("an area of no bytes is defined")
	}
	if err := d.NVDefine(t.Context(), testIndex, tpm.MaxNV+1); err == nil {
		t.Error("a huge area is defined")
	}
	if err := d.NVDefine(t.Context(), testIndex, 8); err != nil {
		t.Fatal(err)
	}
	if err := d.NVWrite(t.Context(), testIndex, make([]byte, 9)); err == nil {
		t.Error("nine bytes are written into eight")
	}
}

func TestSameBytesAreNotWrittenTwice(t *testing.T) {
	d, i := interposed(t)
	data := []byte("certificate")
	if err := d.NVDefine(t.Context(), testIndex, len(data)); err != nil {
		t.Fatal(err)
	}
	writes := 0
	i.command = func(code tpm2.TPMCC, _ []byte) {
		if code == tpm2.TPMCCNVWrite {
			writes++
		}
	}
	for range 3 {
		if err := d.NVWrite(t.Context(), testIndex, data); err != nil {
			t.Fatal(err)
		}
	}
	if writes != 1 {
		t.Errorf("%d writes, want 1", writes)
	}
}

func TestFactoryCertificatesOutliveAClear(t *testing.T) {
	p := tpmtest.Run(t, t.TempDir())
	d := tpmtest.Open(t, p)
	if err := d.NVDefine(t.Context(), testIndex, 4); err != nil {
		t.Fatal(err)
	}
	if err := d.NVWrite(t.Context(), testIndex, []byte("cert")); err != nil {
		t.Fatal(err)
	}
	clearTPM(t, p.Socket())
	got, err := d.NVRead(t.Context(), testIndex)
	if err != nil || string(got) != "cert" {
		t.Errorf("after a clear: %q, %v", got, err)
	}
}

func TestNVFullIsErrFull(t *testing.T) {
	d := tpmtest.Swtpm(t)
	for i := range uint32(256) {
		err := d.NVDefine(t.Context(), testIndex+i, 2048)
		if errors.Is(err, tpm.ErrFull) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Error("NV is never full")
}
