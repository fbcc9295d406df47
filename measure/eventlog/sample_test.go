package eventlog

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"testing"

	"waxseal/measure"
)

var both = []measure.Alg{measure.SHA256, measure.SHA384}

// recorded returns n events as a recorder would: one start of phase, the
// boot's items, and at the end the caps.
func recorded(n int, banks ...measure.Alg) []measure.Event {
	var events []measure.Event
	add := func(r measure.Record) {
		events = append(events, measure.Event{Record: r, Digests: r.Digests(banks)})
	}
	for i := range n - 3 {
		name := fmt.Sprintf("config/uci/item%d?c=uci1", i)
		r, err := measure.Waxseal1.Sum(name, sha256.Sum256([]byte(name)))
		if err != nil {
			panic(err)
		}
		add(r)
	}
	for _, r := range measure.Waxseal1.Cap(measure.Handoff + "switch_root") {
		add(r)
	}
	return events
}

// firmware returns the log of a QEMU guest with OVMF that booted a unified
// kernel image, and the bytes it was decoded from.
func firmware(t testing.TB) (Log, []byte) {
	t.Helper()
	b, err := os.ReadFile("testdata/qemu-ovmf-uki.tcg")
	if err != nil {
		t.Fatal(err)
	}
	l, err := DecodeTCG(b)
	if err != nil {
		t.Fatal(err)
	}
	return l, b
}

// whole returns the firmware's log with n events of ours behind it.
func whole(t testing.TB, n int) Log {
	t.Helper()
	f, _ := firmware(t)
	l, err := Join(f, New(both, recorded(n, both...)))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// event returns a firmware event whose digests cover its data.
func event(pcr measure.PCR, typ uint32, data string, banks ...measure.Alg) Event {
	e := Event{PCR: pcr, Type: typ, Data: []byte(data)}
	for _, alg := range banks {
		d := measure.Digest{Alg: alg, Sum: make([]byte, alg.Size())}
		if typ != EVNoAction && alg.Computable() {
			d = measure.Hash(alg, e.Data)
		}
		e.Digests = append(e.Digests, d)
	}
	return e
}

// raw builds the bytes of a TCG log field by field, so that fields can lie.
type raw []byte

func (b raw) le16(v uint16) raw   { return binary.LittleEndian.AppendUint16(b, v) }
func (b raw) le32(v uint32) raw   { return binary.LittleEndian.AppendUint32(b, v) }
func (b raw) be32(v uint32) raw   { return binary.BigEndian.AppendUint32(b, v) }
func (b raw) bytes(v ...byte) raw { return append(b, v...) }
func (b raw) zeros(n int) raw     { return append(b, make([]byte, n)...) }
func (b raw) tlv(t uint8, v []byte) raw {
	return append(b.bytes(t).be32(uint32(len(v))), v...)
}

// header is a first event with the given data.
func header(data []byte) raw {
	return append(raw{}.le32(0).le32(EVNoAction).zeros(sha1Size).le32(uint32(len(data))), data...)
}

// specID is Spec ID data that names the given (algorithm, size) pairs and says
// that they are n.
func specID(n uint32, pairs ...uint16) raw {
	b := raw(specIDSignature).le32(0).bytes(0, 2, 0, 2).le32(n)
	for _, v := range pairs {
		b = b.le16(v)
	}
	return b.bytes(0)
}

// sha256Log is a header that names the SHA-256 bank only.
func sha256Log() raw { return header(specID(1, 0x0b, 32)) }

// event256 is one event with a SHA-256 digest of ones.
func (b raw) event256(pcr, typ uint32, data string) raw {
	b = b.le32(pcr).le32(typ).le32(1).le16(0x0b)
	for range 32 {
		b = append(b, 1)
	}
	return append(b.le32(uint32(len(data))), data...)
}
