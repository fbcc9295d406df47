package evidence_test

import (
	"bytes"
	"crypto/elliptic"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"waxseal/measure"
	"waxseal/measure/eventlog"
	"waxseal/measure/evidence"
	"waxseal/measure/evidence/evidencetest"
	"waxseal/measure/merkle"
)

// flips calls f with every copy of b in which one bit is another.
func flips(b []byte, f func(bit int, flipped []byte)) {
	for bit := range len(b) * 8 {
		flipped := slices.Clone(b)
		flipped[bit/8] ^= 1 << (bit % 8)
		f(bit, flipped)
	}
}

func TestEveryFlippedBitIsRefused(t *testing.T) {
	t.Run("single", func(t *testing.T) { everyBitCounts(t, ask(t, small(t), measure.SHA256)) })
	t.Run("batched", func(t *testing.T) { everyBitCounts(t, askBatched(t, small(t), measure.SHA256, 2, 5)) })
}

// small returns a router with a short log, so that there are fewer bits.
func small(t *testing.T) *evidencetest.Router {
	r := must(evidencetest.New("WX-0001", elliptic.P256()))(t)
	ok(t, r.Start())
	ok(t, r.Measure("config/frr/frr.conf?c=frr1", []byte(config)))
	r.Keep([]byte(config))
	ok(t, r.Cap("phase/handoff/switch_root"))
	return r
}

// everyBitCounts flips every single bit of quote, signature, nonce, path of a
// batch, PCR values, agent's log, contents and certificates.
func everyBitCounts(t *testing.T, b bundle) {
	must(b.verify())(t)
	fields := map[string]struct {
		bytes []byte
		put   func(*evidence.Evidence, []byte)
	}{
		"quote":     {b.evidence.Quoted, func(ev *evidence.Evidence, v []byte) { ev.Quoted = v }},
		"signature": {b.evidence.Signature, func(ev *evidence.Evidence, v []byte) { ev.Signature = v }},
		"nonce":     {b.evidence.Nonce, func(ev *evidence.Evidence, v []byte) { ev.Nonce = v }},
		"log":       {b.evidence.Log, func(ev *evidence.Evidence, v []byte) { ev.Log = v }},
	}
	type field = struct {
		bytes []byte
		put   func(*evidence.Evidence, []byte)
	}
	if p := b.evidence.Batch; p != nil {
		fields["path"] = field{p.Path, func(ev *evidence.Evidence, v []byte) { ev.Batch = &merkle.Proof{Index: p.Index, Size: p.Size, Path: v} }}
		place := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, p.Index), p.Size)
		fields["index and size"] = field{place, func(ev *evidence.Evidence, v []byte) {
			ev.Batch = &merkle.Proof{Index: binary.BigEndian.Uint32(v), Size: binary.BigEndian.Uint32(v[4:]), Path: p.Path}
		}}
	}
	for pcr, value := range b.evidence.PCRs {
		fields[fmt.Sprintf("PCR %d", pcr)] = field{value, func(ev *evidence.Evidence, v []byte) {
			ev.PCRs = maps.Clone(ev.PCRs)
			ev.PCRs[pcr] = v
		}}
	}
	for name, content := range b.evidence.Contents {
		fields["content"] = field{content, func(ev *evidence.Evidence, v []byte) { ev.Contents = map[string][]byte{name: v} }}
	}
	fields["oIAK certificate"] = field{der(t, b.evidence.Certificates.OIAK[0]), func(ev *evidence.Evidence, v []byte) {
		ev.Certificates.OIAK = []string{text(v)}
	}}
	fields["TLS certificate"] = field{der(t, b.evidence.Certificates.TLS[0]), func(ev *evidence.Evidence, v []byte) {
		ev.Certificates.TLS = []string{text(v)}
	}}
	verifier := evidence.NewVerifier(b.trust)
	for name, f := range fields {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			flips(f.bytes, func(bit int, flipped []byte) {
				ev := b.evidence
				f.put(&ev, flipped)
				if _, err := verifier.Verify(ev, b.challenge, b.trust); err == nil {
					t.Errorf("bit %d of byte %d does not count", bit%8, bit/8)
				}
			})
		})
	}
}

func der(t *testing.T, certificate string) []byte {
	block, _ := pem.Decode([]byte(certificate))
	if block == nil {
		t.Fatal("not PEM")
	}
	return block.Bytes
}

func text(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// In the firmware's log some bits are covered by no digest. Each flip is
// refused, or leaves every digest as it is and shows no other text as
// verified. (It may show less: text whose digest is no longer its own.)
func TestFlippedBitOfFirmwareLogProvesNothingElse(t *testing.T) {
	r := must(evidencetest.New("WX-0001", elliptic.P256()))(t)
	r.Log.Events = append(r.Log.Events, noAction(append([]byte("StartupLocality\x00"), 0)))
	firmware(t, r)
	first := len(must(eventlog.EncodeCEL(r.Log))(t)) // bytes of the firmware's log
	ok(t, r.Start())
	b := ask(t, r, measure.SHA256)
	want := proven(must(b.verify())(t))
	verifier := evidence.NewVerifier(b.trust)
	refused, same, less := 0, 0, 0
	flips(b.evidence.Log[:first], func(bit int, flipped []byte) {
		ev := b.evidence
		ev.Log = append(flipped, b.evidence.Log[first:]...)
		v, err := verifier.Verify(ev, b.challenge, b.trust)
		switch got := proven(v); {
		case err != nil:
			refused++
		case slices.Equal(got, want):
			same++
		case slices.EqualFunc(want, got, isOrHides):
			less++
		default:
			t.Errorf("bit %d of byte %d proves something else:\n%s", bit%8, bit/8, strings.Join(got, "\n"))
		}
	})
	if refused == 0 || same == 0 || less == 0 {
		t.Errorf("%d refused, %d without effect, %d show less: want some of each", refused, same, less)
	}
}

// isOrHides tells whether got is the line want, or want without its text.
func isOrHides(want, got string) bool {
	return want == got || strings.HasPrefix(want, got) && strings.Count(got, " ") == 2 && strings.HasSuffix(got, " ")
}

// proven writes down all that a caller may take for proven, a line for each
// event: PCR, digest, and text where the digest covers it.
func proven(v evidence.Verified) []string {
	var lines []string
	for _, e := range v.Events() {
		d, _ := e.Digest(v.Bank())
		line := fmt.Sprintf("%d %x ", e.PCR, d.Sum)
		if text, verified := evidence.Text(e, v.Bank()); verified {
			line += text
		}
		lines = append(lines, line)
	}
	return lines
}

func TestLogCutAnywhereIsRefused(t *testing.T) {
	b := ask(t, booted(t, elliptic.P256()), measure.SHA256)
	verifier := evidence.NewVerifier(b.trust)
	for n := range b.evidence.Log {
		ev := b.evidence
		ev.Log = bytes.Clone(b.evidence.Log[:n])
		if _, err := verifier.Verify(ev, b.challenge, b.trust); err == nil {
			t.Errorf("log cut at byte %d is accepted", n)
		}
	}
}
