package csr_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"waxseal/measure"
	"waxseal/measure/csr"
	"waxseal/measure/devid/devidtest"
)

func sample() csr.Content {
	return csr.Content{
		Model: "router-1", Serial: "WX-0001", CAData: []byte("ca"), BootLog: []byte("log"), EK: []byte("ek"),
		IAK: []byte("iak"), IAKTicket: []byte("ticket"), IAKAttest: []byte("attest"), IAKSignature: []byte("sig"),
		IDevID: []byte("idevid"), IDevIDAttest: []byte("certified"), IDevIDProof: []byte("proof"),
	}
}

func encoded(t testing.TB, c csr.Content) []byte {
	t.Helper()
	b, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestContentIsReadAsItWasWritten(t *testing.T) {
	small := csr.Content{Model: "m", Serial: "s", EK: []byte{1}, IAK: []byte{2}, IDevID: []byte{3}, IDevIDAttest: []byte{4}, IDevIDProof: []byte{5}}
	for i := range 16 { // every length of padding
		small.Model = strings.Repeat("m", i+1)
		for _, want := range []csr.Content{sample(), small} {
			b := encoded(t, want)
			if len(b)%16 != 0 {
				t.Errorf("%d bytes", len(b))
			}
			got, err := csr.Parse(b)
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, %v: want %+v", got, err, want)
			}
		}
	}
}

func TestContentThatLacksAFieldIsNotWritten(t *testing.T) {
	for name, change := range map[string]func(*csr.Content){
		"model":             func(c *csr.Content) { c.Model = "" },
		"serial":            func(c *csr.Content) { c.Serial = "" },
		"EK":                func(c *csr.Content) { c.EK = nil },
		"IAK":               func(c *csr.Content) { c.IAK = nil },
		"IDevID":            func(c *csr.Content) { c.IDevID = nil },
		"attest":            func(c *csr.Content) { c.IDevIDAttest = nil },
		"proof":             func(c *csr.Content) { c.IDevIDProof = nil },
		"short serial":      func(c *csr.Content) { c.Serial = strings.Repeat("x", 129) },
		"printable serial":  func(c *csr.Content) { c.Serial = "WX\x1b[2J" },
		"log within bounds": func(c *csr.Content) { c.BootLog = make([]byte, csr.MaxSize) },
	} {
		c := sample()
		change(&c)
		if b, err := c.Encode(); !errors.Is(err, csr.ErrFormat) {
			t.Errorf("without %s: %d bytes, %v", name, len(b), err)
		}
	}
}

// sealed puts the right hash in front of a changed content, so that what is
// looked at is the rest.
func sealed(b []byte) []byte {
	copy(b[12:60], measure.Hash(measure.SHA384, b[60:]).Sum)
	return b
}

// Each number of the layout that is not true is refused, with a hash that is.
func TestEveryLengthLieIsRefused(t *testing.T) {
	good := encoded(t, sample())
	for at := 0; at < 112; at += 4 {
		if at >= 12 && at < 60 {
			continue // the hash
		}
		old := binary.BigEndian.Uint32(good[at:])
		for _, lie := range []uint32{0, old - 1, old + 1, old + 16, old + 1<<8, 1 << 16, 1<<29 - 1, 1 << 31, 1<<32 - 1} {
			if lie == old {
				continue
			}
			b := bytes.Clone(good)
			binary.BigEndian.PutUint32(b[at:], lie)
			if at >= 60 {
				sealed(b)
			}
			if c, err := csr.Parse(b); !errors.Is(err, csr.ErrFormat) {
				t.Errorf("number at %d is %d instead of %d: read as %+v, %v", at, lie, old, c, err)
			}
		}
	}
}

// Sizes that are lies, but add up, put the borders of two fields elsewhere: the
// signature and the keys then do not hold, which is not this package's to say.
func TestSizesThatAddUpAreNotJudgedHere(t *testing.T) {
	b := encoded(t, sample())
	b[60+3]--
	b[64+3]++
	if c, err := csr.Parse(sealed(b)); err != nil || c.Model != "router-" || c.Serial != "1WX-0001" {
		t.Errorf("%q, %q, %v", c.Model, c.Serial, err)
	}
}

func TestContentCutAtEveryByteIsRefused(t *testing.T) {
	good := encoded(t, sample())
	for n := range good {
		for _, b := range [][]byte{bytes.Clone(good[:n]), append(bytes.Clone(good), make([]byte, n+1)...)} {
			if len(b) >= 60 {
				sealed(b)
			}
			if _, err := csr.Parse(b); !errors.Is(err, csr.ErrFormat) {
				t.Errorf("%d of %d bytes: %v", len(b), len(good), err)
			}
		}
	}
}

func TestEveryBitIsCoveredByTheHash(t *testing.T) {
	good := encoded(t, sample())
	for i := range len(good) * 8 {
		b := bytes.Clone(good)
		b[i/8] ^= 1 << (i % 8)
		if _, err := csr.Parse(b); !errors.Is(err, csr.ErrFormat) {
			t.Errorf("bit %d: %v", i, err)
		}
	}
}

func TestPaddingMustBeTheShortest(t *testing.T) {
	good := encoded(t, sample())
	pad := binary.BigEndian.Uint32(good[108:])
	for _, change := range []int{-1, 1, 16} {
		b := bytes.Clone(good)
		if change < 0 {
			b = b[:len(b)+change]
		} else {
			b = append(b, make([]byte, change)...)
		}
		binary.BigEndian.PutUint32(b[108:], uint32(int(pad)+change))
		if _, err := csr.Parse(sealed(b)); !errors.Is(err, csr.ErrFormat) {
			t.Errorf("padding of %d instead of %d bytes: %v", int(pad)+change, pad, err)
		}
	}
	b := bytes.Clone(good)
	b[len(b)-1] = 0xa5 // what was in memory
	if _, err := csr.Parse(sealed(b)); err != nil || pad == 0 {
		t.Errorf("padding of %d bytes that are not zero: %v", pad, err)
	}
}

// The reference implementation allocates 512 MiB for these 13 bytes.
func TestSmallContentCostsNoMemory(t *testing.T) {
	for _, b := range [][]byte{
		{0, 0, 1, 0, 0, 0, 0, 0x0c, 0x1f, 0xff, 0xff, 0xff, 0},
		{0, 0, 1, 0, 0, 0, 0, 0x0c, 0xff, 0xff, 0xff, 0xff, 0},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := csr.Parse(b)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, csr.ErrFormat) || after.TotalAlloc-before.TotalAlloc > 64<<10 {
			t.Errorf("%v after %d bytes", err, after.TotalAlloc-before.TotalAlloc)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte{})
	f.Add(encoded(f, sample()))
	tpm, err := devidtest.New()
	if err != nil {
		f.Fatal(err)
	}
	content, _, err := tpm.CSR("WX-0001", []byte("ek"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(content)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= 60 {
			b = sealed(bytes.Clone(b)) // the rest of the parser is behind the hash
		}
		c, err := csr.Parse(b)
		if err != nil {
			if !errors.Is(err, csr.ErrFormat) {
				t.Fatalf("error %v wraps no sentinel", err)
			}
			return
		}
		again, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if d, err := csr.Parse(again); err != nil || !reflect.DeepEqual(c, d) {
			t.Fatalf("%+v was written and read as %+v, %v", c, d, err)
		}
	})
}
