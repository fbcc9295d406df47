package eventlog

import (
	"bytes"
	"slices"
	"testing"

	"waxseal/measure"
)

func TestJoinKeepsTheBanksThatBothHave(t *testing.T) {
	three := []measure.Alg{measure.SHA1, measure.SHA256, measure.SHA384}
	f, raw := firmware(t)
	for _, tt := range []struct {
		name  string
		banks []measure.Alg // of ours
		want  []measure.Alg // nil: refused
	}{
		{"the same", both, both},
		{"ours has one more", three, both},
		{"ours has one less", both[1:], both[1:]},
		{"none in common", []measure.Alg{measure.SHA512}, nil},
		{"only a weak one in ours", []measure.Alg{measure.SHA1}, nil},
	} {
		l, err := Join(f, New(tt.banks, recorded(5, tt.banks...)))
		if (err != nil) != (tt.want == nil) || !slices.Equal(l.Banks, tt.want) {
			t.Errorf("%s: banks %v, %v: want %v", tt.name, l.Banks, err, tt.want)
		}
		if err != nil {
			continue
		}
		b, err := EncodeCEL(l)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if got, err := DecodeCEL(b); err != nil || len(got.Firmware()) != len(f.Events) || len(got.Ours()) != 5 {
			t.Errorf("%s: %d events of the firmware and %d of ours, %v: want %d and 5", tt.name, len(got.Firmware()), len(got.Ours()), err, len(f.Events))
		}
		want := mustReplay(t, f, measure.SHA384)
		got := mustReplay(t, l, measure.SHA384)
		for _, pcr := range []measure.PCR{0, 4, 7, 9, 11} {
			if !got[pcr].Equal(want[pcr]) {
				t.Errorf("%s: PCR %d replays differently", tt.name, pcr)
			}
		}
	}
	if b, err := EncodeTCG(f); err != nil || !bytes.Equal(b, raw) {
		t.Errorf("joining changed the firmware's log (%v)", err)
	}
}

func TestJoinOntoNoFirmwareLogIsOurs(t *testing.T) {
	ours := New(both, recorded(5, both...))
	l, err := Join(Log{}, ours)
	if err != nil || len(l.Events) != 5 || !slices.Equal(l.Banks, both) {
		t.Errorf("%d events in %v, %v: want 5 in %v", len(l.Events), l.Banks, err, both)
	}
}

func TestSelectReordersBanksAndTheirNames(t *testing.T) {
	f, _ := firmware(t)
	turned := []measure.Alg{measure.SHA384, measure.SHA256}
	l, err := f.Select(turned)
	if err != nil {
		t.Fatal(err)
	}
	b, err := EncodeTCG(l)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeTCG(b)
	if err != nil || !slices.Equal(got.Banks, turned) {
		t.Errorf("banks %v, %v: want %v", got.Banks, err, turned)
	}
	mustReplayTo(t, got, "testdata/qemu-ovmf-uki.pcrs")
	if _, err := f.Select([]measure.Alg{measure.SHA512}); err == nil {
		t.Error("selected a bank that is not there")
	}
	f.Events[2].Digests = f.Events[2].Digests[:1]
	if _, err := f.Select(turned); err == nil {
		t.Error("selected from an event that lacks a digest")
	}
}

func TestRecordsComeBack(t *testing.T) {
	want := recorded(6, both...)
	b, err := EncodeCEL(New(both, want))
	if err != nil {
		t.Fatal(err)
	}
	l, err := DecodeCEL(b)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range l.Ours() {
		if r, err := e.Record(); err != nil || r != want[i].Record {
			t.Errorf("record %d is %v, %v: want %v", i, r, err, want[i].Record)
		}
	}
	f, _ := firmware(t)
	f.Events = append(f.Events, event(measure.Code, EVIPL, string(want[0].Payload()), both...))
	for i, e := range f.Events {
		if r, err := e.Record(); err == nil {
			t.Errorf("event %d of the firmware was read as %v", i, r)
		}
	}
}
