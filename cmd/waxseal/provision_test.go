package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"waxseal/hw/tpm/swtpm"
	"waxseal/images/factory"
	"waxseal/measure/manifest"
	"waxseal/measure/manifest/sealed"
)

// plant is a factory in a directory: the vendor's CA, a TPM, and what is
// installed on the router.
type plant struct {
	dir, ca, tpm, out string
	bench             bench
}

// shipped is what a router of the plant boots.
var shipped = []record{{"policy/measure", "p"}, {"rootfs/squashfs/root", "r"}}

func newPlant(t *testing.T) plant {
	t.Helper()
	if err := swtpm.Check(); err != nil {
		t.Skip(swtpm.ErrMissing)
	}
	dir := t.TempDir()
	values, err := referenceOf(shipped)
	if err != nil {
		t.Fatal(err)
	}
	reference, err := values.Encode()
	if err != nil {
		t.Fatal(err)
	}
	p := plant{dir, filepath.Join(dir, "vendor"), filepath.Join(dir, "tpm"), filepath.Join(dir, "m.json"), bench{dir: dir}}
	write(t, p.in("ref.json"), reference)
	return p
}

func (p plant) in(name string) string { return filepath.Join(p.dir, name) }

// provision runs factory provision for WX-0001, with flags that come last and
// so prevail, and returns what it said.
func (p plant) provision(t *testing.T, code int, flags ...string) string {
	t.Helper()
	args := []string{
		"factory", "provision", "--tpm", p.tpm, "--ca", p.ca, "--serial", "WX-0001", "--reference", p.in("ref.json"),
		"--order", "PO-7", "--seal-id", "TAPE-1", "--out", p.out,
	}
	return p.bench.waxseal(t, code, append(args, flags...)...)
}

func (p plant) shipment(t *testing.T) manifest.Shipment {
	t.Helper()
	public, err := os.ReadFile(filepath.Join(p.ca, factory.SignFile))
	if err != nil {
		t.Fatal(err)
	}
	trust, err := sealed.ParseTrust(public)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(p.out)
	if err != nil {
		t.Fatal(err)
	}
	s, err := manifest.Open(file, trust)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// secretIn finds the secret in what the factory said.
func secretIn(t *testing.T, said string) manifest.Secret {
	t.Helper()
	found := regexp.MustCompile(`(?m)^(?:Secret   )?([0-9A-Z-]{34})$`).FindStringSubmatch(said)
	if found == nil {
		t.Fatalf("no secret in %q", said)
	}
	s, err := manifest.ParseSecret(found[1])
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFactoryProvisionPacksARouterOnce(t *testing.T) {
	p := newPlant(t)
	said := p.provision(t, exitOK)
	secret, s := secretIn(t, said), p.shipment(t)
	if !s.Knows(secret) || s.Serial != "WX-0001" || s.Product != "qemu-amd64" || s.Maker != "waxseal lab" || s.EKP384 == nil || s.SRK == nil {
		t.Errorf("manifest says %+v", s)
	}
	shown := p.bench.waxseal(t, exitOK, "manifest", "show", p.out, "--vendor-sign", filepath.Join(p.ca, factory.SignFile))
	if !strings.Contains(shown, "SIGNED: WX-0001") {
		t.Errorf("shown is %s", shown)
	}

	// The same again changes nothing, and shows no secret.
	before, err := os.ReadFile(p.out)
	if err != nil {
		t.Fatal(err)
	}
	again := p.provision(t, exitOK)
	after, err := os.ReadFile(p.out)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, after) || strings.Contains(again, "Secret ") || !strings.Contains(again, "packed already") {
		t.Errorf("again: %s", again)
	}

	// Anything else is refused and changes nothing.
	for name, flags := range map[string][]string{
		"another serial":     {"--serial", "WX-0002"},
		"another order":      {"--order", "PO-8"},
		"another tape":       {"--seal-id", "TAPE-2"},
		"other resets":       {"--max-resets", "9"},
		"a bad serial":       {"--serial", "a b"},
		"another product":    {"--product", "other"},
		"an unwritable file": {"--out", "/dev/null/m", "--order", "PO-9"},
	} {
		p.provision(t, exitError, flags...)
		if now, err := os.ReadFile(p.out); err != nil || !bytes.Equal(before, now) {
			t.Errorf("%s: the manifest has changed, %v", name, err)
		}
	}

	// Packed again it has a new secret; the old one is void.
	file := p.in("secret")
	said = p.provision(t, exitOK, "--repack", "--order", "PO-8", "--secret-file", file)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	fresh, s := secretIn(t, string(text)), p.shipment(t)
	if strings.Contains(said, strings.TrimSpace(string(text))) {
		t.Error("a secret that goes into a file is shown as well")
	}
	if !s.Knows(fresh) || s.Knows(secret) || s.Order != "PO-8" {
		t.Errorf("packed again: %+v", s)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("secret file: %v, %v", info.Mode(), err)
	}
}

func TestManifestOfAnotherRouterIsNotReplaced(t *testing.T) {
	p := newPlant(t)
	p.provision(t, exitOK)
	before, err := os.ReadFile(p.out)
	if err != nil {
		t.Fatal(err)
	}
	// Another TPM under the same serial number gets no certificate, and with a
	// replaced board no manifest in place of the old one by accident.
	other := p.in("tpm2")
	p.provision(t, exitError, "--tpm", other)
	p.provision(t, exitError, "--tpm", other, "--replace-board")
	if after, err := os.ReadFile(p.out); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the manifest has changed, %v", err)
	}
	p.provision(t, exitOK, "--tpm", other, "--replace-board", "--repack")
	if p.shipment(t).IAK.Name == nil {
		t.Error("no IAK in the manifest of the new board")
	}
	write(t, p.out, []byte("no manifest"))
	p.provision(t, exitError)
	if after, err := os.ReadFile(p.out); err != nil || string(after) != "no manifest" {
		t.Errorf("a file that is no manifest is replaced, %v", err)
	}
}
