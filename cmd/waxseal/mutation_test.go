package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"waxseal/agent"
	"waxseal/measure/wire"
)

// bench is an owner, a router that is enrolled, and its reference values.
type bench struct {
	dir                        string
	router                     *router
	trust, reference, evidence string
}

func newBench(t *testing.T) bench {
	t.Helper()
	return newBenchOf(t, nil)
}

// newBenchOf is newBench with another configuration of the agent.
func newBenchOf(t *testing.T, change func(*agent.Config)) bench {
	t.Helper()
	dir := t.TempDir()
	l := bench{dir: dir, reference: filepath.Join(dir, "ref.json"), evidence: filepath.Join(dir, "e.json")}
	l.waxseal(t, exitOK, "owner", "init", filepath.Join(dir, "owner"))
	l.trust = filepath.Join(dir, "owner", "owner-ca.pem")
	ca, err := os.ReadFile(l.trust)
	if err != nil {
		t.Fatal(err)
	}
	vendor, err := newVendor()
	if err != nil {
		t.Fatal(err)
	}
	tpm, err := newChip("WX-0001")
	if err != nil {
		t.Fatal(err)
	}
	boot := []record{{"policy/measure", "p"}, {"rootfs/squashfs/root", "r"}, {"config/uci/network?c=uci1", "a\nb\n"}}
	write(t, filepath.Join(dir, "vendor.pem"), []byte(wire.ChainOf(vendor.Certificate).String()))
	values, err := referenceOf(boot)
	if err != nil {
		t.Fatal(err)
	}
	text, err := values.Encode()
	if err != nil {
		t.Fatal(err)
	}
	write(t, l.reference, text)
	l.router, err = startRouter(routerConfig{serial: "WX-0001", vendor: vendor, ownerCA: ca, boot: boot, tpm: tpm, state: dir, change: change})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.router.stop)
	owner := filepath.Join(dir, "owner")
	l.waxseal(t, exitOK, "enroll", l.router.address, "--owner", owner, "--vendor-ca", filepath.Join(dir, "vendor.pem"))
	l.waxseal(t, exitOK, "attest", l.router.address, "--owner", owner, "--reference", l.reference, "--save", l.evidence)
	return l
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (l bench) waxseal(t *testing.T, want int, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	if code := run(t.Context(), args, strings.NewReader(""), &out, &errs); code != want {
		t.Fatalf("waxseal %v: exit code %d, want %d\n%s%s", args, code, want, &out, &errs)
	}
	return out.String()
}

// verify returns the exit code over the evidence in a file, and what was said.
func (l bench) verify(t *testing.T, path string) (int, string) {
	t.Helper()
	var out bytes.Buffer
	code := run(t.Context(), []string{"evidence", "verify", path, "--trust", l.trust, "--reference", l.reference}, strings.NewReader(""), &out, &out)
	return code, out.String()
}

// leaves calls f for each way to change the document in one place: with the
// path of the place, and a function that makes and one that undoes the change.
func leaves(v any, path string, f func(path string)) {
	switch v := v.(type) {
	case map[string]any:
		for key, old := range v {
			at := path + "/" + key
			switch old := old.(type) {
			case string:
				for _, other := range changed(old) {
					v[key] = other
					f(at)
				}
			case float64:
				for _, other := range []float64{old + 1, old - 1, 2 * old, 0, -1, 1 << 32} {
					if other != old {
						v[key] = other
						f(at)
					}
				}
			case map[string]any, []any:
				leaves(old, at, f)
			}
			delete(v, key)
			f(at + " removed")
			v[key] = old
		}
	case []any:
		for i, old := range v {
			if s, ok := old.(string); ok {
				for _, other := range changed(s) {
					v[i] = other
					f(path + "/" + strconv.Itoa(i))
				}
				v[i] = old
				continue
			}
			leaves(old, path+"/"+strconv.Itoa(i), f)
		}
	}
}

// changed returns s with a character changed at the start, in the middle and
// at the end; in a digit, letter or sign of base64 it stays one.
func changed(s string) []string {
	var out []string
	for _, i := range []int{0, len(s) / 2, max(0, len(s)-8)} {
		if s == "" {
			return []string{"x"}
		}
		b := []byte(s)
		if b[i] == 'A' || b[i] == '1' {
			b[i]++
		} else if b[i] >= '0' && b[i] <= '9' {
			b[i] = '1'
		} else {
			b[i] = 'A'
		}
		out = append(out, string(b))
	}
	return out
}

func TestEvidenceWithAnyFieldChangedIsRefused(t *testing.T) {
	t.Run("single", func(t *testing.T) { everyFieldCounts(t, newBench(t)) })
	t.Run("batched", func(t *testing.T) {
		l := newBench(t)
		l.attestBatched(t)
		everyFieldCounts(t, l)
	})
}

// attestBatched replaces the evidence by that of a batched challenge, which
// is not alone in its batch.
func (l bench) attestBatched(t *testing.T) {
	t.Helper()
	asking := []string{"attest", l.router.address, "--owner", filepath.Join(l.dir, "owner"), "--reference", l.reference, "--batched"}
	var others sync.WaitGroup
	defer others.Wait()
	for range 8 {
		others.Go(func() { run(t.Context(), asking, strings.NewReader(""), io.Discard, io.Discard) })
	}
	for range 20 {
		l.waxseal(t, exitOK, append(asking, "--save", l.evidence)...)
		var document struct {
			Batch struct {
				Size int `json:"size"`
			} `json:"batch"`
		}
		text, err := os.ReadFile(l.evidence)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &document); err != nil || document.Batch.Size == 0 {
			t.Fatalf("no batch in the evidence: %v", err)
		}
		if document.Batch.Size > 1 {
			return
		}
		others.Go(func() { run(t.Context(), asking, strings.NewReader(""), io.Discard, io.Discard) })
	}
	t.Fatal("20 challenges were each alone")
}

func everyFieldCounts(t *testing.T, l bench) {
	text, err := os.ReadFile(l.evidence)
	if err != nil {
		t.Fatal(err)
	}
	if code, said := l.verify(t, l.evidence); code != exitOK {
		t.Fatalf("unchanged evidence: exit code %d: %s", code, said)
	}
	seal, err := os.ReadFile(l.evidence + sealSuffix)
	if err != nil {
		t.Fatal(err)
	}
	sealed, bare := filepath.Join(l.dir, "sealed.json"), filepath.Join(l.dir, "bare.json")
	write(t, sealed+sealSuffix, seal)
	var document any
	if err := json.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	changes := 0
	leaves(document, "", func(path string) {
		b, err := json.MarshalIndent(document, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		changes++
		write(t, sealed, b)
		if code, said := l.verify(t, sealed); code != exitFailed && code != exitError {
			t.Errorf("sealed, %s: exit code %d: %s", path, code, said)
		}
		write(t, bare, b)
		if code, said := l.verify(t, bare); !notProven(path) && code != exitFailed && code != exitError {
			t.Errorf("without a seal, %s: exit code %d: %s", path, code, said)
		}
	})
	if changes < 80 {
		t.Errorf("only %d changes were tried", changes)
	}
}

// notProven tells whether a field is covered by nothing that the router signs:
// the time of receipt, what the card says beside its serial number, and texts
// that were left out. Only the seal covers them.
func notProven(path string) bool {
	for _, prefix := range []string{"/received", "/card", "/contents"} {
		if strings.HasPrefix(path, prefix) && path != "/card/serial" {
			return true
		}
	}
	return path == "/certificates/tls removed"
}

func TestEvidenceCutAnywhereIsRefused(t *testing.T) {
	l := newBench(t)
	text, err := os.ReadFile(l.evidence)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(l.dir, "cut.json")
	text = bytes.TrimSpace(text)
	for i := 0; i < len(text); i += 1 + len(text)/100 {
		write(t, path, text[:i])
		if code, said := l.verify(t, path); code != exitError {
			t.Fatalf("cut at %d: exit code %d: %s", i, code, said)
		}
	}
}

func TestSealIsOfOneFile(t *testing.T) {
	l := newBench(t)
	owner := filepath.Join(l.dir, "owner")
	second := filepath.Join(l.dir, "second.json")
	l.waxseal(t, exitOK, "attest", l.router.address, "--owner", owner, "--reference", l.reference, "--save", second)
	seal, err := os.ReadFile(second + sealSuffix)
	if err != nil {
		t.Fatal(err)
	}
	write(t, l.evidence+sealSuffix, seal)
	if code, said := l.verify(t, l.evidence); code != exitFailed || !strings.Contains(said, "not as its seal says") {
		t.Fatalf("evidence under the seal of another: exit code %d: %s", code, said)
	}
}

// A router's own certificate, though it is of the owner, seals nothing.
func TestRouterCannotSeal(t *testing.T) {
	l := newBench(t)
	text, err := os.ReadFile(l.evidence)
	if err != nil {
		t.Fatal(err)
	}
	var document struct {
		Certificates map[string][]string `json:"certificates"`
	}
	if err := json.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"oiak", "tls"} {
		seal, err := json.Marshal(map[string]any{
			"format": "waxseal-seal-1", "verifier": document.Certificates[name], "signature": "MAA=",
		})
		if err != nil {
			t.Fatal(err)
		}
		write(t, l.evidence+sealSuffix, seal)
		if code, said := l.verify(t, l.evidence); code != exitFailed || !strings.Contains(said, "certificate of the verifier") {
			t.Errorf("seal by the %s certificate: exit code %d: %s", name, code, fmt.Sprint(said))
		}
	}
}
