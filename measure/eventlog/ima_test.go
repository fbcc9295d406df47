package eventlog

import (
	"bytes"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"

	"waxseal/measure"
)

func TestIMAListIsReadAsItWasWritten(t *testing.T) {
	want := New(both, recorded(12, both...))
	for _, column := range both {
		b, err := EncodeIMA(want, column)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeIMA(b, column, both...)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.EqualFunc(got.Events, want.Events, Event.Equal) {
			t.Errorf("%v: events differ", column)
		}
		if err := got.Explains(measure.SHA384, mustReplay(t, want, measure.SHA384)); err != nil {
			t.Errorf("%v: %v", column, err)
		}
	}
}

func TestIMAListWithSHA1CarriesItUnread(t *testing.T) {
	banks := []measure.Alg{measure.SHA1, measure.SHA256}
	want := New(banks, recorded(4, banks...))
	b, err := EncodeIMA(want, measure.SHA1)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeIMA(b, measure.SHA1, banks...)
	if err != nil || !slices.EqualFunc(got.Events, want.Events, Event.Equal) {
		t.Errorf("events differ (%v)", err)
	}
	b, err = EncodeIMA(want, measure.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := DecodeIMA(b, measure.SHA256, banks...); err == nil {
		t.Error("SHA-1 digests were made up")
	}
}

func TestIMAListHoldsOurEventsOnly(t *testing.T) {
	b, err := EncodeIMA(whole(t, 6), measure.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	l, err := DecodeIMA(b, measure.SHA256, measure.SHA256)
	if err != nil || len(l.Events) != 6 || len(l.Ours()) != 6 {
		t.Errorf("%d events, %v: want 6", len(l.Events), err)
	}
	if _, err := EncodeIMA(whole(t, 6), measure.SHA512); err == nil {
		t.Error("encoded in a bank that the log does not have")
	}
}

func TestIMABytes(t *testing.T) {
	rec := measure.Record{PCR: measure.Code, Name: "agent/exe"}
	b, err := EncodeIMA(New(both[:1], []measure.Event{{Record: rec, Digests: rec.Digests(both[:1])}}), measure.SHA256)
	want := "0c000000" + hex.EncodeToString(measure.Hash(measure.SHA256, rec.Payload()).Sum) +
		"06000000" + hex.EncodeToString([]byte("ima-ng")) + "3a000000" + hex.EncodeToString(rec.Payload())
	if err != nil || hex.EncodeToString(b) != want {
		t.Errorf("list is\n%x, %v: want\n%s", b, err, want)
	}
}

func TestIMAListThatLies(t *testing.T) {
	p := measure.Record{Name: "agent/exe"}.Payload()
	sum := measure.Hash(measure.SHA256, p).Sum
	entry := func(pcr uint32, sum []byte, name string, data []byte) raw {
		b := append(raw{}.le32(pcr), sum...).le32(uint32(len(name)))
		return append(append(b, name...).le32(uint32(len(data))), data...)
	}
	good := entry(12, sum, imaNG, p)
	if _, err := DecodeIMA(good, measure.SHA256, both...); err != nil {
		t.Fatalf("the good list of this table: %v", err)
	}
	for _, tt := range []struct {
		name string
		list []byte
		want error
		text string
	}{
		{"PCR 24", entry(24, sum, imaNG, p), ErrMalformed, "PCR 24"},
		{"PCR 4,000,000,000", entry(4_000_000_000, sum, imaNG, p), ErrMalformed, "PCR 4000000000"},
		{"big-endian PCR", entry(12<<24, sum, imaNG, p), ErrMalformed, "PCR"},
		{"template ima", entry(12, sum, "ima", p), ErrMalformed, `"ima"`},
		{"name of 2^32-1 bytes", append(raw{}.le32(12), sum...).le32(0xffffffff), ErrTruncated, ""},
		{"data of 2^32-1 bytes", append(append(raw{}.le32(12), sum...).le32(6), imaNG...).le32(0xffffffff), ErrTruncated, ""},
		{"digest of zeros, a violation", entry(12, make([]byte, 32), imaNG, p), ErrMalformed, "does not cover"},
		{"data altered", entry(12, sum, imaNG, measure.Record{Name: "agent/exf"}.Payload()), ErrMalformed, "does not cover"},
		{"data that is no record", entry(12, measure.Hash(measure.SHA256, []byte("x")).Sum, imaNG, []byte("x")), ErrMalformed, "payload"},
		{"SHA-1 column", entry(12, make([]byte, 20), imaNG, p), ErrMalformed, ""},
		{"padding", append(bytes.Clone(good), 0xff), ErrTruncated, "event 1"},
		{"above 4 MiB", make([]byte, MaxSize+1), ErrTooLarge, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := DecodeIMA(tt.list, measure.SHA256, both...)
			if err == nil || !errors.Is(err, tt.want) && !errors.Is(err, ErrTruncated) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error %v: want %v with %q", err, tt.want, tt.text)
			}
		})
	}
	if _, err := DecodeIMA(entry(12, make([]byte, 32), imaNG, p), measure.SHA256, measure.SHA384); !errors.Is(err, ErrMalformed) {
		t.Errorf("digest of zeros in a column that is not kept: %v: want %v", err, ErrMalformed)
	}
	for n := 1; n < len(good); n++ {
		if _, err := DecodeIMA(good[:n], measure.SHA256, both...); !errors.Is(err, ErrTruncated) {
			t.Errorf("cut to %d bytes: %v: want %v", n, err, ErrTruncated)
		}
	}
	if _, err := DecodeIMA(nil, 0x27, both...); err == nil {
		t.Error("unknown column: accepted")
	}
	if _, err := DecodeIMA(nil, measure.SHA256); !errors.Is(err, ErrMalformed) {
		t.Error("no banks: accepted")
	}
}
