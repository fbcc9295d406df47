package manifest_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"waxseal/measure"
	"waxseal/measure/manifest"
	"waxseal/measure/manifest/manifesttest"
	"waxseal/measure/manifest/sealed"
)

func shipment(t testing.TB) manifest.Shipment {
	t.Helper()
	s, _, err := manifesttest.Shipment()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func encode(t testing.TB, s manifest.Shipment) []byte {
	t.Helper()
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestShipmentIsOpenedAsItWasSealed(t *testing.T) {
	keys, err := sealed.NewKeys(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := shipment(t)
	file, err := s.Seal(keys.Signers()...)
	if err != nil {
		t.Fatal(err)
	}
	got, err := manifest.Open(file, keys.Trust())
	if err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("%+v, %v", got, err)
	}
	stranger, err := sealed.NewKeys(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := manifest.Open(file, stranger.Trust()); !errors.Is(err, sealed.ErrSignature) {
		t.Errorf("opened with the keys of a stranger: %v", err)
	}
	if _, err := manifest.Open(encode(t, s), keys.Trust()); err == nil {
		t.Error("a manifest without signatures is opened")
	}
}

// What one maker seals as something else is no shipment.
// A manifest that nobody has signed is read to be shown, and is no shipment.
func TestPeekLooksAtNoSignature(t *testing.T) {
	keys, err := sealed.NewKeys(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := shipment(t)
	file, err := s.Seal(keys.Signers()...)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := manifest.Peek(file); err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range [][]byte{nil, file[1:], bytes.Replace(file, []byte(manifest.Format), []byte("waxseal-shipment-2"), 1)} {
		if _, err := manifest.Peek(bad); err == nil {
			t.Error("a file that is malformed is read")
		}
	}
}

func TestAnotherKindIsNoShipment(t *testing.T) {
	keys, err := sealed.NewKeys(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	file, err := sealed.Seal("waxseal-release-1", encode(t, shipment(t)), keys.Signers()...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := manifest.Open(file, keys.Trust()); !errors.Is(err, sealed.ErrKind) {
		t.Errorf("%v", err)
	}
}

func TestShipmentThatContradictsItselfIsRefused(t *testing.T) {
	other := shipment(t)
	for name, change := range map[string]func(s *manifest.Shipment){
		"other format":            func(s *manifest.Shipment) { s.Format = "waxseal-shipment-2" },
		"no serial":               func(s *manifest.Shipment) { s.Serial = "" },
		"serial with a space":     func(s *manifest.Shipment) { s.Serial = "a b" },
		"serial with a backslash": func(s *manifest.Shipment) { s.Serial = `a\b` },
		"long serial":             func(s *manifest.Shipment) { s.Serial = strings.Repeat("S", 65) },
		"no maker":                func(s *manifest.Shipment) { s.Maker = "" },
		"no product":              func(s *manifest.Shipment) { s.Product = "" },
		"no order":                func(s *manifest.Shipment) { s.Order = "" },
		"no seal":                 func(s *manifest.Shipment) { s.SealID = "" },
		"order that steers":       func(s *manifest.Shipment) { s.Order = "a\x1b[2J" },
		"long maker":              func(s *manifest.Shipment) { s.Maker = strings.Repeat("m", 129) },
		"no time":                 func(s *manifest.Shipment) { s.Packed = time.Time{} },
		"time with a zone":        func(s *manifest.Shipment) { s.Packed = s.Packed.In(time.FixedZone("", 3600)) },
		"time with a fraction":    func(s *manifest.Shipment) { s.Packed = s.Packed.Add(1) },
		"name of another EK":      func(s *manifest.Shipment) { s.EK.Name = other.EK.Name },
		"name of another P-384":   func(s *manifest.Shipment) { s.EKP384.Name = other.EKP384.Name },
		"name of another IAK":     func(s *manifest.Shipment) { s.IAK.Name = other.IAK.Name },
		"name of another IDevID":  func(s *manifest.Shipment) { s.IDevID.Name = other.IDevID.Name },
		"IAK of another device":   func(s *manifest.Shipment) { s.IAK.Public = other.IAK.Public },
		"IAK is the IDevID":       func(s *manifest.Shipment) { s.IAK = s.IDevID },
		"IDevID is the IAK":       func(s *manifest.Shipment) { s.IDevID = s.IAK },
		"no IAK":                  func(s *manifest.Shipment) { s.IAK = manifest.Key{} },
		"no EK":                   func(s *manifest.Shipment) { s.EK = manifest.EndorsementKey{} },
		"name of another SRK":     func(s *manifest.Shipment) { s.SRK.Name = other.SRK.Name },
		"SRK is an EK":            func(s *manifest.Shipment) { s.SRK = &manifest.Key{Name: s.EK.Name, Public: s.EK.Public} },
		"EKs swapped":             func(s *manifest.Shipment) { s.EK, *s.EKP384 = *s.EKP384, s.EK },
		"EK P-384 is RSA":         func(s *manifest.Shipment) { s.EKP384 = &s.EK },
		"EK signs": func(s *manifest.Shipment) {
			s.EK = withAttributes(s.EK, manifesttest.AttributesRSA|1<<18, measure.SHA256)
		},
		"EK can leave": func(s *manifest.Shipment) { s.EK = withAttributes(s.EK, manifesttest.AttributesRSA&^2, measure.SHA256) },
		"EK was brought": func(s *manifest.Shipment) {
			s.EK = withAttributes(s.EK, manifesttest.AttributesRSA&^(1<<5), measure.SHA256)
		},
		"EK P-384 is open": func(s *manifest.Shipment) {
			*s.EKP384 = withAttributes(*s.EKP384, manifesttest.AttributesP384&^(1<<16), measure.SHA384)
		},
		"short certificate hash": func(s *manifest.Shipment) { s.EK.CertificateSHA256 = s.EK.CertificateSHA256[:31] },
		"short secret hash":      func(s *manifest.Shipment) { s.SecretHash = s.SecretHash[:32] },
		"no secret hash":         func(s *manifest.Shipment) { s.SecretHash = nil },
		"no reference":           func(s *manifest.Shipment) { s.ReferenceSHA256, s.Reference = nil, nil },
		"other digest":           func(s *manifest.Shipment) { s.ReferenceSHA256 = make([]byte, 32) },
		"reference is changed":   func(s *manifest.Shipment) { s.Reference = append(bytes.Clone(s.Reference), '\n') },
		"reference of another":   func(s *manifest.Shipment) { s.Product = "other-board" },
	} {
		s := shipment(t)
		change(&s)
		if err := s.Check(); !errors.Is(err, manifest.ErrManifest) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := s.Encode(); err == nil {
			t.Errorf("%s: written", name)
		}
		// What such a manifest would look like in a file is refused as well.
		raw, err := json.MarshalIndent(s, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := manifest.Parse(append(raw, '\n')); err == nil {
			t.Errorf("%s: read", name)
		}
	}
}

// withAttributes is the key with other attributes and the name that fits them.
func withAttributes(e manifest.EndorsementKey, attributes uint32, alg measure.Alg) manifest.EndorsementKey {
	public := bytes.Clone(e.Public)
	for i := range 4 {
		public[4+i] = byte(attributes >> (24 - 8*i))
	}
	k := manifesttest.Key(public, alg)
	return manifest.EndorsementKey{Name: k.Name, Public: k.Public, CertificateSHA256: e.CertificateSHA256}
}

func TestShipmentWithoutTheOptionalIsGood(t *testing.T) {
	s := shipment(t)
	reference := s.Reference
	s.EKP384, s.SRK, s.Reference, s.EK.CertificateSHA256 = nil, nil, nil, nil
	got, err := manifest.Parse(encode(t, s))
	if err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("%+v, %v", got, err)
	}
	if err := s.IsReference(reference); err != nil {
		t.Error(err)
	}
	if err := s.IsReference(append(bytes.Clone(reference), ' ')); err == nil {
		t.Error("other reference values are taken")
	}
}

func TestOtherSpellingsOfAShipmentAreRefused(t *testing.T) {
	good := string(encode(t, shipment(t)))
	for name, bad := range map[string]string{
		"empty":           "",
		"cut":             good[:len(good)/2],
		"two objects":     good + good,
		"no newline":      good[:len(good)-1],
		"space":           strings.Replace(good, `"serial": `, `"serial":  `, 1),
		"unknown key":     strings.Replace(good, `"serial"`, `"note": "x", "serial"`, 1),
		"doubled key":     strings.Replace(good, `"serial"`, `"serial": "WX-0001", "serial"`, 1),
		"key in capitals": strings.Replace(good, `"serial"`, `"Serial"`, 1),
		"escape":          strings.Replace(good, "WX-0001", `\u0057X-0001`, 1),
		"hex in capitals": strings.Replace(good, `"name": "000b`, `"name": "000B`, 1),
		"number as text":  strings.Replace(good, `"max_resets": 3`, `"max_resets": "3"`, 1),
		"negative":        strings.Replace(good, `"max_resets": 3`, `"max_resets": -3`, 1),
		"fraction":        strings.Replace(good, `"max_resets": 3`, `"max_resets": 3.0`, 1),
		"beyond 32 bits":  strings.Replace(good, `"max_resets": 3`, `"max_resets": 4294967296`, 1),
		"other zone":      strings.Replace(good, `12:00:00Z`, `12:00:00+00:00`, 1),
		"too large":       good + strings.Repeat("\n", manifest.MaxSize),
	} {
		if bad == good {
			t.Fatalf("%s: nothing was changed", name)
		}
		if _, err := manifest.Parse([]byte(bad)); !errors.Is(err, manifest.ErrManifest) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDigestIsOfTheStatement(t *testing.T) {
	a := shipment(t)
	b := a
	b.Order = "PO-8"
	x, errX := a.Digest()
	y, errY := b.Digest()
	if errX != nil || errY != nil || x == y {
		t.Errorf("%x %x, %v %v", x, y, errX, errY)
	}
}

// FuzzParse demands that whatever is accepted holds together and has but one
// spelling.
func FuzzParse(f *testing.F) {
	golden, err := os.ReadFile("testdata/shipment.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden)
	f.Add([]byte(`{"format":"waxseal-shipment-1","serial":"WX-0001"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := manifest.Parse(data)
		if err != nil {
			return
		}
		if again, err := s.Encode(); err != nil || !bytes.Equal(again, data) || s.Check() != nil {
			t.Errorf("read in more than one spelling, %v", err)
		}
	})
}
