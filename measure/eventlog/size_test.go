package eventlog

import (
	"bytes"
	"runtime"
	"testing"

	"waxseal/measure"
)

// allocated returns the bytes that f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestDecodersAllocateASmallMultipleOfTheirInput gives them the logs that cost
// most for their size, good and lying. The bar is four times the input.
func TestDecodersAllocateASmallMultipleOfTheirInput(t *testing.T) {
	const fixed = 16 << 10 // bytes that any log may cost
	decodeIMA := func(b []byte) (Log, error) { return DecodeIMA(b, measure.SHA1, measure.SHA1, measure.SHA256) }
	small := raw{}.le32(4).le32(EVIPL).le32(1).le16(4).zeros(20).le32(0)
	sha1Log := header(specID(1, 4, 20))
	many := func(head, one raw, n int) []byte { return append(bytes.Clone(head), bytes.Repeat(one, n)...) }
	cel := func(n uint64) (b raw) {
		for i := range n {
			b = append(b, celRecord(i, 4, raw{}.tlv(4, make([]byte, 20)), raw{}.tlv(celPCClient, raw{}.tlv(0, make([]byte, 4)).tlv(1, nil)))...)
		}
		return b
	}
	ours, err := EncodeCEL(New(both, recorded(10_000, both...)))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		decode func([]byte) (Log, error)
		log    []byte
		good   bool
	}{
		{"60,000 smallest events", DecodeTCG, many(sha1Log, small, 60_000), true},
		{"60,000 smallest events, the last cut", DecodeTCG, append(many(sha1Log, small, 60_000), 1), false},
		{"70,000 smallest events", DecodeTCG, many(sha1Log, small, 70_000), false},
		{"one event of 4 MiB", DecodeTCG, many(sha1Log.le32(4).le32(EVIPL).le32(1).le16(4).zeros(20).le32(4000000), raw{0}, 4000000), true},
		{"data size 2^32-1", DecodeTCG, sha1Log.le32(4).le32(EVIPL).le32(1).le16(4).zeros(20).le32(0xffffffff), false},
		{"2^32-1 algorithms", DecodeTCG, header(specID(0xffffffff)), false},
		{"2^32-1 digests", DecodeTCG, sha1Log.le32(4).le32(EVIPL).le32(0xffffffff), false},
		{"50,000 smallest records", DecodeCEL, cel(50_000), true},
		{"10,000 records of ours", DecodeCEL, ours, true},
		{"TLV of 2^32-1", DecodeCEL, raw{0, 0xff, 0xff, 0xff, 0xff}, false},
		{"4 MiB of digests", DecodeCEL, celRecord(0, 4, bytes.Repeat(raw{}.tlv(0x0b, nil), 800_000), nil), false},
		{"zeros", DecodeCEL, make([]byte, MaxSize), false},
		{"zeros as IMA", decodeIMA, make([]byte, MaxSize), false},
	} {
		var err error
		n := allocated(func() { _, err = tt.decode(tt.log) })
		if (err == nil) != tt.good {
			t.Errorf("%s: %v", tt.name, err)
		}
		if limit := uint64(4*len(tt.log) + fixed); n > limit {
			t.Errorf("%s: %d bytes allocated for %d: want at most %d", tt.name, n, len(tt.log), limit)
		}
	}
}

// TestVerificationOfA105EventLogAllocatesLittle is the bar of one challenge:
// 16 kB for decode and replay together.
func TestVerificationOfA105EventLogAllocatesLittle(t *testing.T) {
	b, err := EncodeCEL(whole(t, 65))
	if err != nil {
		t.Fatal(err)
	}
	n := allocated(func() {
		l, err := DecodeCEL(b)
		if err != nil || len(l.Events) != 105 {
			t.Fatalf("%d events, %v: want 105", len(l.Events), err)
		}
		mustReplay(t, l, measure.SHA384)
	})
	if n > 16<<10 {
		t.Errorf("%d bytes allocated: want at most %d", n, 16<<10)
	}
	t.Logf("%d bytes allocated for a log of %d bytes", n, len(b))
}

func BenchmarkDecodeAndReplay105(b *testing.B) {
	l := whole(b, 65)
	cel, err := EncodeCEL(l)
	if err != nil {
		b.Fatal(err)
	}
	tcg, err := EncodeTCG(l)
	if err != nil {
		b.Fatal(err)
	}
	run := func(name string, f func() error) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	run("cel/decode", func() error { _, err := DecodeCEL(cel); return err })
	run("tcg/decode", func() error { _, err := DecodeTCG(tcg); return err })
	for _, bank := range both {
		run("replay/"+bank.String(), func() error { _, err := l.Replay(bank); return err })
		run("cel/decode+replay/"+bank.String(), func() error {
			l, err := DecodeCEL(cel)
			if err == nil {
				_, err = l.Replay(bank)
			}
			return err
		})
	}
	run("cel/encode", func() error { _, err := EncodeCEL(l); return err })
}
