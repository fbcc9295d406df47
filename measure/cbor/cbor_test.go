package cbor_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"testing"

	"waxseal/measure/cbor"
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// Examples of RFC 8949, appendix A.
func TestNumbersAreSpelledAsInTheStandard(t *testing.T) {
	for n, want := range map[int64]string{
		0: "00", 1: "01", 10: "0a", 23: "17", 24: "1818", 25: "1819", 100: "1864", 1000: "1903e8",
		1000000: "1a000f4240", 1000000000000: "1b000000e8d4a51000", -1: "20", -10: "29", -100: "3863", -1000: "3903e7",
		math.MaxInt64: "1b7fffffffffffffff", math.MinInt64: "3b7fffffffffffffff",
	} {
		b := cbor.Int(n)
		if hex.EncodeToString(b) != want {
			t.Errorf("%d is %x, want %s", n, b, want)
		}
		r, err := cbor.NewReader(b)
		if err != nil {
			t.Fatalf("%d: %v", n, err)
		}
		if got := r.Int(); got != n || r.Done() != nil {
			t.Errorf("%d comes back as %d, %v", n, got, r.Done())
		}
	}
}

func TestMapIsWrittenInOrder(t *testing.T) {
	got := cbor.AppendMap(nil,
		cbor.Pair{Key: cbor.Text("z"), Value: cbor.Int(1)},
		cbor.Pair{Key: cbor.Int(-1), Value: cbor.Int(2)},
		cbor.Pair{Key: cbor.Int(100), Value: cbor.Int(3)},
		cbor.Pair{Key: cbor.Text("aa"), Value: cbor.Int(4)},
		cbor.Pair{Key: cbor.Int(10), Value: cbor.Int(5)},
	)
	// RFC 8949, section 4.2.1: 10, 100, -1, "z", "aa".
	if want := unhex("a5" + "0a05" + "186403" + "2002" + "617a01" + "62616104"); !bytes.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
	if err := cbor.Check(got); err != nil {
		t.Error(err)
	}
}

func TestOtherSpellingIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		hex  string
		want error
	}{
		"nothing":                        {"", cbor.ErrForm},
		"two items":                      {"0000", cbor.ErrForm},
		"cut in a head":                  {"19ff", cbor.ErrForm},
		"cut in a string":                {"4300ff", cbor.ErrForm},
		"cut in an array":                {"8200", cbor.ErrForm},
		"cut in a map":                   {"a100", cbor.ErrForm},
		"tag of nothing":                 {"d2", cbor.ErrForm},
		"23 in two bytes":                {"1817", cbor.ErrForm},
		"255 in three bytes":             {"1900ff", cbor.ErrForm},
		"65535 in five bytes":            {"1a0000ffff", cbor.ErrForm},
		"2^32-1 in nine bytes":           {"1b00000000ffffffff", cbor.ErrForm},
		"length in two bytes":            {"580100", cbor.ErrForm},
		"tag in two bytes":               {"d81200", cbor.ErrForm},
		"indefinite string":              {"5f4100ff", cbor.ErrForm},
		"indefinite array":               {"9f00ff", cbor.ErrForm},
		"indefinite map":                 {"bf0000ff", cbor.ErrForm},
		"reserved head":                  {"1c", cbor.ErrForm},
		"string of 2^63":                 {"5b8000000000000000", cbor.ErrForm},
		"string of 2^64-1":               {"5bffffffffffffffff", cbor.ErrForm},
		"array of 2^64-1":                {"9bffffffffffffffff", cbor.ErrForm},
		"map of 2^64-1":                  {"bbffffffffffffffff", cbor.ErrForm},
		"text that is not UTF-8":         {"61ff", cbor.ErrForm},
		"keys not in order":              {"a201000000", cbor.ErrForm},
		"longer key first":               {"a2186400" + "0a00", cbor.ErrForm},
		"key twice":                      {"a201000100", cbor.ErrForm},
		"key twice, far down":            {"8181a201000100", cbor.ErrForm},
		"array as key":                   {"a18000", cbor.ErrSubset},
		"float":                          {"f90000", cbor.ErrSubset},
		"null":                           {"f6", cbor.ErrSubset},
		"true":                           {"f5", cbor.ErrSubset},
		"undefined":                      {"f7", cbor.ErrSubset},
		"2^63":                           {"1b8000000000000000", cbor.ErrSubset},
		"-2^64":                          {"3bffffffffffffffff", cbor.ErrSubset},
		"nine levels of arrays":          {"81818181818181818100", cbor.ErrSubset},
		"nine levels of tags":            {"c1c1c1c1c1c1c1c1c100", cbor.ErrSubset},
		"nine levels of maps":            {"a100a100a100a100a100a100a100a100a10000", cbor.ErrSubset},
		"a break where no item is begun": {"ff", cbor.ErrSubset},
	} {
		if err := cbor.Check(unhex(c.hex)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want: %v", name, err, c.want)
		}
		if _, err := cbor.NewReader(unhex(c.hex)); err == nil {
			t.Errorf("%s: is read", name)
		}
	}
	if err := cbor.Check(unhex("818181818181818100")); err != nil {
		t.Errorf("eight levels: %v", err)
	}
}

func TestReaderGivesNothingButWhatWasAskedFor(t *testing.T) {
	item := cbor.AppendTag(nil, 18)
	item = cbor.AppendArray(item, 3)
	item = append(cbor.AppendInt(cbor.AppendBytes(item, []byte("b")), -5), cbor.Text("t")...)
	for name, read := range map[string]func(*cbor.Reader){
		"all, as it is":      func(r *cbor.Reader) { r.Tag(18); r.Array(); r.Bytes(); r.Int(); r.Text() },
		"other tag":          func(r *cbor.Reader) { r.Tag(17) },
		"no tag":             func(r *cbor.Reader) { r.Array() },
		"map for array":      func(r *cbor.Reader) { r.Tag(18); r.Map() },
		"text for bytes":     func(r *cbor.Reader) { r.Tag(18); r.Array(); r.Text() },
		"bytes for a number": func(r *cbor.Reader) { r.Tag(18); r.Array(); r.Bytes(); r.Bytes() },
		"number for a text":  func(r *cbor.Reader) { r.Tag(18); r.Array(); r.Bytes(); r.Int(); r.Int() },
		"one left":           func(r *cbor.Reader) { r.Tag(18); r.Array(); r.Bytes(); r.Int() },
		"one too many": func(r *cbor.Reader) {
			r.Tag(18)
			r.Array()
			r.Bytes()
			r.Int()
			r.Text()
			r.Int()
		},
	} {
		r, err := cbor.NewReader(item)
		if err != nil {
			t.Fatal(err)
		}
		read(r)
		if good := name == "all, as it is"; (r.Done() == nil) != good {
			t.Errorf("%s: %v", name, r.Done())
		}
		if r.Err() != nil && (r.Int() != 0 || r.Bytes() != nil || r.Text() != "" || r.Array() != 0 || r.Map() != 0 || r.IsArray()) {
			t.Errorf("%s: something comes after an error", name)
		}
	}
}

// FuzzCheck demands that what is accepted is one item: cut or lengthened it is
// none, and each number in it has no other spelling.
func FuzzCheck(f *testing.F) {
	for _, s := range []string{"00", "a201000200", "d28443a1012640f600", "8181a163616263f6", "5f4100ff", "1b7fffffffffffffff"} {
		f.Add(unhex(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if cbor.Check(b) != nil {
			return
		}
		if cbor.Check(append(bytes.Clone(b), 0)) == nil || cbor.Check(b[:len(b)-1]) == nil {
			t.Errorf("%x is accepted with a byte more or less", b)
		}
		again := rewrite(t, b)
		if !bytes.Equal(again, b) {
			t.Errorf("%x is written again as %x", b, again)
		}
	})
}

// rewrite reads one item with a Reader and writes it again.
func rewrite(t *testing.T, b []byte) []byte {
	r, err := cbor.NewReader(b)
	if err != nil {
		t.Fatal(err)
	}
	out := copyItem(r, b[0]>>5, nil, func() byte { return b[r.At()] >> 5 })
	if err := r.Done(); err != nil {
		t.Fatal(err)
	}
	return out
}

func copyItem(r *cbor.Reader, major byte, out []byte, next func() byte) []byte {
	switch major {
	case 0, 1:
		return cbor.AppendInt(out, r.Int())
	case 2:
		return cbor.AppendBytes(out, r.Bytes())
	case 3:
		return cbor.AppendText(out, r.Text())
	case 4:
		n := r.Array()
		out = cbor.AppendArray(out, n)
		for range n {
			out = copyItem(r, next(), out, next)
		}
		return out
	case 5:
		var pairs []cbor.Pair
		for range r.Map() {
			key := copyItem(r, next(), nil, next)
			pairs = append(pairs, cbor.Pair{Key: key, Value: copyItem(r, next(), nil, next)})
		}
		return cbor.AppendMap(out, pairs...)
	}
	tag := r.AnyTag()
	return copyItem(r, next(), cbor.AppendTag(out, tag), next)
}
