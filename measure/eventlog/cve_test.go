package eventlog

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"waxseal/measure"
)

// go-attestation before 0.6 did not step over the vendor's header within an
// EFI signature list, and took those bytes for digests that are trusted. We
// parse no such lists; what this log has of the kind is the vendor's text in
// the Spec ID event, behind the list of banks.
func TestGO_2026_5298_VendorBytesNeverBecomeBanks(t *testing.T) {
	vendor := raw{}.le16(uint16(measure.SHA1)).le16(20).le16(uint16(measure.SHA384)).le16(48)
	specified := func(n uint32, vendorSize int) raw {
		b := raw(specIDSignature).le32(0).bytes(0, 2, 0, 2).le32(n).le16(uint16(measure.SHA256)).le16(32)
		return append(b.bytes(byte(vendorSize)), vendor...)
	}
	l, err := DecodeTCG(header(specified(1, len(vendor))).event256(4, EVIPL, "x"))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(l.Banks, []measure.Alg{measure.SHA256}) || len(l.Events) != 2 || len(l.Events[1].Digests) != 1 {
		t.Errorf("banks %v, %d events: want sha256 and 2", l.Banks, len(l.Events))
	}
	for name, c := range map[string]struct {
		log  raw
		want error
	}{
		"vendor bytes that are not announced": {header(specified(1, 0)), ErrMalformed},
		"fewer announced than there are":      {header(specified(1, len(vendor)-4)), ErrMalformed},
		"more announced than there are":       {header(specified(1, len(vendor)+4)), ErrTruncated},
		"counted as banks":                    {header(specified(3, len(vendor))), ErrMalformed},
		"an event of a bank from the vendor's bytes": {
			header(specified(1, len(vendor))).le32(4).le32(EVIPL).le32(1).le16(uint16(measure.SHA384)).zeros(48).le32(0), ErrMalformed,
		},
	} {
		if _, err := DecodeTCG(c.log); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want: %v", name, err, c.want)
		}
	}
}

// The same list, whole: what a db variable says stays the data of one event,
// proven if the digest covers all of it, and adds no digest to the log.
func TestGO_2026_5298_SignatureListIsOneEventAndNoMore(t *testing.T) {
	trusted := bytes.Repeat([]byte{0xdb}, 32)
	list := raw{}.zeros(16).le32(28 + 32 + 48).le32(32).le32(48) // EFI_SIGNATURE_LIST: type, size, header size, signature size
	list = append(append(list, trusted...), make([]byte, 48)...)
	e := event(7, EVEFIVariableDriverConfig, string(list), both...)
	b, err := EncodeTCG(Log{Banks: both, Events: []Event{e}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := DecodeTCG(b)
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Events) != 2 || !l.Events[1].Equal(e) || !l.Events[1].DigestCoversData() {
		t.Errorf("read as %+v", l.Events)
	}
	for _, d := range l.Events[1].Digests {
		if bytes.Equal(d.Sum, trusted) {
			t.Error("the vendor's bytes are a digest of the log")
		}
	}
	l.Events[1].Data[len(list)-48-1] ^= 1
	if l.Events[1].DigestCoversData() {
		t.Error("vendor's bytes changed, and the digest still covers the data")
	}
}
