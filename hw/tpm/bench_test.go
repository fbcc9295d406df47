package tpm_test

import (
	"strconv"
	"testing"

	"waxseal/hw/tpm"
	"waxseal/hw/tpm/tpmtest"
	"waxseal/measure"
)

func BenchmarkExtend(b *testing.B) { benchmarkExtend(b, tpmtest.Swtpm(b)) }

func BenchmarkExtendSalted(b *testing.B) {
	d := tpmtest.Swtpm(b)
	if err := d.StartSalted(b.Context()); err != nil {
		b.Fatal(err)
	}
	benchmarkExtend(b, d)
}

func benchmarkExtend(b *testing.B, d *tpm.Device) {
	for b.Loop() {
		if err := extend(b.Context(), d); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadPCRs(b *testing.B) {
	d := tpmtest.Swtpm(b)
	pcrs := []measure.PCR{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15}
	for b.Loop() {
		if _, err := d.ReadPCRs(b.Context(), measure.SHA384, pcrs); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkQuote(b *testing.B) {
	d := tpmtest.Provisioned(b)
	nonce := make([]byte, 32)
	pcrs := []measure.PCR{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15}
	for b.Loop() {
		if _, _, err := d.Quote(b.Context(), tpm.IAK, nonce, measure.SHA384, pcrs); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSignData is over the size of a token: a log of 20 events, then one
// that is as long as a token can hold.
func BenchmarkSignData(b *testing.B) {
	d := tpmtest.Provisioned(b)
	for _, size := range []int{6 << 10, tpm.MaxSignData} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			data := make([]byte, size)
			for b.Loop() {
				if _, err := d.SignData(b.Context(), data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
