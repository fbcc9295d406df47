package factory_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"waxseal/hw/tpm"
	"waxseal/images/factory"
	"waxseal/measure/manifest"
	"waxseal/measure/manifest/manifesttest"
	"waxseal/measure/manifest/sealed"
)

func packing(t *testing.T) factory.Packing {
	t.Helper()
	reference, err := manifesttest.Reference("qemu-amd64")
	if err != nil {
		t.Fatal(err)
	}
	secret, err := manifest.NewSecret(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return factory.Packing{
		Maker: "waxseal lab", Product: "qemu-amd64", Order: "PO-7", SealID: "TAPE-1", MaxResets: 3,
		Reference: reference, Embed: true, Secret: secret, Time: now,
	}
}

func TestManifestSaysWhatIsInTheTPM(t *testing.T) {
	ca, state, p := newCA(t), t.TempDir(), packing(t)
	var s manifest.Shipment
	bench(t, ca, state, func(ctx context.Context, d *tpm.Device) {
		r, err := factory.Provision(ctx, d, ca, "WX-0001")
		if err != nil {
			t.Fatal(err)
		}
		file, err := factory.Pack(ctx, d, ca, r, p)
		if err != nil {
			t.Fatal(err)
		}
		s = open(t, ca, file)
		for k, key := range map[tpm.Key]manifest.Key{tpm.IAK: s.IAK, tpm.IDevID: s.IDevID, tpm.SRK: *s.SRK, tpm.EK: keyOf(s.EK), tpm.EK384: keyOf(*s.EKP384)} {
			area, err := d.Area(ctx, k)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(area, key.Public) {
				t.Errorf("%s in the manifest is not the one in the TPM", k)
			}
		}
		c, err := d.Counters(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if s.Counters.Resets != c.ResetCount || s.Counters.Restarts != c.RestartCount || s.Counters.Clock > c.Clock || s.Counters.Clock == 0 {
			t.Errorf("manifest says %+v, the TPM %+v", s.Counters, c)
		}
		if err := r.Fits(s); err != nil {
			t.Error(err)
		}
	})
	if s.Serial != "WX-0001" || s.Order != "PO-7" || s.SealID != "TAPE-1" || s.MaxResets != 3 || !s.Packed.Equal(now) || !s.Knows(p.Secret) {
		t.Errorf("manifest says %+v", s)
	}
	if s.EK.CertificateSHA256 == nil || s.EKP384.CertificateSHA256 == nil || !bytes.Equal(s.Reference, p.Reference) {
		t.Error("certificates or reference values are not in the manifest")
	}
	bench(t, ca, state, func(ctx context.Context, d *tpm.Device) { // the buyer's first start
		c, err := d.Counters(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if c.ResetCount != s.Counters.Resets+1 {
			t.Errorf("resetCount is %d after one start, was %d at packing", c.ResetCount, s.Counters.Resets)
		}
	})
}

func open(t *testing.T, ca *factory.CA, file []byte) manifest.Shipment {
	t.Helper()
	public, err := os.ReadFile(filepath.Join(ca.Dir(), factory.SignFile))
	if err != nil {
		t.Fatal(err)
	}
	trust, err := sealed.ParseTrust(public)
	if err != nil {
		t.Fatal(err)
	}
	s, err := manifest.Open(file, trust)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func keyOf(e manifest.EndorsementKey) manifest.Key {
	return manifest.Key{Name: e.Name, Public: e.Public}
}

func TestPackRefusesWhatTheBuyerCouldNotUse(t *testing.T) {
	ca := newCA(t)
	bench(t, ca, t.TempDir(), func(ctx context.Context, d *tpm.Device) {
		r, err := factory.Provision(ctx, d, ca, "WX-0001")
		if err != nil {
			t.Fatal(err)
		}
		for name, change := range map[string]func(*factory.Packing){
			"no secret":         func(p *factory.Packing) { p.Secret = manifest.Secret{} },
			"no reference":      func(p *factory.Packing) { p.Reference = nil },
			"broken reference":  func(p *factory.Packing) { p.Reference = []byte("{}") },
			"other product":     func(p *factory.Packing) { p.Product = "other" },
			"apart, and broken": func(p *factory.Packing) { p.Reference, p.Embed = []byte("{}"), false },
			"no order":          func(p *factory.Packing) { p.Order = "" },
			"no tape":           func(p *factory.Packing) { p.SealID = "" },
		} {
			p := packing(t)
			change(&p)
			if _, err := factory.Pack(ctx, d, ca, r, p); err == nil {
				t.Errorf("%s: packed", name)
			}
		}
		p := packing(t)
		p.Embed = false
		file, err := factory.Pack(ctx, d, ca, r, p)
		if err != nil {
			t.Fatal(err)
		}
		s := open(t, ca, file)
		if s.Reference != nil || s.IsReference(p.Reference) != nil {
			t.Error("reference values apart: the manifest does not hold just their digest")
		}
	})
}

func TestManifestOfAnotherRouterDoesNotFit(t *testing.T) {
	ca := newCA(t)
	bench(t, ca, t.TempDir(), func(ctx context.Context, d *tpm.Device) {
		r, err := factory.Provision(ctx, d, ca, "WX-0001")
		if err != nil {
			t.Fatal(err)
		}
		file, err := factory.Pack(ctx, d, ca, r, packing(t))
		if err != nil {
			t.Fatal(err)
		}
		other, _, err := manifesttest.Shipment()
		if err != nil {
			t.Fatal(err)
		}
		for name, change := range map[string]func(*manifest.Shipment){
			"serial":      func(s *manifest.Shipment) { s.Serial = "WX-0002" },
			"EK":          func(s *manifest.Shipment) { s.EK = other.EK },
			"certificate": func(s *manifest.Shipment) { s.EK.CertificateSHA256 = nil },
			"EK P-384":    func(s *manifest.Shipment) { s.EKP384 = other.EKP384 },
			"no P-384":    func(s *manifest.Shipment) { s.EKP384 = nil },
			"IAK":         func(s *manifest.Shipment) { s.IAK = other.IAK },
			"IDevID":      func(s *manifest.Shipment) { s.IDevID = other.IDevID },
			"SRK":         func(s *manifest.Shipment) { s.SRK = other.SRK },
			"no SRK":      func(s *manifest.Shipment) { s.SRK = nil },
		} {
			s := open(t, ca, file)
			change(&s)
			if err := r.Fits(s); !errors.Is(err, factory.ErrOtherRouter) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func TestSigningKeysAreOfTheirOwnAndPrivate(t *testing.T) {
	ca := newCA(t)
	path := filepath.Join(ca.Dir(), factory.SignKeyFile)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	signing, errA := os.ReadFile(path)
	certifying, errB := os.ReadFile(filepath.Join(ca.Dir(), factory.KeyFile))
	if errA != nil || errB != nil {
		t.Fatal(errA, errB)
	}
	if bytes.Contains(signing, certifying) {
		t.Error("manifests are signed by the CA's key")
	}
	for _, file := range []string{path, filepath.Join(ca.Dir(), factory.KeyFile)} {
		if err := os.Chmod(file, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := factory.OpenCA(ca.Dir()); err == nil {
			t.Errorf("%s is taken although others can read it", file)
		}
		if err := os.Chmod(file, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSigningKeysMustBelongTogether(t *testing.T) {
	a, b := newCA(t), newCA(t)
	public, err := os.ReadFile(filepath.Join(b.Dir(), factory.SignFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(a.Dir(), factory.SignFile), public, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := factory.OpenCA(a.Dir()); err == nil {
		t.Error("public keys of another vendor are taken")
	}
}

// A directory that was made before manifests were signed gets the keys once.
func TestOlderCAGetsSigningKeys(t *testing.T) {
	ca := newCA(t)
	for _, name := range []string{factory.SignFile, factory.SignKeyFile} {
		if err := os.Remove(filepath.Join(ca.Dir(), name)); err != nil {
			t.Fatal(err)
		}
	}
	old, err := factory.OpenCA(ca.Dir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := old.Trust(); !errors.Is(err, factory.ErrNoSigningKeys) {
		t.Errorf("%v", err)
	}
	first := signFile(t, ca.Dir())
	if second := signFile(t, ca.Dir()); !bytes.Equal(first, second) {
		t.Error("opened twice, and the keys are others")
	}
	if again, err := factory.OpenOrMakeCA(ca.Dir(), now); err != nil || !again.Certificate.Equal(ca.Certificate) {
		t.Errorf("the CA is another: %v", err)
	}
	fresh, err := factory.OpenOrMakeCA(filepath.Join(t.TempDir(), "ca"), now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fresh.Trust(); err != nil {
		t.Error(err)
	}
}

func signFile(t *testing.T, dir string) []byte {
	t.Helper()
	if _, err := factory.OpenOrMakeCA(dir, now); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, factory.SignFile))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
