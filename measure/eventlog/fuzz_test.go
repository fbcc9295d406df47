package eventlog

import (
	"bytes"
	"testing"

	"waxseal/measure"
)

// fuzzDecode holds a decoder to its promise: what it accepts is within the
// caps, replays, and is written as it was read.
func fuzzDecode(t *testing.T, b []byte, decode func([]byte) (Log, error), encode func(Log) ([]byte, error)) {
	l, err := decode(b)
	if err != nil {
		if len(l.Events) != 0 {
			t.Errorf("%d events came with %v", len(l.Events), err)
		}
		return
	}
	if len(l.Events) > MaxEvents || len(l.Banks) > MaxBanks {
		t.Errorf("%d events, %d banks", len(l.Events), len(l.Banks))
	}
	if again, err := encode(l); err != nil || !bytes.Equal(again, b) {
		t.Errorf("%x was read and %x written (%v)", b, again, err)
	}
	for _, bank := range l.Banks {
		values, err := l.Replay(bank)
		if (err == nil) != bank.Computable() {
			t.Errorf("replay in %v: %v", bank, err)
		}
		if err == nil && l.Explains(bank, values) != nil {
			t.Errorf("log does not explain its own replay in %v", bank)
		}
		_ = l.CheckSeparators(bank)
	}
	for _, e := range l.Events {
		_, err := e.Record()
		if e.Ours != (err == nil) || e.Ours && !e.DigestCoversData() {
			t.Errorf("event of ours is not proven: %+v", e)
		}
		_ = TypeName(e.Type)
	}
}

func FuzzDecodeTCG(f *testing.F) {
	_, b := firmware(f)
	f.Add(b)
	b, _ = EncodeTCG(whole(f, 5))
	f.Add(b)
	f.Add([]byte(sha256Log().event256(4, EVIPL, "x")))
	f.Fuzz(func(t *testing.T, b []byte) { fuzzDecode(t, b, DecodeTCG, EncodeTCG) })
}

func FuzzDecodeCEL(f *testing.F) {
	b, _ := EncodeCEL(whole(f, 5))
	f.Add(b)
	b, _ = EncodeCEL(New(both[:1], recorded(3, both[0])))
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) { fuzzDecode(t, b, DecodeCEL, EncodeCEL) })
}

func FuzzDecodeIMA(f *testing.F) {
	b, _ := EncodeIMA(New(both, recorded(4, both...)), measure.SHA256)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		fuzzDecode(t, b,
			func(b []byte) (Log, error) { return DecodeIMA(b, measure.SHA256, both...) },
			func(l Log) ([]byte, error) { return EncodeIMA(l, measure.SHA256) })
	})
}
