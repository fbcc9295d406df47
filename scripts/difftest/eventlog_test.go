package difftest

import (
	"bytes"
	"crypto"
	"encoding/hex"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-attestation/attest"
	"github.com/google/go-eventlog/cel"
	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"

	"waxseal/measure"
	"waxseal/measure/eventlog"
)

var hashes = map[measure.Alg]crypto.Hash{measure.SHA256: crypto.SHA256, measure.SHA384: crypto.SHA384}

type values = map[measure.PCR]measure.Digest

// realLogs returns the firmware logs that come with the other projects, in
// their modules, and our own.
func realLogs(t testing.TB) map[string][]byte {
	t.Helper()
	logs := map[string][]byte{}
	for module, pattern := range map[string]string{
		"github.com/google/go-eventlog":    "testdata/eventlogs/tpm/*",
		"github.com/google/go-attestation": "attest/testdata/*eventlog*",
		"waxseal":                          "measure/eventlog/testdata/*.tcg",
	} {
		dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
		if err != nil {
			t.Fatalf("find module %s: %v", module, err)
		}
		paths, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), pattern))
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s has no logs in %s (%v)", module, pattern, err)
		}
		for _, path := range paths {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			logs[filepath.Base(module)+"/"+filepath.Base(path)] = b
		}
	}
	return logs
}

// notOurs are real logs that we refuse on purpose, and why.
var notOurs = map[string]string{
	"go-eventlog/debian-10.bin":                 "format of TPM 1.2",
	"go-attestation/ebs_event_missing_eventlog": "format of TPM 1.2",
	"go-attestation/option_rom_eventlog":        "format of TPM 1.2",
	"go-attestation/short_no_action_eventlog":   "format of TPM 1.2",
}

func TestAllAgreeOnRealFirmwareLogs(t *testing.T) {
	agreed := 0
	for name, b := range realLogs(t) {
		t.Run(name, func(t *testing.T) {
			l, err := eventlog.DecodeTCG(b)
			if why := notOurs[name]; why != "" {
				if err == nil {
					t.Errorf("log in the %s was accepted", why)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			agree(t, l, b)
			again, err := eventlog.EncodeTCG(l)
			if err != nil || !bytes.Equal(again, b) {
				t.Errorf("log is written differently (%v)", err)
			}
			agreed++
		})
	}
	if agreed < 10 {
		t.Errorf("%d logs were compared: want at least 10", agreed)
	}
}

func TestAllAgreeOnLogsThatWeWrite(t *testing.T) {
	firmware, err := eventlog.DecodeTCG(realLogs(t)["waxseal/qemu-ovmf-uki.tcg"])
	if err != nil {
		t.Fatal(err)
	}
	for _, banks := range [][]measure.Alg{
		{measure.SHA256}, {measure.SHA384}, {measure.SHA256, measure.SHA384}, {measure.SHA1, measure.SHA256, measure.SHA384},
	} {
		for seed := range uint64(5) {
			t.Run(fmt.Sprint(banks, " seed ", seed), func(t *testing.T) {
				ours := eventlog.New(banks, records(seed, banks))
				whole, err := eventlog.Join(firmware, ours)
				if err != nil {
					t.Fatal(err)
				}
				for _, l := range []eventlog.Log{ours, whole} {
					b, err := eventlog.EncodeTCG(l)
					if err != nil {
						t.Fatal(err)
					}
					agree(t, l, b)
				}
			})
		}
	}
}

// TestAlteredLogsAreReadAlikeOrRefused changes bytes of a real log. We may
// refuse what others accept, but never read it differently.
func TestAlteredLogsAreReadAlikeOrRefused(t *testing.T) {
	good := realLogs(t)["waxseal/qemu-ovmf-uki.tcg"]
	rng := rand.New(rand.NewPCG(1, 2))
	accepted := 0
	for range 3000 {
		b := bytes.Clone(good)
		for range 1 + rng.IntN(2) {
			b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
		}
		l, err := eventlog.DecodeTCG(b)
		if err != nil {
			continue
		}
		accepted++
		for alg := range hashes {
			want, err := l.Replay(alg)
			if err != nil {
				t.Fatal(err)
			}
			byGoogle(t, b, alg, want)
			byAttestation(t, b, alg, want)
		}
	}
	if accepted < 100 {
		t.Errorf("%d altered logs were accepted and compared: want at least 100", accepted)
	}
}

// records returns events with names and contents that depend on seed.
func records(seed uint64, banks []measure.Alg) []measure.Event {
	rng := rand.New(rand.NewPCG(seed, seed))
	var events []measure.Event
	for i := range 3 + rng.IntN(40) {
		class := []string{"agent", "kernel", "policy", "config", "mirror"}[rng.IntN(5)]
		name := fmt.Sprintf("%s/%d/%s", class, i, strings.Repeat("n", rng.IntN(240)))
		r, err := measure.Waxseal1.Of(name, fmt.Appendf(nil, "%d", rng.Uint64()))
		if err != nil {
			panic(err)
		}
		events = append(events, measure.Event{Record: r, Digests: r.Digests(banks)})
	}
	return events
}

// agree replays b with everything that is there and compares with l.
func agree(t *testing.T, l eventlog.Log, b []byte) {
	t.Helper()
	for _, alg := range l.Banks {
		if hashes[alg] == 0 {
			continue
		}
		want, err := l.Replay(alg)
		if err != nil {
			t.Fatal(err)
		}
		byTool(t, l, b, alg, want)
		byGoogle(t, b, alg, want)
		byAttestation(t, b, alg, want)
	}
}

// byTool compares with the PCRs that tpm2_eventlog prints for b, which is l.
func byTool(t *testing.T, l eventlog.Log, b []byte, alg measure.Alg, want values) {
	t.Helper()
	tool, err := exec.LookPath("tpm2_eventlog")
	if err != nil {
		t.Skip("needs tpm2_eventlog of tpm2-tools: run scripts/setup")
	}
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(tool, path).Output()
	if err != nil {
		t.Fatalf("tpm2_eventlog: %v", err)
	}
	got := toolPCRs(string(out), alg)
	for _, e := range l.Events[1:] {
		if !e.Extends() {
			// tpm2-tools 5.4 extends EV_NO_ACTION events, but for the first; the libraries do not.
			got[e.PCR] = want[e.PCR]
		}
	}
	if !maps.EqualFunc(got, want, measure.Digest.Equal) {
		t.Errorf("%v: tpm2_eventlog replays to\n%v, we to\n%v", alg, got, want)
	}
}

// toolPCRs reads the section of bank alg behind "pcrs:", lines "9 : 0x…".
func toolPCRs(out string, alg measure.Alg) values {
	got := values{}
	_, out, _ = strings.Cut(out, "\npcrs:\n")
	bank := ""
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.TrimSpace(value)
		if value == "" {
			bank = key
			continue
		}
		pcr, err := strconv.Atoi(strings.TrimSpace(key))
		sum, herr := hex.DecodeString(strings.TrimPrefix(value, "0x"))
		if bank == alg.String() && err == nil && herr == nil {
			got[measure.PCR(pcr)] = measure.Digest{Alg: alg, Sum: sum}
		}
	}
	return got
}

// byGoogle has go-eventlog verify b against want, and then against want with
// each PCR altered, so that agreeing means something.
func byGoogle(t *testing.T, b []byte, alg measure.Alg, want values) {
	t.Helper()
	log, err := tcg.ParseEventLog(b, tcg.ParseOpts{})
	if err != nil {
		t.Errorf("go-eventlog: %v", err)
		return
	}
	verify := func(v values) error {
		_, err := log.Verify(bank(alg, v).MRs())
		return err
	}
	if err := verify(want); err != nil {
		t.Errorf("%v: go-eventlog: %v", alg, err)
	}
	for pcr := range want {
		if verify(altered(want, pcr)) == nil {
			t.Errorf("%v: go-eventlog accepts any PCR %d", alg, pcr)
		}
	}
}

// byAttestation is byGoogle with go-attestation.
func byAttestation(t *testing.T, b []byte, alg measure.Alg, want values) {
	t.Helper()
	log, err := attest.ParseEventLog(b)
	if err != nil {
		t.Errorf("go-attestation: %v", err)
		return
	}
	verify := func(v values) error {
		var pcrs []attest.PCR
		for pcr, d := range v {
			pcrs = append(pcrs, attest.PCR{Index: int(pcr), Digest: d.Sum, DigestAlg: hashes[alg]})
		}
		_, err := log.Verify(pcrs)
		return err
	}
	if err := verify(want); err != nil {
		t.Errorf("%v: go-attestation: %v", alg, err)
	}
	for pcr := range want {
		if verify(altered(want, pcr)) == nil {
			t.Errorf("%v: go-attestation accepts any PCR %d", alg, pcr)
		}
	}
}

func altered(v values, pcr measure.PCR) values {
	v = maps.Clone(v)
	v[pcr] = measure.Hash(v[pcr].Alg, []byte("something else"))
	return v
}

func bank(alg measure.Alg, v values) register.FakeMRBank {
	b := register.FakeMRBank{Hash: hashes[alg]}
	for pcr, d := range v {
		b.FakeMRs = append(b.FakeMRs, register.FakeMR{Index: int(pcr), Digest: d.Sum, DigestAlg: hashes[alg]})
	}
	return b
}

// TestGoogleReplaysOurCEL leaves out events that are not extended, which
// go-eventlog/cel does not know about.
func TestGoogleReplaysOurCEL(t *testing.T) {
	banks := []measure.Alg{measure.SHA256, measure.SHA384}
	firmware, err := eventlog.DecodeTCG(realLogs(t)["waxseal/qemu-ovmf-uki.tcg"])
	if err != nil {
		t.Fatal(err)
	}
	var extends []eventlog.Event
	for _, e := range firmware.Events {
		if e.Extends() {
			extends = append(extends, e)
		}
	}
	firmware.Events = extends
	for seed := range uint64(10) {
		l, err := eventlog.Join(firmware, eventlog.New(banks, records(seed, banks)))
		if err != nil {
			t.Fatal(err)
		}
		b, err := eventlog.EncodeCEL(l)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := cel.DecodeToCEL(bytes.NewBuffer(b))
		if err != nil {
			t.Fatalf("seed %d: go-eventlog/cel: %v", seed, err)
		}
		for _, alg := range banks {
			want, err := l.Replay(alg)
			if err != nil {
				t.Fatal(err)
			}
			if err := theirs.Replay(bank(alg, want)); err != nil {
				t.Errorf("seed %d: %v: %v", seed, alg, err)
			}
			for pcr := range want {
				if theirs.Replay(bank(alg, altered(want, pcr))) == nil {
					t.Errorf("seed %d: %v: go-eventlog/cel accepts any PCR %d", seed, alg, pcr)
				}
			}
		}
	}
}

// template is an IMA template as content of go-eventlog/cel.
type template struct{ data []byte }

func (c template) GenerateDigest(h crypto.Hash) ([]byte, error) {
	w := h.New()
	w.Write(c.data)
	return w.Sum(nil), nil
}

func (c template) TLV() (cel.TLV, error) {
	name, err := cel.TLV{Type: 0, Value: []byte("ima-ng")}.MarshalBinary()
	if err != nil {
		return cel.TLV{}, err
	}
	data, err := cel.TLV{Type: 1, Value: c.data}.MarshalBinary()
	return cel.TLV{Type: 7, Value: append(name, data...)}, err
}

// TestWeReadGooglesCEL has go-eventlog/cel write our records, in one bank: it
// puts the digests of several in random order.
func TestWeReadGooglesCEL(t *testing.T) {
	for alg, hash := range hashes {
		want := eventlog.New([]measure.Alg{alg}, records(7, []measure.Alg{alg}))
		rot, err := register.CreateFakeRot([]crypto.Hash{hash}, measure.NumPCRs)
		if err != nil {
			t.Fatal(err)
		}
		theirs := cel.NewPCR()
		for _, e := range want.Events {
			err := theirs.AppendEvent(template{e.Data}, []crypto.Hash{hash}, int(e.PCR), func(h crypto.Hash, pcr int, digest []byte) error {
				return rot.ExtendMR(register.FakeMR{Index: pcr, Digest: digest, DigestAlg: h})
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		var b bytes.Buffer
		if err := theirs.EncodeCEL(&b); err != nil {
			t.Fatal(err)
		}
		got, err := eventlog.DecodeCEL(b.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		ours, err := eventlog.EncodeCEL(want)
		if err != nil || !bytes.Equal(ours, b.Bytes()) {
			t.Errorf("%v: we write other bytes than go-eventlog/cel (%v)", alg, err)
		}
		replayed, err := got.Replay(alg)
		if err != nil {
			t.Fatal(err)
		}
		for pcr, d := range replayed {
			held, err := rot.Digest(register.FakeMR{Index: int(pcr), DigestAlg: hash})
			if err != nil || !bytes.Equal(held, d.Sum) {
				t.Errorf("PCR %d holds %x, %v: we replay to %v", pcr, held, err, d)
			}
		}
	}
}
