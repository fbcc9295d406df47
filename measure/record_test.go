package measure

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
)

func TestPayloadIsIMATemplateData(t *testing.T) {
	r := Record{PCR: Code, Name: "agent/exe", Content: sha256.Sum256([]byte("abc"))}
	const want = "28000000" + // 40
		"7368613235363a00" + // sha256:
		"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" +
		"0a000000" + // 10
		"6167656e742f65786500"
	if got := hex.EncodeToString(r.Payload()); got != want {
		t.Errorf("payload\n%s: want\n%s", got, want)
	}
}

func TestParsePayloadIsTheInverseOfPayload(t *testing.T) {
	for _, name := range []string{"a/b", "config/uci/network?c=uci1", "kernel/x!absent", "a/" + strings.Repeat("n", MaxName-2)} {
		r := Record{PCR: Device, Name: name, Content: sha256.Sum256([]byte(name))}
		got, err := ParsePayload(Device, r.Payload())
		if err != nil || got != r {
			t.Errorf("%q: %v, %v", name, got, err)
		}
	}
}

func TestParsePayloadRefusesOtherSpellings(t *testing.T) {
	good := Record{PCR: Code, Name: "agent/exe"}.Payload()
	with := func(at int, b byte) []byte {
		p := bytes.Clone(good)
		p[at] = b
		return p
	}
	for name, p := range map[string][]byte{
		"empty":                        nil,
		"digest field of another size": with(0, 41),
		"digest field of 2^32-1":       {0xff, 0xff, 0xff, 0xff},
		"sha1":                         with(4+3, '1'),
		"upper case":                   with(4, 'S'),
		"no zero after the algorithm":  with(4+7, 1),
		"name shorter than said":       with(44, 11),
		"name longer than said":        with(44, 9),
		"name field of 2^32-1":         append(bytes.Clone(good[:44]), 0xff, 0xff, 0xff, 0xff, 'a', '/', 0),
		"no zero after the name":       with(len(good)-1, 'x'),
		"zero in the name":             with(50, 0),
		"newline in the name":          with(50, '\n'),
		"byte after the end":           append(bytes.Clone(good), 0),
		"name of 256":                  Record{Name: "a/" + strings.Repeat("n", MaxName-1)}.Payload(),
		"empty name":                   Record{}.Payload(),
	} {
		if r, err := ParsePayload(Code, p); err == nil {
			t.Errorf("%s: read as %v", name, r)
		}
	}
	for n := range len(good) {
		if _, err := ParsePayload(Code, good[:n]); err == nil {
			t.Errorf("cut to %d bytes: accepted", n)
		}
	}
	if _, err := ParsePayload(NumPCRs, good); err == nil {
		t.Error("PCR 24: accepted")
	}
}

func TestCheckRefusesWhatCannotBeEncoded(t *testing.T) {
	for name, r := range map[string]Record{
		"PCR 24":      {PCR: NumPCRs, Name: "agent/exe"},
		"empty name":  {PCR: Code},
		"long name":   {PCR: Code, Name: "agent/" + strings.Repeat("n", MaxName)},
		"no class":    {PCR: Code, Name: "agent"},
		"a space":     {PCR: Code, Name: "agent/a b"},
		"delete char": {PCR: Code, Name: "agent/\x7f"},
	} {
		if r.Check() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := (Record{PCR: 23, Name: "agent/" + strings.Repeat("n", MaxName-6)}).Check(); err != nil {
		t.Error(err)
	}
}

func FuzzParsePayload(f *testing.F) {
	f.Add(Record{Name: "agent/exe"}.Payload())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, p []byte) {
		r, err := ParsePayload(Code, p)
		if err != nil {
			return
		}
		if !bytes.Equal(r.Payload(), p) {
			t.Errorf("%x was read as %v, which is written as %x", p, r, r.Payload())
		}
	})
}

func TestDigestsCoverNameAndContent(t *testing.T) {
	banks := []Alg{SHA1, SHA256, SHA384, SHA512, SM3}
	r := Record{PCR: Code, Name: "agent/exe"}
	name, content := r, r
	name.Name = "agent/exf"
	content.Content[31] = 1
	for i, d := range r.Digests(banks) {
		if d.Alg != banks[i] || len(d.Sum) != banks[i].Size() {
			t.Errorf("digest %d is %v: want one of %v", i, d, banks[i])
		}
		if d.Equal(name.Digests(banks)[i]) || d.Equal(content.Digests(banks)[i]) {
			t.Errorf("%v digest does not depend on name and content", d.Alg)
		}
		if d.Alg.Computable() && !d.Equal(Hash(d.Alg, r.Payload())) {
			t.Errorf("%v digest is not that of the payload", d.Alg)
		}
	}
}

func TestProfilePutsEachClassInItsPCR(t *testing.T) {
	for name, want := range map[string]PCR{
		"agent/exe": 12, "bootloader/mtd/u-boot": 12, "rootfs/squashfs/root": 12, "initramfs/uki/waxseal": 12,
		"policy/measure": 13, "cmdline/live": 13, "owner/ca": 13,
		"identity/serial": 14, "config/uci/network?c=uci1": 14, "aggregate/boot?c=sha384": 14, "startup/conf/@list?c=list1": 14,
		"phase/start/3.0": 15, "mirror/eth0": 15,
	} {
		r, err := Waxseal1.Of(name, nil)
		if err != nil || r.PCR != want {
			t.Errorf("%s: PCR %d, %v: want %d", name, r.PCR, err, want)
		}
	}
	for _, name := range []string{"", "agent", "/agent", "unknown/x", "Agent/exe", "agent/ x"} {
		if r, err := Waxseal1.Of(name, nil); err == nil {
			t.Errorf("%q: accepted as %v", name, r)
		}
	}
	if pcr, _ := RFC9683.For("kernel/x"); pcr != 8 {
		t.Errorf("rfc9683 puts the kernel into PCR %d: want 8", pcr)
	}
}

func TestEachCappedPCRHasItsCap(t *testing.T) {
	for _, p := range []Profile{Waxseal1, RFC9683} {
		var pcrs []PCR
		for _, c := range p.Cap(Handoff + "kexec") {
			if !c.IsCap() || c.Check() != nil {
				t.Errorf("%v is not a cap", c)
			}
			pcrs = append(pcrs, c.PCR)
		}
		if !slices.Equal(pcrs, p.Capped()) || slices.Contains(pcrs, p.Runtime) {
			t.Errorf("%s: caps in %v: want %v", p.Name, pcrs, p.Capped())
		}
	}
	if (Record{Name: "phase/start/1.0"}).IsCap() {
		t.Error("phase/start counts as a cap")
	}
}

func TestAbsentAndErrorSpeakOfTheirSubject(t *testing.T) {
	absent, err := Waxseal1.AbsentRecord("kernel/fit/k1")
	if err != nil {
		t.Fatal(err)
	}
	broken, err := Waxseal1.ErrorRecord("kernel/fit/k1")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []Record{absent, broken} {
		if r.Subject() != "kernel/fit/k1" || r.PCR != Code || r.Class() != "kernel" {
			t.Errorf("%v speaks of %q in PCR %d", r.Name, r.Subject(), r.PCR)
		}
	}
	if absent.Content != sha256.Sum256([]byte("absent")) || broken.Content != sha256.Sum256([]byte("error")) {
		t.Error("content is not the digest of the word")
	}
}

func BenchmarkPayloadDigests(b *testing.B) {
	r := Record{PCR: Device, Name: "config/uci/network?c=uci1", Content: sha256.Sum256([]byte("x"))}
	for _, banks := range [][]Alg{{SHA256}, {SHA384}, {SHA256, SHA384}} {
		b.Run(Digest{Alg: banks[0]}.Alg.String()+strings.Repeat("+", len(banks)-1), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r.Digests(banks)
			}
		})
	}
}
