package tpm_test

import (
	"bytes"
	"context"
	"slices"
	"testing"

	"waxseal/hw/tpm"
	"waxseal/hw/tpm/tpmtest"
	"waxseal/measure"
)

// pcrs is what every TPM, real or not, owes a recorder.
type pcrs interface {
	measure.Extender
	ReadPCRs(context.Context, measure.Alg, []measure.PCR) (map[measure.PCR][]byte, error)
}

func TestFakeKeepsContract(t *testing.T) { testContract(t, tpmtest.Fake()) }

func TestSwtpmKeepsContract(t *testing.T) { testContract(t, tpmtest.Swtpm(t)) }

func TestSwtpmInSaltedSessionKeepsContract(t *testing.T) {
	d := tpmtest.Swtpm(t)
	if err := d.StartSalted(t.Context()); err != nil {
		t.Fatal(err)
	}
	testContract(t, d)
	if err := d.StopSalted(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// testContract is the one contract test of all PCRs, starting from power-on.
func testContract(t *testing.T, p pcrs) {
	t.Run("banks ascend and are known", func(t *testing.T) {
		banks := p.Banks()
		if !slices.IsSorted(banks) || !slices.Contains(banks, measure.SHA384) {
			t.Fatalf("banks are %v", banks)
		}
		for _, bank := range banks {
			if bank.Size() == 0 {
				t.Errorf("bank %v is not known", bank)
			}
		}
		banks[0] = 0
		if p.Banks()[0] == 0 {
			t.Error("a caller can change the banks")
		}
	})
	t.Run("an extend is what measure computes, in all banks", func(t *testing.T) {
		want := read(t, p, 12)
		for _, name := range []string{"kernel/file/a", "kernel/file/b"} {
			rec := measure.Record{PCR: 12, Name: name}
			if err := p.Extend(t.Context(), 12, rec.Digests(p.Banks())); err != nil {
				t.Fatal(err)
			}
			for i, d := range rec.Digests(p.Banks()) {
				if !d.Alg.Computable() {
					continue
				}
				var err error
				if want[i], err = measure.Extend(want[i], d); err != nil {
					t.Fatal(err)
				}
			}
		}
		for i, got := range read(t, p, 12) {
			if got.Equal(want[i]) != got.Alg.Computable() {
				t.Errorf("PCR 12 is %v, want %v", got, want[i])
			}
		}
	})
	t.Run("reads of more than eight agree with single reads", func(t *testing.T) {
		all := []measure.PCR{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 23, 17}
		for i, bank := range p.Banks() {
			if !bank.Computable() {
				continue
			}
			values, err := p.ReadPCRs(t.Context(), bank, all)
			if err != nil {
				t.Fatal(err)
			}
			if len(values) != len(all) {
				t.Errorf("%d values for %d PCRs", len(values), len(all))
			}
			for _, pcr := range all {
				if one := read(t, p, pcr)[i].Sum; !bytes.Equal(values[pcr], one) {
					t.Errorf("%v PCR %d: %x in the set, %x alone", bank, pcr, values[pcr], one)
				}
			}
		}
	})
	t.Run("wrong questions are refused", func(t *testing.T) { testRefusals(t, p) })
}

func testRefusals(t *testing.T, p pcrs) {
	before := read(t, p, 12)
	good := measure.Record{PCR: 12, Name: "kernel/file/c"}.Digests(p.Banks())
	with := func(i int, d measure.Digest) []measure.Digest {
		bad := slices.Clone(good)
		bad[i] = d
		return bad
	}
	short := measure.Digest{Alg: good[0].Alg, Sum: good[0].Sum[1:]}
	swapped := with(0, good[1])
	swapped[1] = good[0]
	extends := map[string]struct {
		pcr     measure.PCR
		digests []measure.Digest
	}{
		"a bank left out": {12, good[1:]},
		"a bank twice":    {12, with(1, good[0])},
		"other order":     {12, swapped},
		"short digest":    {12, with(0, short)},
		"no digest":       {12, nil},
		"PCR 24":          {24, good},
	}
	for name, c := range extends {
		if err := p.Extend(t.Context(), c.pcr, c.digests); err == nil {
			t.Errorf("extend with %s is accepted", name)
		}
	}
	reads := map[string]struct {
		bank measure.Alg
		pcrs []measure.PCR
	}{
		"no PCR":           {measure.SHA384, nil},
		"a PCR twice":      {measure.SHA384, []measure.PCR{1, 1}},
		"PCR 24":           {measure.SHA384, []measure.PCR{24}},
		"an inactive bank": {0x0027, []measure.PCR{1}},
		"SHA-1":            {measure.SHA1, []measure.PCR{1}},
	}
	for name, c := range reads {
		if v, err := p.ReadPCRs(t.Context(), c.bank, c.pcrs); err == nil {
			t.Errorf("read of %s gives %x", name, v)
		}
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Extend(cancelled, 12, good); err == nil {
		t.Error("extend with a cancelled context is accepted")
	}
	if after := read(t, p, 12); !slices.EqualFunc(before, after, measure.Digest.Equal) {
		t.Error("a refused extend changed PCR 12")
	}
}

func read(t *testing.T, p pcrs, pcr measure.PCR) []measure.Digest {
	t.Helper()
	v, err := p.ReadPCR(t.Context(), pcr)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

var _ pcrs = (*tpm.Device)(nil)
