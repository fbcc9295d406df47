package eventlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"waxseal/measure"
)

func TestFirmwareLogIsWrittenAsItWasRead(t *testing.T) {
	l, b := firmware(t)
	got, err := EncodeTCG(l)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, b) {
		t.Errorf("%d bytes were read and %d other bytes written", len(b), len(got))
	}
	if !slices.Equal(l.Banks, both) || len(l.Events) != 40 || len(l.Ours()) != 0 {
		t.Errorf("banks %v, %d events, %d of ours: want %v, 40, 0", l.Banks, len(l.Events), len(l.Ours()), both)
	}
}

func TestFirmwareLogReplaysAsOtherToolsDo(t *testing.T) {
	l, _ := firmware(t)
	mustReplayTo(t, l, "testdata/qemu-ovmf-uki.pcrs")
}

func TestTCGLogOfOursIsReadAsItWasWritten(t *testing.T) {
	for _, banks := range [][]measure.Alg{{measure.SHA256}, both, {measure.SHA1, measure.SHA256, measure.SM3}} {
		want := New(banks, recorded(12, banks...))
		b, err := EncodeTCG(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeTCG(b)
		if err != nil {
			t.Fatal(err)
		}
		if !isSpecID(got.Events[0]) || !slices.EqualFunc(got.Events[1:], want.Events, Event.Equal) {
			t.Errorf("banks %v: events differ", banks)
		}
		if len(got.Ours()) != 12 || len(got.Firmware()) != 1 {
			t.Errorf("banks %v: %d events of ours and %d of the firmware: want 12 and 1", banks, len(got.Ours()), len(got.Firmware()))
		}
	}
}

// TestTCGLogThatLies has the named cases of hostile and broken logs.
func TestTCGLogThatLies(t *testing.T) {
	const none = 0xffffffff
	tagged := func(id, size uint32, data []byte) string {
		return string(raw{}.le32(id).le32(size).bytes(data...))
	}
	payload := measure.Record{Name: "agent/exe"}.Payload()
	locality := localitySignature + "\x03"
	noAction := func(b raw, pcr uint32, data string) raw {
		return append(b.le32(pcr).le32(EVNoAction).le32(1).le16(0x0b).zeros(32).le32(uint32(len(data))), data...)
	}
	for _, tt := range []struct {
		name string
		log  []byte
		want error
		text string // in the error
	}{
		{"empty", nil, ErrTruncated, "event 0"},
		{"TPM 1.2 format", raw{}.le32(0).le32(8).zeros(20).le32(2).bytes('h', 'i'), ErrFormat, "event 0"},
		{"TPM 1.2 Spec ID", header([]byte("Spec ID Event00\x00\x00\x00\x00\x00\x00\x02\x01\x01\x00")), ErrFormat, "event 0"},
		{"Spec ID event in PCR 1", append(raw{}.le32(1), header(specID(1, 0x0b, 32))[4:]...), ErrFormat, ""},
		{"Spec ID event with a digest", func() []byte { b := sha256Log(); b[8] = 1; return b }(), ErrFormat, ""},
		{"Spec ID of 2^32-1 bytes", raw{}.le32(0).le32(EVNoAction).zeros(20).le32(none), ErrTruncated, ""},
		{"Spec ID cut", header(specID(1, 0x0b, 32)[:30]), ErrTruncated, "Spec ID"},
		{"Spec ID with bytes behind it", header(specID(1, 0x0b, 32).bytes(1)), ErrMalformed, "1 bytes too many"},
		{"Spec ID without vendor size", header(specID(1, 0x0b, 32)[:32]), ErrTruncated, "Spec ID"},
		{"Spec ID of version 1", header(raw(specIDSignature).le32(0).bytes(2, 1, 0, 2).le32(1).le16(0x0b).le16(32).bytes(0)), ErrMalformed, "version 1.2"},
		{"Spec ID with UINTN size 0", header(raw(specIDSignature).le32(0).bytes(0, 2, 0, 0).le32(1).le16(0x0b).le16(32).bytes(0)), ErrMalformed, "UINTN"},
		{"no algorithm", header(specID(0)), ErrMalformed, "0 PCR banks"},
		{"17 algorithms", header(specID(17)), ErrMalformed, "17 PCR banks"},
		{"2^32-1 algorithms", header(specID(none)), ErrMalformed, "PCR banks"},
		{"fewer algorithms than said", header(specID(3, 0x0b, 32)), ErrTruncated, "Spec ID"},
		{"unknown algorithm", header(specID(1, 0x27, 32)), ErrMalformed, "alg-0x0027"},
		{"algorithm size 0", header(specID(1, 0x0b, 0)), ErrMalformed, "0 bytes"},
		{"algorithm size 65535", header(specID(1, 0x0b, 65535)), ErrMalformed, "65535 bytes"},
		{"algorithm size of another", header(specID(1, 0x0b, 48)), ErrMalformed, "48 bytes"},
		{"algorithm twice", header(specID(2, 0x0b, 32, 0x0b, 32)), ErrMalformed, "twice"},
		{"two headers", noAction(sha256Log(), 0, string(specID(1, 0x0b, 32))), ErrMalformed, "Spec ID"},
		{"header in the old form twice", append(sha256Log(), sha256Log()...), ErrMalformed, "event 1"},
		{"PCR 24", sha256Log().event256(24, EVIPL, ""), ErrMalformed, "PCR 24"},
		{"PCR 4,000,000,000", sha256Log().event256(4_000_000_000, EVIPL, ""), ErrMalformed, "PCR 4000000000"},
		{"PCR 256, which is 0 in a byte", sha256Log().event256(256, EVIPL, ""), ErrMalformed, "PCR 256"},
		{"data size 2^32-1", sha256Log().le32(4).le32(EVIPL).le32(1).le16(0x0b).zeros(32).le32(none), ErrTruncated, "event 1"},
		{"data one byte short", sha256Log().le32(4).le32(EVIPL).le32(1).le16(0x0b).zeros(32).le32(2).bytes('x'), ErrTruncated, "event 1"},
		{"digest count 0", sha256Log().le32(4).le32(EVIPL).le32(0).le32(0), ErrMalformed, "0 digests"},
		{"digest count 2 in one bank", sha256Log().le32(4).le32(EVIPL).le32(2), ErrMalformed, "2 digests"},
		{"digest count 2^32-1", sha256Log().le32(4).le32(EVIPL).le32(none), ErrMalformed, "digests"},
		{"digest of a bank that is not named", sha256Log().le32(4).le32(EVIPL).le32(1).le16(0x0c).zeros(48).le32(0), ErrMalformed, "sha384"},
		{"digest of an unknown algorithm", sha256Log().le32(4).le32(EVIPL).le32(1).le16(0x99).zeros(32).le32(0), ErrMalformed, "alg-0x0099"},
		{"digests in another order", header(specID(2, 0x0b, 32, 0x0c, 48)).le32(4).le32(EVIPL).le32(2).le16(0x0c).zeros(48).le16(0x0b).zeros(32).le32(0), ErrMalformed, "digest 0"},
		{"one digest twice", header(specID(2, 0x0b, 32, 0x0c, 48)).le32(4).le32(EVIPL).le32(2).le16(0x0b).zeros(32).le16(0x0b).zeros(32).le32(0), ErrMalformed, "digest 1"},
		{"0xFF padding", append(sha256Log(), bytes.Repeat([]byte{0xff}, 64)...), ErrMalformed, "PCR 4294967295"},
		{"padding of zeros", sha256Log().zeros(64), ErrMalformed, "0 digests"},
		{"one byte of padding", sha256Log().bytes(0xff), ErrTruncated, "event 1"},
		{"big-endian fields", sha256Log().be32(4).be32(EVIPL).be32(1).bytes(0, 0x0b).zeros(32).be32(0), ErrMalformed, "event 1"},
		{"EV_NO_ACTION that hides an extend", sha256Log().event256(4, EVNoAction, "bootx64.efi"), ErrMalformed, "not zero"},
		{"start-up locality twice", noAction(noAction(sha256Log(), 0, locality), 0, locality), ErrMalformed, "twice"},
		{"start-up locality after an extend of PCR 0", noAction(sha256Log().event256(0, EVSCRTMVersion, ""), 0, locality), ErrMalformed, "PCR 0"},
		{"start-up locality in PCR 1", noAction(sha256Log(), 1, locality), ErrMalformed, "PCR 1"},
		{"start-up locality 1", noAction(sha256Log(), 0, localitySignature+"\x01"), ErrMalformed, "locality 1"},
		{"start-up locality of no byte", noAction(sha256Log(), 0, localitySignature), ErrMalformed, "StartupLocality"},
		{"record whose digest is another's", sha256Log().event256(12, EVEventTag, tagged(OurTag, uint32(len(payload)), payload)), ErrMalformed, "does not cover"},
		{"record that is longer than said", sha256Log().event256(12, EVEventTag, tagged(OurTag, uint32(len(payload)-1), payload)), ErrMalformed, "too many"},
		{"record that is shorter than said", sha256Log().event256(12, EVEventTag, tagged(OurTag, uint32(len(payload)+1), payload)), ErrTruncated, "tagged"},
		{"our tag and no more", sha256Log().event256(12, EVEventTag, tagged(OurTag, 0, nil)[:4]), ErrTruncated, "tagged"},
		{"our tag over other data", sha256Log().event256(12, EVEventTag, tagged(OurTag, 3, []byte("abc"))), ErrMalformed, "payload"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := DecodeTCG(tt.log)
			if !errors.Is(err, tt.want) || err != nil && !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error %v: want %v with %q", err, tt.want, tt.text)
			}
			if len(l.Events) != 0 {
				t.Errorf("%d events came with the error", len(l.Events))
			}
		})
	}
}

func TestFirmwareEventAfterOneOfOursIsRefused(t *testing.T) {
	l := whole(t, 4)
	e := event(4, EVEFIBootServicesApp, "late", both...)
	l.Events = append(l.Events, e)
	for name, encode := range map[string]func(Log) ([]byte, error){"TCG": EncodeTCG, "CEL": EncodeCEL} {
		if _, err := encode(l); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v: want %v", name, err, ErrMalformed)
		}
	}
	l.Events = l.Events[:len(l.Events)-1]
	b, err := EncodeTCG(l)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := DecodeTCG(appendTCG(b, e)); !errors.Is(err, ErrMalformed) {
		t.Errorf("decode: %v: want %v", err, ErrMalformed)
	}
}

func TestEachCutOfATCGLogIsNoticed(t *testing.T) {
	b, err := EncodeTCG(whole(t, 5))
	if err != nil {
		t.Fatal(err)
	}
	ends := map[int]bool{}
	for c := (cursor{b: b}); c.more(); {
		if c.off == 0 {
			_, _ = readHeader(&c)
		} else if _, err := readTCG(&c, 1, both, make([]measure.Digest, 2)); err != nil {
			t.Fatal(err)
		}
		ends[c.off] = true
	}
	all, err := DecodeTCG(b)
	if err != nil {
		t.Fatal(err)
	}
	quoted := mustReplay(t, all, measure.SHA384)
	for n := range len(b) {
		l, err := DecodeTCG(b[:n])
		switch {
		case !ends[n] && !errors.Is(err, ErrTruncated):
			t.Errorf("cut inside an event, to %d bytes: %v: want %v", n, err, ErrTruncated)
		case ends[n] && err != nil:
			t.Errorf("cut between events, to %d bytes: %v", n, err)
		case ends[n] && l.Explains(measure.SHA384, quoted) == nil:
			t.Errorf("log cut to %d bytes explains the PCRs of the whole", n)
		}
	}
}

func TestUnknownTypeIsExtendedAndNothingElse(t *testing.T) {
	l, err := DecodeTCG(sha256Log().event256(4, 0x12345678, "?"))
	if err != nil {
		t.Fatal(err)
	}
	e := l.Events[1]
	if _, err := e.Record(); err == nil || e.Ours || e.DigestCoversData() || !e.Extends() {
		t.Errorf("%+v is taken for more than it is", e)
	}
	if got := mustReplay(t, l, measure.SHA256); len(got) != 1 {
		t.Errorf("replay gives %v: want a value of PCR 4", got)
	}
	if TypeName(e.Type) != "event type 0x12345678" || TypeName(EVSeparator) != "EV_SEPARATOR" {
		t.Errorf("type is shown as %s", TypeName(e.Type))
	}
}

func TestLogsAboveTheCapsAreRefusedUnread(t *testing.T) {
	for _, tt := range []struct {
		name string
		log  []byte
	}{
		{"64 MiB", append(sha256Log(), make([]byte, 64<<20)...)},
		{"one byte above 4 MiB", append(sha256Log(), make([]byte, MaxSize+1-len(sha256Log()))...)},
		{"65,536 events and the header", func() []byte {
			b := sha256Log()
			for range MaxEvents {
				b = b.event256(4, EVIPL, "")
			}
			return b
		}()},
		{"1,000,000 one-byte events", func() []byte {
			b := sha256Log()
			one := raw{}.event256(4, EVIPL, "x")
			return append(b, bytes.Repeat(one, 1_000_000)...)
		}()},
	} {
		for form, decode := range map[string]func([]byte) (Log, error){"TCG": DecodeTCG, "CEL": DecodeCEL} {
			if form == "CEL" && len(tt.log) <= MaxSize {
				continue
			}
			if _, err := decode(tt.log); !errors.Is(err, ErrTooLarge) {
				t.Errorf("%s as %s: %v: want %v", tt.name, form, err, ErrTooLarge)
			}
		}
	}
	l := Log{Banks: []measure.Alg{measure.SHA1}}
	l.Events = slices.Repeat([]Event{event(4, EVIPL, "", l.Banks...)}, MaxEvents)
	if _, err := EncodeTCG(l); !errors.Is(err, ErrTooLarge) {
		t.Errorf("encode %d events and a header: %v: want %v", MaxEvents, err, ErrTooLarge)
	}
	l.Events = l.Events[1:]
	if b, err := EncodeTCG(l); err != nil {
		t.Errorf("encode %d events and a header: %v", MaxEvents-1, err)
	} else if got, err := DecodeTCG(b); err != nil || len(got.Events) != MaxEvents {
		t.Errorf("decode %d events, header included: %d, %v", MaxEvents, len(got.Events), err)
	}
	l.Events[0].Data = make([]byte, MaxSize)
	if _, err := EncodeCEL(l); !errors.Is(err, ErrTooLarge) {
		t.Errorf("encode an event of 4 MiB: %v: want %v", err, ErrTooLarge)
	}
}

func TestStartupLocalityIsKept(t *testing.T) {
	want := Log{Banks: both, StartupLocality: 3, Events: []Event{
		event(0, EVNoAction, localitySignature+"\x03", both...),
		event(0, EVSCRTMVersion, "1.0", both...),
	}}
	b, err := EncodeTCG(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeTCG(b)
	if err != nil || got.StartupLocality != 3 {
		t.Errorf("start-up locality %d, %v: want 3", got.StartupLocality, err)
	}
	want.StartupLocality = 4
	if _, err := EncodeTCG(want); !errors.Is(err, ErrMalformed) {
		t.Errorf("locality that the events do not say: %v: want %v", err, ErrMalformed)
	}
}

func mustReplay(t testing.TB, l Log, bank measure.Alg) map[measure.PCR]measure.Digest {
	t.Helper()
	values, err := l.Replay(bank)
	if err != nil {
		t.Fatal(err)
	}
	return values
}

// mustReplayTo compares the replay with a file of lines "bank pcr hex".
func mustReplayTo(t *testing.T, l Log, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, bank := range l.Banks {
		for pcr, d := range mustReplay(t, l, bank) {
			got[pcrLine(bank, pcr, d)] = true
		}
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		n++
		if !got[strings.TrimSpace(line)] {
			t.Errorf("replay does not give %s", line)
		}
	}
	if n == 0 || n != len(got) {
		t.Errorf("replay gives %d values: want %d", len(got), n)
	}
}

func TestDecodedLogSharesMemoryAndNothingIsWritten(t *testing.T) {
	_, b := firmware(t)
	before := bytes.Clone(b)
	l, err := DecodeTCG(b)
	if err != nil {
		t.Fatal(err)
	}
	for i := range l.Events {
		l.Events[i].Data = append(l.Events[i].Data, 0xee)
		for j := range l.Events[i].Digests {
			l.Events[i].Digests[j].Sum = append(l.Events[i].Digests[j].Sum, 0xee)
		}
		l.Events[i].Digests = append(l.Events[i].Digests, measure.Digest{})
	}
	if !bytes.Equal(b, before) {
		t.Error("appending to a decoded event wrote into the log")
	}
	if len(l.Events[1].Digests) != 3 || l.Events[2].Digests[0].Alg != measure.SHA256 {
		t.Error("appending to the digests of an event wrote into the next event's")
	}
}

func TestTaggedEventsOfOthersAreTheFirmwares(t *testing.T) {
	l, _ := firmware(t)
	n := 0
	for _, e := range l.Events {
		if e.Type == EVEventTag {
			n++
			if e.Ours || binary.LittleEndian.Uint32(e.Data)>>8 != 0x8f3b22 {
				t.Errorf("tagged event %x is not one of the Linux EFI stub", e.Data)
			}
		}
	}
	if n != 2 {
		t.Errorf("%d tagged events: want 2", n)
	}
}
