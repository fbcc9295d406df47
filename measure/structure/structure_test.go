package structure_test

import (
	"bytes"
	"testing"

	"waxseal/measure/structure"
)

func TestReaderStaysShortAfterTheEnd(t *testing.T) {
	r := structure.Reader{Rest: []byte{1, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 2, 'a', 'b'}}
	if r.U8() != 1 || r.U16() != 2 || r.U32() != 3 || r.U64() != 4 || string(r.Sized()) != "ab" || !r.Done() {
		t.Fatal("good bytes are read wrongly")
	}
	if r.U8() != 0 || r.Done() || !r.Short() {
		t.Error("a read beyond the end is not noticed")
	}
	r = structure.Reader{Rest: []byte{0xff, 0xff, 1}}
	if r.Sized() != nil || r.U8() != 0 || !r.Short() || r.Done() {
		t.Error("a length that is a lie is believed")
	}
	r = structure.Reader{Rest: []byte{1}}
	if r.Take(-1) != nil || !r.Short() {
		t.Error("a negative length is believed")
	}
}

func TestSizedIsReadAsItWasAppended(t *testing.T) {
	r := structure.Reader{Rest: structure.AppendSized(nil, []byte("waxseal"))}
	if got := r.Sized(); !bytes.Equal(got, []byte("waxseal")) || !r.Done() {
		t.Errorf("got %q", got)
	}
}
