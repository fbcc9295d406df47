package tpm_test

import (
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"waxseal/hw/tpm"
	"waxseal/measure"
)

// calls are the questions of FuzzAnswer, by their first command.
var calls = []struct {
	code tpm2.TPMCC
	ask  func(testing.TB, *tpm.Device) error
}{
	{tpm2.TPMCCPCRRead, func(t testing.TB, d *tpm.Device) error {
		v, err := d.ReadPCRs(t.Context(), measure.SHA384, []measure.PCR{0, 7, 12})
		if err == nil && (len(v) != 3 || len(v[0]) != 48 || len(v[7]) != 48 || len(v[12]) != 48) {
			t.Errorf("values are %x", v)
		}
		return err
	}},
	{tpm2.TPMCCPCRExtend, func(t testing.TB, d *tpm.Device) error { return extend(t.Context(), d) }},
	{tpm2.TPMCCReadPublic, func(t testing.TB, d *tpm.Device) error {
		_, area, err := d.Public(t.Context(), tpm.IAK)
		if err == nil && len(area) == 0 {
			t.Error("a key without a public area")
		}
		return err
	}},
	{tpm2.TPMCCReadClock, func(t testing.TB, d *tpm.Device) error {
		_, err := d.Counters(t.Context())
		return err
	}},
	{tpm2.TPMCCNVReadPublic, func(t testing.TB, d *tpm.Device) error {
		b, err := d.NVRead(t.Context(), tpm.NVCertIAK)
		if len(b) > tpm.MaxNV {
			t.Errorf("%d bytes of NV", len(b))
		}
		return err
	}},
	{tpm2.TPMCCGetCapability, func(t testing.TB, d *tpm.Device) error {
		return d.NVWrite(t.Context(), tpm.NVCertIAK, []byte("x"))
	}},
}

// FuzzAnswer gives a device answers that a broken or hostile TPM might give:
// never a panic, never a hang, never a value of the wrong size.
func FuzzAnswer(f *testing.F) {
	for i, c := range calls {
		f.Add(uint8(i), healthy(c.code)[10:])
	}
	f.Add(uint8(0), []byte{0, 0, 0, 1, 0, 0, 0, 1, 0, 0x0c, 3, 0x81, 0x10, 0, 0, 0, 0, 1, 0, 48})
	f.Add(uint8(0), []byte{0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, call uint8, body []byte) {
		c := calls[int(call)%len(calls)]
		s := &script{}
		s.answer = func(code tpm2.TPMCC, _ []byte) ([]byte, error) {
			if code != c.code || len(s.commands()) == 1 { // the first question is for the banks
				return nil, nil
			}
			return respond(0x8001, 0, body...), nil
		}
		d, err := tpm.New(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		_ = c.ask(t, d) // most answers are wrong; the checks are inside
		if since := time.Since(start); since > tpm.Timeout {
			t.Errorf("took %v", since)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
}
