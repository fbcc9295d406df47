package eventlog

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"

	"waxseal/measure"
)

func TestCELIsReadAsItWasWritten(t *testing.T) {
	for name, want := range map[string]Log{
		"firmware and ours": whole(t, 12),
		"ours":              New(both, recorded(12, both...)),
		"one bank":          New(both[:1], recorded(4, both[0])),
		"with SHA-1":        New([]measure.Alg{measure.SHA1, measure.SHA256}, recorded(4, measure.SHA1, measure.SHA256)),
	} {
		b, err := EncodeCEL(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeCEL(b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !slices.Equal(got.Banks, want.Banks) || got.StartupLocality != want.StartupLocality || !slices.EqualFunc(got.Events, want.Events, Event.Equal) {
			t.Errorf("%s: log differs", name)
		}
		again, err := EncodeCEL(got)
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("%s: written differently the second time (%v)", name, err)
		}
		if cap(b) != len(b) {
			t.Errorf("%s: %d bytes in a buffer of %d", name, len(b), cap(b))
		}
	}
}

func TestFirmwareLogSurvivesCEL(t *testing.T) {
	l, b := firmware(t)
	c, err := EncodeCEL(l)
	if err != nil {
		t.Fatal(err)
	}
	l, err = DecodeCEL(c)
	if err != nil {
		t.Fatal(err)
	}
	got, err := EncodeTCG(l)
	if err != nil || !bytes.Equal(got, b) {
		t.Errorf("the firmware's log changed on its way through CEL (%v)", err)
	}
	mustReplayTo(t, l, "testdata/qemu-ovmf-uki.pcrs")
}

// TestCELBytes pins the encoding: nobody may change it by accident.
func TestCELBytes(t *testing.T) {
	rec := measure.Record{PCR: measure.Code, Name: "agent/exe"}
	l := Log{Banks: both[:1], Events: []Event{
		event(4, EVSeparator, "\x00\x00\x00\x00", measure.SHA256),
		Of(measure.Event{Record: rec, Digests: rec.Digests(both[:1])}),
	}}
	b, err := EncodeCEL(l)
	if err != nil {
		t.Fatal(err)
	}
	payload := hex.EncodeToString(rec.Payload())
	digest := measure.Hash(measure.SHA256, rec.Payload())
	want := "0000000008" + "0000000000000000" + "0100000001" + "04" +
		"0300000025" + "0b00000020" + "df3f619804a92fdb4057192dc43dd748ea778adc52bc498ce80524c014b81119" +
		"0500000012" + "0000000004" + "00000004" + "0100000004" + "00000000" +
		"0000000008" + "0000000000000001" + "0100000001" + "0c" +
		"0300000025" + "0b00000020" + hex.EncodeToString(digest.Sum) +
		"070000004a" + "0000000006" + hex.EncodeToString([]byte(imaNG)) + "010000003a" + payload
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("CEL is\n%s: want\n%s", got, want)
	}
}

// celRecord builds a record from its parts.
func celRecord(recnum uint64, pcr uint8, digests, content raw) raw {
	b := raw{}.tlv(celRecnum, binary.BigEndian.AppendUint64(nil, recnum))
	return append(b.tlv(celPCR, []byte{pcr}).tlv(celDigests, digests), content...)
}

func TestCELThatLies(t *testing.T) {
	const none = 0xffffffff
	rec := measure.Record{PCR: measure.Code, Name: "agent/exe"}
	p := rec.Payload()
	dig := raw{}.tlv(0x0b, measure.Hash(measure.SHA256, p).Sum)
	dig2 := append(raw{}.tlv(0x0b, measure.Hash(measure.SHA256, p).Sum), raw{}.tlv(0x0c, measure.Hash(measure.SHA384, p).Sum)...)
	zero := raw{}.tlv(0x0b, make([]byte, 32))
	ima := func(name string, data []byte) raw {
		return raw{}.tlv(celIMATemplate, raw{}.tlv(imaTemplateName, []byte(name)).tlv(imaTemplateData, data))
	}
	pc := func(typ uint32, data []byte) raw {
		return raw{}.tlv(celPCClient, raw{}.tlv(pcClientType, raw{}.be32(typ)).tlv(pcClientData, data))
	}
	ours, theirs := ima(imaNG, p), pc(EVIPL, []byte("x"))
	join := func(records ...raw) raw { return bytes.Join(toBytes(records), nil) }
	tagged := raw{}.le32(OurTag).le32(uint32(len(p))).bytes(p...)

	if _, err := DecodeCEL(join(celRecord(0, 4, dig, theirs), celRecord(1, 12, dig, ours))); err != nil {
		t.Fatalf("the good log of this table: %v", err)
	}
	for _, tt := range []struct {
		name string
		log  raw
		want error
		text string
	}{
		{"empty", nil, ErrTruncated, "event 0"},
		{"recnum from 1", celRecord(1, 12, dig, ours), ErrMalformed, "need 0"},
		{"D-36 gap", join(celRecord(0, 12, dig, ours), celRecord(2, 12, dig, ours)), ErrMalformed, "need 1"},
		{"D-36 duplicate", join(celRecord(0, 12, dig, ours), celRecord(0, 12, dig, ours)), ErrMalformed, "need 1"},
		{"recnum 2^32", celRecord(1<<32, 12, dig, ours), ErrMalformed, "need 0"},
		{"recnum in 4 bytes", append(raw{}.tlv(celRecnum, make([]byte, 4)), celRecord(0, 12, dig, ours)[13:]...), ErrMalformed, "8 bytes"},
		{"no recnum", celRecord(0, 12, dig, ours)[13:], ErrMalformed, "record number"},
		{"NV index in the place of the PCR", func() raw { b := celRecord(0, 12, dig, ours); b[13] = 2; return b }(), ErrMalformed, "the PCR"},
		{"PCR 24", celRecord(0, 24, dig, ours), ErrMalformed, "0 to 23"},
		{"PCR 255", celRecord(0, 255, dig, ours), ErrMalformed, "0 to 23"},
		{"PCR in 4 bytes", append(raw(celRecord(0, 12, dig, ours)[:13]).tlv(celPCR, []byte{0, 0, 0, 12}), celRecord(0, 12, dig, ours)[19:]...), ErrMalformed, "1 byte"},
		{"no digest", celRecord(0, 12, nil, ours), ErrMalformed, "0 PCR banks"},
		{"D-36 unknown algorithm", celRecord(0, 12, raw{}.tlv(0x27, make([]byte, 32)), ours), ErrMalformed, "alg-0x0027"},
		{"unknown algorithm with an empty digest", celRecord(0, 4, raw{}.tlv(0x27, nil), theirs), ErrMalformed, "alg-0x0027"},
		{"algorithm twice", celRecord(0, 12, append(bytes.Clone(dig), dig...), ours), ErrMalformed, "twice"},
		{"17 algorithms", celRecord(0, 12, bytes.Repeat(raw{}.tlv(0x0b, nil), 17), ours), ErrMalformed, "more than 16"},
		{"digest one byte short", celRecord(0, 12, raw{}.tlv(0x0b, make([]byte, 31)), ours), ErrMalformed, "31"},
		{"digest of no byte", celRecord(0, 12, raw{}.tlv(0x0b, nil), ours), ErrMalformed, "of 0"},
		{"D-36 nested overflow: digest beyond the digests", celRecord(0, 12, append(raw{0x0b}.be32(33), make([]byte, 32)...), ours), ErrTruncated, "33 bytes"},
		{"nested overflow of 2^32-1", celRecord(0, 12, raw{0x0b}.be32(none), ours), ErrTruncated, ""},
		{"D-36 bank missing in the second record", join(celRecord(0, 12, dig2, ours), celRecord(1, 12, dig, ours)), ErrTruncated, "event 1"},
		{"bank more in the second record", join(celRecord(0, 12, dig, ours), celRecord(1, 12, dig2, ours)), ErrMalformed, "event 1"},
		{"only SHA-1 over our record", celRecord(0, 12, raw{}.tlv(4, make([]byte, 20)), ours), ErrMalformed, "SHA-256 or stronger"},
		{"D-36 unknown content", celRecord(0, 12, dig, raw{}.tlv(9, nil)), ErrMalformed, "content type 9"},
		{"management record", celRecord(0, 12, dig, raw{}.tlv(4, nil)), ErrMalformed, "content type 4"},
		{"IMA-TLV record", celRecord(0, 12, dig, raw{}.tlv(8, nil)), ErrMalformed, "content type 8"},
		{"no content", celRecord(0, 12, dig, nil), ErrTruncated, "event 0"},
		{"content of 2^32-1", celRecord(0, 12, dig, raw{7}.be32(none)), ErrTruncated, "event 0"},
		{"template beyond its content", celRecord(0, 12, dig, raw{}.tlv(celIMATemplate, raw{0}.be32(100))), ErrTruncated, "IMA"},
		{"bytes behind the template", celRecord(0, 12, dig, raw{}.tlv(celIMATemplate, raw{}.tlv(0, []byte(imaNG)).tlv(1, p).bytes(0))), ErrMalformed, "too many"},
		{"template data before its name", celRecord(0, 12, dig, raw{}.tlv(celIMATemplate, raw{}.tlv(1, p).tlv(0, []byte(imaNG)))), ErrMalformed, "template name"},
		{"template ima-sig", celRecord(0, 12, dig, ima("ima-sig", p)), ErrMalformed, "ima-sig"},
		{"template data that is no record", celRecord(0, 12, dig, ima(imaNG, []byte("abc"))), ErrMalformed, "payload"},
		{"text changed, digest kept", celRecord(0, 12, dig, ima(imaNG, measure.Record{Name: "agent/exf"}.Payload())), ErrMalformed, "does not cover"},
		{"event type in 2 bytes", celRecord(0, 4, dig, raw{}.tlv(celPCClient, raw{}.tlv(0, []byte{0, 4}).tlv(1, nil))), ErrMalformed, "need 4"},
		{"event without data", celRecord(0, 4, dig, raw{}.tlv(celPCClient, raw{}.tlv(0, raw{}.be32(4)))), ErrTruncated, "PC-client"},
		{"bytes behind the event", celRecord(0, 4, dig, raw{}.tlv(celPCClient, raw{}.tlv(0, raw{}.be32(4)).tlv(1, nil).bytes(9))), ErrMalformed, "too many"},
		{"firmware after ours", join(celRecord(0, 12, dig, ours), celRecord(1, 4, dig, theirs)), ErrMalformed, "after one of ours"},
		{"our record dressed as the firmware's", celRecord(0, 12, dig, pc(EVEventTag, tagged)), ErrMalformed, "in the place of the firmware's"},
		{"EV_NO_ACTION with a digest", celRecord(0, 0, dig, pc(EVNoAction, []byte("x"))), ErrMalformed, "not zero"},
		{"D-32 Spec ID that names other banks", celRecord(0, 0, zero, pc(EVNoAction, specID(1, 0x0c, 48))), ErrMalformed, "names banks"},
		{"D-32 Spec ID that is short", celRecord(0, 0, zero, pc(EVNoAction, specID(1, 0x0b, 32)[:28])), ErrTruncated, "Spec ID"},
		{"D-32 Spec ID twice", join(celRecord(0, 0, zero, pc(EVNoAction, specID(1, 0x0b, 32))), celRecord(1, 0, zero, pc(EVNoAction, specID(1, 0x0b, 32)))), ErrMalformed, "not the first"},
		{"Spec ID of TPM 1.2", celRecord(0, 0, zero, pc(EVNoAction, []byte("Spec ID Event02\x00"))), ErrFormat, ""},
		{"one byte behind the log", append(celRecord(0, 12, dig, ours), 0), ErrTruncated, "event 1"},
		{"0xFF padding", append(celRecord(0, 12, dig, ours), bytes.Repeat([]byte{0xff}, 64)...), ErrTruncated, "event 1"},
		{"TCG log", sha256Log(), ErrMalformed, "event 0"},
		{"65,537 records", func() raw {
			b := make(raw, 0, 6<<20)
			for i := range uint64(MaxEvents + 1) {
				b = append(b, celRecord(i, 4, raw{}.tlv(4, make([]byte, 20)), pc(EVIPL, nil))...)
			}
			return b
		}(), ErrTooLarge, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := DecodeCEL(tt.log)
			if !errors.Is(err, tt.want) || err != nil && !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error %v: want %v with %q", err, tt.want, tt.text)
			}
			if len(l.Events) != 0 {
				t.Errorf("%d events came with the error", len(l.Events))
			}
		})
	}
}

func toBytes(records []raw) (b [][]byte) {
	for _, r := range records {
		b = append(b, r)
	}
	return b
}

// TestEachBitOfOurPartOfACELIsProven flips every bit of the records of ours.
func TestEachBitOfOurPartOfACELIsProven(t *testing.T) {
	l := whole(t, 5)
	b, err := EncodeCEL(l)
	if err != nil {
		t.Fatal(err)
	}
	quoted := mustReplay(t, l, measure.SHA384)
	ours := len(b)
	for _, e := range l.Ours() {
		ours -= 2*tlHead + 8 + 1 + tlHead + digestsSize(both) + tlHead + contentSize(e)
	}
	for bit := ours * 8; bit < len(b)*8; bit++ {
		b[bit/8] ^= 1 << (bit % 8)
		got, err := DecodeCEL(b)
		if err == nil && got.Explains(measure.SHA384, quoted) == nil {
			t.Errorf("bit %d of byte %d is covered by nothing", bit%8, bit/8)
		}
		b[bit/8] ^= 1 << (bit % 8)
	}
}

// TestFlipsInTheFirmwaresPartChangeNothingVerified flips every bit of the
// firmware's records: each flip is noticed, or leaves all digests and all text
// that counts as verified as it was.
func TestFlipsInTheFirmwaresPartChangeNothingVerified(t *testing.T) {
	l, _ := firmware(t)
	b, err := EncodeCEL(l)
	if err != nil {
		t.Fatal(err)
	}
	quoted := mustReplay(t, l, measure.SHA384)
	verified := make([]bool, len(l.Events))
	for i, e := range l.Events {
		verified[i] = e.DigestCoversData()
	}
	for bit := range len(b) * 8 {
		b[bit/8] ^= 1 << (bit % 8)
		got, err := DecodeCEL(b)
		if err == nil && got.Explains(measure.SHA384, quoted) == nil {
			if len(got.Events) != len(l.Events) || len(got.Ours()) != 0 {
				t.Fatalf("flip of bit %d changed the number of events", bit)
			}
			for i, e := range got.Events {
				d, _ := e.Digest(measure.SHA384)
				was, _ := l.Events[i].Digest(measure.SHA384)
				if e.PCR != l.Events[i].PCR && e.Extends() || !d.Equal(was) {
					t.Errorf("flip of bit %d changed the digest of event %d", bit, i)
				}
				if !bytes.Equal(e.Data, l.Events[i].Data) && e.DigestCoversData() {
					t.Errorf("flip of bit %d changed verified text of event %d", bit, i)
				}
			}
		}
		b[bit/8] ^= 1 << (bit % 8)
	}
	if !slices.Contains(verified, true) {
		t.Error("no text of the fixture is verified: this test shows nothing")
	}
}

func TestEncodersRefuseWhatTheDecodersWould(t *testing.T) {
	for _, tt := range []struct {
		name  string
		alter func(*Log)
	}{
		{"no banks", func(l *Log) { l.Banks = nil }},
		{"unknown bank", func(l *Log) { l.Banks = []measure.Alg{0x27, measure.SHA384} }},
		{"bank twice", func(l *Log) { l.Banks = []measure.Alg{measure.SHA256, measure.SHA256} }},
		{"banks in another order", func(l *Log) { l.Banks = []measure.Alg{measure.SHA384, measure.SHA256} }},
		{"PCR 24", func(l *Log) { l.Events[3].PCR = 24 }},
		{"digest missing", func(l *Log) { l.Events[3].Digests = l.Events[3].Digests[:1] }},
		{"digest cut", func(l *Log) { l.Events[3].Digests[0].Sum = l.Events[3].Digests[0].Sum[:31] }},
		{"our event with another type", func(l *Log) { l.Events[len(l.Events)-1].Type = EVIPL }},
		{"our event with another name", func(l *Log) { l.Events[len(l.Events)-1].Data = measure.Record{Name: "a/b"}.Payload() }},
		{"our event with no record", func(l *Log) { l.Events[len(l.Events)-1].Data = nil }},
		{"EV_NO_ACTION with a digest", func(l *Log) { l.Events[1].Type = EVNoAction }},
		{"Spec ID in the middle", func(l *Log) { l.Events = slices.Insert(l.Events, 1, l.Events[0]) }},
		{"too many events", func(l *Log) {
			l.Events = append(slices.Repeat([]Event{event(4, EVIPL, "", both...)}, MaxEvents), l.Ours()...)
		}},
	} {
		l := whole(t, 5)
		tt.alter(&l)
		for form, encode := range map[string]func(Log) ([]byte, error){
			"TCG": EncodeTCG, "CEL": EncodeCEL, "IMA": func(l Log) ([]byte, error) { return EncodeIMA(l, measure.SHA256) },
		} {
			if _, err := encode(l); err == nil {
				t.Errorf("%s: encoded as %s", tt.name, form)
			}
		}
	}
	if _, err := EncodeCEL(Log{Banks: both}); !errors.Is(err, ErrMalformed) {
		t.Errorf("CEL without events: %v: want %v", err, ErrMalformed)
	}
}
