package manifest_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/iotest"

	"waxseal/measure/manifest"
	"waxseal/measure/manifest/manifesttest"
)

func secret(t testing.TB) manifest.Secret {
	t.Helper()
	s, err := manifest.NewSecret(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSecretIsReadAsPeopleWriteIt(t *testing.T) {
	s := secret(t)
	text := s.Text()
	if len(text) != 34 || strings.Count(text, "-") != 6 {
		t.Errorf("secret is %q", text)
	}
	for _, written := range []string{
		text, strings.ToLower(text), strings.ReplaceAll(text, "-", ""), strings.ReplaceAll(text, "-", " "),
		strings.NewReplacer("0", "o", "1", "l").Replace(text), strings.NewReplacer("0", "O", "1", "I").Replace(text),
	} {
		if got, err := manifest.ParseSecret(written); err != nil || got != s {
			t.Errorf("%q: %v", written, err)
		}
	}
}

// A slip is told from a wrong secret: one character off, two swapped, one
// missing.
func TestTypoIsToldFromAWrongSecret(t *testing.T) {
	s, err := manifest.NewSecret(bytes.NewReader([]byte("every character of this one is known")))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(s.Text(), "-", "")
	wrong := []string{"", "ABCD", text[1:], text + "0", "U" + text[1:], "Ä" + text[2:], strings.Repeat("-", 1000) + text}
	for i := range text {
		for _, r := range "0123456789ABCDEFGHJKMNPQRSTVWXYZ" {
			if rune(text[i]) != r {
				wrong = append(wrong, text[:i]+string(r)+text[i+1:])
			}
		}
		if i > 0 && text[i] != text[i-1] {
			wrong = append(wrong, text[:i-1]+text[i:i+1]+text[i-1:i]+text[i+1:])
		}
	}
	for _, text := range wrong {
		if _, err := manifest.ParseSecret(text); !errors.Is(err, manifest.ErrTypo) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestSecretNeedsItsRandomness(t *testing.T) {
	if _, err := manifest.NewSecret(iotest.ErrReader(errors.New("no entropy"))); err == nil {
		t.Error("a secret is drawn from nothing")
	}
	seen := map[string]bool{}
	for range 100 {
		seen[secret(t).Text()] = true
	}
	if len(seen) != 100 {
		t.Errorf("%d different secrets of 100", len(seen))
	}
}

func TestSecretDoesNotShowInLogs(t *testing.T) {
	s := secret(t)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(verb, s); got != "(secret)" {
			t.Errorf("%s shows %q", verb, got)
		}
	}
}

func TestShipmentKnowsItsSecretOnly(t *testing.T) {
	s, own, err := manifesttest.Shipment()
	if err != nil {
		t.Fatal(err)
	}
	if !s.Knows(own) {
		t.Error("the shipment does not know its secret")
	}
	if s.Knows(secret(t)) || s.Knows(manifest.Secret{}) {
		t.Error("the shipment knows another secret")
	}
	if bytes.Equal(manifest.HashSecret(own, "WX-0001"), manifest.HashSecret(own, "WX-0002")) {
		t.Error("two devices with one secret show it")
	}
	if bytes.Contains(encode(t, s), []byte(own.Text())) {
		t.Error("the manifest holds the secret")
	}
}

func TestNonceDependsOnEachOfItsInputs(t *testing.T) {
	s, fresh, digest := secret(t), [32]byte{1}, [48]byte{2}
	nonce := manifest.ChallengeNonce(s, fresh, digest)
	if len(nonce) != 48 || !bytes.Equal(nonce, manifest.ChallengeNonce(s, fresh, digest)) {
		t.Errorf("nonce %x", nonce)
	}
	for name, other := range map[string][]byte{
		"secret":   manifest.ChallengeNonce(secret(t), fresh, digest),
		"fresh":    manifest.ChallengeNonce(s, [32]byte{2}, digest),
		"manifest": manifest.ChallengeNonce(s, fresh, [48]byte{1}),
	} {
		if bytes.Equal(nonce, other) {
			t.Errorf("another %s gives the same nonce", name)
		}
	}
}

// FuzzParseSecret demands that whatever is accepted is written and read again.
func FuzzParseSecret(f *testing.F) {
	f.Add("0000-0000-0000-0000-0000-0000-0000")
	f.Add(secret(f).Text())
	f.Fuzz(func(t *testing.T, text string) {
		s, err := manifest.ParseSecret(text)
		if err != nil {
			return
		}
		if again, err := manifest.ParseSecret(s.Text()); err != nil || again != s {
			t.Errorf("%q comes back as %q, %v", text, again.Text(), err)
		}
	})
}
